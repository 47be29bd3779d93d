"""Tiles: the few parts of a frame, at its native resolution, in which detail is looked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]

SIDE = 64  # px
COUNT = 4  # of a frame, at most
ROWS_APART = 8  # of those that are searched
MAX_STEP = 48  # 8-bit levels of one difference that count: detail, not one hard edge
DARK = 32  # brightest sample of a bar's row or column, 8-bit levels as coded
BAR_EDGE = 8  # px of the picture beside a bar that codecs smear


def busiest(luma: Plane, shift: int) -> Floats:
    """float32 [n, SIDE, SIDE]: the tiles with the most detail, in 8-bit levels; n may be 0.

    `luma` is a frame's plane as stored, of 8 + `shift` bits. Bars are left out, and detail is what
    differs from sample to sample along every eighth row.
    """
    picture = _within_bars(luma, shift) if min(luma.shape) >= SIDE else luma
    high, wide = (side // SIDE for side in picture.shape)
    if not high or not wide:
        return np.zeros((0, SIDE, SIDE), np.float32)
    rows = picture[ROWS_APART // 2 : high * SIDE : ROWS_APART, : wide * SIDE] >> shift
    steps = np.abs(np.diff(rows.astype(np.int16), axis=1, append=rows[:, -1:]))
    np.minimum(steps, MAX_STEP, out=steps)
    detail = steps.reshape(high, SIDE // ROWS_APART, wide, SIDE).sum((1, 3), dtype=np.int64)
    best = np.argsort(-detail, axis=None, kind="stable")[:COUNT]
    made = np.empty((len(best), SIDE, SIDE), np.float32)
    for tile, place in zip(made, best, strict=True):
        top, left = (SIDE * int(at) for at in divmod(int(place), wide))
        tile[:] = picture[top : top + SIDE, left : left + SIDE]
    return made / np.float32(1 << shift)


def _within_bars(luma: Plane, shift: int) -> Plane:
    rows = _bright(luma[:, 4::ROWS_APART].max(axis=1) >> shift)
    columns = _bright(luma[4::ROWS_APART].max(axis=0) >> shift)
    return luma[rows, columns]


def _bright(brightest: Plane) -> slice:
    (bright,) = np.nonzero(brightest > DARK)
    if not len(bright):
        return slice(0, 0)
    first, last = int(bright[0]), int(bright[-1]) + 1
    count = len(brightest)
    return slice(first + BAR_EDGE * (first > 0), last - BAR_EDGE * (last < count))
