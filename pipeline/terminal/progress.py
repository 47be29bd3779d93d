"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere.

scan   ━━━━━━━━━━━━━━━━━╸━━━━━  41/60 sources · 1.32 h · 612 frames/s · 0:00:31 left

The work tells it to a `Progress`: the command's writes on a console, a library's is silent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from telecine.infra.text import length

LINE_SECONDS = 10.0


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


class ConsoleProgress(Progress):
    """On a console, one step after the other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._task = TaskID(0)
        self._last_line = 0.0
        self._said = -1  # what was done at the last line

    def begin(self, tally: Tally) -> None:
        self._last_line, self._said = time.monotonic(), -1
        if self._console.is_terminal:
            verb, text = TextColumn("{task.description:<8}"), TextColumn("{task.fields[text]}")
            self._bars = Bars(verb, BarColumn(), text, console=self._console, transient=True)
            self._task = self._bars.add_task(
                tally.verb, total=tally.total_weight or 1, text=tally.text()
            )
            self._bars.start()

    def advance(self, tally: Tally) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=tally.weight, text=tally.text())
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._line(tally)

    def end(self, tally: Tally) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        if tally.total and self._said != tally.done:
            self._line(tally)

    def _line(self, tally: Tally) -> None:
        self._last_line = time.monotonic()
        self._said = tally.done
        self._console.print(f"{tally.verb:<8} {tally.text()}", markup=False, highlight=False)
