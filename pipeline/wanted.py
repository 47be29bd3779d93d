"""From tables to a plan: which clips a build wants, and which of its shards hold them as wanted.

    current clips ⋈ chosen captions = wanted          live samples of the build = held
    a held shard with a member that is not wanted so  = stale

At ten million clips nearly all are settled: in shards that are fresh and stay. Those never leave
the database; Python sees what is new, what is stale, and the small shards that new members top up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from encoders.video import VideoEncoder
from infra.errors import Reason
from manifests.schemas import Sample
from manifests.specs import DatasetSpec
from pipeline.caption import create_chosen_captions
from pipeline.plan import (
    Bucket,
    Candidate,
    LiveMember,
    Plan,
    bucket_of,
    plan_encoding,
    plan_shards,
    sample_bytes,
)

ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedClip:
    """Columns of schemas.Clip that decide a clip's bucket and size, and its caption's."""

    clip_id: str
    kind: str
    num_frames: int
    start_pts: int
    end_pts: int
    time_base_num: int
    time_base_den: int
    fps_num: int
    fps_den: int
    variable_rate: bool
    duration_seconds: float
    width: int
    height: int
    text_digest: str
    text_bytes: int


_COLUMNS = ", ".join(WantedClip.__slots__)

# What was dropped stays dropped, unless it is tried again and that could change something.
_TABLES = """
CREATE TEMP TABLE captions_in_force AS
SELECT clip_id, text_digest, octet_length(encode(text)) AS text_bytes FROM chosen_captions;

CREATE TEMP TABLE wanted AS
SELECT clip_id, text_digest, text_bytes FROM current_clips JOIN captions_in_force USING (clip_id)
ANTI JOIN (
    SELECT clip_id FROM live_samples
    WHERE build_id = $build_id AND outcome = 'dropped' AND (NOT $retry OR reason = $unfit)
) USING (clip_id);

CREATE TEMP TABLE held AS
SELECT clip_id, text_digest, shard_id, shard_bytes, resolution, aspect, duration
FROM live_samples WHERE build_id = $build_id AND outcome = 'kept';

CREATE TEMP TABLE stale AS
SELECT DISTINCT shard_id FROM held ANTI JOIN wanted USING (clip_id, text_digest);

CREATE TEMP TABLE fresh AS SELECT * FROM held ANTI JOIN stale USING (shard_id);
"""

_UNSETTLED = "FROM wanted ANTI JOIN fresh USING (clip_id)"
_SMALL = """
FROM fresh SEMI JOIN busy USING (resolution, aspect, duration)
WHERE 2 * shard_bytes < $target_bytes
"""


@dataclass(frozen=True)
class Wishes:
    """The plan that brings the shards to what is wanted, and what it leaves out."""

    plan: Plan
    dropped: list[Sample]  # clips that no bucket takes
    uncaptioned: int  # clips that wait for a caption


def make_plan(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    encoder: VideoEncoder,
    *,
    build_id: str,
    number: int,
    retry: bool,
) -> Wishes:
    """A pure function of the tables that `con` shows. `retry`: want again what was dropped."""
    create_chosen_captions(con, spec.caption)
    unfit = str(Reason.NO_BUCKET)
    for statement in _TABLES.split(";\n\n"):
        known = {"build_id": build_id, "retry": retry, "unfit": unfit}
        con.execute(statement, {k: v for k, v in known.items() if f"${k}" in statement})
    candidates: list[Candidate] = []
    dropped: list[Sample] = []
    for clip in _clips(con, _UNSETTLED):
        candidate = _candidate(clip, spec, encoder)
        if candidate is None:
            dropped.append(_without_bucket(clip, build_id, number))
        else:
            candidates.append(candidate)
    target_bytes = spec.shards.target_bytes
    topped_up = _small_shards(con, {c.bucket for c in candidates}, target_bytes)
    for clip in _clips(con, "FROM wanted SEMI JOIN topped_up USING (clip_id)"):
        candidate = _candidate(clip, spec, encoder)
        assert candidate is not None  # it is in a shard
        candidates.append(candidate)
    live = [*_members(con, "FROM held SEMI JOIN stale USING (shard_id)"), *topped_up]
    plan = plan_shards(
        candidates, live, build_id=build_id, number=number, target_bytes=target_bytes
    )
    ((uncaptioned,),) = con.sql(
        "SELECT count(*) FROM current_clips ANTI JOIN captions_in_force USING (clip_id)"
    ).fetchall()
    return Wishes(plan, sorted(dropped, key=lambda row: row.clip_id), uncaptioned)


def _clips(con: duckdb.DuckDBPyConnection, which: str) -> Iterator[WantedClip]:
    query = f"SELECT {_COLUMNS} FROM current_clips JOIN (SELECT * {which}) USING (clip_id)"
    for batch in con.sql(query).to_arrow_reader(ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield WantedClip(**row)


def _candidate(clip: WantedClip, spec: DatasetSpec, encoder: VideoEncoder) -> Candidate | None:
    bucket = bucket_of(clip, spec.buckets)
    encoding = plan_encoding(clip, encoder, spec.vae)
    if bucket is None or encoding is None:
        return None
    size = sample_bytes(encoding, clip.text_bytes)
    return Candidate(clip.clip_id, clip.text_digest, bucket, size)


def _without_bucket(clip: WantedClip, build_id: str, number: int) -> Sample:
    return Sample(
        build_id=build_id,
        plan=number,
        clip_id=clip.clip_id,
        outcome="dropped",
        reason=Reason.NO_BUCKET,
        detail=f"{clip.width}×{clip.height}, {clip.duration_seconds:.3f} s",
        text_digest=clip.text_digest,
    )


def _small_shards(
    con: duckdb.DuckDBPyConnection, busy: set[Bucket], target_bytes: int
) -> list[LiveMember]:
    """Members of the fresh shards that are small and in a bucket that gets new ones."""
    columns = {
        "resolution": pa.array([b.resolution for b in busy], pa.int64()),
        "aspect": pa.array([b.aspect for b in busy], pa.string()),
        "duration": pa.array([b.duration for b in busy], pa.string()),
    }
    con.register("busy", pa.table(columns))
    con.execute(f"CREATE TEMP TABLE topped_up AS SELECT * {_SMALL}", {"target_bytes": target_bytes})
    return list(_members(con, "FROM topped_up"))


def _members(con: duckdb.DuckDBPyConnection, which: str) -> Iterator[LiveMember]:
    columns = "clip_id, text_digest, shard_id, shard_bytes, resolution, aspect, duration"
    for clip_id, text, shard_id, size, *bucket in con.sql(f"SELECT {columns} {which}").fetchall():
        yield LiveMember(clip_id, text, shard_id, size, Bucket(*bucket))
