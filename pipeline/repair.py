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
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Console

from encoders.captioner import WITH_TEXT
from encoders.load import load_captioner
from infra.errors import CheckFailed
from infra.faults import kill_point
from infra.ray import Cluster, Done, Resources
from manifests.dataset import Dataset
from manifests.fingerprint import short_id
from manifests.queries import BuildState, connect, next_plan, next_sequence
from manifests.schemas import Build, Clip, Sample, Source, from_arrow
from manifests.specs import DatasetSpec
from pipeline.build import PINNED, Work, complete, write_index
from pipeline.check import Finding, Kind, check_shards
from pipeline.drive import run_jobs, write_shards
from pipeline.plan import Bucket, Member, Plan, ShardPlan
from pipeline.progress import Step
from pipeline.sample import ChosenCaption
from pipeline.shard import MemberJob, ShardJob
from pipeline.wanted import Wishes

SHARDS_AT_ONCE = 64  # a question scans whole tables: ask for many shards at a time
IN_PLACE = {Kind.MISSING, Kind.DAMAGED}


@dataclass(frozen=True)
class Repaired:
    """Paths of shards, relative to the dataset."""

    put_back: tuple[str, ...]  # with the digest that the rows have
    replaced: tuple[str, ...]  # by others, or by none where no member could be made
    added: tuple[str, ...]  # in their stead
    dropped: dict[str, int]  # samples that could not be made again, by reason


def repair(
    dataset: Dataset,
    build: BuildState,
    findings: Iterable[Finding],
    cluster: Cluster,
    encoders: Resources,
    commit_seconds: float,
    console: Console,
) -> Repaired:
    """Make whole what the findings are of. Killed in between, the next repair goes on.

    Raises CheckFailed where a shard must be replaced while another plan of the build is in
    progress; UsageError where the encoder is no longer the one that the build was made with.
    """
    kinds: dict[str, set[Kind]] = defaultdict(set)
    for finding in findings:
        kinds[finding.shard_path].add(finding.kind)
    dataset = dataclasses.replace(dataset, spec=_spec(dataset, build.last))
    shard_ids = _shard_ids(dataset, build.build_id, kinds)
    sound = _donors(dataset, build.last, kinds, cluster, console)

    work = _resumed(dataset, build.in_progress)
    in_hand = set(work.event.replaces) if work else set[str]()
    same = [i for path, i in shard_ids.items() if kinds[path] <= IN_PLACE and i not in in_hand]
    todo = _jobs_again(dataset, build.last, same, sound)
    put_back = set[str]()
    with Step(console, "repair", "shards", len(same), len(same)) as step:
        for end in run_jobs(todo, dataset=dataset, cluster=cluster, resources=encoders):
            if isinstance(end, Done) and end.result.matches:
                put_back.add(end.item.path)
            kill_point("repaired", end.item.shard_id)
            step.advance()

    rest = {i for path, i in shard_ids.items() if path not in put_back} - in_hand
    if rest and build.in_progress and not work:
        raise CheckFailed(
            f"{len(rest)} shards of {build.name} cannot be made as they were and must be replaced "
            "by a plan of the build, but another is in progress: run again what was interrupted, "
            "then verify --repair"
        )
    replaced: list[str] = []
    added: list[str] = []
    dropped = Counter[str]()
    for each in (work, _planned(dataset, build.last, rest) if rest else None):
        if each is not None:
            make_jobs = partial(_jobs_anew, sound=sound)
            write_shards(each, dataset, cluster, encoders, commit_seconds, console, make_jobs)
            paths = {shard_id: path for path, shard_id in shard_ids.items()}
            replaced += [paths[i] for i in each.event.replaces if i in paths]
            complete(dataset, each)
            for sample in _made(dataset, each.event):
                dropped.update([sample.reason] if sample.outcome == "dropped" else [])
                added += [sample.shard_path] if sample.outcome == "kept" else []
    write_index(dataset, build.last)
    return Repaired(
        tuple(sorted(put_back)), tuple(sorted(replaced)), tuple(sorted(set(added))), dict(dropped)
    )


def _spec(dataset: Dataset, event: Build) -> DatasetSpec:
    """The build's own: the dataset's may be that of another build by now."""
    scan = dataset.spec.scan.model_dump(mode="json")
    return DatasetSpec.model_validate({**json.loads(event.spec), "scan": scan})


# ── what there is ────────────────────────────────────────────────────────────────────────────────


def _shard_ids(dataset: Dataset, build_id: str, paths: Iterable[str]) -> dict[str, str]:
    """By path, in order."""
    con = connect(dataset.tables)
    con.register("asked", pa.table({"shard_path": pa.array(sorted(paths), pa.string())}))
    found = con.sql(
        "SELECT DISTINCT shard_path, shard_id FROM live_samples SEMI JOIN asked USING (shard_path) "
        "WHERE build_id = ? AND outcome = 'kept' ORDER BY shard_path",
        params=[build_id],
    )
    return dict(found.fetchall())


def _donors(
    dataset: Dataset, event: Build, paths: Iterable[str], cluster: Cluster, console: Console
) -> frozenset[str]:
    """Paths of the shards of other builds that hold equal latents of the samples, and are whole."""
    con = connect(dataset.tables)
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
        _, wrong = check_shards(dataset, build_id, cluster, console, theirs)
        whole |= theirs - {finding.shard_path for finding in wrong}
    return frozenset(whole)


_TABLES = """
CREATE OR REPLACE TEMP TABLE job_samples AS
SELECT * FROM live_samples SEMI JOIN asked USING (shard_id)
WHERE build_id = $build_id AND outcome = 'kept';

CREATE OR REPLACE TEMP TABLE job_clips AS
SELECT * FROM clips SEMI JOIN job_samples USING (clip_id);

CREATE OR REPLACE TEMP TABLE job_sources AS
SELECT * FROM sources SEMI JOIN job_clips USING (source_id, scan_fingerprint)
WHERE status = 'scanned';

CREATE OR REPLACE TEMP TABLE job_captions AS
SELECT clip_id, captioner, captioner_fingerprint, text, sha256(text) AS text_digest, outcome
FROM captions SEMI JOIN job_samples USING (clip_id);

CREATE OR REPLACE TEMP TABLE job_copies AS
SELECT live_samples.* FROM live_samples SEMI JOIN sound USING (shard_path)
SEMI JOIN job_samples USING (clip_id) WHERE outcome = 'kept' AND build_id <> $build_id
"""


class _Facts:
    """What the tables say of some shards' members, superseded sources and captions included."""

    def __init__(
        self, dataset: Dataset, build_id: str, shard_ids: Iterable[str], sound: Iterable[str]
    ) -> None:
        con = connect(dataset.tables)
        con.register("asked", pa.table({"shard_id": pa.array(shard_ids, pa.string())}))
        con.register("sound", pa.table({"shard_path": pa.array(sound, pa.string())}))
        for statement in _TABLES.split(";\n\n"):
            con.execute(statement, {"build_id": build_id} if "$build_id" in statement else {})
        samples: list[Sample] = _all(con, "FROM job_samples ORDER BY position", Sample)
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            self.samples[sample.shard_id].append(sample)
        clips: list[Clip] = _all(con, "FROM job_clips", Clip)
        self._clips = {clip.clip_id: clip for clip in clips}
        sources: list[Source] = _all(con, "FROM job_sources ORDER BY revision", Source)
        self._sources = {source.source_id: source for source in sources}
        copies: list[Sample] = _all(con, "FROM job_copies", Sample)
        self._copies = {sample.clip_id: sample for sample in copies}
        self._captions = _captions(con, dataset.spec.caption.captioner)

    def member(self, sample: Sample) -> MemberJob:
        clip = self._clips[sample.clip_id]
        caption = self._captions.get((sample.clip_id, sample.text_digest))
        if caption is None:
            raise CheckFailed(
                f"{sample.shard_path} cannot be made again: `captions` has no text of clip "
                f"{sample.clip_id} with the digest {sample.text_digest}"
            )
        copy = self._copies.get(sample.clip_id)
        if copy is not None:  # the bytes from there; what is known of them, from here
            copy = dataclasses.replace(
                sample,
                shard_path=copy.shard_path,
                latent_offset=copy.latent_offset,
                latent_bytes=copy.latent_bytes,
            )
        source = self._sources[clip.source_id]
        return MemberJob(clip, source, caption, copy, canary=sample.psnr_db > 0)


def _all(con: duckdb.DuckDBPyConnection, query: str, row: Any) -> list[Any]:
    return from_arrow(con.sql(query).to_arrow_table(), row)


def _captions(
    con: duckdb.DuckDBPyConnection, captioner: str
) -> Mapping[tuple[str, str], ChosenCaption]:
    """By clip_id and digest. Of those that said the same, the one the build would have chosen."""
    speakers = [speaker.fingerprint for speaker in load_captioner(captioner).speakers]

    def rank(fingerprint: str, outcome: str) -> tuple[bool, int]:
        usable = outcome in WITH_TEXT or (outcome != "failed" and fingerprint == speakers[-1])
        known = fingerprint in speakers
        return usable and known, -speakers.index(fingerprint) if known else 0

    said = con.sql("FROM job_captions").fetchall()
    last_is_best = sorted(said, key=lambda row: rank(row[2], row[-1]))
    return {(clip_id, row[-2]): ChosenCaption(*row[:-1]) for clip_id, *row in last_is_best}


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────


def _jobs_again(
    dataset: Dataset, event: Build, shard_ids: Iterable[str], sound: frozenset[str]
) -> Iterator[ShardJob]:
    """The jobs that made these shards; what they make is kept where its bytes are the same."""
    rest = iter(shard_ids)
    while chunk := list(islice(rest, SHARDS_AT_ONCE)):
        facts = _Facts(dataset, event.build_id, chunk, sound)
        for shard_id in chunk:
            samples = facts.samples[shard_id]
            first = samples[0]
            yield ShardJob(
                build_id=event.build_id,
                build_name=event.name,
                vae_fingerprint=event.vae_fingerprint,
                plan=first.plan,
                shard_id=shard_id,
                bucket=Bucket(first.resolution, first.aspect, first.duration),
                members=tuple(map(facts.member, samples)),
                expected_sha256=first.shard_sha256,
            )


def _jobs_anew(
    dataset: Dataset, work: Work, shards: list[ShardPlan], *, sound: frozenset[str]
) -> Iterator[ShardJob]:
    """The same jobs, for shards of a plan that replaces theirs."""
    plan = work.wishes.plan
    old = dict(zip((s.shard_id for s in plan.shards), plan.replaces, strict=True))
    again = _jobs_again(dataset, work.event, [old[s.shard_id] for s in shards], sound)
    for shard, job in zip(shards, again, strict=True):
        yield dataclasses.replace(
            job, shard_id=shard.shard_id, plan=work.event.plan, expected_sha256=""
        )


# ── a plan that replaces ─────────────────────────────────────────────────────────────────────────


def _planned(dataset: Dataset, event: Build, shard_ids: Iterable[str]) -> Work:
    """Commits the event of a plan that replaces these shards."""
    con = connect(dataset.tables)
    plan = _replacing(dataset, event.build_id, next_plan(con, event.build_id), shard_ids)
    versions: dict[str, Any] = {f"{name}_version": dataset.tables.version(name) for name in PINNED}
    planned = dataclasses.replace(
        event,
        sequence=next_sequence(con),
        event="planned",
        plan=next_plan(con, event.build_id),
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
    return Work(planned, Wishes(plan, [], 0, frozenset(), 0), resumed=True)


def _replacing(dataset: Dataset, build_id: str, number: int, shard_ids: Iterable[str]) -> Plan:
    """For each of the shards one of the same members. Pure, so that it can be known again."""
    con = connect(dataset.tables)
    con.register("asked", pa.table({"shard_id": pa.array(sorted(shard_ids), pa.string())}))
    rows = con.sql(
        """
        SELECT shard_id, resolution, aspect, duration,
            list([clip_id, text_digest] ORDER BY position)
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
