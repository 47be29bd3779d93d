"""Similarity: the shift, zoom and roll that take one picture to others, to a part of a sample.

Few samples and four numbers: the samples of a sparse grid, smoothed and halved, are enough, and
what moves by itself before a camera's picture is voted down (iterated weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

HALF = 2  # samples of the grid, across and down, for one of a View
STEPS = 8  # of Gauss and Newton, at most
CLOSE = 0.02  # samples: a smaller step is the last
OUTLIER = 2.0  # mean residuals, at which a sample counts a quarter
NOISE = 0.25  # levels that a residual may always have
LEAST_SHARED = 0.3  # of the picture, in both
BAR_LEVEL = 32.0  # brightest luma of a black bar's line, as coded
BAR_EDGE = 2  # lines beside a bar that its edge has a part in
STEEP = 4.0  # levels²: the square of a slope that counts as texture
LEAST_CLEAR = 0.25  # of a picture with bars
SINGULAR = 1e-6  # of the mean of the normal equations' diagonal, added to it


class View:
    """A frame's luma samples as fits see them: smoothed by 1-2-1, and every 2 × 2 of them one.

    Positions are in these samples, from the middle, right and down > 0.
    """

    def __init__(self, luma: npt.NDArray[np.uint8]) -> None:
        self.luma = luma.astype(np.float32)
        self.small = _halved(_smooth(self.luma))

    @cached_property
    def inner(self) -> Floats:
        """Samples that have neighbours, [n]."""
        return np.ascontiguousarray(self.small[1:-1, 1:-1]).ravel()

    @cached_property
    def within(self) -> Floats:
        """[n]: 1 for samples clear of black bars, whose edges stand still whatever moves."""
        rows, columns = (_clear(self.small.max(axis=axis)) for axis in (1, 0))
        clear = np.outer(rows, columns)[1:-1, 1:-1].ravel()
        return clear if clear.mean() >= LEAST_CLEAR else np.ones_like(clear)

    @cached_property
    def slopes(self) -> Floats:
        """[2, n]: change to the right and down, levels per sample, of `inner`."""
        across = (self.small[1:-1, 2:] - self.small[1:-1, :-2]).ravel()
        down = (self.small[2:, 1:-1] - self.small[:-2, 1:-1]).ravel()
        return np.asarray(np.stack([across, down]) / 2, np.float32)

    @cached_property
    def texture(self) -> float:
        """Smaller eigenvalue of the mean structure tensor (Shi and Tomasi, 1994), levels².

        Along its direction the picture changes least: below the noise, a shift that way leaves
        no trace.
        """
        if not self.inner.size:
            return 0.0
        clear = self.slopes * self.within
        (xx, xy), (_, yy) = (clear @ clear.T / self.within.sum()).tolist()
        return float((xx + yy) / 2 - math.hypot((xx - yy) / 2, xy))

    @cached_property
    def spread(self) -> float:
        """Share of the picture that has texture, 0..1; of writing on a plain ground little."""
        steep = np.square(self.slopes).sum(axis=0) >= STEEP
        return float((steep * self.within).sum() / max(1, self.within.sum()))

    @cached_property
    def steepest(self) -> Floats:
        """[6, n]: how `inner` changes with x, y, zoom, clockwise turn, contrast and light."""
        (across, down), (x, y) = self.slopes, places(*self.small.shape)
        contrast = self.inner - self.inner.mean()
        return np.stack(
            [across, down, across * x + down * y, down * x - across * y, contrast, np.ones_like(x)]
        )


def _clear(brightest: Floats) -> Floats:
    """Of the brightest sample of each line: 1 from the first line that is no bar to the last."""
    clear = np.ones_like(brightest)
    lit = np.flatnonzero(brightest > BAR_LEVEL)
    if len(lit) and lit[0] > 0:
        clear[: lit[0] + BAR_EDGE] = 0
    if len(lit) and lit[-1] < len(clear) - 1:
        clear[lit[-1] + 1 - BAR_EDGE :] = 0
    return clear


def _smooth(picture: Floats) -> Floats:
    rows = picture[:-2] + 2 * picture[1:-1] + picture[2:]
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16)


def _halved(picture: Floats) -> Floats:
    height, width = (side // 2 * 2 for side in picture.shape)
    rows = picture[0:height:2] + picture[1:height:2]
    return np.asarray((rows[:, 0:width:2] + rows[:, 1:width:2]) / 4)


@cache
def places(height: int, width: int) -> Floats:
    """[2, n]: x and y of the inner samples of a picture, from its middle."""
    x = np.arange(1, width - 1, dtype=np.float32) - np.float32((width - 1) / 2)
    y = np.arange(1, height - 1, dtype=np.float32) - np.float32((height - 1) / 2)
    return np.stack([a.ravel() for a in np.broadcast_arrays(x, y[:, None])])


@dataclass(frozen=True)
class Fits:
    """Of each pair: moved by x, y (samples of a View), enlarged and turned about the middle."""

    x: Doubles
    y: Doubles
    zoom: Doubles  # natural logarithm of the enlargement
    roll: Doubles  # radians, counter-clockwise > 0, as seen
    left: Floats  # mean absolute difference after it, levels
    off: Floats  # weighted likewise, over the mean slope: samples
    shared: Floats  # of the picture, 0..1


def fit(first: Sequence[View], last: Sequence[View], starts: Doubles) -> Fits:
    """Each of `last` against its `first`, all of one size, from `starts` [pairs, 2] on.

    The inverse compositional algorithm (Baker and Matthews, Lucas-Kanade 20 years on, 2004) over
    a similarity, with contrast and light beside it, and weights of Geman and McClure.
    """
    whole = _Stack(
        np.stack([view.inner for view in first]),
        np.stack([view.steepest for view in first]),
        np.stack([view.within for view in first]),
        np.stack([view.small for view in last]),
    )
    count = len(whole.target)
    moved = np.zeros((count, 4))  # x, y, e and t: x' = x + (1 + e) x - t y, likewise y'
    moved[:, :2] = starts
    left, off, shared = np.zeros((3, count), np.float32)
    rest, part, at = np.arange(count), whole, moved.copy()  # those that still move
    light: Floats | None = None
    for number in range(STEPS + 1):
        seen, there = _seen(part.pictures, at)
        there = there * part.within
        error = seen - part.target
        size = np.abs(error - (_mean(error, there)[:, None] if light is None else light))
        spread = _mean(size, there) + np.float32(NOISE)
        weights = there / np.square(1 + np.square(size / (OUTLIER * spread)[:, None]))
        moved[rest], left[rest] = at, _mean(np.abs(error), there)
        off[rest], shared[rest] = _mean(size, weights), there.sum(axis=1)
        if number == STEPS:
            break
        change, light = _step(part.steepest, weights, error)
        at = _composed(at, change)
        moving = (np.abs(change) * part.reach).max(axis=1) >= CLOSE
        if not moving.any():
            break
        if not moving.all():
            rest, part, at, light = rest[moving], part.only(moving), at[moving], light[moving]
    return Fits(
        x=moved[:, 0],
        y=moved[:, 1],
        zoom=np.log(np.hypot(1 + moved[:, 2], moved[:, 3])),
        roll=-np.arctan2(moved[:, 3], 1 + moved[:, 2]),
        left=left,
        off=off / (_mean_slope(first) + np.float32(NOISE)),
        shared=shared / whole.within.sum(axis=1),
    )


@dataclass(frozen=True)
class _Stack:
    """What fits of some pairs are made from."""

    target: Floats  # [pairs, n]
    steepest: Floats  # [pairs, 6, n]
    within: Floats  # [pairs, n]
    pictures: Floats  # [pairs, h, w]

    @property
    def reach(self) -> Doubles:
        """What a change of each number does at the picture's edge, samples."""
        return np.array([1, 1, *[max(self.pictures.shape[1:]) / 2] * 2])

    def only(self, kept: npt.NDArray[np.bool_]) -> _Stack:
        return _Stack(*(getattr(self, f.name)[kept] for f in fields(self)))


def _mean_slope(views: Sequence[View]) -> Floats:
    return np.array(
        [float((np.abs(v.slopes) * v.within).sum() / (2 * v.within.sum())) for v in views],
        np.float32,
    )


def _mean(values: Floats, weights: Floats) -> Floats:
    return np.asarray(np.vecdot(values, weights) / np.maximum(weights.sum(axis=1), 1e-6))


def _step(steepest: Floats, weights: Floats, error: Floats) -> tuple[Doubles, Floats]:
    """How far the target is to move, [pairs, 4], and what light explains of the error."""
    weighted = steepest * weights[:, None]
    normal = (weighted @ steepest.transpose(0, 2, 1)).astype(np.float64)
    diagonal = normal.diagonal(axis1=1, axis2=2)
    normal += np.eye(6) * (SINGULAR * diagonal.mean(axis=1) + 1e-9)[:, None, None]
    toward = (weighted @ error[..., None]).astype(np.float64)
    found = np.asarray(np.linalg.solve(normal, toward)[..., 0], np.float64)
    light = np.einsum("pk,pkn->pn", found[:, 4:].astype(np.float32), steepest[:, 4:])
    found[:, :2] = found[:, :2].clip(-8, 8)
    found[:, 2:4] = found[:, 2:4].clip(-0.2, 0.2)
    return found[:, :4], light


def _composed(moved: Doubles, change: Doubles) -> Doubles:
    """`moved` after the inverse of `change`, as complex numbers: z' = a z + b."""
    a, b = 1 + moved[:, 2] + 1j * moved[:, 3], moved[:, 0] + 1j * moved[:, 1]
    a = a / (1 + change[:, 2] + 1j * change[:, 3])
    b = b - a * (change[:, 0] + 1j * change[:, 1])
    return np.stack([b.real, b.imag, a.real - 1, a.imag], axis=1)


def _seen(pictures: Floats, moved: Doubles) -> tuple[Floats, Floats]:
    """Pictures where the inner places moved to, [pairs, n], bilinear; 1 where that is within."""
    count, height, width = pictures.shape
    if not moved.any():
        seen = pictures[:, 1:-1, 1:-1].reshape(count, -1)
        return seen, np.ones_like(seen)
    (x, y), (right, down, grown, turn) = (
        places(height, width),
        moved.T.astype(np.float32)[..., None],
    )
    grown = 1 + grown
    across = grown * x - turn * y + (right + np.float32((width - 1) / 2))
    along = turn * x + grown * y + (down + np.float32((height - 1) / 2))
    there = (across >= 0) & (across <= width - 1) & (along >= 0) & (along <= height - 1)
    np.clip(across, 0, np.float32(width - 1.001), out=across)
    np.clip(along, 0, np.float32(height - 1.001), out=along)
    column, row = across.astype(np.int32), along.astype(np.int32)
    across -= column
    along -= row
    place = row * width + column + np.arange(count, dtype=np.int32)[:, None] * (height * width)
    flat = pictures.ravel()
    upper, lower = flat[place], flat[place + width]
    upper += (flat[place + 1] - upper) * across
    lower += (flat[place + (width + 1)] - lower) * across
    return upper + (lower - upper) * along, there.astype(np.float32)
