"""What fails for no fault of the footage: told apart, tried again some times, and no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from telecine.infra.bugs import telecine_version
from telecine.infra.cluster import ONE_CORE
from telecine.infra.errors import MOST_TRIES, Reason
from telecine.infra.store.disk import DiskRanges
from telecine.infra.store.reader import ObjectReader
from telecine.infra.store.storage import ObjectInfo, Storage
from telecine.manifests.dataset import create_dataset, open_dataset
from telecine.manifests.schemas import Source, from_arrow
from telecine.pipeline import recipes
from telecine.pipeline.recipes import Ingested
from telecine.pipeline.scan.step import ScanOutcome, scan_sources
from telecine.pipeline.terminal.bugs import REPORT, say_bugs
from tests.support.inline import run_of
from tests.support.lab import Lab


class Faulty(Storage):
    """Of `b.png`, the first read after each opening raises the next of the errors."""

    def __init__(self, *errors: Exception | None) -> None:
        super().__init__()
        self.errors = list(errors)

    def open(self, info: ObjectInfo) -> ObjectReader:
        error = self.errors.pop(0) if self.errors and info.uri.endswith("b.png") else None
        return super().open(info) if error is None else FaultyReader(info, error)


class FaultyReader(ObjectReader):
    def __init__(self, info: ObjectInfo, error: Exception) -> None:
        super().__init__(DiskRanges(info), info.size_bytes)
        self.error: Exception | None = error

    def read(self, size: int | None = -1, /) -> bytes:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().read(size)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    for seed, name in enumerate("ab"):
        made.image(name, seed, (160, 160 + 16 * seed))  # of two sizes in bytes: none is read twice
    return made


def ingest(lab: Lab, *errors: Exception | None, retry: bool = False) -> Ingested:
    dataset = create_dataset(str(lab.dataset), Faulty(*errors), None)
    return recipes.ingest(run_of(dataset, retry_rejected=retry), [str(lab.footage)])


def scans(lab: Lab) -> list[Source]:
    """The rows of b.png."""
    query = "FROM sources WHERE uri LIKE '%b.png' ORDER BY revision"
    return from_arrow(lab.connect().sql(query).to_arrow_table(), Source)


def scan(lab: Lab, *errors: Exception | None, retry: bool = False) -> ScanOutcome:
    run = run_of(create_dataset(str(lab.dataset), Faulty(*errors), None), retry_rejected=retry)
    found = recipes.find(run.dataset, [str(lab.footage)], run.options)
    return scan_sources(run, found, ONE_CORE)


def test_an_exception_of_our_own_is_internal(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    met = scan(lab, TypeError("no such thing"))
    assert (met.scanned, met.rejected) == (1, 1)
    (row,) = scans(lab)
    assert (row.reason, row.telecine_version) == (Reason.INTERNAL, telecine_version())
    assert row.detail.startswith(f"TypeError: no such thing (Telecine {telecine_version()})\n")
    assert 'File "telecine/pipeline/scan/worker.py"' in row.detail
    say_bugs(met.bugs)
    said = capsys.readouterr().err
    assert "TypeError: no such thing" in said
    assert "b.png" in said
    assert said.endswith(REPORT + "\n")
    again = scan(lab)
    assert (again.scanned, again.tried_again) == (0, 0), "this Telecine would fail again"
    older = dataclasses.replace(row, revision=1, telecine_version="0.1.9")
    open_dataset(str(lab.dataset), Storage()).tables.append("sources", [older])
    assert (scan(lab).tried_again, len(scans(lab))) == (1, 3)


def test_a_scan_that_may_have_failed_by_the_machine_is_tried_again(lab: Lab) -> None:
    out = MemoryError("none left")
    for tries in range(1, MOST_TRIES + 1):
        met = scan(lab, out)
        assert met.tried_again == (tries > 1)
        assert met.unfinished == (tries < MOST_TRIES)
        assert (scans(lab)[-1].reason, scans(lab)[-1].tries) == (Reason.OUT_OF_MEMORY, tries)
    assert scan(lab).scanned == 0, "some times are enough"
    assert scan(lab, retry=True).scanned == 1
    assert scan(lab).scanned == 0


SHARD = 3  # attempts of a run at a member: its shard twice, then it alone


def test_a_sample_that_may_have_failed_by_the_machine_is_tried_again(lab: Lab) -> None:
    out = [MemoryError("none left")] * SHARD
    met = [ingest(lab, None, *out), *(ingest(lab, *out) for _ in range(MOST_TRIES))]
    assert met[0].build.dropped_by_reason == {"out_of_memory": 1}
    assert [m.build.dropped for m in met] == [1] * MOST_TRIES + [0], "some times are enough"
    assert ingest(lab, retry=True).build.samples == 2, "with the one that is copied"
    lab.check()


def test_one_more_try_may_be_all_it_takes(lab: Lab) -> None:
    ingest(lab, None, *[MemoryError("none left")] * SHARD)
    assert ingest(lab).build.dropped_by_reason == {}
    lab.check()


def test_a_sample_that_met_a_mistake_of_ours_is_internal(lab: Lab) -> None:
    met = ingest(lab, None, *[KeyError("x")] * SHARD)
    assert met.build.dropped_by_reason == {"internal": 1}
    (bug,) = met.build.bugs.values()
    assert bug.what == f"KeyError: 'x' (Telecine {telecine_version()})"
    assert ingest(lab).build.shards == 0, "this Telecine would fail again"
