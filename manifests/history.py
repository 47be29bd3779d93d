"""A version of a dataset by a name that a user can give: which version of each table it is.

    DATASET@now                  as it is
    DATASET@7                    right after event 7 of `builds` (the column `sequence`)
    DATASET@2026-11-20T10:30     as it was at that time, UTC; a day alone: at its end

Every table is append-only and has versions of its own; each commit in its Delta log bears a time.
At a moment a table is what its last commit until then left. An event also pins the versions that
its plan was made from: a version is never older than these, whatever a machine's clock said.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from telecine.infra.errors import NotFound, UsageError
from telecine.manifests.builds import PINNED, pinned
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build, from_arrow
from telecine.manifests.tables import NO_TABLE

# What is compared; the other tables are left as they are now.
COMPARED = ("sources", "clips", "captions", "scores", "samples", "builds")
HOW = (
    "write DATASET@N for the dataset right after event N of telecine inspect DATASET builds, "
    "DATASET@now, or a time in UTC: DATASET@2026-11-20, DATASET@2026-11-20T10:30"
)


@dataclass(frozen=True)
class Version:
    """Table versions by name; a table that is not named is as it is now."""

    name: str  # as in @7
    at: datetime | None  # None: now
    tables: Mapping[str, int]


def split(text: str) -> tuple[str, str]:
    """The dataset and the version in DATASET@VERSION. Raises UsageError where there is none."""
    dataset, _, version = text.rpartition("@")
    if not dataset or not version or "/" in version:
        raise UsageError(f"{text!r} names no version of a dataset: {HOW}")
    return dataset, version


def find_version(dataset: Dataset, name: str) -> Version:
    """The version of that name, without the @.

    Raises UsageError where there is none, or gc has removed files that it needs.
    """
    if name == "now":
        return Version("@now", None, {n: dataset.tables.version(n) for n in COMPARED})
    if re.fullmatch(r"\d{1,18}", name):
        found = _at_event(dataset, int(name))
    else:
        at = _time(name)
        found = Version(f"@{name}", at, {n: _Log(dataset, n).version_at(at) for n in COMPARED})
    for table, version in found.tables.items():
        _refuse_removed(dataset, found.name, table, version)
    return found


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"@{text} is no version of a dataset: {HOW}") from error
    try:
        if re.fullmatch(r"[\d-]+", text):  # a day, up to its end
            return datetime.combine(at.date(), time(), UTC) + timedelta(days=1, microseconds=-1)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise UsageError(f"@{text} is no time of a dataset: {HOW}") from error


def _at_event(dataset: Dataset, sequence: int) -> Version:
    events = from_arrow(
        connect(dataset.tables).sql("FROM builds ORDER BY sequence").to_arrow_table(), Build
    )
    event = next((e for e in events if e.sequence == sequence), None)
    if event is None:
        last = f"its last is {events[-1].sequence}" if events else "it has none yet"
        raise UsageError(f"@{sequence}: the dataset has no such event of a build, {last}; {HOW}")
    log = _Log(dataset, "builds")
    version = log.version_with_row(sequence, _start(events, sequence))
    at = log.time(version)
    versions = {n: _Log(dataset, n).version_at(at) for n in COMPARED}
    known = pinned(event)
    least = {name: known[name] for name in COMPARED if name in PINNED}
    versions |= {name: max(versions[name], version) for name, version in least.items()}
    return Version(f"@{sequence}", at, versions | {"builds": version})


def _start(events: list[Build], sequence: int) -> tuple[int, int]:
    """A version of `builds` before the event's, and how many rows it had: the nearest that is
    known, since a plan's first event pins the version that it was appended to.
    """
    planned = [e for e in events if e.event == "planned" and e.sequence <= sequence]
    if not planned:
        return NO_TABLE, 0
    return planned[-1].builds_version, planned[-1].sequence


class _Log:
    """The Delta log of one table: a JSON file a commit, by the protocol's own names."""

    def __init__(self, dataset: Dataset, table: str) -> None:
        self._dataset, self._table = dataset, table
        self._last = dataset.tables.version(table)

    def version_at(self, at: datetime) -> int:
        """The last version committed until then, NO_TABLE before the first. Reads a few commits."""
        return bisect_right(range(self._last + 1), at, key=self.time) - 1

    def version_with_row(self, row: int, start: tuple[int, int]) -> int:
        """The version that added a row by its number, given the rows of a version before it."""
        version, rows = start
        while rows <= row and version < self._last:
            version += 1
            rows += self._rows_added(version)
        return version

    def time(self, version: int) -> datetime:
        for entry in self._commit(version):
            if "commitInfo" in entry:
                return datetime.fromtimestamp(entry["commitInfo"]["timestamp"] / 1000, UTC)
        raise UsageError(f"version {version} of table {self._table} bears no time: name an event")

    def _rows_added(self, version: int) -> int:
        added = [entry["add"] for entry in self._commit(version) if "add" in entry]
        return sum(json.loads(a["stats"])["numRecords"] for a in added if a["dataChange"])

    def _commit(self, version: int) -> list[dict[str, Any]]:
        path = self._dataset.path(f"tables/{self._table}/_delta_log/{version:020d}.json")
        text = self._dataset.storage.read_bytes(path).decode()
        return [json.loads(line) for line in text.splitlines() if line]


def _refuse_removed(dataset: Dataset, name: str, table: str, version: int) -> None:
    if version in (NO_TABLE, dataset.tables.version(table)):
        return
    start = len(dataset.tables.uri) + 1
    needed = {path[start:] for path in dataset.tables.files(table, version)}
    there: set[str] = set()
    try:
        found = dataset.storage.list(dataset.path(f"tables/{table}"), follow_links=False)
        there = {info.uri[len(dataset.path("")) :] for info in found}
    except NotFound:
        pass
    if gone := needed - there:
        raise UsageError(
            f"{name} can no longer be read: {len(gone)} of the {len(needed)} files of table "
            f"{table} at that version are gone; telecine gc removes files a week after they were "
            "merged into larger ones. Name a later version"
        )
