"""Everything about clips, as values: what `inspect DATASET clip ID` shows and `explain` reasons on.

    clip_id ──▶ narrow: the tables cut down to a few clips, under their own names
                  └──▶ the views and queries of every other step, over these rows alone
                         └──▶ KnownClip: source, captions, scores, bucket, samples

Each table is read once, whatever is asked of it afterwards.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from telecine.encoders.load import load_captioner, load_encoder, load_scorer
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.manifests.buckets import Bucket, bucket_of
from telecine.manifests.builds import BuildState, State, builds
from telecine.manifests.schemas import Clip, Sample, Source, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.plan import plan_encoding
from telecine.pipeline.catalog.captions import (
    Chosen,
    Said,
    by_speakers,
    captions_said,
    inputs,
)
from telecine.pipeline.catalog.scores import (
    DUPLICATES,
    create_scored_clips,
    grouping,
    score_columns,
)
from telecine.pipeline.catalog.tracks import track_columns
from telecine.pipeline.media.geometry import reduced_size


@dataclass(frozen=True, slots=True)
class Attempts:
    """What the captioner in force made of the clip as it is now."""

    captioner: str  # as the spec names it
    failed: int  # rows
    details: tuple[str, ...]  # of them, each once


@dataclass(frozen=True, slots=True)
class Placed:
    """The clip's row in one build."""

    sample: Sample
    build: str  # name
    current: bool
    rendition: str = ""  # its name beside the current one, or empty


@dataclass(frozen=True)
class KnownClip:
    clip: Clip
    source: Source | None  # the row it was cut under; None: no committed scan stands behind it
    in_force: Source | None  # of that URI
    captions: tuple[Said, ...]
    chosen: Chosen | None  # None: it waits for a caption, or is no current clip
    attempts: Attempts
    scores: Mapping[str, float | int | str | None]  # the columns in force; None: it has none
    unembedded: str  # why the scorer in force has no embedding of it, or empty
    bucket: Bucket | None
    no_bucket: str  # why there is none, or empty
    placed: tuple[Placed, ...]  # in every build that has a word on it
    too_small: bool = False  # there is none since it is smaller than `vae.short_side`

    @property
    def superseded(self) -> bool:
        """Its source has been replaced since, or is no longer scanned."""
        mine, now = self.source, self.in_force
        return mine is None or now is None or (now.source_id, now.status) != (
            mine.source_id, "scanned",
        )  # fmt: skip

    @property
    def now(self) -> Placed | None:
        """In the current build."""
        return next((placed for placed in self.placed if placed.current), None)


# ── all of it ────────────────────────────────────────────────────────────────────────────────────


def known_clips(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> list[KnownClip]:
    """The clips that the tables were focused on, in the order of their sources and spans.

    Raises UsageError where the spec names a captioner or scorer that there is not.
    """
    create_scored_clips(con, spec)
    clips = _rows(con, "FROM clips ORDER BY source_id, start_frame, clip_id", Clip)
    sources = _rows(con, "FROM sources ORDER BY revision", Source)
    chosen, said = captions_said(con, spec)
    attempts = _attempts(con, spec)
    scores, failures = _scores(con, spec), _unembedded(con, spec)
    encoder = _encoder(spec)
    placed = _placed(con)
    return [
        KnownClip(
            clip=clip,
            source=next((s for s in reversed(sources) if _cut_from(clip, s)), None),
            in_force=sources[-1] if sources else None,
            captions=said.get(clip.clip_id, ()),
            chosen=chosen.get(clip.clip_id),
            attempts=attempts.get(clip.clip_id, Attempts(spec.caption.captioner, 0, ())),
            scores=scores.get(clip.clip_id, {}),
            unembedded=failures.get(clip.clip_id, ""),
            bucket=_bucket(clip, spec, encoder)[0],
            no_bucket=_bucket(clip, spec, encoder)[1],
            placed=tuple(placed[clip.clip_id]),
            too_small=_is_too_small(clip, spec),
        )
        for clip in clips
    ]


def _cut_from(clip: Clip, source: Source) -> bool:
    here = (source.source_id, source.scan_fingerprint)
    return source.status == "scanned" and here == (clip.source_id, clip.scan_fingerprint)


def _rows(con: duckdb.DuckDBPyConnection, query: str, row: Any) -> list[Any]:
    return from_arrow(con.sql(query).to_arrow_table(), row)


def _attempts(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> dict[str, Attempts]:
    captioner = load_captioner(spec.caption)
    rows = con.sql(
        "SELECT clip_id, count(*), list(DISTINCT detail ORDER BY detail) FROM captions "
        f"SEMI JOIN ({inputs(captioner.uses)}) USING (clip_id, input_digest) "
        f"WHERE outcome = 'failed' AND {by_speakers(captioner)} GROUP BY clip_id"
    ).fetchall()
    return {
        clip_id: Attempts(spec.caption.captioner, failed, tuple(filter(None, details)))
        for clip_id, failed, details in rows
    }


def _scores(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> dict[str, dict[str, Any]]:
    tracks = track_columns(spec)
    columns = (*score_columns(spec.score), *tracks)
    listed = ", ".join(("clip_id", *columns))
    rows = con.sql(f"SELECT {listed} FROM scored_clips").fetchall()
    found = {clip_id: dict(zip(columns, values, strict=True)) for clip_id, *values in rows}
    # A track that cannot be used has no gap: that it has none is nothing to wait for.
    return {
        clip_id: {n: v for n, v in values.items() if v is not None or n not in tracks}
        for clip_id, values in found.items()
    }


def _unembedded(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> dict[str, str]:
    if spec.score.scorer is None:
        return {}
    rows = con.sql(
        "SELECT clip_id, any_value(detail) FROM embeddings "
        "SEMI JOIN clips USING (clip_id, stills_digest) WHERE scorer_fingerprint = ? "
        "GROUP BY clip_id HAVING max(octet_length(embedding)) = 0",
        params=[load_scorer(spec.score).fingerprint],
    ).fetchall()
    return dict(rows)


def _encoder(spec: DatasetSpec) -> VideoEncoder | None:
    """None where its files are not at hand: then its grid is not known either."""
    try:
        return load_encoder(spec.vae)
    except UsageError:
        return None


def _is_too_small(clip: Clip, spec: DatasetSpec) -> bool:
    return reduced_size(clip.width, clip.height, spec.vae.short_side) is None


def _bucket(clip: Clip, spec: DatasetSpec, encoder: VideoEncoder | None) -> tuple[Any, str]:
    """The bucket that the spec puts it into, or why there is none."""
    side, wanted = min(clip.width, clip.height), spec.vae.short_side
    if _is_too_small(clip, spec):
        return None, f"its short side of {side} px is below vae.short_side, {wanted} px"
    bucket = bucket_of(clip, spec.buckets, wanted)
    if bucket is None:
        least = spec.buckets.resolutions[0]
        why = f"its short side of {side} px is below the smallest rung, {least} px"
        if side >= least:
            shortest = spec.buckets.durations[0]
            why = f"its {clip.duration_seconds:g} s are below the smallest rung, {shortest:g} s"
        return None, why
    if encoder is not None and plan_encoding(clip, encoder, spec.vae) is None:
        return None, "it is smaller or shorter than one step of the encoder's grid"
    return bucket, ""


def _placed(con: duckdb.DuckDBPyConnection) -> dict[str, list[Placed]]:
    there: dict[str, BuildState] = {build.build_id: build for build in builds(con)}
    found: dict[str, list[Placed]] = defaultdict(list)
    order = {build_id: number for number, build_id in enumerate(there)}
    rows = _rows(con, "FROM live_samples ORDER BY clip_id", Sample)
    for row in sorted(rows, key=lambda r: order[r.build_id]):
        build = there[row.build_id]
        beside = build.rendition if build.state is State.RENDITION else ""
        placed = Placed(row, build.name, build.state is State.CURRENT, beside)
        found[row.clip_id].append(placed)
    return found


# ── of one clip, shown alone ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Group:
    """The near-duplicates of a clip, the one that is kept first."""

    clips: int
    members: tuple[tuple[str, int], ...]  # (clip_id, rank) of the first of them


MEMBERS = 20


def group_of(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, clip_id: str) -> Group | None:
    """Over the whole table, so to be asked before `narrow`; None where clips are not grouped."""
    if DUPLICATES[0] not in score_columns(spec.score):
        return None
    rows = con.sql(
        """
        WITH placed AS (
            SELECT clip_id, arg_max(duplicate_group, round) AS duplicate_group,
                arg_max(duplicate_rank, round) AS duplicate_rank
            FROM duplicates SEMI JOIN current_clips USING (clip_id)
            WHERE grouping = $grouping GROUP BY clip_id
        )
        SELECT clip_id, duplicate_rank, count(*) OVER () FROM placed
        SEMI JOIN (FROM placed WHERE clip_id = $clip_id) USING (duplicate_group)
        ORDER BY duplicate_rank, clip_id LIMIT $members
        """,
        params={"grouping": grouping(spec.score), "clip_id": clip_id, "members": MEMBERS},
    ).fetchall()
    return Group(rows[0][2], tuple((c, rank) for c, rank, _ in rows)) if rows else None


@dataclass(frozen=True, slots=True)
class StillFacts:
    position: int
    seconds: float  # since the clip's first frame
    width: int
    height: int
    jpeg_bytes: int
    jpeg: bytes = dataclasses.field(default=b"", repr=False)  # where it was asked for


def stills_of(
    con: duckdb.DuckDBPyConnection, clip_id: str, pictures: bool
) -> tuple[StillFacts, ...]:
    columns = "position, seconds, width, height, octet_length(jpeg)"
    rows = con.sql(
        f"SELECT {columns}{', jpeg' if pictures else ''} FROM stills WHERE clip_id = ? "
        "ORDER BY position",
        params=[clip_id],
    )
    return tuple(StillFacts(*row) for row in rows.fetchall())
