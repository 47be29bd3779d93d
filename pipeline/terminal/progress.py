"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere.

scan   ━━━━━━━━━━━━━━━━━╸━━━━━  41/60 sources · 1.32 h · 612 frames/s · 0:00:31 left
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from telecine.pipeline.progress import Progress, Tally

LINE_SECONDS = 10.0


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
