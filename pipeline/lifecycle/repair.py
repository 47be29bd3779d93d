"""repair: make the shards again that `verify` found bad, never from their own bytes.

    missing, damaged ─▶ the same job again ─┬─ same digest: put back in place, no row changes
                                            └─ another ──┐
    key, shape, text ────────────────────────────────────┴─▶ replaced, by a plan of the build

A latent comes from a sound shard of a build with equal latents, else from the footage. A digest is
another where the footage is gone or changed, or another device or version encodes: then a plan of
the build (planned, samples, completed, as any other) replaces the shard with the members that can
still be made; the others are dropped with their reason.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from telecine.infra.cluster import Done, Resources
from telecine.infra.errors import CheckFailed
from telecine.infra.faults import kill_point
from telecine.manifests.buckets import Bucket
from telecine.manifests.builds import PINNED, BuildState, next_plan, next_sequence
from telecine.manifests.dataset import Dataset
from telecine.manifests.fingerprint import short_id
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build, Sample, from_arrow
from telecine.pipeline.build.events import Work, complete
from telecine.pipeline.build.index import write_index
from telecine.pipeline.build.jobs import jobs_again
from telecine.pipeline.build.plan import Member, Plan, ShardPlan
from telecine.pipeline.build.step import run_jobs, write_shards
from telecine.pipeline.build.wanted import Planned
from telecine.pipeline.build.worker import ShardJob
from telecine.pipeline.lifecycle.check import Finding, Kind, check_shards
from telecine.pipeline.lifecycle.promote import spec_of
from telecine.pipeline.models import encoder_needs
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run

IN_PLACE = {Kind.MISSING, Kind.DAMAGED}


@dataclass(frozen=True)
class Repaired:
    """Paths of shards, relative to the dataset."""

    put_back: tuple[str, ...] = ()  # with the digest that the rows have
    replaced: tuple[str, ...] = ()  # by others, or by none where no member could be made
    added: tuple[str, ...] = ()  # in their stead
    dropped: dict[str, int] = field(default_factory=dict)  # samples not made again, by reason

    def __add__(self, other: Repaired) -> Repaired:
        return Repaired(
            self.put_back + other.put_back,
            self.replaced + other.replaced,
            self.added + other.added,
            dict(Counter(self.dropped) + Counter(other.dropped)),
        )


def repair(run: Run, build: BuildState, findings: Iterable[Finding]) -> Repaired:
    """Make whole what the findings are of. Killed in between, the next repair goes on.

    Raises CheckFailed where a shard must be replaced while another plan of the build is in
    progress; UsageError where the encoder is no longer the one that the build was made with.
    """
    kinds: dict[str, set[Kind]] = defaultdict(set)
    for finding in findings:
        kinds[finding.shard_path].add(finding.kind)
    run = run.under(spec_of(run.dataset, build.last))
    dataset = run.dataset
    begun = _resumed(dataset, build.in_progress)
    done = Repaired()
    if kinds or begun:
        sound = _donors(run, build.last, kinds)
        mender = _Mender(run, build.last, encoder_needs(run), sound)
        if begun:
            done += mender.replace(begun)
        shard_ids = _shard_ids(dataset, build.build_id, kinds)
        same = [i for path, i in shard_ids.items() if kinds[path] <= IN_PLACE]
        done += mender.put_back(same)
        rest = {i for path, i in shard_ids.items() if path not in done.put_back}
        if rest and build.in_progress and not begun:
            raise CheckFailed(
                f"{len(rest)} shards of {build.name} cannot be made as they were and must be "
                "replaced by a plan of the build, but another is in progress: run again what was "
                "interrupted, then verify --repair"
            )
        if rest:
            done += mender.replace(_planned(dataset, build.last, rest))
    write_index(dataset, build.last)
    return done


@dataclass(frozen=True)
class _Mender:
    """How one build is mended. `sound`: paths of shards whose latents may be copied."""

    run: Run  # under the build's own spec
    build: Build  # an event of it
    encoders: Resources
    sound: frozenset[str]

    def put_back(self, shard_ids: Collection[str]) -> Repaired:
        """Those that get the bytes again that the rows say; the others are not touched."""
        if not shard_ids:
            return Repaired()
        jobs, found = jobs_again(self.run.dataset, self.build, shard_ids, self.sound), []
        ends = run_jobs(self.run, jobs, resources=self.encoders)
        with Step(self.run.progress, "repair", "shards", len(shard_ids), len(shard_ids)) as step:
            for end in ends:
                if isinstance(end, Done) and end.result.matches:
                    found.append(end.item.path)
                kill_point("repaired", end.item.shard_id)
                step.advance()
        return Repaired(put_back=tuple(sorted(found)))

    def replace(self, work: Work) -> Repaired:
        """Carry out a plan that replaces shards."""
        dataset = self.run.dataset
        write_shards(self.run, [work], self.encoders, partial(_jobs_anew, sound=self.sound))
        live = _live_shards(dataset, work.event.build_id)
        replaced = set(work.event.replaces)
        old = [path for path, shard_id in live if shard_id in replaced]
        complete(dataset, [work])
        made = _made(dataset, work.event)
        return Repaired(
            replaced=tuple(old),
            added=tuple(sorted({row.shard_path for row in made if row.outcome == "kept"})),
            dropped=dict(Counter(row.reason for row in made if row.outcome == "dropped")),
        )


# ── what there is ────────────────────────────────────────────────────────────────────────────────


def _shard_ids(dataset: Dataset, build_id: str, paths: Iterable[str]) -> dict[str, str]:
    """Of the live shards among these, by path, in order."""
    wanted = set(paths)
    return {path: i for path, i in _live_shards(dataset, build_id) if path in wanted}


def _live_shards(dataset: Dataset, build_id: str) -> list[tuple[str, str]]:
    """Path and shard_id."""
    found: list[tuple[str, str]] = (
        connect(dataset.tables)
        .sql(
            "SELECT DISTINCT shard_path, shard_id FROM live_samples "
            "WHERE build_id = ? AND outcome = 'kept' ORDER BY shard_path",
            params=[build_id],
        )
        .fetchall()
    )
    return found


def _donors(run: Run, event: Build, paths: Iterable[str]) -> frozenset[str]:
    """Paths of the shards of other builds that hold equal latents of the samples, and are whole."""
    con = connect(run.dataset.tables)
    con.register("asked", pa.table({"shard_path": pa.array(sorted(paths), pa.string())}))
    found = con.sql(
        """
        SELECT DISTINCT build_id, shard_path FROM live_samples
        SEMI JOIN (FROM live_samples SEMI JOIN asked USING (shard_path)
            WHERE build_id = $build_id) USING (clip_id)
        SEMI JOIN (FROM known_events WHERE latents_fingerprint = $latents) USING (build_id)
        WHERE outcome = 'kept' AND build_id <> $build_id
        """,
        params={"build_id": event.build_id, "latents": event.latents_fingerprint},
    ).fetchall()
    by_build: dict[str, set[str]] = defaultdict(set)
    for build_id, path in found:
        by_build[build_id].add(path)
    whole = set[str]()
    for build_id, theirs in sorted(by_build.items()):
        _, wrong = check_shards(run, build_id, theirs)
        whole |= theirs - {finding.shard_path for finding in wrong}
    return frozenset(whole)


def _jobs_anew(
    dataset: Dataset, work: Work, shards: list[ShardPlan], *, sound: frozenset[str]
) -> Iterator[ShardJob]:
    """The same jobs, for shards of a plan that replaces theirs."""
    plan = work.planned.plan
    old = dict(zip((s.shard_id for s in plan.shards), plan.replaces, strict=True))
    again = jobs_again(dataset, work.event, [old[s.shard_id] for s in shards], sound)
    for shard, job in zip(shards, again, strict=True):
        yield dataclasses.replace(
            job, shard_id=shard.shard_id, plan=work.event.plan, expected_sha256=""
        )


# ── a plan that replaces ─────────────────────────────────────────────────────────────────────────


def _planned(dataset: Dataset, event: Build, shard_ids: Iterable[str]) -> Work:
    """Commits the event of a plan that replaces these shards."""
    con = connect(dataset.tables)
    number = next_plan(con, event.build_id)
    plan = _replacing(dataset, event.build_id, number, shard_ids)
    versions: dict[str, Any] = {f"{name}_version": dataset.tables.version(name) for name in PINNED}
    planned = dataclasses.replace(
        event,
        sequence=next_sequence(con),
        event="planned",
        plan=number,
        plan_digest=plan.digest,
        num_shards=len(plan.shards),
        num_samples=plan.num_samples,
        retry=False,
        follows="",
        replaces=plan.replaces,
        **versions,
    )
    kill_point("commit", "planned")
    dataset.tables.append("builds", [planned])
    kill_point("committed", "planned")
    return _work(planned, plan)


def _resumed(dataset: Dataset, planned: Build | None) -> Work | None:
    """The plan of a repair that was killed, if that is what is in progress."""
    if planned is None:
        return None
    plan = _replacing(dataset, planned.build_id, planned.plan, planned.replaces)
    return _work(planned, plan) if plan.digest == planned.plan_digest else None


def _work(planned: Build, plan: Plan) -> Work:
    return Work(planned, Planned(plan, [], 0, frozenset(), 0), resumed=True)


def _replacing(dataset: Dataset, build_id: str, number: int, shard_ids: Iterable[str]) -> Plan:
    """For each of the shards one of the same members. Pure, so that it can be known again."""
    con = connect(dataset.tables)
    con.register("asked", pa.table({"shard_id": pa.array(sorted(shard_ids), pa.string())}))
    rows = con.sql(
        """
        SELECT shard_id, resolution, aspect, duration,
            list([clip_id, captions_digest] ORDER BY position)
        FROM live_samples SEMI JOIN asked USING (shard_id)
        WHERE build_id = ? AND outcome = 'kept' GROUP BY ALL ORDER BY shard_id
        """,
        params=[build_id],
    ).fetchall()
    shards = []
    for _, *rungs, content in rows:
        bucket = Bucket(*rungs)
        new = short_id("shard", build_id, number, bucket.folder, content)
        members = tuple(Member(clip_id, copied=False) for clip_id, _ in content)
        shards.append(ShardPlan(new, bucket, members))
    return Plan(tuple(shards), tuple(row[0] for row in rows))


def _made(dataset: Dataset, event: Build) -> list[Sample]:
    con = connect(dataset.tables)
    rows = con.sql(
        "FROM samples WHERE build_id = ? AND plan = ?", params=[event.build_id, event.plan]
    )
    return from_arrow(rows.to_arrow_table(), Sample)
