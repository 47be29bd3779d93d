"""Which frames become stills, chosen while the end of their clip is still unknown. Pure.

    frames      ││││││││││││││││││││││││││││││││││││││││   one waits per slot of `fine` seconds
    young shot  │  │  │  │  │  │                          thinned as the shot grows longer
    older shot  │              │              │           one per second: developed at once

A frame waits until the detector has decided on it, then joins its shot. A shot that may yet end
needs many frames close together, a long one few: from a shot of age A every `interval(A)` seconds.
A few of its stills are looked at closely, at the resolution of the frame: that costs more.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from telecine.manifests.specs import ScanSpec, StillSpec

Frame = TypeVar("Frame")
Developed = TypeVar("Developed")

CLOSELY = 3  # stills of a shot that are looked at closely; of an old shot's clips twice as many


@dataclass(frozen=True)
class Candidate(Generic[Frame]):
    ordinal: int
    seconds: float
    slot: int
    before_gap: bool  # the next frame is more than a still's distance away
    frame: Frame


def wanted(seconds: float, spec: StillSpec) -> int:
    """Stills of a clip of this length."""
    return min(max(round(seconds * spec.per_second), spec.minimum), spec.maximum)


def evenly(count: int, of: int) -> list[int]:
    """`count` places out of `of`, spread over all of them: the middle of each equal part."""
    if count >= of:
        return list(range(of))
    return [(2 * i + 1) * of // (2 * count) for i in range(count)]


class StillPicker(Generic[Frame, Developed]):
    """Holds few frames at a time; what is certain to be used is developed and let go."""

    def __init__(self, spec: ScanSpec, develop: Callable[[Frame, bool], Developed]) -> None:
        """`develop` is told whether to look closely."""
        self._spec, self._develop = spec, develop
        regular = 1 / spec.stills.per_second
        needed = spec.min_seconds / spec.stills.minimum / 2
        self._regular = regular
        # Halves of halves of the regular distance, so that thinning ends exactly there.
        halvings = max(0, math.ceil(math.log2(regular / needed)))
        self._fine: float = regular / 2**halvings
        self._waiting: deque[Candidate[Frame]] = deque()
        self._last: Candidate[Frame] | None = None  # the frame offered last, if it does not wait
        self._slot = -1
        self._shot: list[Candidate[Frame]] = []
        self._begin: float | None = None  # of the shot, in seconds
        self._age = 0.0
        self._regular_now = False  # the shot is old enough: what it holds is developed
        shortest = spec.max_seconds / 2  # clip of such a shot
        self._apart = max(1, int(shortest / self._interval(math.inf) / (2 * CLOSELY)))
        self._since = 0  # stills since the shot is old
        self.developed: dict[int, Developed] = {}  # by ordinal

    def offer(self, ordinal: int, seconds: float, frame: Frame) -> None:
        """Every frame of the source, in order; `seconds` never fall."""
        last = self._last
        if last is not None and seconds - last.seconds > self._regular:
            self._waiting.append(last)
        slot = math.floor(seconds / self._fine)
        here = Candidate(ordinal, seconds, slot, slot == self._slot, frame)
        self._last = here if slot == self._slot else None
        if slot != self._slot:
            self._waiting.append(here)
        self._slot = slot

    def decide(self, cuts: Sequence[int], upto: int) -> None:
        """The frames before `upto` are decided on; `cuts` are the shots that begin among them."""
        for cut in [*cuts, upto]:
            while self._waiting and self._waiting[0].ordinal < cut:
                self._join(self._waiting.popleft())
            if cut < upto:
                after = self._waiting[0] if self._waiting else self._last
                self.end_shot(math.inf if after is None else after.seconds)

    def end_shot(self, until: float = math.inf) -> None:
        """Develops the frames that the shot needs; it ended at `until`, or before."""
        self._keep_needed(self._shot, until)
        self._shot, self._begin, self._age = [], None, 0.0
        self._regular_now, self._since = False, 0

    def leave_out(self, start: int, end: int) -> None:
        """Frames [start, end) lie between two shots: the last one ended before them.

        It may have been thinned for a longer shot. One that a cut has ended since keeps what it
        has, and so does an old one.
        """
        after = [one for one in self._shot if one.ordinal >= end]
        if self._begin is None or len(after) == len(self._shot):
            return
        later = [one.seconds for one in self._shot if one.ordinal >= start]
        before = self._shot[: len(self._shot) - len(later)]
        self._keep_needed(before, later[0] if later else math.inf)
        self._shot = []
        self.end_shot()
        for one in after:
            self._join(one)

    def finish(self) -> None:
        while self._waiting:
            self._join(self._waiting.popleft())
        self._last = None  # it does not stand before what comes next, however far that is
        self.end_shot()

    def _join(self, candidate: Candidate[Frame]) -> None:
        if self._begin is None:
            self._begin = candidate.seconds
        self._age = candidate.seconds - self._begin
        self._shot.append(candidate)
        interval = self._interval(self._age)
        halvings = max(0, math.floor(math.log2(interval / self._fine) + 1e-9))
        fewest = 0 if self._regular_now else self._spec.stills.minimum
        self._shot = next(
            thinned
            for coarser in range(halvings, -1, -1)
            if len(thinned := self._thinned(coarser)) >= fewest or not coarser
        )
        if interval == self._interval(math.inf):
            if not self._regular_now:
                self._keep_all(self._shot)
            elif self._shot[-1] is candidate:
                self._since += 1
                self._keep(candidate, self._since % self._apart == 0)
            self._shot, self._regular_now = self._shot[-1:], True

    def _interval(self, age: float) -> float:
        """Seconds between stills of a shot of this age, as far as one knows.

        A shot longer than `max_seconds` is split in parts no shorter than half of it.
        """
        stills, age = self._spec.stills, min(age, self._spec.max_seconds / 2)
        return max(self._fine, min(age / stills.minimum, self._regular), age / stills.maximum)

    def _thinned(self, halvings: int) -> list[Candidate[Frame]]:
        """The first candidate of each longer slot, and those that stand before a gap."""
        thinned: list[Candidate[Frame]] = []
        slot = -1
        for one in self._shot:
            if one.slot >> halvings != slot or one.before_gap:
                thinned.append(one)
            slot = one.slot >> halvings
        return thinned

    def _keep_needed(self, held: Sequence[Candidate[Frame]], until: float) -> None:
        """Of a young shot; one is enough where it is surely too short for a clip."""
        if self._regular_now or self._begin is None or not held:
            return
        longest = until - self._begin + self._fine  # the first frame held may be a slot late
        if longest < self._spec.min_seconds:
            self._keep(held[len(held) // 2], closely=False)
            return
        number = wanted(held[-1].seconds - self._begin, self._spec.stills)
        self._keep_all([held[place] for place in evenly(number, len(held))])

    def _keep_all(self, shot: Sequence[Candidate[Frame]]) -> None:
        closely = evenly(CLOSELY, len(shot))
        for place, one in enumerate(shot):
            self._keep(one, place in closely)

    def _keep(self, one: Candidate[Frame], closely: bool) -> None:
        if one.ordinal not in self.developed:
            self.developed[one.ordinal] = self._develop(one.frame, closely)


def choose(ordinals: Sequence[int], start: int, end: int, count: int) -> list[int]:
    """`count` of the sorted ordinals in [start, end), spread evenly; all where there are fewer."""
    inside = ordinals[bisect_left(ordinals, start) : bisect_left(ordinals, end)]
    return [inside[place] for place in evenly(count, len(inside))]
