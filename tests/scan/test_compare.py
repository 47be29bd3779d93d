"""Compare: what is new, what is carried over, and which objects are one another's copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.infra.bugs import telecine_version
from telecine.infra.errors import MOST_TRIES, PASSING, Reason
from telecine.infra.store.storage import Storage
from telecine.manifests.schemas import DroppedSpan, Source, to_arrow
from telecine.manifests.tables import Tables
from telecine.pipeline.scan.compare import (
    DigestWorker,
    Discovery,
    State,
    compare,
    find_duplicates,
    needs_digest,
)
from telecine.pipeline.scan.discover import Found, Listing, ScanTask, discover

SPEC = "spec-1"


def listing(*found: Found) -> Listing:
    columns = [f.name for f in fields(Found)]
    rows = sorted(found, key=lambda f: f.uri)
    types = [pa.int64() if name == "size_bytes" else pa.string() for name in columns]
    arrays = [
        pa.array([getattr(f, name) for f in rows], kind)
        for name, kind in zip(columns, types, strict=True)
    ]
    return Listing(pa.table(arrays, names=columns))


def scanned(task: ScanTask, digest: str, **values: object) -> Source:
    found = task.found
    row = Source(
        uri=found.uri,
        revision=task.revision,
        source_id=found.source_id,
        version=found.version,
        size_bytes=found.size_bytes,
        kind="video",
        status="scanned",
        content_digest=digest,
        sidecar_uri=found.sidecar_uri,
        sidecar_version=found.sidecar_version,
        tracks_uri=found.tracks_uri,
        tracks_version=found.tracks_version,
        scan_fingerprint=SPEC,
        dropped=(DroppedSpan(start_frame=0, num_frames=1, start_pts=0, end_pts=1, reason="black"),),
        width=640,
    )
    return replace(row, **values)  # type: ignore[arg-type]


def compared(
    rows: Iterable[Source], *found: Found, retry_rejected: bool = False, twice: bool = False
) -> Discovery:
    return compare(
        listing(*found),
        to_arrow(rows, Source),
        scan_fingerprint=SPEC,
        retry_rejected=retry_rejected,
        allow_duplicates=twice,
    )


def state(discovery: Discovery) -> State:
    """Of the one object of a listing."""
    (only,) = (s for s, tally in discovery.tallies.items() if tally.objects)
    return only


A = Found("/a.mp4", "v1", 100, "/a.txt", "s1")
ROW = scanned(ScanTask(A, 0), "digest")


def test_a_new_object() -> None:
    discovery = compared([], A)
    assert state(discovery) == State.NEW
    assert list(discovery.tasks()) == [ScanTask(A, 0)]
    assert discovery.bytes_to_read == 100


def test_an_unchanged_object_is_not_touched() -> None:
    discovery = compared([ROW], A)
    assert state(discovery) == State.UNCHANGED
    assert discovery.bytes_to_read == 0
    assert not [*discovery.tasks(), *discovery.carried(), *needs_digest(discovery)]


def test_a_replaced_object_gets_the_next_revision() -> None:
    other = replace(A, version="v2")
    discovery = compared([ROW, replace(ROW, revision=1)], other)
    assert state(discovery) == State.CHANGED
    assert list(discovery.tasks()) == [ScanTask(other, 2)]


@pytest.mark.parametrize(
    "other",
    [
        replace(A, sidecar_version="s2"),
        replace(A, sidecar_uri="/a.json"),
        replace(A, sidecar_uri="", sidecar_version=""),
    ],
)
def test_another_sidecar_is_a_row_and_no_scan(other: Found) -> None:
    discovery = compared([ROW], other)
    assert state(discovery) == State.SIDECAR_CHANGED
    expected = replace(
        ROW, revision=1, sidecar_uri=other.sidecar_uri, sidecar_version=other.sidecar_version
    )
    assert list(discovery.carried()) == [expected]
    assert not list(discovery.tasks())
    assert state(compared([ROW, expected], other)) == State.UNCHANGED


def test_a_version_that_comes_back_is_a_row_and_no_scan() -> None:
    second = scanned(ScanTask(replace(A, version="v2"), 1), "other", width=1)
    third = scanned(ScanTask(replace(A, version="v3"), 2), "third")
    back = replace(A, sidecar_uri="", sidecar_version="")
    discovery = compared([ROW, second, third], back)
    assert state(discovery) == State.RESTORED
    assert list(discovery.carried()) == [
        replace(ROW, revision=3, sidecar_uri="", sidecar_version="")
    ]


def test_a_version_that_comes_back_as_a_copy_is_looked_at() -> None:
    """Meanwhile its bytes were ingested under another name."""
    second = scanned(ScanTask(replace(A, version="v2"), 1), "other")
    copy = scanned(ScanTask(Found("/b.mp4", "w", 100), 0), "digest")
    discovery = compared([ROW, second, copy], A)
    assert state(discovery) == State.CHANGED
    assert list(needs_digest(discovery)) == [ScanTask(A, 2)]
    (row,) = find_duplicates(discovery, {A.uri: "digest"}, scan_fingerprint=SPEC).rows
    assert row.duplicate_of == copy.source_id


def test_a_rejected_object_is_retried_only_when_asked() -> None:
    row = replace(ROW, status="rejected", reason="corrupt")
    assert state(compared([row], A)) == State.REJECTED_BEFORE
    assert state(compared([row], replace(A, sidecar_version="s2"))) == State.REJECTED_BEFORE
    retried = compared([row], A, retry_rejected=True)
    assert state(retried) == State.RETRIED
    assert list(retried.tasks()) == [ScanTask(A, 1)]
    assert not list(needs_digest(retried))
    assert state(compared([row], replace(A, version="v2"))) == State.CHANGED


@pytest.mark.parametrize("reason", PASSING)
def test_what_may_have_been_the_machines_fault_is_tried_again_some_times(reason: Reason) -> None:
    row = replace(ROW, status="rejected", reason=reason, content_digest="")
    for tries in range(1, MOST_TRIES):
        again = compared([replace(row, tries=tries)], A)
        assert state(again) == State.UNFINISHED
        assert list(again.tasks()) == [ScanTask(A, 1, tries)]
    last = replace(row, tries=MOST_TRIES)
    assert state(compared([last], A)) == State.REJECTED_BEFORE
    assert [t.tries for t in compared([last], A, retry_rejected=True).tasks()] == [MOST_TRIES]
    other = replace(A, version="v2")
    assert list(compared([last], other).tasks()) == [ScanTask(other, 1)], "another object: anew"
    respecified = compared([replace(last, scan_fingerprint="spec-0")], A)
    assert list(respecified.tasks()) == [ScanTask(A, 1)], "another scan: anew"


def test_a_mistake_of_ours_is_tried_again_by_another_telecine() -> None:
    row = replace(ROW, status="rejected", reason="internal", telecine_version="0.1.9")
    copy = scanned(ScanTask(Found("/copy", "c", 100), 0), "digest", duplicate_of=ROW.source_id)
    again = compared([row, replace(copy, status="duplicate")], A)
    assert state(again) == State.UNFINISHED
    assert not find_duplicates(again, {}, scan_fingerprint=SPEC).uris, "its copies point to it"
    same = replace(row, telecine_version=telecine_version())
    assert state(compared([same], A)) == State.REJECTED_BEFORE


def test_another_scan_spec_is_another_scan() -> None:
    assert state(compared([replace(ROW, scan_fingerprint="spec-0")], A)) == State.RESPECIFIED


def test_tallies_count_objects_and_bytes() -> None:
    discovery = compared([ROW], A, Found("/b", "1", 5), Found("/c", "1", 7))
    assert discovery.tallies[State.NEW].objects == 2
    assert discovery.tallies[State.NEW].size_bytes == discovery.bytes_to_read == 12
    assert discovery.tallies[State.UNCHANGED].size_bytes == 100
    assert sum(tally.objects for tally in discovery.tallies.values()) == 3


def test_the_rows_may_come_from_a_table_on_disk(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    found = listing(A)
    sources = tables.dataset("sources")
    assert state(compare(found, sources, scan_fingerprint=SPEC)) == State.NEW
    tables.append("sources", [ROW])
    other = listing(replace(A, sidecar_version="s2"))
    discovery = compare(other, tables.dataset("sources"), scan_fingerprint=SPEC)
    assert list(discovery.carried()) == [replace(ROW, revision=1, sidecar_version="s2")]


# ── duplicates ───────────────────────────────────────────────────────────────────────────────────


def test_only_objects_of_one_size_are_digested() -> None:
    known = scanned(ScanTask(Found("/known", "1", 30), 0), "k")
    new = [Found("/a", "1", 10), Found("/b", "1", 20), Found("/c", "1", 20), Found("/d", "1", 30)]
    empty = [Found("/e", "1", 0), Found("/f", "1", 0)]
    discovery = compared([known], *new, *empty)
    assert [task.found.uri for task in needs_digest(discovery)] == ["/b", "/c", "/d"]
    assert not list(needs_digest(compared([known], *new, *empty, twice=True)))


def test_an_original_about_to_be_replaced_is_none() -> None:
    """Its old bytes live on under another name only: those are scanned."""
    moved = Found("/moved.mp4", "m", 100)
    discovery = compared([ROW], replace(A, version="v2"), moved)
    digests = {A.uri: "new", moved.uri: "digest"}
    assert not find_duplicates(discovery, digests, scan_fingerprint=SPEC).uris


def duplicate_of(original: Source, found: Found, revision: int = 0) -> Source:
    task = ScanTask(found, revision)
    return scanned(
        task, original.content_digest, status="duplicate", duplicate_of=original.source_id
    )


def test_a_duplicate_is_scanned_once_its_original_is_gone() -> None:
    copies = [Found(f"/copy{n}.mp4", "c", 100) for n in range(2)]
    rows = [ROW, *(duplicate_of(ROW, copy) for copy in copies)]
    assert compared(rows, A, *copies).tallies[State.UNCHANGED].objects == 3
    replaced = replace(A, version="v2", size_bytes=50)
    discovery = compared(rows, replaced, *copies)
    assert discovery.tallies[State.RESURRECTED].objects == 2
    assert not list(needs_digest(discovery)), "the rows know the digests"
    found = find_duplicates(discovery, {}, scan_fingerprint=SPEC)
    assert found.uris == {"/copy1.mp4"}
    assert [row.duplicate_of for row in found.rows] == [copies[0].source_id]


def test_duplicates_are_ingested_when_asked() -> None:
    copy = Found("/copy.mp4", "c", 100)
    discovery = compared([ROW, duplicate_of(ROW, copy)], A, copy, twice=True)
    assert list(discovery.tasks()) == [ScanTask(copy, 1)]
    assert not find_duplicates(discovery, {"/copy.mp4": "digest"}, scan_fingerprint=SPEC).uris


@dataclass
class Store:
    """Objects by URI, each a version and its content, and the rows that ingesting them leaves."""

    rows: list[Source] = field(default_factory=list)

    def ingest(self, objects: dict[str, str], order: list[int], stop: int | None = None) -> None:
        """One run: what is carried, the duplicates, then a scan at a time in any order; it is
        killed after `stop` commits."""
        found = [Found(uri, f"v-{text}", len(text)) for uri, text in objects.items()]
        discovery = compared(self.rows, *found)
        digests = {t.found.uri: f"d-{objects[t.found.uri]}" for t in needs_digest(discovery)}
        duplicates = find_duplicates(discovery, digests, scan_fingerprint=SPEC)
        tasks = [t for t in discovery.tasks() if t.found.uri not in duplicates.uris]
        tasks.sort(key=lambda task: order[int(task.found.uri[1]) % len(order)])
        commits: list[list[Source]] = [
            list(discovery.carried()),
            list(duplicates.rows),
            *([scanned(task, f"d-{objects[task.found.uri]}")] for task in tasks),
        ]
        for commit in commits[:stop]:
            self.rows += commit

    def state(self) -> set[Source]:
        return set(self.rows)


CONTENT = st.sampled_from(["", "x", "aaaa", "bbbb", "cccc", "dddddd"])
OBJECTS = st.dictionaries(st.sampled_from([f"/{n}.mp4" for n in range(6)]), CONTENT, min_size=1)


@given(st.lists(OBJECTS, min_size=1, max_size=3), st.permutations(range(5)), st.data())
@settings(max_examples=15, deadline=None)
def test_any_order_and_any_crash_leave_the_same_rows(
    states: list[dict[str, str]], order: list[int], data: st.DataObject
) -> None:
    calm, shaken = Store(), Store()
    for objects in states:
        calm.ingest(objects, [0])
        shaken.ingest(objects, order, stop=data.draw(st.integers(0, 8)))
        shaken.ingest(objects, order)
        assert shaken.state() == calm.state()
        assert len(shaken.rows) == len(calm.rows)
        before = len(calm.rows)
        calm.ingest(objects, [0])
        assert len(calm.rows) == before, "a second run does nothing"
        check_nothing_twice(calm.rows, objects)


def check_nothing_twice(rows: list[Source], objects: dict[str, str]) -> None:
    """Every object in force is scanned, or a copy of one that is; no content is scanned twice."""
    current = {row.uri: row for row in sorted(rows, key=lambda row: row.revision)}
    scanned_ids = {r.source_id for r in current.values() if r.status == "scanned"}
    texts = [r.content_digest for r in current.values() if r.status == "scanned" and r.size_bytes]
    assert len(texts) == len(set(texts))
    for uri, text in objects.items():
        row = current[uri]
        assert row.version == f"v-{text}"
        assert row.status == "scanned" or row.duplicate_of in scanned_ids


def test_real_files(tmp_path: Path) -> None:
    storage = Storage()
    for name, text in [("b.mp4", "same"), ("a.mov", "same"), ("c", "else"), ("d", "longer")]:
        (tmp_path / name).write_text(text)
    discovery = compare(
        discover(storage, [str(tmp_path)]), to_arrow([], Source), scan_fingerprint=SPEC
    )
    tasks = list(needs_digest(discovery))
    assert [Path(task.found.uri).name for task in tasks] == ["a.mov", "b.mp4", "c"]
    digest = DigestWorker(storage)
    digests = {task.found.uri: digest(task.found) for task in tasks}
    found = find_duplicates(discovery, digests, scan_fingerprint=SPEC)
    assert found.uris == {str(tmp_path / "b.mp4")}
    (tmp_path / "c").write_text("changed")
    assert digest(tasks[2].found) == ""
