"""From tables to a plan: which clips a build wants, and which of its shards hold them as wanted.

    selected clips ⋈ their captions = wanted          live samples of the build = held
    a held shard with a member that is not wanted so, or not in this shard  = stale

At ten million clips nearly all are settled: in shards that are fresh and stay. Those never leave
the database; Python sees what is new, what is stale, and the small shards that new members top up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import duckdb
import pyarrow as pa

from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.bugs import telecine_version
from telecine.infra.errors import MOST_TRIES, PASSING, Reason
from telecine.manifests.buckets import Bucket, bucket_of
from telecine.manifests.schemas import Sample
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.plan import (
    Candidate,
    LiveMember,
    Plan,
    plan_encoding,
    plan_shards,
    sample_bytes,
)
from telecine.pipeline.catalog.captions import create_sample_captions
from telecine.pipeline.catalog.selection import create_selected_clips
from telecine.pipeline.catalog.tracks import tracks_in_force

ROWS_AT_ONCE = 10_000
CANARIES = 8
OF_TRACKS = (Reason.TRACK_MISSING, Reason.TRACK_GAP)  # until its track file is another
UNFIT = (Reason.NO_BUCKET, Reason.TOO_SMALL, Reason.DAMAGED)  # left out by the plan, whoever tries


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
    effective_fps: float | None
    duration_seconds: float
    width: int
    height: int
    corrupt_frames: int | None
    captions_digest: str
    text_bytes: int  # of its .txt, and of what its JSON says of captions
    tracks_digest: str
    followed_shard: str  # shard_id in the build that is followed, or empty
    copied: bool | None  # its latents are in a live shard; None: they are not


_COLUMNS = ", ".join(WantedClip.__slots__)
_PLAIN = "SELECT '' AS clip_id, '' AS followed_shard LIMIT 0"
_FOLLOWED = """
SELECT clip_id, shard_id AS followed_shard FROM live_samples
WHERE build_id = $follows AND outcome = 'kept' AND shard_id NOT IN (FROM replaced_ahead)
UNION ALL FROM planned_ahead
"""

# What was dropped stays dropped, unless it is tried again and that could change something; what may
# have been the machine's fault is, a few times, and what was ours once Telecine is another.
# A shard_id is taken although its plan was deleted: gc may still be at its tar.
_TABLES = """
CREATE TEMP TABLE captions_in_force AS
SELECT clip_id, captions_digest,
    2 * octet_length(encode(text)) + octet_length(encode(captions)) AS text_bytes
FROM sample_captions;

CREATE TEMP TABLE tried_again AS
SELECT clip_id FROM live_samples SEMI JOIN (
    SELECT clip_id FROM samples WHERE build_id = $build_id AND outcome = 'dropped'
    GROUP BY clip_id HAVING count_if(reason IN $passing) < $most
) USING (clip_id)
WHERE build_id = $build_id AND outcome = 'dropped'
AND (reason IN $passing OR reason = $internal AND telecine_version <> $telecine)
UNION ALL
SELECT clip_id FROM live_samples LEFT JOIN tracks_in_force USING (clip_id)
WHERE build_id = $build_id AND outcome = 'dropped' AND reason IN $of_tracks
AND live_samples.tracks_digest <> coalesce(tracks_in_force.tracks_digest, '');

CREATE TEMP TABLE wanted AS
SELECT clip_id, captions_digest, text_bytes, coalesce(tracks_digest, '') AS tracks_digest,
    coalesce(followed_shard, '') AS followed_shard
FROM selected_clips JOIN captions_in_force USING (clip_id)
LEFT JOIN tracks_in_force USING (clip_id)
ANTI JOIN (
    SELECT clip_id FROM live_samples
    WHERE build_id = $build_id AND outcome = 'dropped'
    AND (NOT $retry OR reason IN $unfit) AND clip_id NOT IN (FROM tried_again)
) USING (clip_id)
LEFT JOIN followed USING (clip_id);

CREATE TEMP TABLE taken AS
SELECT DISTINCT shard_id FROM samples SEMI JOIN followed ON shard_id = followed_shard
WHERE build_id = $build_id AND outcome = 'kept';

CREATE TEMP TABLE held AS
SELECT clip_id, captions_digest, tracks_digest, shard_id, shard_bytes, resolution, aspect, duration
FROM live_samples WHERE build_id = $build_id AND outcome = 'kept';

CREATE TEMP TABLE fresh_shards AS
WITH shards AS (
    SELECT shard_id, count(*) AS members, count(followed_shard) AS wanted,
        min(followed_shard) AS followed, max(followed_shard) AS other
    FROM held LEFT JOIN wanted USING (clip_id, captions_digest, tracks_digest) GROUP BY shard_id
), occupied AS (
    SELECT followed_shard, count(*) AS members FROM wanted
    WHERE followed_shard <> '' GROUP BY followed_shard
)
SELECT shard_id, followed AS followed_shard FROM shards
WHERE members = wanted AND followed = other AND (followed = ''
    OR (followed, members) IN (FROM occupied)
    AND (followed = shard_id OR followed IN (FROM taken)));

CREATE TEMP TABLE fresh AS SELECT * FROM held JOIN fresh_shards USING (shard_id);

CREATE TEMP TABLE unsettled AS FROM wanted ANTI JOIN fresh USING (clip_id);

CREATE TEMP TABLE copyable AS
SELECT DISTINCT clip_id FROM live_samples SEMI JOIN unsettled USING (clip_id)
SEMI JOIN (SELECT build_id FROM known_events WHERE latents_fingerprint = $latents) USING (build_id)
WHERE outcome = 'kept';
"""

_UNSETTLED = """
FROM (SELECT * FROM unsettled LEFT JOIN (SELECT clip_id, true AS copied FROM copyable)
USING (clip_id))
"""
_SMALL = """
FROM fresh SEMI JOIN busy USING (resolution, aspect, duration)
WHERE 2 * shard_bytes < $target_bytes AND followed_shard = ''
"""


@dataclass(frozen=True)
class Planned:
    """The plan that brings the shards to what is wanted, and what it leaves out."""

    plan: Plan
    dropped: list[Sample]  # clips that no bucket takes, that are too small, and damaged ones
    uncaptioned: int  # clips that wait for a caption
    canaries: frozenset[str]  # clip_ids whose round trip is measured when they are encoded
    fresh: int  # shards that stay


@dataclass(frozen=True)
class Target:
    """Which build a plan is for."""

    build_id: str
    latents_fingerprint: str
    number: int  # of the plan
    retry: bool  # want again what was dropped
    follows: str  # build_id whose layout the plan takes over, or empty
    ahead: Plan | None = None  # of that build, carried out beside this one


def make_plan(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, encoder: VideoEncoder, target: Target
) -> Planned:
    """A pure function of the tables that `con` shows."""
    _create_tables(con, spec, target)
    candidates: list[Candidate] = []
    dropped: list[Sample] = []
    for clip in _clips(con, _UNSETTLED):
        candidate = _candidate(clip, spec, encoder)
        short_side = spec.vae.short_side
        if clip.corrupt_frames and spec.select.damaged == "drop":
            detail = f"{clip.corrupt_frames} of {clip.num_frames} frames"
            dropped.append(_left_out(clip, target, Reason.DAMAGED, detail))
        elif short_side is not None and min(clip.width, clip.height) < short_side:
            detail = f"{clip.width}×{clip.height}, its short side is to be {short_side} px"
            dropped.append(_left_out(clip, target, Reason.TOO_SMALL, detail))
        elif candidate is None:
            detail = f"{clip.width}×{clip.height}, {clip.duration_seconds:.3f} s"
            dropped.append(_left_out(clip, target, Reason.NO_BUCKET, detail))
        else:
            candidates.append(candidate)
    target_bytes = spec.shards.target_bytes
    busy = {c.bucket for c in candidates if not c.followed_shard}
    topped_up = _small_shards(con, busy, target_bytes)
    small = "SELECT *, true AS copied FROM wanted SEMI JOIN topped_up USING (clip_id)"
    for clip in _clips(con, f"FROM ({small})"):
        candidate = _candidate(clip, spec, encoder)
        assert candidate is not None  # it is in a shard
        candidates.append(candidate)
    live = [*_members(con, "FROM held ANTI JOIN fresh_shards USING (shard_id)"), *topped_up]
    plan = plan_shards(
        candidates,
        live,
        build_id=target.build_id,
        number=target.number,
        target_bytes=target_bytes,
        taken={shard_id for (shard_id,) in con.sql("FROM taken").fetchall()},
    )
    waiting = "FROM selected_clips ANTI JOIN captions_in_force USING (clip_id)"
    return Planned(
        plan,
        sorted(dropped, key=lambda row: row.clip_id),
        uncaptioned=_count(con, waiting),
        canaries=_canaries(con, {row.clip_id for row in dropped}),
        fresh=_count(con, "FROM fresh_shards") - len({m.shard_id for m in topped_up}),
    )


def _create_tables(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, target: Target) -> None:
    create_sample_captions(con, spec)
    create_selected_clips(con, spec)
    _create_ahead(con, target.ahead or Plan((), ()))
    known = {
        "build_id": target.build_id,
        "retry": target.retry,
        "unfit": [str(reason) for reason in UNFIT],
        "of_tracks": [str(reason) for reason in OF_TRACKS],
        "passing": [str(reason) for reason in PASSING],
        "most": MOST_TRIES,
        "internal": str(Reason.INTERNAL),
        "telecine": telecine_version(),
        "follows": target.follows,
        "latents": target.latents_fingerprint,
    }
    followed = f"CREATE TEMP TABLE followed AS {_FOLLOWED if target.follows else _PLAIN}"
    tracks = f"CREATE TEMP TABLE tracks_in_force AS {tracks_in_force(spec)}"
    for statement in (followed, tracks, *_TABLES.split(";\n\n")):
        con.execute(statement, {k: v for k, v in known.items() if f"${k}" in statement})


def _create_ahead(con: duckdb.DuckDBPyConnection, ahead: Plan) -> None:
    """Tables of what a plan does to a layout: the shards it replaces, and the clips of its own."""
    seats = [(m.clip_id, shard.shard_id) for shard in ahead.shards for m in shard.members]
    clips = pa.array([clip_id for clip_id, _ in seats], pa.string())
    shards = pa.array([shard_id for _, shard_id in seats], pa.string())
    replaced = pa.array(ahead.replaces, pa.string())
    con.register("planned_ahead", pa.table({"clip_id": clips, "followed_shard": shards}))
    con.register("replaced_ahead", pa.table({"shard_id": replaced}))


def _canaries(con: duckdb.DuckDBPyConnection, dropped: set[str]) -> frozenset[str]:
    """The lowest ids: hashes, so a sample, and for the most part the same ones plan after plan."""
    lowest = con.sql(f"SELECT clip_id FROM wanted ORDER BY clip_id LIMIT {CANARIES + len(dropped)}")
    fit = (clip_id for (clip_id,) in lowest.fetchall() if clip_id not in dropped)
    return frozenset(islice(fit, CANARIES))


def _count(con: duckdb.DuckDBPyConnection, what: str) -> int:
    ((count,),) = con.sql(f"SELECT count(*) {what}").fetchall()
    return int(count)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


def _clips(con: duckdb.DuckDBPyConnection, which: str) -> Iterator[WantedClip]:
    query = f"SELECT {_COLUMNS} FROM current_clips JOIN (SELECT * {which}) USING (clip_id)"
    for batch in con.sql(query).to_arrow_reader(ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield WantedClip(**row)


def _candidate(clip: WantedClip, spec: DatasetSpec, encoder: VideoEncoder) -> Candidate | None:
    bucket = bucket_of(clip, spec.buckets, spec.vae.short_side)
    encoding = plan_encoding(clip, encoder, spec.vae)
    if bucket is None or encoding is None:
        return None
    tracks = clip.tracks_digest and spec.tracks
    size = sample_bytes(encoding, clip.text_bytes, tracks or {})
    return Candidate(
        clip.clip_id,
        clip.captions_digest,
        bucket,
        size,
        tracks_digest=clip.tracks_digest,
        copied=bool(clip.copied),
        followed_shard=clip.followed_shard,
    )


def _left_out(clip: WantedClip, target: Target, reason: Reason, detail: str) -> Sample:
    return Sample(
        build_id=target.build_id,
        plan=target.number,
        clip_id=clip.clip_id,
        outcome="dropped",
        reason=reason,
        detail=detail,
        captions_digest=clip.captions_digest,
        tracks_digest=clip.tracks_digest,
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
    digests = "clip_id, captions_digest, tracks_digest"
    columns = f"{digests}, shard_id, shard_bytes, resolution, aspect, duration"
    for row in con.sql(f"SELECT {columns} {which}").fetchall():
        clip_id, text, tracks, shard_id, size, *bucket = row
        yield LiveMember(clip_id, text, shard_id, size, Bucket(*bucket), tracks)
