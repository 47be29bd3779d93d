"""Progress of long work, told to a `Progress`: the command draws it, a library is silent.

with Step(progress, "scan", "sources", total, total_bytes) as step:
...
step.advance(weight=size_bytes)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from telecine.infra.text import length


@dataclass
class Tally:
    """What one step has done so far."""

    verb: str  # the step: scan, caption, build
    unit: str  # what is counted: sources, clips, shards
    total: int
    total_weight: float  # bytes or frames: what time left is reckoned by
    done: int = 0
    weight: float = 0.0
    frames: int = 0
    seconds: float = 0.0  # of footage
    began: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        elapsed = max(time.monotonic() - self.began, 1e-6)
        parts = [f"{self.done}/{self.total} {self.unit}"]
        if self.seconds:
            parts.append(f"{length(self.seconds)} of footage")
        if self.frames:
            parts.append(f"{self.frames / elapsed:,.0f} frames/s")
        # Early on, starting Ray and loading models would be taken for the pace of the work.
        if self.total_weight / 20 < self.weight < self.total_weight:
            left = elapsed * (self.total_weight - self.weight) / self.weight
            parts.append(f"{_clock(left)} left")
        return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Progress(Protocol):
    """Told of each step as it begins, goes on and ends; the tally is the same one throughout."""

    def begin(self, tally: Tally) -> None: ...

    def advance(self, tally: Tally) -> None: ...

    def end(self, tally: Tally) -> None: ...


class Silent(Progress):
    def begin(self, tally: Tally) -> None:
        pass

    def advance(self, tally: Tally) -> None:
        pass

    def end(self, tally: Tally) -> None:
        pass


SILENT = Silent()


class Step:
    """One step's tally, told to a progress while it runs. Use as a context manager."""

    def __init__(
        self, progress: Progress, verb: str, unit: str, total: int, total_weight: float
    ) -> None:
        self.tally = Tally(verb, unit, total, total_weight)
        self._progress = progress

    def __enter__(self) -> Step:
        self._progress.begin(self.tally)
        return self

    def advance(
        self, *, done: int = 1, weight: float = 1.0, frames: int = 0, seconds: float = 0.0
    ) -> None:
        self.tally.done += done
        self.tally.weight += weight
        self.tally.frames += frames
        self.tally.seconds += seconds
        self._progress.advance(self.tally)

    def __exit__(self, *_: object) -> None:
        self._progress.end(self.tally)
