"""verify: is a build in the store what the tables say it is? And `--repair`, where it is not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from telecine.infra.errors import NotFound, UsageError
from telecine.infra.store.storage import ObjectInfo
from telecine.manifests.builds import BuildState, State, builds, find_build, shards_of
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.samples import read_samples
from telecine.manifests.queries import connect
from telecine.manifests.shards import build_folder, is_shard
from telecine.pipeline.build.index import named_samples, sample_index, write_index
from telecine.pipeline.lifecycle.check import Finding, Kind, check_shards, count_live
from telecine.pipeline.lifecycle.repair import Repaired
from telecine.pipeline.lifecycle.repair import repair as mend
from telecine.pipeline.lifecycle.stored import needed, samples_path, stored, trained_on
from telecine.pipeline.run import Run


@dataclass(frozen=True)
class Verified:
    """A build as it was found, after the repair where one was asked for."""

    dataset: str
    build_id: str
    name: str
    shards: int  # live
    samples: int
    size_bytes: int
    in_progress: bool  # shards of a plan that is not completed are not checked
    findings: tuple[Finding, ...]
    repaired: Repaired | None

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, those there are."""
        found = Counter(finding.kind for finding in self.findings)
        return {str(kind): found[kind] for kind in Kind if found[kind]}

    @property
    def sound(self) -> bool:
        """Every live shard is whole. Orphans are garbage, no fault."""
        return all(finding.kind is Kind.ORPHANED for finding in self.findings)

    def as_values(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return dataclasses.asdict(self) | {"sound": self.sound, "counts": self.counts}

    @property
    def verdict(self) -> str:
        wrong = len({f.shard_path for f in self.findings if f.kind is not Kind.ORPHANED})
        if not wrong:
            return f"{self.name} is whole"
        kinds = ", ".join(f"{k} {n:,}" for k, n in self.counts.items() if k != Kind.ORPHANED)
        advice = "run verify --repair to make them again"
        if self.repaired is not None:
            advice = "the repair left them so: check the disk or the store, then run it again"
        return f"{wrong:,} of {self.shards:,} shards of {self.name} are wrong ({kinds}); {advice}"


def verify(run: Run, build: str | None, *, repair: bool = False) -> Verified:
    """Read every live shard of a build (None: the current one) and compare it with the tables.

    Raises UsageError where there is no such build; what is wrong with its shards is told, not
    raised.
    """
    dataset = run.dataset
    there = stored(dataset)  # before the tables are read
    chosen = _chosen(dataset, build)
    counts, findings = check_shards(run, chosen.build_id)
    repaired = None
    if repair:
        repaired = mend(run, chosen, findings)
        made = {*repaired.put_back, *repaired.added}
        _, findings = check_shards(run, chosen.build_id, made)
        there = stored(dataset)
        counts = count_live(connect(dataset.tables), chosen.build_id)
    now = find_build(connect(dataset.tables), chosen.build_id)
    of_index = _index_findings(dataset, now)
    if repair and of_index:
        write_index(dataset, now.last, anew=True)
        of_index = _index_findings(dataset, now)
    return Verified(
        dataset=dataset.uri,
        build_id=now.build_id,
        name=now.name,
        shards=counts["shards"],
        samples=counts["samples"],
        size_bytes=counts["bytes"],
        in_progress=now.in_progress is not None,
        findings=tuple(findings + of_index + _orphans(dataset, now, there)),
        repaired=repaired,
    )


def _chosen(dataset: Dataset, build: str | None) -> BuildState:
    con = connect(dataset.tables)
    if build is not None:
        return find_build(con, build)
    current = next((b for b in builds(con) if b.state is State.CURRENT), None)
    if current is None:
        names = ", ".join(b.name for b in builds(con) if b.state is not State.DELETED)
        raise UsageError(
            f"{dataset.uri} has no current build to verify: "
            + (f"name one of {names}" if names else "ingest footage first")
        )
    return current


def _index_findings(dataset: Dataset, build: BuildState) -> list[Finding]:
    """What is wrong with the index of the build's live samples; an older build may have none."""
    con = connect(dataset.tables)
    path = samples_path(con, build)
    if named_samples(dataset, build.name) != path:  # the next run of the build writes it
        return []
    expected = sample_index(con, build.last, shards_of(con, build.build_id))
    said = read_samples(pa.py_buffer(expected.to_bytes()), path)
    try:
        found = read_samples(pa.py_buffer(dataset.storage.read_bytes(dataset.path(path))), path)
    except NotFound:
        return [Finding(path, Kind.INDEX, "index.json names it, and it is not there")]
    except UsageError as error:
        return [Finding(path, Kind.INDEX, str(error))]
    # An event of an older version leaves open what the encoder said when the index was written.
    known = {name: value for name, value in vars(said.facts).items() if value is not None}
    if vars(found.facts) != vars(found.facts) | known or found.rows != said.rows:
        return [Finding(path, Kind.INDEX, "it is not what the tables say")]
    return []


def _orphans(dataset: Dataset, build: BuildState, there: Mapping[str, ObjectInfo]) -> list[Finding]:
    """Tars in the build's folder that nothing needs. While a plan is in progress none is called so:
    a worker may have uploaded it a moment ago.
    """
    if build.in_progress:
        return []
    own = {p for p in there if p.startswith(build_folder(build.name)) and is_shard(p)}
    known = builds(connect(dataset.tables))
    return [
        Finding(path, Kind.ORPHANED, "no row names it; telecine gc deletes it")
        for path in sorted(own - needed(dataset, known) - trained_on(dataset, known, there))
    ]
