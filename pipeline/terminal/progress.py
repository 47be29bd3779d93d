"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere.

scan   ━━━━━━━━━━━━━━━━━╸━━━━━  41/60 sources · 1.32 h · 612 frames/s · 0:00:31 left
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from telecine.infra.text import length

LINE_SECONDS = 10.0


@dataclass
class Tally:
    """What one step has done so far."""

    verb: str  # the step: scan, caption, shard
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


class Step:
    """Shows one step's tally while it runs. Use as a context manager."""

    def __init__(
        self, console: Console, verb: str, unit: str, total: int, total_weight: float
    ) -> None:
        self.tally = Tally(verb, unit, total, total_weight)
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last_line = time.monotonic()
        self._said = -1  # what was done at the last line

    def __enter__(self) -> Step:
        if self._console.is_terminal:
            verb, text = TextColumn("{task.description:<8}"), TextColumn("{task.fields[text]}")
            self._bar = Progress(verb, BarColumn(), text, console=self._console, transient=True)
            self._task = self._bar.add_task(
                self.tally.verb, total=self.tally.total_weight or 1, text=self.tally.text()
            )
            self._bar.start()
        return self

    def advance(
        self, *, done: int = 1, weight: float = 1.0, frames: int = 0, seconds: float = 0.0
    ) -> None:
        self.tally.done += done
        self.tally.weight += weight
        self.tally.frames += frames
        self.tally.seconds += seconds
        if self._bar is not None:
            self._bar.update(self._task, completed=self.tally.weight, text=self.tally.text())
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._line()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self.tally.total and self._said != self.tally.done:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        self._said = self.tally.done
        self._console.print(
            f"{self.tally.verb:<8} {self.tally.text()}", markup=False, highlight=False
        )
