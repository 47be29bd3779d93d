"""Pairs: frames half a second apart, and those close to them, compared as the camera moves.

    frames  · b a f · · · · · · · b a f · · · ·    a: compared with the next a: drift, zoom, roll
              └─┴─┘─ ─ ─ ─ ─ ─ ─ ─ ┘                  and with b before and f after: shake

A movement is unknown, not 0, where the picture has no texture (or texture of one direction alone,
or little but writing), is too thin, or where nothing brings the two frames together: after a whip
pan, in smoke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.pipeline.scan.camera.similarity import HALF, LEAST_SHARED, Floats, View, fit
from telecine.pipeline.scan.grid import Grid

Rows = npt.NDArray[np.void]

PAIR = np.dtype(
    [
        ("first", "i8"),  # ordinals of the two frames
        ("last", "i8"),
        ("near", "i8"),  # frames from the first to those before and after it; 0: not compared
        ("known", "?"),  # how the picture moves from first to last; as coded:
        ("x", "f4"),  # widths, right > 0
        ("y", "f4"),  # heights, down > 0
        ("zoom", "f4"),  # natural logarithm of the enlargement
        ("roll", "f4"),  # degrees, counter-clockwise > 0
        ("raw", "f4"),  # mean absolute difference, levels
        ("left", "f4"),  # what is left of it
        ("near_known", "?"),  # how it moves from the first to its neighbours; longer sides:
        ("before_x", "f4"),
        ("before_y", "f4"),
        ("after_x", "f4"),
        ("after_y", "f4"),
    ]
)
PAIRS_PER_SECOND = 2
NEAR_SECONDS = 1 / 15
TOGETHER = 12  # pairs compared at a time: one by one they cost some three times as much
MOST_NEAR_SECONDS = 0.15  # further apart they tell nothing of a hand's shaking
LEAST_SIDE = 6  # samples of a View
LEAST_TEXTURE = 1.0  # levels² (View.texture)
LEAST_SPREAD = 0.2  # of the picture (View.spread): writing has 0.12 at most, footage 0.3 and more
MOST_OFF = 0.5  # samples: of two pictures that were brought together (Fits.off)
WELL_TOGETHER = 0.2  # samples: no other place need be looked for


class CameraMeter:
    """Compares frames of one size that arrive in chunks. Ordinals count from the first frame."""

    def __init__(self, rate: float) -> None:
        """`rate`: nominal frames per second."""
        self._apart = max(1, round(rate / PAIRS_PER_SECOND))
        near = max(1, round(rate * NEAR_SECONDS))
        self._near = near if near <= rate * MOST_NEAR_SECONDS else 0
        self._places = {(self._near + d) % self._apart for d in (-self._near, 0, self._near)}
        self._views: dict[int, View] = {}
        self._next = self._near  # the first frame of the next pair
        self._count = 0
        self._rows: list[Rows] = []

    def push(self, grid: Grid) -> None:
        for place in range(len(grid)):
            if (self._count + place) % self._apart in self._places:
                self._views[self._count + place] = View(grid.luma[place])
        self._count += len(grid)
        if len(self._ready()) >= TOGETHER:
            self._compare()

    def finish(self) -> Rows:
        """PAIR rows of all frames."""
        self._compare()
        return np.concatenate([np.zeros(0, PAIR), *self._rows])

    def _ready(self) -> range:
        return range(self._next, self._count - self._apart, self._apart)

    def _compare(self) -> None:
        firsts = self._ready()
        if firsts:
            self._rows.append(_compared(self._views, firsts, self._apart, self._near))
            self._next = firsts[-1] + self._apart
            self._views = {i: v for i, v in self._views.items() if i >= self._next - self._near}


@dataclass(frozen=True)
class _Pair:
    first: int
    last: int


@dataclass(frozen=True)
class _Moved:
    """How a picture moves from one frame to another; samples of a View."""

    x: float
    y: float
    zoom: float
    roll: float
    left: float
    off: float
    shared: float

    @property
    def known(self) -> bool:
        return self.off <= MOST_OFF and self.shared >= LEAST_SHARED


def _compared(views: Mapping[int, View], firsts: Sequence[int], apart: int, near: int) -> Rows:
    shown = [i for i in firsts if _shows_movement(views[i])]
    wanted = [
        _Pair(i, j) for i in shown for j in (i + apart, *((i - near, i + near) if near else ()))
    ]
    moved = dict(zip(wanted, _fitted(views, wanted, [(0.0, 0.0)] * len(wanted)), strict=True))
    doubtful = [pair for pair in wanted if pair.last - pair.first == apart
                and moved[pair].off > WELL_TOGETHER]  # fmt: skip
    starts = [phase_shift(views[pair.first].luma, views[pair.last].luma) for pair in doubtful]
    for pair, other in zip(doubtful, _fitted(views, doubtful, starts), strict=True):
        if other.off < moved[pair].off and other.shared >= LEAST_SHARED:
            moved[pair] = other
    return np.array([_row(views, moved, _Pair(i, i + apart), near) for i in firsts], PAIR)


def _shows_movement(view: View) -> bool:
    wide = min(view.small.shape) >= LEAST_SIDE
    return wide and view.texture >= LEAST_TEXTURE and view.spread >= LEAST_SPREAD


def _fitted(
    views: Mapping[int, View], pairs: list[_Pair], starts: Iterable[tuple[float, float]]
) -> list[_Moved]:
    if not pairs:
        return []
    first, last = [views[p.first] for p in pairs], [views[p.last] for p in pairs]
    found = fit(first, last, np.array(list(starts)))
    columns = (found.x, found.y, found.zoom, found.roll, found.left, found.off, found.shared)
    return [_Moved(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def _row(
    views: Mapping[int, View], moved: Mapping[_Pair, _Moved], pair: _Pair, near: int
) -> tuple[Any, ...]:
    a, b = views[pair.first], views[pair.last]
    height, width = a.luma.shape
    main = moved.get(pair)
    told: tuple[Any, ...] = (False, *[0.0] * 6)
    if main is not None and main.known and _shows_movement(b):
        x, y = main.x * HALF / width, main.y * HALF / height
        raw = float(np.vecdot(np.abs(b.inner - a.inner), a.within) / a.within.sum())
        told = (True, x, y, main.zoom, np.degrees(main.roll), raw, main.left)
    sides = [moved.get(_Pair(pair.first, pair.first + d)) for d in (-near, near)] if near else []
    beside = [(m.x, m.y) for m in sides if m is not None and m.known]
    scale = HALF / max(height, width)
    jolts = tuple(scale * c for m in beside for c in m) if len(beside) == 2 else (0.0,) * 4
    return (pair.first, pair.last, near, *told, len(beside) == 2, *jolts)


def phase_shift(first: Floats, last: Floats) -> tuple[float, float]:
    """X and y, samples of a View, by phase correlation (Kuglin and Hines, 1975), to a sample."""
    height, width = first.shape
    cross = _spectrum(first).conj() * _spectrum(last)
    size = np.abs(cross)
    surface = np.fft.irfft2(cross / (size + 1e-3 * size.max() + 1e-9), (height, width))
    y, x = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
    return (x - width * (x > width / 2)) / HALF, (y - height * (y > height / 2)) / HALF


def _spectrum(picture: Floats) -> npt.NDArray[np.complex128]:
    return np.fft.rfft2((picture - picture.mean()) * _window(*picture.shape))


@cache
def _window(height: int, width: int) -> Floats:
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
