"""build: clips × captions × an encoder → shards and `samples`.

planned ──▶ shard, shard, shard ... ──▶ completed ──▶ promoted ──▶ index.json
│ pins the table versions that the plan is a pure function of, so a run that was killed
└ makes the same plan again and goes on with the shards that have no rows yet
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from encoders.video import VideoEncoder
from infra.errors import CommitError, Reason
from infra.faults import kill_point
from infra.storage import join
from manifests.dataset import Dataset
from manifests.fingerprint import JsonValue, canonical_json, fingerprint, short_id
from manifests.queries import connect, last_plan, next_sequence
from manifests.schemas import Build, Clip, Sample, Source, from_arrow
from pipeline.caption import create_chosen_captions
from pipeline.plan import (
    Bucket,
    Candidate,
    LiveMember,
    Member,
    Plan,
    ShardPlan,
    bucket_of,
    plan_encoding,
    plan_shards,
    sample_bytes,
)
from pipeline.sample import ChosenCaption
from pipeline.shard import MemberJob, ShardJob

PINNED = ("sources", "clips", "captions", "samples", "builds")
ROWS_AT_ONCE = 10_000

_DROPPED = "SELECT clip_id FROM live_samples WHERE build_id = ? AND outcome = 'dropped'"
_UNFIT = f"{_DROPPED} AND reason = '{Reason.NO_BUCKET}'"  # trying again would change nothing


@dataclass(frozen=True)
class Generation:
    """One generation of latents: the name of everything that its bytes depend on."""

    build_id: str
    name: str  # folder under shards/
    encoder: VideoEncoder
    spec: str  # canonical JSON

    @classmethod
    def of(cls, dataset: Dataset, encoder: VideoEncoder) -> Generation:
        wanted = ("pixels", "caption", "vae", "buckets", "shards")
        spec: dict[str, JsonValue] = {k: dataset.spec.canonical()[k] for k in wanted}
        spec["encoder"] = encoder.identity()
        build_id = short_id("build", spec)
        prefix = dataset.spec.vae.encoder.partition(":")[0]
        return cls(build_id, f"{prefix}-{build_id[:8]}", encoder, canonical_json(spec))


@dataclass(frozen=True)
class Work:
    """A plan, the event that recorded it, and the rows it drops for want of a bucket."""

    event: Build
    plan: Plan
    dropped: list[Sample]


def plan_build(dataset: Dataset, generation: Generation, *, retry: bool) -> Work | None:
    """The plan to carry out: an earlier run's that was not completed, else a new one, or None.

    Commits the `planned` event of a new one.
    """
    con = connect(dataset.tables)
    last = last_plan(con, generation.build_id)
    if last is not None and last.event == "planned":
        return _resume(dataset, generation, last)
    number = last.plan + 1 if last else 0
    plan, dropped = _make_plan(dataset, generation, con, number, retry=retry)
    if not plan.shards and not plan.replaces and not dropped:
        return None
    versions = {name: dataset.tables.version(name) for name in PINNED}
    event = _event(dataset, generation, con, number, plan, versions, retry=retry)
    kill_point("commit", "planned")
    dataset.tables.append("builds", [event])
    kill_point("committed", "planned")
    return Work(event, plan, dropped)


def _resume(dataset: Dataset, generation: Generation, event: Build) -> Work:
    versions = {name: getattr(event, f"{name}_version") for name in PINNED}
    con = connect(dataset.tables, versions)
    plan, dropped = _make_plan(dataset, generation, con, event.plan, retry=event.retry)
    if plan.digest != event.plan_digest:
        raise CommitError(
            f"the plan that an earlier run of build {generation.name} left unfinished cannot be "
            "made again: this version of Telecine plans differently. Finish it with the version "
            "that began it."
        )
    return Work(event, plan, dropped)


def _event(
    dataset: Dataset,
    generation: Generation,
    con: duckdb.DuckDBPyConnection,
    number: int,
    plan: Plan,
    versions: Mapping[str, int],
    *,
    retry: bool,
) -> Build:
    return Build(
        build_id=generation.build_id,
        name=generation.name,
        sequence=next_sequence(con),
        event="planned",
        plan=number,
        plan_digest=plan.digest,
        num_shards=len(plan.shards),
        num_samples=plan.num_samples,
        retry=retry,
        replaces=plan.replaces,
        sources_version=versions["sources"],
        clips_version=versions["clips"],
        captions_version=versions["captions"],
        samples_version=versions["samples"],
        builds_version=versions["builds"],
        vae=canonical_json(generation.encoder.identity()),
        vae_fingerprint=generation.encoder.fingerprint,
        pixel_fingerprint=dataset.spec.pixels.fingerprint,
        spec=generation.spec,
    )


# ── from tables to candidates ────────────────────────────────────────────────────────────────────


def _make_plan(
    dataset: Dataset,
    generation: Generation,
    con: duckdb.DuckDBPyConnection,
    number: int,
    *,
    retry: bool,
) -> tuple[Plan, list[Sample]]:
    create_chosen_captions(con, dataset.spec.caption)
    candidates: list[Candidate] = []
    dropped: list[Sample] = []
    for clip, text_digest, text_bytes in _wanted(con, generation.build_id, retry=retry):
        found = _candidate(dataset, generation, clip, text_digest, text_bytes)
        if found is not None:
            candidates.append(found)
        else:
            dropped.append(_without_bucket(generation, number, clip, text_digest))
    plan = plan_shards(
        candidates,
        _live_members(con, generation.build_id),
        build_id=generation.build_id,
        target_bytes=dataset.spec.shards.target_bytes,
    )
    return plan, sorted(dropped, key=lambda row: row.clip_id)


def _wanted(
    con: duckdb.DuckDBPyConnection, build_id: str, *, retry: bool
) -> Iterator[tuple[Clip, str, int]]:
    """Current clips that have a caption and that the build did not drop before."""
    reader = con.sql(
        f"""
        SELECT clips.*, text_digest, octet_length(encode(text)) AS text_bytes
        FROM current_clips AS clips JOIN chosen_captions USING (clip_id)
        WHERE clip_id NOT IN ({_UNFIT if retry else _DROPPED})
        """,
        params=[build_id],
    ).to_arrow_reader(ROWS_AT_ONCE)
    for batch in reader:
        table = pa.Table.from_batches([batch])
        yield from zip(
            from_arrow(table, Clip),
            table["text_digest"].to_pylist(),
            table["text_bytes"].to_pylist(),
            strict=True,
        )


def _candidate(
    dataset: Dataset, generation: Generation, clip: Clip, text_digest: str, text_bytes: int
) -> Candidate | None:
    bucket = bucket_of(clip, dataset.spec.buckets)
    encoding = plan_encoding(clip, generation.encoder, dataset.spec.vae)
    if bucket is None or encoding is None:
        return None
    return Candidate(clip.clip_id, text_digest, bucket, sample_bytes(encoding, text_bytes))


def _without_bucket(generation: Generation, number: int, clip: Clip, text_digest: str) -> Sample:
    return Sample(
        build_id=generation.build_id,
        plan=number,
        clip_id=clip.clip_id,
        outcome="dropped",
        reason=Reason.NO_BUCKET,
        detail=f"{clip.width}×{clip.height}, {clip.duration_seconds:.3f} s",
        text_digest=text_digest,
    )


def _live_members(con: duckdb.DuckDBPyConnection, build_id: str) -> Iterator[LiveMember]:
    rows = con.sql(
        """
        SELECT clip_id, text_digest, shard_id, shard_bytes, resolution, aspect, duration
        FROM live_samples WHERE build_id = ? AND outcome = 'kept'
        """,
        params=[build_id],
    ).fetchall()
    for clip_id, text_digest, shard_id, shard_bytes, *bucket in rows:
        yield LiveMember(clip_id, text_digest, shard_id, shard_bytes, Bucket(*bucket))


# ── from the plan to jobs ────────────────────────────────────────────────────────────────────────


def unwritten(dataset: Dataset, work: Work) -> list[ShardPlan]:
    """The shards of the plan that have no rows yet, in the plan's order."""
    done = connect(dataset.tables).sql(
        "SELECT DISTINCT shard_id FROM samples WHERE build_id = ? AND plan = ?",
        params=[work.event.build_id, work.event.plan],
    )
    written = {row[0] for row in done.fetchall()}
    return [shard for shard in work.plan.shards if shard.shard_id not in written]


def shard_jobs(dataset: Dataset, work: Work, shards: Iterable[ShardPlan]) -> Iterator[ShardJob]:
    """All that is known of each shard's members, from the tables that the plan was made from."""
    versions = {name: getattr(work.event, f"{name}_version") for name in PINNED}
    con = connect(dataset.tables, versions)
    create_chosen_captions(con, dataset.spec.caption)
    for shard in shards:
        yield ShardJob(
            build_id=work.event.build_id,
            build_name=work.event.name,
            plan=work.event.plan,
            shard_id=shard.shard_id,
            bucket=shard.bucket,
            members=_member_jobs(con, work.event.build_id, shard.members),
        )


def _member_jobs(
    con: duckdb.DuckDBPyConnection, build_id: str, members: Sequence[Member]
) -> tuple[MemberJob, ...]:
    """Everything known of the members, by one question per table."""
    con.register("members", pa.table({"clip_id": [m.clip_id for m in members]}))
    clips = from_arrow(
        con.sql("SELECT * FROM current_clips SEMI JOIN members USING (clip_id)").to_arrow_table(),
        Clip,
    )
    con.register("owners", pa.table({"source_id": [c.source_id for c in clips]}))
    sources = from_arrow(
        con.sql(
            "SELECT * FROM current_sources SEMI JOIN owners USING (source_id)"
        ).to_arrow_table(),
        Source,
    )
    captions = con.sql(
        "SELECT clip_id, captioner, captioner_fingerprint, text, text_digest "
        "FROM chosen_captions SEMI JOIN members USING (clip_id)"
    ).fetchall()
    copies = from_arrow(
        con.sql(
            "SELECT * FROM live_samples SEMI JOIN members USING (clip_id) "
            "WHERE build_id = ? AND outcome = 'kept'",
            params=[build_id],
        ).to_arrow_table(),
        Sample,
    )
    clip_of = {c.clip_id: c for c in clips}
    source_of = {s.source_id: s for s in sources}
    caption_of = {clip_id: ChosenCaption(*facts) for clip_id, *facts in captions}
    copy_of = {s.clip_id: s for s in copies}
    return tuple(
        MemberJob(
            clip=clip_of[m.clip_id],
            source=source_of[clip_of[m.clip_id].source_id],
            caption=caption_of[m.clip_id],
            copy=copy_of[m.clip_id] if m.copy_from else None,
        )
        for m in members
    )


# ── ending ───────────────────────────────────────────────────────────────────────────────────────


def drop_without_bucket(dataset: Dataset, work: Work) -> None:
    """Commit the rows of clips that no bucket takes, once per plan."""
    con = connect(dataset.tables)
    written = con.sql(
        "SELECT count(*) FROM samples WHERE build_id = ? AND plan = ? AND shard_id = ''",
        params=[work.event.build_id, work.event.plan],
    ).fetchall()
    if written == [(0,)]:
        dataset.tables.append("samples", work.dropped)


def complete(dataset: Dataset, work: Work) -> None:
    """Commit that the plan is carried out: its shards become live, those it replaces do not."""
    sequence = next_sequence(connect(dataset.tables))
    event = dataclasses.replace(work.event, event="completed", sequence=sequence)
    kill_point("commit", "completed")
    dataset.tables.append("builds", [event])
    kill_point("committed", "completed")


def promote(dataset: Dataset, generation: Generation) -> None:
    """Make the build current, if it is not."""
    con = connect(dataset.tables)
    last = last_plan(con, generation.build_id)
    current = con.sql("FROM current_build").fetchall()
    if last is None or current == [(generation.build_id,)]:
        return
    event = dataclasses.replace(last, event="promoted", sequence=next_sequence(con))
    dataset.tables.append("builds", [event])
    kill_point("committed", "promoted")


def write_index(dataset: Dataset, generation: Generation) -> None:
    """`index.json`: every live shard with its count, bytes and digest, for plain webdataset users.

    A view of the tables like the shards themselves, so it is simply made again.
    """
    rows = connect(dataset.tables).sql(
        """
        SELECT DISTINCT shard_path, shard_samples, shard_bytes, shard_sha256,
            resolution, aspect, duration
        FROM live_samples WHERE build_id = ? AND outcome = 'kept' ORDER BY shard_path
        """,
        params=[generation.build_id],
    )
    folder = f"shards/{generation.name}"
    names = ("path", "num_samples", "size_bytes", "sha256", "resolution", "aspect", "duration")
    shards = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    for shard in shards:
        shard["path"] = shard["path"].removeprefix(f"{folder}/")
    index = {
        "build_id": generation.build_id,
        "vae_fingerprint": generation.encoder.fingerprint,
        "num_samples": sum(s["num_samples"] for s in shards),
        "size_bytes": sum(s["size_bytes"] for s in shards),
        "shards": shards,
        "digest": fingerprint([[s["path"], s["sha256"]] for s in shards]),
    }
    text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    dataset.storage.write_bytes(join(dataset.uri, folder, "index.json"), text.encode())
    kill_point("committed", "index")
