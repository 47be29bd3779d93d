"""summary: what a dataset holds, what was left out and why, in numbers.

Every number comes from one pass over one table. Clips and frames are counted by their sources and
by themselves, and the two are compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from telecine.encoders.caption.interface import WITH_TEXT
from telecine.manifests.buckets import ENCODED_SECONDS, by_size
from telecine.manifests.builds import current_build, family
from telecine.manifests.schemas import Build, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.scores import (
    DUPLICATES,
    create_scored_clips,
    score_columns,
    scores_wanted,
)
from telecine.pipeline.embed.state import ColumnState


@dataclass(frozen=True)
class SourceCount:
    """Sources in force of one status and kind."""

    status: str
    kind: str
    sources: int
    size_bytes: int
    hours: float
    clips: int
    frames: int
    frames_kept: int
    frames_dropped: int


@dataclass(frozen=True)
class ClipCount:
    kind: str
    clips: int
    frames: int
    hours: float
    damaged: int  # clips that have corrupt frames


@dataclass(frozen=True)
class CaptionCount:
    captioner: str
    captioner_fingerprint: str
    outcome: str
    captions: int


@dataclass(frozen=True)
class RepeatedText:
    """A text that one captioner gave of suspiciously many clips."""

    captioner: str
    captioner_fingerprint: str
    text: str
    captions: int  # that say it ...
    of: int  # ... of all that have a text


@dataclass(frozen=True)
class ScoreCount:
    """One score of the scorer in force."""

    name: str
    scores: int
    lowest: float
    mean: float
    highest: float


@dataclass(frozen=True)
class BucketCount:
    """What one build keeps in one bucket."""

    resolution: int
    aspect: str
    duration: str
    clips: int
    hours: float  # as encoded
    latent_bytes: int
    shards: int


@dataclass(frozen=True)
class FrameCount:
    """Of the clips of a build: native = encoded + left_out + resampled_away - repeated."""

    encoded: int = 0
    left_out: int = 0  # at the clips' ends, beyond the temporal grid
    resampled_away: int = 0  # native ones that none at the encoded rate shows
    repeated: int = 0  # that show again what the one before shows
    unknown: int = 0  # samples of which an older version did not count the last two


@dataclass(frozen=True)
class BuildReport:
    build_id: str
    name: str
    current: bool
    rendition: str  # its name beside the current one or as it, or empty
    plans: int  # completed
    shards_written: int  # of the plan in progress
    shards_planned: int  # of the plan in progress, 0 if there is none
    vae_fingerprint: str
    pixel_fingerprint: str
    vae: str
    dropped: dict[str, int]  # clips by reason
    frames: FrameCount
    buckets: tuple[BucketCount, ...]

    @property
    def in_progress(self) -> bool:
        return self.shards_planned > 0


@dataclass(frozen=True)
class Summary:
    dataset: str
    sources: tuple[SourceCount, ...]
    rejected: dict[str, int]  # sources by reason
    frames: int  # decoded = kept + dropped
    frames_kept: int
    frames_dropped: dict[str, int]  # by reason
    clips: tuple[ClipCount, ...]
    captions: tuple[CaptionCount, ...]
    repeated: tuple[RepeatedText, ...]
    scorer: str  # in force, or empty
    scores: tuple[ScoreCount, ...]
    duplicates: int  # clips for which another one is kept
    builds: tuple[BuildReport, ...]
    errors: tuple[str, ...]  # numbers that must agree and do not
    columns: tuple[ColumnState, ...] = ()  # of texts, beside builds


def summary(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    spec: DatasetSpec,
    beside: Callable[[], duckdb.DuckDBPyConnection] | None = None,
) -> Summary:
    """`beside` gives another connection to the same tables, to ask of builds at the same time."""
    with ThreadPoolExecutor(1) as pool:
        builds = pool.submit(_builds, beside()) if beside else None
        found = _summary(con, dataset, spec)
        return replace(found, builds=builds.result() if builds else _builds(con))


def _summary(con: duckdb.DuckDBPyConnection, dataset: str, spec: DatasetSpec) -> Summary:
    """All but the builds."""
    sources = tuple(SourceCount(*row) for row in _rows(con, _SOURCES))
    scanned = [s for s in sources if s.status == "scanned"]
    clips = tuple(ClipCount(*row) for row in _rows(con, _CLIPS))
    dropped = dict(_rows(con, _DROPPED_FRAMES))
    captions = tuple(CaptionCount(*row) for row in _rows(con, _CAPTIONS))
    return Summary(
        dataset=dataset,
        sources=sources,
        rejected=dict(_rows(con, _REJECTED)),
        frames=sum(s.frames for s in scanned),
        frames_kept=sum(s.frames_kept for s in scanned),
        frames_dropped=dropped,
        clips=clips,
        captions=captions,
        repeated=_repeated(con, captions),
        scorer=spec.score.scorer or "",
        scores=_scores(con, spec),
        duplicates=_duplicates(con, spec),
        builds=(),
        errors=_errors(con, scanned, clips, dropped),
    )


_SOURCES = """
SELECT status, kind, count(*), sum(size_bytes), round(sum(duration_seconds) / 3600, 6),
    sum(num_clips), sum(num_frames), sum(frames_kept), sum(frames_dropped)
FROM current_sources GROUP BY ALL ORDER BY status DESC, kind DESC
"""

_REJECTED = """
SELECT reason, count(*) FROM current_sources WHERE status = 'rejected'
GROUP BY reason ORDER BY count(*) DESC, reason
"""

_DROPPED_FRAMES = """
SELECT span.reason, sum(span.num_frames)
FROM (SELECT unnest(dropped) AS span FROM current_sources WHERE status = 'scanned')
GROUP BY span.reason ORDER BY span.reason
"""

_UNACCOUNTED = """
SELECT uri FROM current_sources WHERE status = 'scanned' AND (
    num_frames <> frames_kept + frames_dropped
    OR frames_dropped <> coalesce(list_sum(list_transform(dropped, lambda d: d.num_frames)), 0)
) ORDER BY uri
"""

_CLIPS = """
SELECT kind, count(*), sum(num_frames), round(sum(duration_seconds) / 3600, 6),
    count(*) FILTER (corrupt_frames > 0)
FROM current_clips GROUP BY kind ORDER BY kind DESC
"""

_CAPTIONS = """
SELECT captioner, captioner_fingerprint, outcome, count(*) FROM captions
GROUP BY ALL ORDER BY ALL
"""

# Sidecars and measurements may well say the same of many clips; a model that does is stuck.
REPEATED_CAPTIONS, REPEATED_SHARE = 10, 0.01

SAMPLED = 1_000_000  # captions that are looked through for texts that come again

_OFTEN = """
SELECT captioner_fingerprint, unnest(approx_top_k(text_key, 5)) AS text_key
FROM captions {sample} WHERE text_key <> 0 AND captioner NOT IN ('sidecar', 'signal')
GROUP BY captioner_fingerprint
"""

_REPEATED = """
SELECT captioner, captioner_fingerprint, text_key, any_value(text), count(*) FROM captions
SEMI JOIN often USING (captioner_fingerprint, text_key)
GROUP BY captioner, captioner_fingerprint, text_key ORDER BY count(*) DESC, text_key
"""


# By shard first, as to count distinct ones takes longer than all the rest; a shard has one bucket.
_BUCKETS = f"""
SELECT build_id, resolution, aspect, duration, sum(samples)::BIGINT, round(sum(seconds) / 3600, 6),
    sum(latent_bytes), count(*)
FROM (
    SELECT build_id, shard_id, resolution, aspect, duration, count(*) AS samples,
        sum({ENCODED_SECONDS}) AS seconds,
        sum(latent_bytes) AS latent_bytes
    FROM live_samples WHERE outcome = 'kept' GROUP BY ALL
) GROUP BY ALL
"""

_FRAMES = """
SELECT build_id, sum(encoded_frames)::BIGINT, sum(frames_left_out)::BIGINT,
    coalesce(sum(frames_resampled_away), 0)::BIGINT, coalesce(sum(frames_repeated), 0)::BIGINT,
    count_if(frames_repeated IS NULL)
FROM live_samples WHERE outcome = 'kept' GROUP BY build_id
"""

_DROPPED_SAMPLES = """
SELECT build_id, reason, count(*) FROM live_samples WHERE outcome = 'dropped'
GROUP BY ALL ORDER BY reason
"""

_WRITTEN = """
SELECT build_id, count(DISTINCT shard_id) FROM samples WHERE shard_id <> ''
AND (build_id, plan) IN (
    SELECT build_id, plan FROM builds
    EXCEPT SELECT build_id, plan FROM builds WHERE event = 'completed'
) GROUP BY build_id
"""


def _repeated(
    con: duckdb.DuckDBPyConnection, captions: tuple[CaptionCount, ...]
) -> tuple[RepeatedText, ...]:
    """Of many captions a sample is looked through, and what it names is counted: a text of one
    clip in a hundred is in any sample.
    """
    told = Counter[str]()
    for some in captions:
        told[some.captioner_fingerprint] += some.captions if some.outcome in WITH_TEXT else 0
    share = 100 * SAMPLED / max(SAMPLED, told.total())
    sample = f"TABLESAMPLE {share} PERCENT (system, 7)" if share < 100 else ""
    often = con.sql(_OFTEN.format(sample=sample)).to_arrow_table()
    if not often.num_rows:
        return ()
    con.register("often", often)
    return tuple(
        RepeatedText(captioner, speaker, text, count, told[speaker])
        for captioner, speaker, _, text, count in con.sql(_REPEATED).fetchall()
        if count >= max(REPEATED_CAPTIONS, REPEATED_SHARE * told[speaker])
    )


def _scores(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> tuple[ScoreCount, ...]:
    """Of current clips, those in force."""
    names = scores_wanted(spec.score)
    create_scored_clips(con, spec, names)
    counts = []
    for name in names:
        figures = f"count({name}), min({name}), avg({name}), max({name})"
        ((count, *rest),) = _rows(con, f"SELECT {figures} FROM scored_clips")
        if count:
            counts.append(ScoreCount(name, count, *rest))
    return tuple(counts)


def _duplicates(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> int:
    rank = DUPLICATES[0]
    if rank not in score_columns(spec.score):
        return 0
    create_scored_clips(con, spec, [rank])
    ((count,),) = _rows(con, f"SELECT count(*) FROM scored_clips WHERE {rank} > 0")
    return int(count)


def _errors(
    con: duckdb.DuckDBPyConnection,
    scanned: list[SourceCount],
    clips: tuple[ClipCount, ...],
    dropped: dict[str, int],
) -> tuple[str, ...]:
    """Every frame and clip is counted twice, by its source and by itself: the two must agree."""
    errors = []
    unaccounted = [uri for (uri,) in _rows(con, _UNACCOUNTED)]
    if unaccounted:
        errors.append(
            f"frames decoded are not frames kept + frames dropped in {len(unaccounted)} sources, "
            f"the first {unaccounted[0]!r}"
        )
    for what, said, found in (
        ("clips", sum(s.clips for s in scanned), sum(c.clips for c in clips)),
        ("frames kept", sum(s.frames_kept for s in scanned), sum(c.frames for c in clips)),
        ("frames dropped", sum(s.frames_dropped for s in scanned), sum(dropped.values())),
    ):
        if said != found:
            errors.append(f"{what}: sources say {said:,}, but there are {found:,}")
    return tuple(errors)


def _builds(con: duckdb.DuckDBPyConnection) -> tuple[BuildReport, ...]:
    """Every build in the order of its first event."""
    events: dict[str, list[Build]] = defaultdict(list)
    for event in from_arrow(con.sql("FROM builds ORDER BY sequence").to_arrow_table(), Build):
        events[event.build_id].append(event)
    if not events:
        return ()
    current = {row[0] for row in _rows(con, "FROM current_build")}
    now = current_build(con)
    names = {} if now is None else family(now.family)
    renditions = {build_id: name for name, build_id in names.items()}
    written = dict(_rows(con, _WRITTEN))
    buckets, dropped = defaultdict(list), defaultdict[str, dict[str, int]](dict)
    for build_id, *bucket in _rows(con, _BUCKETS):
        buckets[build_id].append(BucketCount(*bucket))
    frames = {build_id: FrameCount(*counts) for build_id, *counts in _rows(con, _FRAMES)}
    for build_id, reason, count in _rows(con, _DROPPED_SAMPLES):
        dropped[build_id][reason] = count
    return tuple(
        BuildReport(
            build_id=build_id,
            name=history[-1].name,
            current=build_id in current,
            rendition=renditions.get(build_id, ""),
            plans=sum(e.event == "completed" for e in history),
            shards_written=written.get(build_id, 0),
            shards_planned=_shards_planned(history),
            vae_fingerprint=history[-1].vae_fingerprint,
            pixel_fingerprint=history[-1].pixel_fingerprint,
            vae=history[-1].vae,
            dropped=dropped[build_id],
            frames=frames.get(build_id, FrameCount()),
            buckets=tuple(sorted(buckets[build_id], key=by_size)),
        )
        for build_id, history in events.items()
    )


def _shards_planned(history: list[Build]) -> int:
    completed = {e.plan for e in history if e.event == "completed"}
    return sum(e.num_shards for e in history if e.event == "planned" and e.plan not in completed)


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = con.sql(query).fetchall()
    return rows
