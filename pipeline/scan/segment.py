"""Segment: where the shots are, and the spans they are split into. Pure NumPy, streaming.

A hard cut is a frame pair that differs far more than the pairs around it, in two ways at once:

    structure   what is left of the difference when each block of the picture may have moved
    histogram   how brightness and colour are distributed, wherever they are

Motion, however violent, leaves the histogram; a lamp that is switched leaves the structure of its
neighbours; a cut leaves neither. The adaptive ratio to the neighbouring pairs is that of adaptive
detectors (PySceneDetect's AdaptiveDetector), the block search that of motion compensation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from telecine.pipeline.scan.grid import Grid, thumbnails

NEIGHBOURS = 3  # pairs on either side that a pair is compared with
FLASH_FRAMES = 4  # a picture that is back after fewer frames had not been cut away from
LOOKAHEAD = 4  # frames after a pair that decide on it
LOOKBACK = 6  # frames before it
# The score stands in the gap (1.75 to 2.33) between 58 true cuts and what else those 19 files hold.
MIN_DIFFERENCE, MIN_DIFFERENCE_RATIO = 3.0, 1.6  # cheap: what is worth a closer look
MIN_DISTRIBUTION = 1.2  # cheap as well: most pans end here
MIN_RESIDUAL = 5.0  # 8-bit levels
MIN_SCORE = 2.05
MAX_FLASH = 0.5
CHANNEL_WEIGHTS = (1.0, 0.5, 0.5)
EVEN_TRIES = 3  # numbers of equal parts that a shot is split into before they may be unequal
SHIFT, BLOCK = 2, 4  # cells that a block may move, and its size

Ordinals = npt.NDArray[np.int64]
Thumbs = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]


class CutDetector:
    """Finds hard cuts in frames of one size that arrive in chunks; looks `LOOKAHEAD` frames on.

    Ordinals count from the first frame pushed. A cut is the ordinal of a new shot's first frame.
    """

    def __init__(self) -> None:
        self.decided = 1  # whether there is a cut before any earlier frame is known
        self._start = 0  # ordinal of the first frame held
        self._held: Grid | None = None
        self._thumbs: Thumbs = np.empty((0, 3, 0, 0), np.int16)
        self._differences: Doubles = np.zeros(0)  # from the frame before, per frame held

    def push(self, grid: Grid) -> list[int]:
        """The cuts that these frames decide on; `decided` moves on."""
        thumbs = thumbnails(grid)
        if self._held is None:
            before, self._held, self._thumbs = thumbs[:1], grid, thumbs
        else:
            before, self._held = self._thumbs[-1:], self._held.then(grid)
            self._thumbs = np.concatenate([self._thumbs, thumbs])
        new = _differences(np.concatenate([before, thumbs]))
        self._differences = np.concatenate([self._differences, new])
        return self._decide(self._start + len(self._thumbs) - LOOKAHEAD)

    def finish(self) -> list[int]:
        """The cuts among the last frames."""
        return self._decide(self._start + len(self._thumbs))

    def _decide(self, upto: int) -> list[int]:
        first, last = self.decided - self._start, upto - self._start
        cuts = [self._start + t for t in self._candidates(first, last) if self._is_cut(t)]
        self.decided = max(self.decided, upto)
        self._forget(self.decided - self._start - LOOKBACK)
        return cuts

    def _forget(self, frames: int) -> None:
        if frames > 0 and self._held is not None:
            self._start += frames
            self._held = self._held[frames:]
            self._thumbs = self._thumbs[frames:]
            self._differences = self._differences[frames:]

    def _candidates(self, first: int, last: int) -> list[int]:
        """Places of pairs that stand out by their plain difference."""
        values = self._differences
        near = np.flatnonzero(values[first:last] > MIN_DIFFERENCE) + first
        return [int(t) for t in near if self._stands_out(int(t))]

    def _stands_out(self, t: int) -> bool:
        values = self._differences
        highest = values[max(1, t - NEIGHBOURS) : t + NEIGHBOURS + 1].max()
        return bool(
            values[t] == highest and values[t] > MIN_DIFFERENCE_RATIO * (1 + _around(values, t, 1))
        )

    def _is_cut(self, t: int) -> bool:
        assert self._held is not None
        first, last = max(1, t - NEIGHBOURS), min(len(self._thumbs), t + NEIGHBOURS + 1)
        changes = np.abs(np.diff(_histograms(self._held[first - 1 : last]), axis=0)).sum(1)
        distribution = changes[t - first] / (0.03 + _around(changes, t - first))
        if distribution < MIN_DISTRIBUTION:
            return False
        residuals = residual(self._thumbs[first:last], self._thumbs[first - 1 : last - 1])
        peak = residuals[t - first]
        structure = peak / (1 + _around(residuals, t - first))
        if peak < MIN_RESIDUAL or np.sqrt(structure * distribution) < MIN_SCORE:
            return False
        return not self._is_flash(t, peak)

    def _is_flash(self, t: int, peak: float) -> bool:
        """Whether the picture before is back soon after, or the one after was there before."""
        thumbs = self._thumbs
        after = thumbs[t + 1 : t + 1 + FLASH_FRAMES]
        earlier = thumbs[max(0, t - 1 - FLASH_FRAMES) : t - 1]
        returns = [
            residual(others, np.broadcast_to(thumbs[place], others.shape)).min()
            for others, place in ((after, t - 1), (earlier, t))
            if len(others)
        ]
        return bool(returns) and min(returns) < MAX_FLASH * peak


def _around(values: Doubles, place: int, first: int = 0) -> float:
    """Mean of the neighbours of one value that are there."""
    low = max(first, place - NEIGHBOURS)
    around = np.concatenate([values[low:place], values[place + 1 : place + 1 + NEIGHBOURS]])
    return float(around.mean()) if len(around) else 0.0


def _differences(thumbs: Thumbs) -> Doubles:
    """Mean absolute difference of each picture from the one before it, in 8-bit levels."""
    count, channels, rows, columns = thumbs.shape
    change = np.abs(thumbs[1:] - thumbs[:-1]).reshape(count - 1, channels, rows * columns)
    means = change.astype(np.float32) @ np.full(rows * columns, 1 / (rows * columns), np.float32)
    return np.asarray(means.astype(np.float64) @ np.array(CHANNEL_WEIGHTS))


def residual(thumbs: Thumbs, others: Thumbs) -> Doubles:
    """Difference of each pair of pictures that no motion of its blocks explains, 8-bit levels."""
    count, _, rows, columns = thumbs.shape
    size = min(BLOCK, rows, columns)
    down, across = rows // size * size, columns // size * size
    padded = np.pad(others, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    best = np.full((count, down // size, across // size), np.iinfo(np.int16).max, np.int16)
    thumbs = np.ascontiguousarray(thumbs[:, :, :down, :across])
    for y in range(2 * SHIFT + 1):
        for x in range(2 * SHIFT + 1):
            gap = np.abs(thumbs - padded[:, :, y : y + down, x : x + across])
            both = 2 * gap[:, 0] + gap[:, 1] + gap[:, 2]  # CHANNEL_WEIGHTS, twice
            lines = sum(both[:, i::size] for i in range(size))
            np.minimum(best, sum(lines[:, :, i::size] for i in range(size)), out=best)
    return np.asarray(best.mean(axis=(1, 2)) / (2 * size * size))


def _histograms(grid: Grid) -> Doubles:
    """[n, 32 + 64 + 64] shares of luma and chroma, smoothed; halves of differences sum to 0..1."""
    parts = ((grid.luma, 32, 4 / 6), (grid.cb, 64, 1 / 6), (grid.cr, 64, 1 / 6))
    return np.stack(
        [
            np.concatenate(
                [_histogram(plane[i], bins) * weight / 2 for plane, bins, weight in parts]
            )
            for i in range(len(grid))
        ]
    )


def _histogram(plane: npt.NDArray[np.uint8], bins: int) -> Doubles:
    counts = np.bincount(plane.ravel(), minlength=256).reshape(bins, -1).sum(1) / plane.size
    return np.asarray(np.convolve(counts, (0.25, 0.5, 0.25), "same"))


def split(starts: Ordinals, end: int, longest: float) -> list[tuple[int, int]]:
    """[first, last) frames of the fewest equal parts of a shot that are no longer than `longest`.

    `starts` are the frames' rising stamps and `end` the stamp after the last, in any unit. Frames
    are indivisible: one that is itself longer is a part of its own. Where stamps are so uneven that
    a few more equal parts do not do, each part is as long as may be.
    """
    count, first = len(starts), int(starts[0])
    stamps = np.append(starts, end)
    least = max(1, int(np.ceil((end - first) / longest)))
    for parts in range(least, least + EVEN_TRIES):
        targets = first + np.arange(1, parts) * ((end - first) / parts)
        bounds = np.unique([0, *np.searchsorted(starts, targets, "left"), count])
        if np.diff(stamps[bounds]).max() <= longest:
            return _parts(bounds)
    greedy = [0]
    while greedy[-1] < count:
        last = int(np.searchsorted(stamps, stamps[greedy[-1]] + longest, "right")) - 1
        greedy.append(max(last, greedy[-1] + 1))
    return _parts(greedy)


def _parts(bounds: Iterable[int]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
