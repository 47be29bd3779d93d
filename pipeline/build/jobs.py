"""Jobs: everything known of each shard's members, for the worker that makes it.

`shard_jobs` takes it from a plan. `jobs_again` takes it from the rows of shards that were made,
to make the same ones again. Rows outlive what they came from: a source that was replaced and a
caption that another one supersedes are in their tables still, and the latents of a sample may
stand in other builds too.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from telecine.infra.errors import CheckFailed
from telecine.manifests.buckets import Bucket
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build, Clip, Sample, Source, from_arrow
from telecine.manifests.specs import CaptionMixSpec, DatasetSpec
from telecine.pipeline.build.plan import Member, ShardPlan
from telecine.pipeline.build.sample import IN_A_COLUMN, ChosenCaption
from telecine.pipeline.build.worker import MemberJob, ShardJob
from telecine.pipeline.catalog.captions import create_sample_captions, ever_said, mixed

# A question scans whole tables, so it is asked for many shards at a time; but what it answers is
# held in memory, some kilobytes a member, and a shard of thumbnails has thousands.
MEMBERS_AT_ONCE = 50_000
SHARDS_AT_ONCE = 64  # a question scans whole tables: ask for many shards at a time

_PLANNED_TABLES = """
CREATE OR REPLACE TEMP TABLE job_clips AS
SELECT * FROM current_clips SEMI JOIN members USING (clip_id);

CREATE OR REPLACE TEMP TABLE job_sources AS
SELECT * FROM current_sources SEMI JOIN job_clips USING (source_id);

CREATE OR REPLACE TEMP TABLE job_times AS
SELECT clip_id, any_value(stamps) AS stamps FROM frame_times SEMI JOIN members USING (clip_id)
GROUP BY clip_id;

CREATE OR REPLACE TEMP TABLE job_captions AS
SELECT clip_id, captioner, captioner_fingerprint, text, text_digest, captions,
    captions_digest
FROM captions_in_force SEMI JOIN members USING (clip_id);
"""
# Latents are copied from the build's own shards first: they are what it has vouched for.
_PLANNED_COPIES = """
SELECT live_samples.* FROM live_samples SEMI JOIN (FROM members WHERE copied) USING (clip_id)
SEMI JOIN (SELECT build_id FROM known_events WHERE latents_fingerprint = $latents) USING (build_id)
WHERE outcome = 'kept'
QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY build_id <> $build_id, build_id) = 1
"""


def shard_jobs(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    event: Build,
    shards: Iterable[ShardPlan],
    canaries: Collection[str],
) -> Iterator[ShardJob]:
    """The jobs of a plan's shards, in order. `con` shows the tables that the plan was made from."""
    create_sample_captions(con, spec)
    con.execute("CREATE TEMP TABLE captions_in_force AS FROM sample_captions")
    for chunk in _chunks(shards):
        facts = _PlannedFacts(con, event, chunk)
        for shard in chunk:
            yield ShardJob(
                build_id=event.build_id,
                build_name=event.name,
                vae_fingerprint=event.vae_fingerprint,
                plan=event.plan,
                has_tracks=bool(spec.tracks),
                shard_id=shard.shard_id,
                bucket=shard.bucket,
                members=tuple(facts.job(m, canary=m.clip_id in canaries) for m in shard.members),
                vae=spec.vae,
            )


def _chunks(shards: Iterable[ShardPlan]) -> Iterator[list[ShardPlan]]:
    """In order; each but the last of at least MEMBERS_AT_ONCE members."""
    chunk: list[ShardPlan] = []
    size = 0
    for shard in shards:
        chunk.append(shard)
        size += len(shard.members)
        if size >= MEMBERS_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _PlannedFacts:
    """What the tables say of every member of some shards."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, event: Build, shards: list[ShardPlan]
    ) -> None:
        members = [m for shard in shards for m in shard.members]
        columns = {
            "clip_id": pa.array([m.clip_id for m in members], pa.string()),
            "copied": pa.array([m.copied for m in members], pa.bool_()),
        }
        con.register("members", pa.table(columns))
        con.execute(_PLANNED_TABLES)
        clips = from_arrow(con.sql("FROM job_clips").to_arrow_table(), Clip)
        sources = from_arrow(con.sql("FROM job_sources").to_arrow_table(), Source)
        self._clips = {c.clip_id: c for c in clips}
        self._sources = {s.source_id: s for s in sources}
        self._captions = {
            clip_id: ChosenCaption(*said)
            for clip_id, *said in con.sql("FROM job_captions").fetchall()
        }
        self._stamps = _stamps(con)
        self._copies: dict[str, Sample] = {}
        if any(m.copied for m in members):
            known = {"build_id": event.build_id, "latents": event.latents_fingerprint}
            copies = con.sql(_PLANNED_COPIES, params=known).to_arrow_table()
            self._copies = {s.clip_id: s for s in from_arrow(copies, Sample)}

    def job(self, member: Member, *, canary: bool) -> MemberJob:
        clip = self._clips[member.clip_id]
        return MemberJob(
            clip=clip,
            source=self._sources[clip.source_id],
            caption=self._captions[member.clip_id],
            copy=self._copies[member.clip_id] if member.copied else None,
            canary=canary,
            stamps=self._stamps.get(member.clip_id),
        )


# ── the same again ───────────────────────────────────────────────────────────────────────────────


def jobs_again(
    dataset: Dataset, event: Build, shard_ids: Iterable[str], sound: frozenset[str]
) -> Iterator[ShardJob]:
    """The jobs that made these shards; what they make is kept where its bytes are the same."""
    rest = iter(shard_ids)
    while chunk := list(islice(rest, SHARDS_AT_ONCE)):
        facts = _MadeFacts(dataset, event.build_id, chunk, sound)
        for shard_id in chunk:
            samples = facts.samples[shard_id]
            first = samples[0]
            yield ShardJob(
                build_id=event.build_id,
                build_name=event.name,
                vae_fingerprint=event.vae_fingerprint,
                plan=first.plan,
                has_tracks=bool(dataset.spec.tracks),
                shard_id=shard_id,
                bucket=Bucket(first.resolution, first.aspect, first.duration),
                members=tuple(map(facts.member, samples)),
                expected_sha256=first.shard_sha256,
            )


_MADE_TABLES = """
CREATE TEMP TABLE job_samples AS
SELECT * FROM live_samples SEMI JOIN asked USING (shard_id)
WHERE build_id = $build_id AND outcome = 'kept';

CREATE TEMP TABLE job_clips AS
SELECT * FROM clips SEMI JOIN job_samples USING (clip_id);

CREATE TEMP TABLE job_sources AS
SELECT * FROM sources SEMI JOIN job_clips USING (source_id, scan_fingerprint)
WHERE status = 'scanned';

CREATE TEMP TABLE job_times AS
SELECT clip_id, any_value(stamps) AS stamps FROM frame_times SEMI JOIN job_samples USING (clip_id)
GROUP BY clip_id;

CREATE TEMP TABLE job_copies AS
SELECT live_samples.* FROM live_samples SEMI JOIN sound USING (shard_path)
SEMI JOIN job_samples USING (clip_id) WHERE outcome = 'kept' AND build_id <> $build_id
"""


class _MadeFacts:
    """What the tables say of some shards' members, superseded sources and captions included."""

    def __init__(
        self, dataset: Dataset, build_id: str, shard_ids: Iterable[str], sound: Iterable[str]
    ) -> None:
        con = connect(dataset.tables)
        con.register("asked", pa.table({"shard_id": pa.array(sorted(shard_ids), pa.string())}))
        con.register("sound", pa.table({"shard_path": pa.array(sorted(sound), pa.string())}))
        for statement in _MADE_TABLES.split(";\n\n"):
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
        self._captions = _captions(con, dataset.spec.caption_mix)
        self._stamps = _stamps(con)

    def member(self, sample: Sample) -> MemberJob:
        clip = self._clips[sample.clip_id]
        caption = self._captions.get((sample.clip_id, sample.captions_digest))
        if not sample.captions_digest:
            caption = IN_A_COLUMN
        if caption is None:
            raise CheckFailed(
                f"{sample.shard_path} cannot be made again: `captions` no longer has what it says "
                f"of clip {sample.clip_id}"
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
        stamps = self._stamps.get(sample.clip_id)
        return MemberJob(clip, source, caption, copy, canary=sample.psnr_db > 0, stamps=stamps)


def _stamps(con: duckdb.DuckDBPyConnection) -> dict[str, bytes]:
    """By clip_id, of those whose frames are not evenly spaced."""
    return dict(con.sql("FROM job_times").fetchall())


def _all(con: duckdb.DuckDBPyConnection, query: str, row: Any) -> list[Any]:
    return from_arrow(con.sql(query).to_arrow_table(), row)


def _captions(
    con: duckdb.DuckDBPyConnection, mix: CaptionMixSpec
) -> Mapping[tuple[str, str], ChosenCaption]:
    """By clip_id and digest: of all that may have been chosen, what the samples say was."""
    said = ever_said("job_samples")
    nobody = "SELECT DISTINCT clip_id, NULL FROM job_samples"
    second = f"{said} UNION ALL {nobody}" if mix.second else None
    rows = con.sql(f"""
        SELECT DISTINCT clip_id, captioner, captioner_fingerprint, text, text_digest, captions,
            captions_digest
        FROM ({mixed(said, second, mix)})
        SEMI JOIN job_samples USING (clip_id, captions_digest)
    """).fetchall()
    return {(clip_id, row[-1]): ChosenCaption(*row) for clip_id, *row in rows}
