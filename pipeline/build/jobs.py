"""From a plan to jobs: everything known of each shard's members, for the worker that makes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import duckdb
import pyarrow as pa

from telecine.manifests.schemas import Build, Clip, Sample, Source, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.plan import Member, ShardPlan
from telecine.pipeline.build.sample import ChosenCaption
from telecine.pipeline.build.worker import MemberJob, ShardJob
from telecine.pipeline.catalog.captions import create_chosen_captions

# A question scans whole tables, so it is asked for many shards at a time; but what it answers is
# held in memory, some kilobytes a member, and a shard of thumbnails has thousands.
MEMBERS_AT_ONCE = 50_000

_TABLES = """
CREATE OR REPLACE TEMP TABLE job_clips AS
SELECT * FROM current_clips SEMI JOIN members USING (clip_id);

CREATE OR REPLACE TEMP TABLE job_sources AS
SELECT * FROM current_sources SEMI JOIN job_clips USING (source_id);

CREATE OR REPLACE TEMP TABLE job_captions AS
SELECT clip_id, captioner, captioner_fingerprint, text, text_digest, captions,
    captions_digest
FROM captions_in_force SEMI JOIN members USING (clip_id);
"""
# Latents are copied from the build's own shards first: they are what it has vouched for.
_COPIES = """
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
    create_chosen_captions(con, spec)
    con.execute("CREATE TEMP TABLE captions_in_force AS FROM chosen_captions")
    for chunk in _chunks(shards):
        facts = _Facts(con, event, chunk)
        for shard in chunk:
            yield ShardJob(
                build_id=event.build_id,
                build_name=event.name,
                vae_fingerprint=event.vae_fingerprint,
                plan=event.plan,
                shard_id=shard.shard_id,
                bucket=shard.bucket,
                members=tuple(facts.job(m, canary=m.clip_id in canaries) for m in shard.members),
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


class _Facts:
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
        con.execute(_TABLES)
        clips = from_arrow(con.sql("FROM job_clips").to_arrow_table(), Clip)
        sources = from_arrow(con.sql("FROM job_sources").to_arrow_table(), Source)
        self._clips = {c.clip_id: c for c in clips}
        self._sources = {s.source_id: s for s in sources}
        self._captions = {
            clip_id: ChosenCaption(*said)
            for clip_id, *said in con.sql("FROM job_captions").fetchall()
        }
        self._copies: dict[str, Sample] = {}
        if any(m.copied for m in members):
            known = {"build_id": event.build_id, "latents": event.latents_fingerprint}
            copies = con.sql(_COPIES, params=known).to_arrow_table()
            self._copies = {s.clip_id: s for s in from_arrow(copies, Sample)}

    def job(self, member: Member, *, canary: bool) -> MemberJob:
        clip = self._clips[member.clip_id]
        return MemberJob(
            clip=clip,
            source=self._sources[clip.source_id],
            caption=self._captions[member.clip_id],
            copy=self._copies[member.clip_id] if member.copied else None,
            canary=canary,
        )
