"""Repeats: which frames show the picture before them again.

A frame repeats where its picture is the one before it, bit for bit or but for coding noise. Noise
has no size of its own: what tells is the company. Where every new picture differs by 20 levels, one
that differs by 0.3 is a repeat; where all differ by 0.3, the scene is still and none is.

    difference   · ▆ · · ▇ · ▆ · · ▇        a 24 fps film in a 60 fps file
    repeated     r   r r   r   r r
    difference   ▂ ▁ ▂ ▂ ▁ ▂ ▁ ▂ ▂ ▁        sensor noise over a still scene: none
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.pipeline.scan.grid import middle

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

REACH = 16  # frames on either side that a frame is compared with
RATIO = 0.25  # of a new picture's difference: what differs by less repeats
LEAST_MOTION = 0.05  # 8-bit levels: below, new pictures cannot be told from noise
LEAST_SIDE = 8  # frames that one side must have to be asked
ROUNDED = 1e-4  # float32 sums of a line: less is nothing
NOISE = 2  # 8-bit levels of coding noise
ROWS, COLUMNS = 16, 8  # whole ones that are looked at, about
CACHED_FRAMES = 8  # looked at together: their lines stay in the processor's cache
HELD = 1.75  # periods that a frame may be shown before it counts as held
LONG = 1.5  # shortest distances that make a long one
LEAST_LONG = 3  # long and short distances that must be there
UNRELATED = 0.2  # of luma's spread: differences above tell little of how far things moved
EVENLY = 1.15  # by which the new of long and short distances may differ and be as much


def repeated(differences: npt.NDArray[np.floating], equal: Flags) -> Flags:
    """Whether each frame repeats the one before it. [n] bool.

    `differences` [n] from the frame before, in 8-bit levels, by any measure of the whole picture
    (the first frame's is not looked at); `equal` [n] where no sample differs at all. A frame
    repeats where it is equal, or differs by less than RATIO × what new pictures differ by here.
    That is, of the REACH frames on each side, the second largest difference (a cut says nothing),
    and of the two sides the smaller: a scene that comes to rest is not measured by its motion
    before. Near an end, where one side has fewer than LEAST_SIDE frames, it is the third largest of
    the other (nor does a flash). Where new pictures differ by less than LEAST_MOTION, only what is
    equal repeats.

    A frame's answer depends on the differences of REACH frames either side and on no others: who
    streams gives REACH + 1 frames before those asked about, and REACH after them.
    """
    values = np.asarray(differences, np.float64)
    scale = usual_step(values)
    found = (values < RATIO * scale) & (scale >= LEAST_MOTION) | equal
    found[:1] = False
    return np.asarray(found)


def usual_step(values: Doubles) -> Doubles:
    """What new pictures differ by around each frame; the first frame's difference is none."""
    count = len(values)
    known = values.copy()
    known[:1] = np.nan
    padded = np.concatenate([np.full(REACH, np.nan), known, np.full(REACH, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, REACH)
    before, after = _largest(windows[:count]), _largest(windows[REACH + 1 :])
    places = np.arange(count)
    few_before, few_after = places - 1 < LEAST_SIDE, count - 1 - places < LEAST_SIDE
    scale = np.minimum(before[:, 1], after[:, 1])
    scale[few_before] = after[few_before, 2]
    scale[few_after] = before[few_after, 2]
    neither = few_before & few_after
    scale[neither] = np.maximum(before[neither, 1], after[neither, 1])
    return scale


def _largest(windows: Doubles) -> Doubles:
    """[n, 3]: the three largest values of each row, from the largest on; 0 where there are none."""
    known = np.nan_to_num(windows)
    return np.asarray(-np.sort(-np.partition(known, -3, axis=1)[:, -3:], axis=1))


class Steps:
    """How far each frame is from the one before it, along a few whole rows and columns of its luma.

    The sparse grid would not do: an edge that moves by two pixels a frame passes samples five
    pixels apart in turns of two and three frames, like a repeated film. Along a whole line nothing
    that moves hides. Frames of one size arrive in chunks.
    """

    def __init__(self, height: int, width: int, shift: int) -> None:
        """Of planes of that size, whose values have `shift` bits more than 8."""
        self._rows = middle(height, max(1, height // ROWS))
        self._columns = middle(width, max(1, width // COLUMNS))
        rows, columns = len(range(height)[self._rows]), len(range(width)[self._columns])
        self._across, self._down = (rows, width), (columns, height)
        self._length = rows * width + columns * height
        self._shift = shift
        self._last: Pixels | None = None

    def empty(self, frames: int) -> Pixels:
        return np.empty((frames, self._length), np.uint8)

    def copy(self, luma: npt.NDArray[np.unsignedinteger[Any]], target: Pixels) -> None:
        """The lines of one frame into a row of `empty`."""
        across, down = luma[self._rows], luma[:, self._columns].T
        for lines, part in ((across, target[: across.size]), (down, target[across.size :])):
            part.reshape(lines.shape)[:] = lines >> self._shift if self._shift else lines

    def measure(self, lines: Pixels) -> tuple[Floats, Flags]:
        """Of each frame how far it is from the one before, in 8-bit levels; whether it is the same.

        The mean over lines of each one's mean difference beyond NOISE, of no line more than three
        times the second largest: an edge that comes to lie along a line makes all of it differ at
        once. The same is a frame without any difference. The very first differs by 0 from none.
        """
        far, same = np.zeros(len(lines), np.float32), np.zeros(len(lines), np.bool_)
        for start in range(0, len(lines), CACHED_FRAMES):
            part = lines[max(0, start - 1) : start + CACHED_FRAMES]
            if start == 0 and self._last is not None:
                part = np.concatenate([self._last, part])
            apart = np.maximum(part[1:], part[:-1])
            apart -= np.minimum(part[1:], part[:-1])
            end = min(start + CACHED_FRAMES, len(lines))
            to = slice(end - len(apart), end)
            same[to] = ~apart.any(axis=1)
            each = self._of_lines(np.maximum(apart, NOISE, out=apart).astype(np.float32)) - NOISE
            each[each < ROUNDED] = 0
            second = np.partition(each, -2, axis=1)[:, -2:-1]
            far[to] = np.minimum(each, 3 * second).mean(axis=1)
        self._last = lines[-1:].copy()
        return far, same

    def _of_lines(self, apart: Floats) -> Floats:
        """[n, rows + columns]: the mean of each line."""
        (rows, width), (_, height) = self._across, self._down
        across = apart[:, : rows * width].reshape(len(apart), *self._across)
        down = apart[:, rows * width :].reshape(len(apart), *self._down)
        return np.concatenate([across @ _mean_of(width), down @ _mean_of(height)], axis=1)


def _mean_of(count: int) -> Floats:
    return np.full(count, 1 / count, np.float32)


def frozen_share(equal: Flags, starts: npt.NDArray[np.int64], period: float) -> float:
    """Share of the time, 0..1, in which the picture stands still: frames equal to the one before,
    and of a frame that is held for longer than HELD nominal periods all but the first.

    `starts` [n + 1] stamps and the end, `period` in the same unit. The first frame's own period is
    not asked: nothing is before it.
    """
    lengths = np.diff(starts).astype(np.float64)
    still = np.where(lengths > HELD * period, lengths - period, 0.0)
    still[1:][equal[1:]] = lengths[1:][equal[1:]]
    asked = lengths.sum() - min(lengths[0], period)
    return float(still.sum() / asked) if asked > 0 else 0.0


def moves_evenly(steps: Doubles, deltas: npt.NDArray[np.int64], spread: float) -> bool:
    """Whether as much is new after a long distance as after a short one: a film on another clock.

    `steps` and `deltas` [n] from the frame before each, `spread` the standard deviation of luma.
    False where it cannot be told: differences near `spread` are of unrelated pictures, and say
    nothing of how far things moved.
    """
    short = deltas < LONG * deltas.min()
    if min(short.sum(), (~short).sum()) < LEAST_LONG:
        return False
    usual, after = float(np.median(steps[short])), float(np.median(steps[~short]))
    if not 4 * LEAST_MOTION <= usual <= UNRELATED * spread:
        return False
    return 1 / EVENLY <= after / usual <= EVENLY
