"""Compare: which objects of a listing are news to a dataset, and which are one another's copies.

    Listing ──compare with `sources`──▶ Discovery
                                         ├─ tasks    to scan, each with its revision
                                         ├─ carried  rows to repeat: nothing to read
                                         └─ needs_digest ──DigestWorker──▶ find_duplicates

Nothing here reads footage but `DigestWorker`, of a file whose size another one has too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from telecine.infra.bugs import telecine_version
from telecine.infra.errors import MOST_TRIES, PASSING, Reason, StorageError
from telecine.infra.store.storage import Storage
from telecine.manifests.evolve import select_filled
from telecine.manifests.schemas import Source, from_arrow
from telecine.pipeline.scan.discover import (
    BATCH_ROWS,
    Found,
    LeftOut,
    Listing,
    ScanTask,
    duckdb_over,
    rows_of,
)


class State(StrEnum):
    """What an object is to a dataset. The row in force is its URI's highest revision."""

    NEW = "new"  # unknown URI
    CHANGED = "changed"  # another version than the row in force: supersedes it
    RETRIED = (
        "retried"  # was rejected; `retry_rejected` was asked for, or its track file is another
    )
    UNFINISHED = "unfinished"  # its scan crashed, ran out of memory or time, or met a bug
    RESPECIFIED = "respecified"  # was scanned under another scan spec
    RESURRECTED = "resurrected"  # was a duplicate, of something that is no longer in force
    RESTORED = "restored"  # a version that was scanned before: that row again
    SIDECAR_CHANGED = "sidecar_changed"  # the same version, another caption or track file
    REJECTED_BEFORE = "rejected_before"  # the same version, still rejected
    UNCHANGED = "unchanged"


TO_SCAN = (
    State.NEW,
    State.CHANGED,
    State.RETRIED,
    State.UNFINISHED,
    State.RESPECIFIED,
    State.RESURRECTED,
)


@dataclass(frozen=True)
class Tally:
    objects: int
    size_bytes: int


@dataclass(frozen=True)
class Discovery:
    """A listing compared with a dataset. Tasks and rows come in URI order.

    Commit what is carried first, then the duplicates, then scans as they end: a run that is killed
    in between and started again then leaves the rows of one that was not.
    """

    to_scan: pa.Table  # Found's columns, state, revision, and what is known of the content
    tallies: Mapping[State, Tally]
    repeated: pa.Table  # Source's columns
    originals: pa.Table  # uri, source_id, size_bytes, content_digest: what tasks may duplicate
    allow_duplicates: bool
    left_out: LeftOut

    @property
    def bytes_to_read(self) -> int:
        return sum(self.tallies[state].size_bytes for state in TO_SCAN)

    def tasks(self) -> Iterator[ScanTask]:
        return (_task(row) for row in rows_of(self.to_scan))

    def carried(self) -> Iterator[Source]:
        """New rows for objects that need no scan: restored, or with another sidecar."""
        for batch in self.repeated.to_batches(max_chunksize=BATCH_ROWS):
            yield from from_arrow(pa.Table.from_batches([batch]), Source)


def compare(
    listing: Listing,
    sources: Any,
    *,
    scan_fingerprint: str,
    retry_rejected: bool = False,
    allow_duplicates: bool = False,
) -> Discovery:
    """Sort a listing by what a dataset knows. `sources`: all rows, an Arrow table or dataset."""
    spec = {"spec": scan_fingerprint}
    flags = {
        "retry": retry_rejected,
        "passing": list(PASSING),
        "most": MOST_TRIES,
        "internal": Reason.INTERNAL,
        "telecine": telecine_version(),
    }
    with duckdb_over(found=listing.objects, stored=sources) as con:
        con.execute(f"CREATE VIEW sources AS {select_filled(Source, 'stored')}")
        con.execute(_KNOWN)
        twice = {"twice": allow_duplicates}
        con.execute(_RESTORED, spec | twice)
        con.execute(_STATES, spec | twice | flags)
        tallies = con.execute(_TALLIES).fetchall()
        return Discovery(
            to_scan=con.sql(_TO_SCAN, params={"states": list(TO_SCAN)}).to_arrow_table(),
            tallies={s: Tally(0, 0) for s in State}
            | {State(s): Tally(n, b) for s, n, b in tallies},
            repeated=con.sql(_REPEATED).to_arrow_table(),
            originals=con.sql("FROM originals ORDER BY uri").to_arrow_table(),
            allow_duplicates=allow_duplicates,
            left_out=listing.left_out,
        )


_KNOWN = """
CREATE TABLE current AS
SELECT uri, revision, source_id, version, size_bytes, status, duplicate_of, content_digest,
    sidecar_uri, sidecar_version, tracks_uri, tracks_version, scan_fingerprint, reason, tries,
    telecine_version
FROM sources WHERE (uri, revision) IN (SELECT uri, max(revision) FROM sources GROUP BY uri);

-- What is about to be superseded is nobody's original any more.
CREATE TABLE originals AS
SELECT c.uri, c.source_id, c.size_bytes, c.content_digest
FROM current c LEFT JOIN found f USING (uri)
WHERE c.status IN ('scanned', 'rejected') AND c.content_digest <> '' AND c.size_bytes > 0
AND (f.version IS NULL OR f.version = c.version);
"""

_RESTORED = """
CREATE TABLE restored AS
SELECT s.uri, s.revision, s.source_id, s.size_bytes, s.content_digest
FROM sources s JOIN found f USING (uri, version) JOIN current c ON c.uri = s.uri
WHERE (c.version <> s.version OR c.status = 'duplicate')
AND s.status = 'scanned' AND s.scan_fingerprint = $spec
-- The same bytes may be in force under another name by now, or come back under two at once.
AND ($twice OR s.content_digest NOT IN (SELECT content_digest FROM originals))
QUALIFY row_number() OVER (
    PARTITION BY if($twice, s.uri, s.content_digest) ORDER BY s.uri, s.revision DESC
) = 1
"""

_STATES = """
INSERT INTO originals
SELECT uri, source_id, size_bytes, content_digest FROM restored WHERE size_bytes > 0;

CREATE TABLE states AS
SELECT f.*, coalesce(c.revision + 1, 0) AS revision,
    if(c.version = f.version, c.content_digest, '') AS content_digest,
    if(c.version = f.version, c.duplicate_of, '') AS duplicate_of,
    coalesce(r.revision, c.revision) AS copied_revision,
    if(c.version = f.version AND c.scan_fingerprint = $spec
        AND list_contains($passing, c.reason), c.tries, 0) AS tries,
    CASE
        WHEN c.uri IS NULL THEN 'new'
        WHEN c.version <> f.version THEN if(r.uri IS NULL, 'changed', 'restored')
        WHEN c.status = 'duplicate'
            THEN CASE WHEN o.source_id IS NOT NULL AND NOT $twice THEN 'unchanged'
                WHEN r.uri IS NULL THEN 'resurrected' ELSE 'restored' END
        WHEN c.scan_fingerprint <> $spec THEN 'respecified'
        WHEN c.status = 'rejected' THEN CASE
            -- It may have been for what its track file says of episodes.
            WHEN $retry OR (c.tracks_uri, c.tracks_version) <> (f.tracks_uri, f.tracks_version)
                THEN 'retried'
            WHEN list_contains($passing, c.reason) AND c.tries < $most
                OR c.reason = $internal AND c.telecine_version <> $telecine THEN 'unfinished'
            ELSE 'rejected_before' END
        WHEN (c.sidecar_uri, c.sidecar_version, c.tracks_uri, c.tracks_version)
            <> (f.sidecar_uri, f.sidecar_version, f.tracks_uri, f.tracks_version)
            THEN 'sidecar_changed'
        ELSE 'unchanged'
    END AS state
FROM found f
LEFT JOIN current c USING (uri)
LEFT JOIN restored r ON r.uri = f.uri
LEFT JOIN originals o ON o.source_id = c.duplicate_of
"""

_TALLIES = "SELECT state, count(*), sum(size_bytes)::BIGINT FROM states GROUP BY state"

_TO_SCAN = """
WITH tasks AS (
    SELECT * REPLACE (coalesce(content_digest, '') AS content_digest,
        coalesce(duplicate_of, '') AS duplicate_of)
    FROM states WHERE state IN (SELECT unnest($states))
), sizes AS (
    SELECT size_bytes, count(*) AS objects FROM
        (SELECT uri, size_bytes FROM tasks UNION SELECT uri, size_bytes FROM originals)
    GROUP BY size_bytes
)
SELECT uri, version, size_bytes, sidecar_uri, sidecar_version, tracks_uri, tracks_version, state,
    revision, duplicate_of, coalesce(tries, 0) AS tries, content_digest,
    size_bytes > 0 AND objects > 1 AND content_digest = '' AS needs_digest
FROM tasks JOIN sizes USING (size_bytes) ORDER BY uri
"""

_REPEATED = """
SELECT s.* REPLACE (t.revision AS revision, t.sidecar_uri AS sidecar_uri,
    t.sidecar_version AS sidecar_version, t.tracks_uri AS tracks_uri,
    t.tracks_version AS tracks_version)
FROM sources s JOIN states t ON s.uri = t.uri AND s.revision = t.copied_revision
WHERE t.state IN ('restored', 'sidecar_changed') ORDER BY s.uri
"""


@dataclass(frozen=True)
class Duplicates:
    rows: tuple[Source, ...]  # to commit; one that says what the row in force says is left out
    uris: frozenset[str]  # not to scan


def needs_digest(discovery: Discovery) -> Iterator[ScanTask]:
    """The tasks whose bytes may be another's: the size is the same, and no digest is known yet."""
    if discovery.allow_duplicates:
        return iter(())
    return (_task(row) for row in rows_of(discovery.to_scan.filter(pc.field("needs_digest"))))


@dataclass(frozen=True)
class DigestWorker:
    """For the pool: the content digest of an object, read whole; empty if it cannot be read."""

    storage: Storage

    def __call__(self, found: Found) -> str:
        try:
            with self.storage.open(found.info) as reader:
                return reader.content_digest()
        except StorageError:
            return ""  # the scan meets the same error, and says or keeps it


def find_duplicates(
    discovery: Discovery, digests: Mapping[str, str], *, scan_fingerprint: str
) -> Duplicates:
    """Which tasks hold the same bytes as a known source, or as a task with a smaller URI.

    `digests` by URI, of those `needs_digest` names; one that could not be read is left out and
    goes to the scan, which says why. The answer does not depend on the order of work, nor on
    which of these rows an earlier run committed before it was killed.
    """
    if discovery.allow_duplicates:
        return Duplicates((), frozenset())
    digested = list(_digested(discovery, digests))
    originals = _originals(discovery, {digest for _, digest, _ in digested})
    rows, uris = [], set()
    for task, digest, recorded in digested:
        mine = task.found.source_id
        original = originals.setdefault(digest, mine)
        if original == mine:
            continue
        uris.add(task.found.uri)
        if original != recorded:
            rows.append(_duplicate(task, digest, original, scan_fingerprint))
    return Duplicates(tuple(rows), frozenset(uris))


def _digested(
    discovery: Discovery, digests: Mapping[str, str]
) -> Iterator[tuple[ScanTask, str, str]]:
    """(task, digest, source_id it was found to duplicate before) of those that may be duplicates.

    What was scanned before and is scanned again stays what it is: others may point to it.
    """
    for row in rows_of(discovery.to_scan):
        digest = digests.get(row["uri"], "") or row["content_digest"]
        again = row["state"] in (State.RETRIED, State.UNFINISHED, State.RESPECIFIED)
        if digest and row["size_bytes"] and not again:
            yield _task(row), digest, row["duplicate_of"]


def _originals(discovery: Discovery, digests: Iterable[str]) -> dict[str, str]:
    """source_id by digest; of several (they were let in as duplicates) the smallest URI's."""
    wanted = pc.field("content_digest").isin(pa.array(digests, pa.string()))
    found = rows_of(discovery.originals.filter(wanted))
    return {row["content_digest"]: row["source_id"] for row in reversed(list(found))}


def _duplicate(task: ScanTask, digest: str, original: str, scan_fingerprint: str) -> Source:
    return Source(
        uri=task.found.uri,
        revision=task.revision,
        source_id=task.found.source_id,
        version=task.found.version,
        size_bytes=task.found.size_bytes,
        kind="",
        status="duplicate",
        duplicate_of=original,
        content_digest=digest,
        sidecar_uri=task.found.sidecar_uri,
        sidecar_version=task.found.sidecar_version,
        tracks_uri=task.found.tracks_uri,
        tracks_version=task.found.tracks_version,
        scan_fingerprint=scan_fingerprint,
    )


def _task(row: Mapping[str, Any]) -> ScanTask:
    found = Found(
        uri=row["uri"],
        version=row["version"],
        size_bytes=row["size_bytes"],
        sidecar_uri=row["sidecar_uri"],
        sidecar_version=row["sidecar_version"],
        tracks_uri=row["tracks_uri"],
        tracks_version=row["tracks_version"],
    )
    return ScanTask(found, row["revision"], row["tries"])
