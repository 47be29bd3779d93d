"""Letterbox, pillarbox and windowbox: black bars around the picture, told from dark scenery.

    line from the edge    0   1   2  ...  44  45  46  47  48
    lit share of a bar    0   0   0  ...   0  .1   1   1   1      most over the clip's stills
    of dark scenery      .0  .1  .1  ...  .3  .3  .4  .4  .5

A line is lit where it is lighter than black. Within a bar hardly anything ever is, and where the
picture begins, nearly all of it is within two lines: bars are straight and end at once, scenery
does not. Bars come in pairs; where there is only one, it must be cleaner and no deeper than scenery
would have it. A logo or subtitles within a bar leave it one: it may be lit in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bars = tuple[int, int, int, int]  # lines of black at the left, right, top and bottom

MAX_BLACK = 20  # the darkest edge of a picture with bars, its median, 0..255
LIT = 6  # above that: more than codecs make of black
MIN_LINES = 16  # of a still, across and down
FEW, MOST = 0.4, 0.7  # of the picture's lines: lit within a bar at most, beside it at least
CLEAN, FULL = 0.05, 0.9  # the same of a bar without a second one
RINGING, CLEAN_RINGING = 2, 0.3  # outermost lines of the picture's own, as codecs smear them
MIN_PICTURE = 0.5  # of a line across the picture, lit: less is a title on black
MIN_AREA = 0.3  # of the still, within four bars
MAX_SINGLE = 0.15  # of the still, in a bar without a second one


@dataclass(frozen=True)
class Lines:
    """The share of each line of a still that is lighter than black."""

    rows: Floats  # [H]
    columns: Floats  # [W]


def lines(luma: npt.NDArray[np.uint8]) -> Lines | None:
    """Of a still's full-range luma [H, W]; None where no edge is black, so that there are no bars.

    Black is the median of the darkest edge: what is tagged wrongly has it at 16.
    """
    height, width = luma.shape
    if min(height, width) < MIN_LINES:
        return None
    black = min(float(np.median(edge)) for edge in (luma[0], luma[-1], luma[:, 0], luma[:, -1]))
    if black > MAX_BLACK:
        return None
    lit = luma > black + LIT
    rows = np.bitwise_count(np.packbits(lit, axis=1)).sum(axis=1, dtype=np.float32)
    columns = np.zeros(width, np.float32)
    for top in range(0, height, 255):  # so many ones add up in a byte, which is fast
        columns += lit[top : top + 255].view(np.uint8).sum(axis=0, dtype=np.uint8)
    return Lines(rows / np.float32(width), columns / np.float32(height))


def common_bars(stills: Sequence[Lines | None]) -> Bars:
    """Bars that a clip has throughout, in px of its stills, which are of one size."""
    seen = [one for one in stills if one is not None]
    if not seen or len(seen) < len(stills):
        return 0, 0, 0, 0
    rows = np.max([one.rows for one in seen], axis=0)
    columns = np.max([one.columns for one in seen], axis=0)
    top, bottom = _pair(rows, 1.0)
    left, right = _pair(columns, 1 - (top + bottom) / len(rows))
    if left + right:  # rows reach across a part of the still only
        top, bottom = _pair(rows, 1 - (left + right) / len(columns))
    wide, high = len(columns) - left - right, len(rows) - top - bottom
    if left + right and top + bottom and wide * high < MIN_AREA * rows.size * columns.size:
        return 0, 0, 0, 0
    return left, right, top, bottom


def _pair(lit: Floats, reach: float) -> tuple[int, int]:
    """Depth of the bars before and behind; `reach`: the part of a line that the picture fills."""
    lit = np.minimum(lit / np.float32(max(reach, 1e-6)), 1)
    if lit.max() < MIN_PICTURE:
        return 0, 0
    first, last = _depth(lit, FEW, MOST), _depth(lit[::-1], FEW, MOST)
    if first and last and abs(first - last) <= max(2, 0.1 * max(first, last)):
        return first, last
    return _single(lit), _single(lit[::-1])


def _single(lit: Floats) -> int:
    depth = _depth(lit, CLEAN_RINGING, FULL)
    clean = depth and lit[: max(1, depth - RINGING)].max() <= CLEAN
    return depth if clean and depth <= MAX_SINGLE * len(lit) else 0


def _depth(lit: Floats, few: float, most: float) -> int:
    """Lines before the first that is more than `few` lit, if from the next on `most` are; else 0.

    Both are shares of the line that is lit the most. The first line may be part bar, part picture.
    """
    lit = lit / lit.max()
    (inside,) = np.nonzero(lit > few)
    depth = int(inside[0])
    beside = lit[depth + 1 : depth + 4]
    return depth if depth and len(beside) and beside.min() >= most else 0
