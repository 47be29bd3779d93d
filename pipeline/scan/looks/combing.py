"""Combing: two moments in one frame, row by row in turn, as interlaced footage has them.

    rows of one column   ▄ ▄ ▄ ▄   at the edge of what moves sideways: each field is smooth in
                          ▀ ▀ ▀ ▀  itself, and the two differ

Columns of eight rows are judged, after the comb detection of deinterlacers (as in the Decomb and
TIVTC filters): the fields' means differ by more than noise, each field is smooth, and the picture
changes along the row by as much: that is an edge which moved. Where it does not, the rows are a
texture, such as blinds. Of what moves one edge is lighter in the first field and the other in the
second; what is always lighter in one is a pattern, such as the scan lines of a screen. What moves
only up or down, or stands still, is not combed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ROWS = 8  # of a column that is judged
APART = 32  # rows from one band of columns to the next
LEVELS = 10  # 8-bit levels that the fields differ by, at least
SMOOTH = 0.4  # of that, the most that a field's own rows differ from row to row
EDGE = 0.5  # of that, the least that the picture changes along the row
REACH = 4  # px along the row within which it does
MIN_SIDE = 32  # px


def combed_share(luma: Plane, shift: int) -> float | None:
    """Share of a frame's columns that are combed, 0..1; None of a picture too small to tell.

    Twice the smaller of the shares where the first field is lighter, and the second.

    `luma` is the frame's plane as stored, of 8 + `shift` bits.
    """
    height, width = luma.shape
    if min(height, width) < MIN_SIDE:
        return None
    count = (height - ROWS) // APART + 1
    bands = [luma[top : top + ROWS] >> shift for top in range(0, count * APART, APART)]
    rows = np.stack(bands).astype(np.int16)  # [bands, ROWS, width]
    even, odd = rows[:, ::2], rows[:, 1::2]
    first, second = even.sum(1, dtype=np.int16), odd.sum(1, dtype=np.int16)  # up to 4 × 255
    apart = np.abs(first - second)
    rough = sum(np.abs(np.diff(field, axis=1)).sum(1, dtype=np.int16) for field in (even, odd))
    both = first + second
    along = np.zeros_like(both)
    along[:, REACH:-REACH] = np.abs(both[:, 2 * REACH :] - both[:, : -2 * REACH]) // 2
    few = ROWS // 2
    steps = 2 * (few - 1)  # that `rough` adds up; `apart` adds up `few` rows
    combed = apart >= LEVELS * few
    combed &= rough <= SMOOTH * steps / few * apart
    combed &= along >= EDGE * apart
    total, lighter = int(combed.sum()), int((combed & (first > second)).sum())
    return float(2 * min(lighter, total - lighter) / combed.size)
