"""A second opinion on cuts: a network's, where the detector is in doubt or everywhere.

    grids ──▶ detector ──▶ cuts ──────────────────────▶ cuts
                      └──▶ doubts ──▶ network's word ──┘

The network sees the sparse grid as small RGB pictures: over real footage it says the same of them
as of pictures that were scaled down from every pixel. It costs more than decoding does, so by
default it is asked only of pairs that the detector's score leaves open.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from telecine.encoders.frames import ColorMap
from telecine.encoders.shots.interface import HEIGHT, WIDTH, Frames, ShotNetwork
from telecine.manifests.specs import ScanSpec
from telecine.pipeline.media.color import color_map
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.segment import CutDetector
from telecine.pipeline.scan.transitions import Transition

CONTEXT = 50  # frames on either side of one that its verdict depends on
ASKED = 50  # frames that are judged at once where all are
MIN_CUT = 0.5  # of the network's 0..1, for a cut that the detector did not find
MIN_KEPT = 0.1  # the like for one that it did: overruled only where the network is certain
NEAR = 1  # frames that its place of a cut may be off the detector's


def make_detector(spec: ScanSpec, facts: MediaFacts) -> CutDetector | SecondOpinion:
    """What the spec says finds cuts, for frames with these facts. Raises MissingExtra."""
    first = CutDetector(facts.color_range == "full")
    if spec.detector == "adaptive":
        return first
    from telecine.encoders.shots.transnet import network

    grid_is_yuv = facts.color_matrix != "rgb"  # else it was made so, BT.709 of full range
    tags = (facts.color_matrix, facts.color_range) if grid_is_yuv else ("bt709", "full")
    everywhere = spec.detector == "transnetv2:all"
    return SecondOpinion(first, network(), color_map(*tags), everywhere)


class SecondOpinion:
    """A detector (its interface too) that leaves the last word to a network."""

    def __init__(
        self, detector: CutDetector, network: ShotNetwork, colors: ColorMap, everywhere: bool
    ) -> None:
        """`colors` are those of the grid's values. Asks of every frame where `everywhere`."""
        self._detector, self._network = detector, network
        self._colors, self._everywhere = colors, everywhere
        self._pictures: Frames = np.empty((0, HEIGHT, WIDTH, 3), np.uint8)
        self._start = 0  # ordinal of the first picture held
        self._open: list[int] = []  # cuts that the detector found and nobody has judged
        self._doubts: list[int] = []
        self.decided = 1

    def push(self, grid: Grid) -> list[int]:
        """The cuts that these frames decide on; `decided` moves on."""
        self._pictures = np.concatenate([self._pictures, pictures(grid, self._colors)])
        self._open += self._detector.push(grid)
        return self._decide(self._end - CONTEXT)

    def finish(self) -> list[int]:
        """The cuts among the last frames."""
        self._open += self._detector.finish()
        return self._decide(self._end)

    @property
    def transitions(self) -> list[Transition]:
        return self._detector.transitions

    def take_news(self) -> list[Transition]:
        return self._detector.take_news()

    @property
    def _end(self) -> int:
        return self._start + len(self._pictures)

    def _decide(self, upto: int) -> list[int]:
        """Cuts among the frames whose context is there: those before `upto`."""
        self._doubts += self._detector.take_doubts()
        cuts = self._ask_of_all(upto) if self._everywhere else self._ask_of_doubts(upto)
        forgotten = max(0, self.decided - CONTEXT - self._start)
        self._pictures, self._start = self._pictures[forgotten:], self._start + forgotten
        return cuts

    def _ask_of_doubts(self, upto: int) -> list[int]:
        while self._doubts and self._doubts[0] < upto:
            doubt = self._doubts.pop(0)
            sure = self._judged(doubt - 1 - NEAR, doubt + NEAR).max()
            if doubt in self._open and sure < MIN_KEPT:
                self._open.remove(doubt)
            elif doubt not in self._open and sure > MIN_CUT:
                self._open = sorted([*self._open, doubt])
        self.decided = min([self._detector.decided, *self._doubts])
        cuts = [cut for cut in self._open if cut < self.decided]
        self._open = self._open[len(cuts) :]
        return cuts

    def _ask_of_all(self, upto: int) -> list[int]:
        cuts: list[int] = []
        whole = upto == self._end  # nothing follows
        while self.decided < upto and (whole or self.decided + ASKED <= upto):
            last = min(self.decided + ASKED, upto)
            # From the frame before on, so that a peak at the border is known for one.
            sure = self._judged(self.decided - 2, last)
            cuts += [self.decided + int(p) for p in _peaks(sure)]
            self.decided = last
        found = [self._as_detected(cut) for cut in cuts]
        self._open = [cut for cut in self._open if cut >= self.decided - NEAR]
        return sorted(set(found))

    def _as_detected(self, cut: int) -> int:
        """The detector's place where it saw the cut too: it compares the very frames."""
        near = [one for one in self._open if abs(one - cut) <= NEAR]
        return min(near, key=lambda one: abs(one - cut), default=cut)

    def _judged(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """The network's word on the frames [first, last); 0 of those that are not there."""
        low = max(self._start, first - CONTEXT)
        high = min(self._end, last + CONTEXT)
        sure = self._network.judge(self._pictures[low - self._start : high - self._start]).cut
        whole = np.zeros(last - first, np.float32)
        begin, end = max(first, low), min(last, high)
        whole[begin - first : end - first] = sure[begin - low : end - low]
        return whole


def _peaks(sure: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Places of the highest of each run above MIN_CUT; those at either end stand outside."""
    above = sure > MIN_CUT
    highest = (sure[1:-1] >= sure[:-2]) & (sure[1:-1] > sure[2:]) & above[1:-1]
    return np.flatnonzero(highest)


def pictures(grid: Grid, colors: ColorMap) -> Frames:
    """uint8 RGB [n, 27, 48, 3]: the grid's samples as colours, at the network's size."""
    height, width = grid.luma.shape[1:]
    planes = np.stack([grid.luma, *(_at(p, height, width) for p in (grid.cb, grid.cr))], axis=-1)
    matrix = np.array(colors.matrix, np.float32).reshape(3, 3)
    rgb = planes.astype(np.float32) @ matrix.T + np.array(colors.offset, np.float32)
    small = _linear(_linear(rgb.clip(0, 255), HEIGHT, 1), WIDTH, 2)
    return np.asarray((small + np.float32(0.5)).astype(np.uint8))


def _at(plane: Frames, height: int, width: int) -> Frames:
    """The nearest chroma sample to each luma sample."""
    down = np.arange(height) * plane.shape[1] // height
    across = np.arange(width) * plane.shape[2] // width
    return np.asarray(plane[:, down[:, None], across])


def _linear(values: npt.NDArray[np.float32], size: int, axis: int) -> npt.NDArray[np.float32]:
    """Another number of samples along an axis, linear between those that there are."""
    count = values.shape[axis]
    places = ((np.arange(size) + 0.5) * count / size - 0.5).clip(0, count - 1)
    low = places.astype(np.int64)
    share = (places - low).astype(np.float32).reshape(-1, *([1] * (values.ndim - axis - 1)))
    after = np.minimum(low + 1, count - 1)
    return np.asarray(values.take(low, axis) * (1 - share) + values.take(after, axis) * share)
