"""Segment: where the shots are, and the spans they are split into. Pure NumPy, streaming.

A hard cut is a frame pair that differs far more than the pairs around it, in two ways at once:

    structure   what is left of the difference when each block of the picture may have moved
    histogram   how brightness and colour are distributed, wherever they are

Motion, however violent, leaves the histogram; a lamp that is switched leaves the structure of its
neighbours; a cut leaves neither. What covers part of the picture (a subtitle, a window, another
picture) leaves the details of the rest where they are. The adaptive ratio to the neighbouring pairs
is that of adaptive detectors (PySceneDetect's AdaptiveDetector), the block search that of motion
compensation.

Neighbours are pairs that differ. Where pictures are repeated, as those of a film of 24 a second in
a file of 60, most pairs differ by nothing, and beside those every new picture would stand out:

    difference   . . 5 . . 4 . 6 . . 40 . . 5 . 4 . . 5     (. next to nothing)
    neighbours       n     n   n     ^^     n   n     n
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.pipeline.scan.grid import Grid, thumbnails
from telecine.pipeline.scan.transitions import Transition, TransitionDetector

NEIGHBOURS = 3  # pairs on either side that a pair is compared with
REACH = 16  # frames on either side that they are looked for in
FEWEST = 2  # pairs that differ make a rhythm
MAX_REPEATS = 6  # frames that a picture may stay in it: 10 pictures a second in a file of 60
SAME = 0.3  # 8-bit levels: a pair that differs less shows one picture twice, coded anew
SAME_OF_JUDGED = 0.05  # of the difference that is judged: neighbours below change no verdict
SAME_OF_TYPICAL = 0.25  # of what pictures around differ by
FLASH_PICTURES = 4  # a picture that is back after fewer others had not been cut away from
MIN_DIFFERENCE, MIN_DIFFERENCE_RATIO = 2.5, 1.3  # cheap: what is worth a closer look
MIN_DISTRIBUTION = 1.0  # cheap as well: most pans end here
MIN_RESIDUAL = 4.0  # 8-bit levels
# True cuts of the labelled footage score 2.33 and more. Of 1,328 that were darkened, put in fog,
# under flicker, shaken or thinned to a third of their rate, 2 % are found at 1.7 and not at 1.8.
MIN_SCORE = 1.7
DOUBTFUL = (1.4, 3.0)  # scores that a look at the whole would settle better
MAX_FLASH = 0.5  # of the residual at its beginning, if blocks are found again
MAX_FLASH_CHANGE, MAX_FLASH_MOVED = 0.2, 0.9  # of both, if the picture has moved
LIMITED = (16, 235)  # luma of limited range: what lies beyond is not seen
BLACK = 20  # luma: cells that are as dark in both pictures are bars
MIN_DETAIL, MAX_LOSS = 2.0, 0.5  # 8-bit levels; of a block's detail
MAX_PERSISTENCE = 0.3  # 57 of 58 true cuts leave at most 0.04, the other 0.08
CHANNEL_WEIGHTS = (1.0, 0.5, 0.5)
EVEN_TRIES = 3  # numbers of equal parts that a shot is split into before they may be unequal
SHIFT, BLOCK = 2, 4  # cells that a block may move, and its size

Ordinals = npt.NDArray[np.int64]
Thumbs = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class CutDetector:
    """Finds hard cuts and transitions in frames of one size that arrive in chunks.

    Ordinals count from the first frame pushed. A cut is the ordinal of a new shot's first frame.
    Frames before `decided` are decided on. Only a pair that may be a cut waits for what follows
    it, `REACH` frames at most.
    """

    def __init__(self, is_full_range: bool) -> None:
        self._legal = (0, 255) if is_full_range else LIMITED
        self.decided = 1  # whether there is a cut before any earlier frame is known
        self._start = 0  # ordinal of the first frame held
        self._held: Grid | None = None
        self._thumbs: Thumbs = np.empty((0, 3, 0, 0), np.int16)
        self._differences: Doubles = np.zeros(0)  # from the frame before, per frame held
        self._doubts: list[int] = []
        self._gradual = TransitionDetector()
        self._news: list[Transition] = []

    def push(self, grid: Grid) -> list[int]:
        """The cuts that these frames decide on; `decided` moves on."""
        grid = replace(grid, luma=grid.luma.clip(*self._legal))
        thumbs = thumbnails(grid)
        if self._held is None:
            before, self._held, self._thumbs = thumbs[:1], grid, thumbs
        else:
            before, self._held = self._thumbs[-1:], self._held.then(grid)
            self._thumbs = np.concatenate([self._thumbs, thumbs])
        new = _differences(np.concatenate([before, thumbs]))
        self._differences = np.concatenate([self._differences, new])
        cuts = self._decide(is_last=False)
        self._news += self._gradual.push(thumbs[:, 0], cuts, self.decided)
        return cuts

    def finish(self) -> list[int]:
        """The cuts among the last frames, and the last transitions."""
        cuts = self._decide(is_last=True)
        self._news += self._gradual.finish(cuts, self.decided)
        return cuts

    @property
    def transitions(self) -> list[Transition]:
        """Complete after `finish`; those that are not sure are worth a closer look."""
        return self._gradual.settled

    def take_news(self) -> list[Transition]:
        """Transitions seen since the last call; they may reach further than is known."""
        news, self._news = self._news, []
        return news

    def take_doubts(self) -> list[int]:
        """Frames decided on since the last call whose verdict was a near thing, in order."""
        taken, self._doubts = self._doubts, []
        return taken

    def _decide(self, is_last: bool) -> list[int]:
        cuts: list[int] = []
        place, count = self.decided - self._start, len(self._thumbs)
        for t in (np.flatnonzero(self._differences[place:] > MIN_DIFFERENCE) + place).tolist():
            if not self._may_be_cut(t):
                continue
            if t + REACH >= len(self._thumbs) and not is_last:
                count = t
                break
            if self._is_cut(t):
                cuts.append(self._start + t)
        self.decided = max(self.decided, self._start + count)
        self._forget(self.decided - self._start - REACH - 1)
        return cuts

    def _forget(self, frames: int) -> None:
        if frames > 0 and self._held is not None:
            self._start += frames
            self._held = self._held[frames:]
            self._thumbs = self._thumbs[frames:]
            self._differences = self._differences[frames:]

    def _may_be_cut(self, t: int) -> bool:
        """What is known before the frames that follow: a cut is no less than what comes before."""
        before = _rhythm(self._before(t), t)
        return len(before) < FEWEST or bool(self._differences[t] >= self._differences[before].max())

    def _after(self, t: int) -> Ordinals:
        """Places after t, within reach, whose frames differ from the ones before them."""
        ahead = self._differences[t + 1 : t + 1 + REACH]
        return t + 1 + _differing(ahead, self._differences[t])

    def _before(self, t: int) -> Ordinals:
        """The like before t, the nearest first. The first frame held follows none."""
        behind = self._differences[max(1, t - REACH) : t][::-1]
        return t - 1 - _differing(behind, self._differences[t])

    def _neighbours(self, t: int) -> Ordinals:
        """Pairs that a pair is compared with, on each side of it."""
        after, before = self._rhythms(t)
        repeats, count = _repeats(after, before, t), len(self._thumbs)
        if not _is_telling(after, count - 1 - t, repeats):
            after = np.arange(t + 1, min(count, t + 1 + NEIGHBOURS))
        if not _is_telling(before, t - 1, repeats):
            before = np.arange(max(1, t - NEIGHBOURS), t)
        return np.concatenate([before, after])

    def _rhythms(self, t: int) -> tuple[Ordinals, Ordinals]:
        return _rhythm(self._after(t), t), _rhythm(self._before(t), t)

    def _is_less_than_next(self, t: int) -> bool:
        """Cheap, and settles most of violent motion: the next pair differs more, not by noise."""
        ahead = self._differences[t + 1 : t + 1 + REACH]
        return len(ahead) > 0 and bool(
            ahead[0] > self._differences[t] and ahead[0] >= SAME_OF_TYPICAL * ahead.max()
        )

    def _is_cut(self, t: int) -> bool:
        assert self._held is not None
        if self._is_less_than_next(t):
            return False
        places, values = self._neighbours(t), self._differences
        if not _stands_out(values[t], values[places]):
            return False
        pairs = np.append(places, t)
        changes = _changes(self._held, pairs)
        distribution = changes[-1] / (0.03 + _mean(changes[:-1]))
        if distribution < MIN_DISTRIBUTION:
            return False
        residuals = residual(self._thumbs[pairs], self._thumbs[pairs - 1])
        structure = residuals[-1] / (1 + _mean(residuals[:-1]))
        score = float(np.sqrt(structure * distribution))
        stands = residuals[-1] >= MIN_RESIDUAL and score >= MIN_SCORE
        cuts = (
            stands
            and persistence(self._thumbs[t - 1], self._thumbs[t]) < MAX_PERSISTENCE
            and not self._is_flash(t, float(residuals[-1]), float(changes[-1]))
        )
        if stands > cuts or DOUBTFUL[0] <= score < DOUBTFUL[1]:
            self._doubts.append(self._start + t)
        return cuts

    def _is_flash(self, t: int, peak: float, change: float) -> bool:
        """Whether the picture before is back soon after, or the one after was there before.

        `peak` and `change` are the residual and the change of histograms from t - 1 to t. What has
        moved too far meanwhile for its blocks to be found is known by its histogram.
        """
        longest = FLASH_PICTURES * _repeats(*self._rhythms(t), t)
        after = self._pictures(self._after(t), t + 1, longest)
        earlier = self._pictures(self._before(t) - 1, t - 2, longest)
        return self._is_back(after, t - 1, peak, change) or self._is_back(earlier, t, peak, change)

    def _is_back(self, places: Ordinals, place: int, peak: float, change: float) -> bool:
        assert self._held is not None
        if not len(places):
            return False
        there = self._thumbs[places]
        apart = _apart(there, np.broadcast_to(self._thumbs[place], there.shape)) / peak
        histograms = _histograms(self._held, np.append(places, place))
        changes = np.abs(histograms[:-1] - histograms[-1]).sum(1) / change
        return bool(
            ((apart < MAX_FLASH) | ((changes < MAX_FLASH_CHANGE) & (apart < MAX_FLASH_MOVED))).any()
        )

    def _pictures(self, places: Ordinals, t: int, longest: int) -> Ordinals:
        near = places[:FLASH_PICTURES]
        return near[np.abs(near - t) <= longest]


def _repeats(after: Ordinals, before: Ordinals, t: int) -> int:
    """Frames that a picture stays, about, by the rhythms on both sides of a pair."""
    gaps = [
        abs(int(places[-1]) - t) / len(places)
        for places in (after, before)
        if len(places) >= FEWEST
    ]
    return math.ceil(min(gaps, default=1))


def _differing(values: Doubles, judged: float) -> Ordinals:
    """Places of pairs that show two pictures, beside a pair that differs by `judged`.

    Repeats that are coded anew differ a little: less than `SAME`, or by a small share of what the
    pictures around them differ by, of which the third largest is sure to be no cut.
    """
    typical = float(np.sort(values)[-NEIGHBOURS]) if len(values) >= NEIGHBOURS else 0.0
    return np.flatnonzero(values >= max(SAME, SAME_OF_JUDGED * judged, SAME_OF_TYPICAL * typical))


def _rhythm(places: Ordinals, t: int) -> Ordinals:
    """The nearest of the places, up to the first rest that is longer than any repetition.

    What differs after a rest is no picture of the same motion but, perhaps, another cut.
    """
    count, last = 0, t
    for place in places[:NEIGHBOURS].tolist():
        if abs(place - last) > MAX_REPEATS:
            break
        count, last = count + 1, place
    return places[:count]


def _is_telling(places: Ordinals, there: int, repeats: int) -> bool:
    """Whether the pairs of one side that differ say what motion there is: else the nearest do.

    Where pictures are repeated few pairs are more than none at all, and of fewer frames than one
    picture may stay (`there`) even that none differs says nothing.
    """
    return len(places) >= FEWEST or (repeats > 1 and (len(places) > 0 or there < MAX_REPEATS))


def _stands_out(value: float, around: Doubles) -> bool:
    highest = around.max(initial=0.0)
    return bool(value >= highest and value > MIN_DIFFERENCE_RATIO * (1 + _mean(around)))


def _mean(values: Doubles) -> float:
    return float(values.mean()) if len(values) else 0.0


def _changes(grid: Grid, places: Ordinals) -> Doubles:
    """Change of the histograms from the frame before to the frame at each place, 0..1."""
    frames, where = np.unique([places - 1, places], return_inverse=True)
    histograms = _histograms(grid, frames)
    before, after = where.reshape(2, -1)
    return np.asarray(np.abs(histograms[after] - histograms[before]).sum(1))


def _differences(thumbs: Thumbs) -> Doubles:
    """Mean absolute difference of each picture from the one before it, in 8-bit levels."""
    count, channels, rows, columns = thumbs.shape
    change = np.abs(thumbs[1:] - thumbs[:-1]).reshape(count - 1, channels, rows * columns)
    means = change.astype(np.float32) @ np.full(rows * columns, 1 / (rows * columns), np.float32)
    return np.asarray(means.astype(np.float64) @ np.array(CHANNEL_WEIGHTS))


def _apart(thumbs: Thumbs, others: Thumbs) -> Doubles:
    """The larger residual of either direction: a dark picture lies in many that are not dark."""
    return np.maximum(residual(thumbs, others), residual(others, thumbs))


def residual(thumbs: Thumbs, others: Thumbs) -> Doubles:
    """Difference of each pair of pictures that no motion of its blocks explains, 8-bit levels."""
    return np.asarray(_block_residuals(thumbs, others).mean(axis=(1, 2)))


def _block_residuals(thumbs: Thumbs, others: Thumbs) -> Doubles:
    """[n, rows, columns] of blocks: least difference from the other picture near by."""
    count, _, rows, columns = thumbs.shape
    size = min(BLOCK, rows, columns)
    down, across = rows // size * size, columns // size * size
    padded = np.pad(others, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    best = np.full((count, down // size, across // size), np.iinfo(np.int16).max, np.int16)
    thumbs = np.ascontiguousarray(thumbs[:, :, :down, :across])
    for y in range(2 * SHIFT + 1):
        for x in range(2 * SHIFT + 1):
            gap = np.abs(thumbs - padded[:, :, y : y + down, x : x + across])
            np.minimum(best, _block_sums(gap, size), out=best)
    return np.asarray(best / (2 * size * size))


def _block_sums(values: Thumbs, size: int) -> Thumbs:
    """[n, rows, columns] of blocks: sums over [n, 3, h, w] by CHANNEL_WEIGHTS, twice."""
    both = 2 * values[:, 0] + values[:, 1] + values[:, 2]
    lines: Thumbs = sum((both[:, i::size] for i in range(1, size)), both[:, ::size])
    total: Thumbs = sum((lines[:, :, i::size] for i in range(1, size)), lines[:, :, ::size])
    return total


def persistence(before: Thumbs, after: Thumbs) -> float:
    """Share of the detailed blocks of two pictures [3, h, w] that the other shows too, 0..1.

    In whatever light: blocks are compared less their mean luma. Flat blocks look alike in any two
    pictures, and black bars are the same: neither counts. 0 where none does.
    """
    bars = (before[:1] <= BLACK) & (after[:1] <= BLACK)
    counts = ~_blocks(bars).any(axis=(0, 2, 4))
    found = detailed = 0
    for one, other in ((before, after), (after, before)):
        parts = _even(one)
        amount = _weighed(parts - parts.mean(axis=(2, 4), keepdims=True))
        clear = counts & (amount > MIN_DETAIL)
        found += int((_loss(parts, other) < MAX_LOSS * amount)[clear].sum())
        detailed += int(clear.sum())
    return found / detailed if detailed else 0.0


def _loss(parts: Floats, other: Thumbs) -> Floats:
    """[rows, columns] of blocks: least difference from blocks near by, each less its mean luma."""
    rows, size, columns = parts.shape[1], parts.shape[2], parts.shape[3]
    padded = np.pad(other, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    best = np.full((rows, columns), np.inf, np.float32)
    for y in range(2 * SHIFT + 1):
        for x in range(2 * SHIFT + 1):
            near = padded[:, y : y + rows * size, x : x + columns * size]
            np.minimum(best, _weighed(parts - _even(near)), out=best)
    return best


def _even(picture: Thumbs) -> Floats:
    """[3, rows, size, columns, size]: blocks, less their mean luma."""
    blocks = _blocks(picture).astype(np.float32)
    blocks[:1] -= blocks[:1].mean(axis=(2, 4), keepdims=True)
    return np.asarray(blocks)


def _weighed(parts: Floats) -> Floats:
    """[rows, columns] of blocks: mean magnitude, by CHANNEL_WEIGHTS."""
    weights = np.array(CHANNEL_WEIGHTS, np.float32)
    return np.asarray(np.tensordot(weights, np.abs(parts).mean(axis=(2, 4)), 1))


def _blocks(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view [3, rows, size, columns, size] of [3, h, w]."""
    channels, height, width = picture.shape
    size = min(BLOCK, height, width)
    rows, columns = height // size, width // size
    whole = picture[:, : rows * size, : columns * size]
    return whole.reshape(channels, rows, size, columns, size)


def _histograms(grid: Grid, frames: Ordinals) -> Doubles:
    """[n, 32 + 64 + 64] shares of luma and chroma, smoothed; halves of differences sum to 0..1."""
    parts = ((grid.luma, 32, 4 / 6), (grid.cb, 64, 1 / 6), (grid.cr, 64, 1 / 6))
    return np.stack(
        [
            np.concatenate(
                [_histogram(plane[i], bins) * weight / 2 for plane, bins, weight in parts]
            )
            for i in frames
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
