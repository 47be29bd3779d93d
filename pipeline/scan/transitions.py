"""Transitions: dissolves, fades and wipes from shot to shot, told from motion. Pure, streaming.

A window of frames is one where its last picture shows something else than its first (the twin
comparison of Zhang, Kankanhalli and Smoliar, 1993) and every picture in between is made of these
two and of nothing else:

    dissolve, fade   F = a A + (1 - a) B, with a falling from 1 to 0
    wipe             each cell of F is A's or B's, and more and more of them B's

Under motion the pictures in between show what neither end shows; a lamp or an aperture leaves the
details of the first picture in the last. A fade's other end is flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LENGTHS = (8, 12, 16, 24, 32, 48, 64)  # frames from the first picture of a window to its last
GAP = 3  # frames between two that are one
STRIDE = 4  # frames from one window to the next of the same length
MIN_CHANGE = 10.0  # 8-bit levels, mean over luma cells
FLAT, CLEAR = 4.0, 18.0  # standard deviation of luma, 8-bit levels: nothing is to be seen, much is
MAX_LIKENESS = 0.4  # correlation of the details of both ends: more is one scene in another light
# Over the shared footage blends of two shots leave 0.03 (median) and 0.17 (nine tenths) of their
# change unexplained, and what else passes the tests above 0.16 at least, 0.34 (median).
MAX_ERROR, MAX_SUSPECT_ERROR = 0.14, 0.24
MIN_STEADY = 0.9  # square of the blend's correlation with time
MIN_SPREAD = 0.5  # of the picture, that changes
BLACK = 20  # luma: cells that are as dark at both ends are bars
MAX_STEP = 0.4  # of the blend, from frame to frame: more is a cut
MAX_RETURN = 0.1  # of the blend, backwards
MIN_FRAMES = 4  # fewer are a cut that was blurred
WIPED, MIN_WIPED_SHARE, MAX_WIPE_ERROR = 15.0, 0.4, 0.15  # levels, of the cells, of the change
EASED = 0.1  # of a fade's time, at either end, in which it may be slower
EDGE = 0.06  # of the blend: below, a frame shows one shot alone

Floats = npt.NDArray[np.float32]
Ordinals = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Transition:
    """Frames [start, end) that show two shots at once. One that is not sure is only suspected."""

    start: int
    end: int
    is_sure: bool

    def moved(self, frames: int) -> Transition:
        return Transition(self.start + frames, self.end + frames, self.is_sure)


class TransitionDetector:
    """Finds gradual transitions in pictures of one size that arrive in chunks."""

    def __init__(self) -> None:
        self._start = 0  # ordinal of the first picture held
        self._next = 0  # ordinal of the last picture of the next windows
        self._luma: Floats | None = None  # [n, h, w]
        self._cut = 0  # windows begin no earlier
        self._found: list[Transition] = []
        self.settled: list[Transition] = []  # disjoint, in order; complete after `finish`

    def push(
        self, luma: npt.NDArray[np.int16], cuts: Sequence[int], decided: int
    ) -> list[Transition]:
        """What these pictures show at once. What is `settled` may yet reach further on both sides.

        `luma` [n, h, w] of the next pictures. Hard cuts before `decided` are known, and `cuts` are
        those that came to be known.
        """
        new = luma.astype(np.float32)
        self._luma = new if self._luma is None else np.concatenate([self._luma, new])
        known = len(self._found)
        self._look_on(cuts, decided)
        news = merge(self._found[known:])
        forget = max(0, self._next - LENGTHS[-1] - STRIDE - self._start)
        self._luma, self._start = self._luma[forget:], self._start + forget
        self._settle(self._next - LENGTHS[-1] - 2 * STRIDE - GAP)
        return news

    def finish(self, cuts: Sequence[int], decided: int) -> list[Transition]:
        """What the last pictures show."""
        known = len(self._found)
        if self._luma is not None:
            self._look_on(cuts, decided)
            self._look(self._start + len(self._luma) - 1)
        news = merge(self._found[known:])
        self._settle(self._next + 2 * LENGTHS[-1])
        return news

    def _look_on(self, cuts: Sequence[int], decided: int) -> None:
        for cut in [*cuts, decided]:
            while self._next < cut:
                self._look(self._next)
                self._next += STRIDE
            if cut != decided:
                self._look(cut - 1)
                self._cut = self._next = cut

    def _look(self, last: int) -> None:
        """Takes what the windows that end with this picture show."""
        assert self._luma is not None
        end = last - self._start
        for length in LENGTHS:
            first = end - length
            if self._start + first < max(self._cut, self._start):
                return
            middle = first + length // 2
            if _may_blend(self._luma[first], self._luma[middle], self._luma[end]):
                found = examine(self._luma[first : end + 1])
                if found is not None:
                    self._found.append(found.moved(self._start + first))

    def _settle(self, before: int) -> None:
        """Those that no window to come can change are settled; those that overlap are one."""
        merged = merge(self._found)
        self._found = [one for one in merged if one.end > before]
        self.settled += [one for one in merged if one.end <= before]


def _may_blend(first: Floats, middle: Floats, last: Floats) -> bool:
    """Cheap, and sifts out nearly all motion: whether one picture could be made of the others."""
    gap = first - last
    change = _magnitude(gap)
    if change < MIN_CHANGE * gap.size:
        return False
    off = middle - last
    share = np.vdot(off, gap) / np.vdot(gap, gap)
    if _magnitude(off - share * gap) < 2 * MAX_SUSPECT_ERROR * change:
        return True
    return _magnitude(np.minimum(np.abs(off), np.abs(middle - first))) < change / 4


def _magnitude(values: Floats) -> float:
    """The sum; `mean` would take as long again to find out how many there are."""
    return float(np.add.reduce(np.abs(values), axis=None))


def merge(found: Sequence[Transition]) -> list[Transition]:
    """Disjoint transitions, in order; those with hardly a frame between are one.

    Where some are sure, what is only suspected gives way.
    """
    merged: list[Transition] = []
    for one in sorted(found, key=lambda one: (not one.is_sure, one.start)):
        near = [m for m in merged if m.start <= one.end + GAP and one.start <= m.end + GAP]
        if any(m.is_sure for m in near) and not one.is_sure:
            continue
        for other in near:
            merged.remove(other)
            one = Transition(
                min(one.start, other.start), max(one.end, other.end), one.is_sure or other.is_sure
            )
        merged.append(one)
    return sorted(merged, key=lambda one: one.start)


def examine(window: Floats) -> Transition | None:
    """The transition that a window [n, h, w] shows, by places in it."""
    seen = (window[0] > BLACK) | (window[-1] > BLACK)  # the rest are bars
    cells = window[:, seen]
    first, last = cells[0], cells[-1]
    if not len(first) or not _is_change_of_scene(window[0], window[-1], seen):
        return None
    gap = first - last
    blend = (cells - last) @ gap / np.square(gap).sum()
    blended = _span(blend)
    if blended is None:
        return None
    start, end = blended
    inner, shares = cells[start:end], blend[start:end]
    left = inner - last - shares[:, None] * gap
    error = float(np.abs(left).mean() / np.abs(gap).mean())
    if error < MAX_SUSPECT_ERROR and _spread(gap) > MIN_SPREAD:
        is_steady = np.corrcoef(np.arange(start, end), shares)[0, 1] ** 2 > MIN_STEADY
        is_clear = max(first.std(), last.std()) > CLEAR
        return Transition(start, end, bool(error < MAX_ERROR and is_steady and is_clear))
    wiped = _wiped(inner, first, last)
    return Transition(start + wiped[0], start + wiped[1], False) if wiped else None


def _span(blend: Floats) -> tuple[int, int] | None:
    """Where the share of the first picture falls from 1 to 0, if it does, and slowly."""
    steps = np.diff(blend)
    back = (blend - np.minimum.accumulate(blend)).max()
    inside = np.flatnonzero((blend < 1 - EDGE) & (blend > EDGE))
    if back > MAX_RETURN or steps.min() < -MAX_STEP or len(inside) < MIN_FRAMES:
        return None
    # A shot's own motion moves the blend a little, long before and after: the fall itself is steep.
    high, low = np.flatnonzero(blend < 0.75)[0], np.flatnonzero(blend > 0.25)[-1]
    fall = max(float(blend[high] - blend[low]), EDGE) / max(1, low - high)
    slack = EASED / fall
    start = high - (1 - blend[high]) / fall - slack
    end = low + blend[low] / fall + slack
    begin = max(int(inside[0]), math.floor(start))
    past = min(int(inside[-1]) + 1, math.ceil(end) + 1)
    return (begin, past) if past - begin >= MIN_FRAMES else None


def _is_change_of_scene(first: Floats, last: Floats, seen: npt.NDArray[np.bool_]) -> bool:
    """Whether the details of one picture [h, w] are not those of the other."""
    flat = [picture[seen].std() < FLAT for picture in (first, last)]
    if any(flat):
        return not all(flat)
    one, other = _details(first), _details(last)
    scale = np.sqrt(np.square(one).sum() * np.square(other).sum())
    return bool((one * other).sum() < MAX_LIKENESS * scale)


def _spread(gap: Floats) -> float:
    """How evenly cells change: about the share of them that do (participation ratio)."""
    return float(np.abs(gap).mean() ** 2 / np.square(gap).mean())


def _details(picture: Floats) -> Floats:
    """Differences of neighbouring cells, across and down."""
    return np.concatenate([np.diff(picture, axis=1).ravel(), np.diff(picture, axis=0).ravel()])


def _wiped(inner: Floats, first: Floats, last: Floats) -> tuple[int, int] | None:
    """Where cells change sides, if every cell shows one end or the other and does so once."""
    gap = np.abs(first - last)
    differ = gap > WIPED
    if differ.mean() < MIN_WIPED_SHARE:
        return None
    old, new = np.abs(inner - first)[:, differ], np.abs(inner - last)[:, differ]
    error = np.minimum(old, new).mean() / gap[differ].mean()
    is_new = new < old
    back = (is_new[:-1] & ~is_new[1:]).sum() / differ.sum()
    share = is_new.mean(axis=1)
    inside = np.flatnonzero((share > EDGE) & (share < 1 - EDGE))
    if error > MAX_WIPE_ERROR or back > MAX_RETURN or len(inside) < MIN_FRAMES:
        return None
    return int(inside[0]), int(inside[-1]) + 1
