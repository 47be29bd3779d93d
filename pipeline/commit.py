"""commit: gather receipts and append them, a few seconds' worth at a time.

A commit per receipt would make the table's log the bottleneck; a commit at the end would lose a
night's work. Tables are appended in the order given, the one that says "done" last: a run killed
in between leaves rows that nothing names yet, and the next run does not append them twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from types import TracebackType

from telecine.infra.errors import CommitError, TelecineError
from telecine.infra.faults import kill_point
from telecine.manifests.schemas import Row
from telecine.manifests.tables import Tables

COMMIT_SECONDS = 10.0
COMMIT_BYTES = 64 * 2**20


class Commits:
    def __init__(
        self, tables: Tables, names: Sequence[str], every_seconds: float = COMMIT_SECONDS
    ) -> None:
        self._tables = tables
        self._rows: dict[str, list[Row]] = {name: [] for name in names}
        self._every_seconds = every_seconds
        self._last = time.monotonic()
        self._bytes = 0

    def __enter__(self) -> Commits:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What is done is committed, also where the run ends with an error."""
        if kind is None:
            self.flush()
        elif not issubclass(kind, CommitError):
            with contextlib.suppress(TelecineError):  # the first error is the one to tell
                self.flush()

    def add(self, name: str, rows: Sequence[Row], size_bytes: int = 0) -> None:
        self._rows[name].extend(rows)
        self._bytes += size_bytes

    def flush_if_due(self) -> None:
        due = time.monotonic() - self._last >= self._every_seconds
        if due or self._bytes >= COMMIT_BYTES:
            self.flush()

    def flush(self) -> None:
        for name, rows in self._rows.items():
            kill_point("commit", name)
            self._tables.append(name, rows)
            kill_point("committed", name)
            rows.clear()
        self._bytes = 0
        self._last = time.monotonic()
