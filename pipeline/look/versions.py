"""What came, went and changed between two versions of a dataset. `telecine diff D@3 D@now`

    version A ──▶ views      a_sources  a_clips  a_samples ─┬─▶ joined in SQL ──▶ VersionDiff
    version B ──▶ copied as  b_sources  b_clips  b_samples ─┘

Of B only the columns that are compared are copied into A's connection, where they may spill to
disk. What a version is: manifests/history.py.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import duckdb

from telecine.infra.errors import UsageError
from telecine.infra.store.storage import absolute
from telecine.manifests.buckets import Bucket, bucket_of_shape, by_size, duration_rung_sql
from telecine.manifests.builds import current_build
from telecine.manifests.dataset import Dataset
from telecine.manifests.history import HOW, Version, find_version, split
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.look.movement import (
    COLUMNS,
    FIRST,
    NONE,
    BucketPair,
    Movement,
    Some,
    movement,
)
from telecine.pipeline.media.geometry import reduced_size


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions."""

    name: str
    at: str  # UTC, or empty: now
    event: str  # the last of `builds`, as in 7 promoted dct-1234
    build: str  # name of the current build, or empty
    sources: int
    clips: int
    hours: float
    captions: int
    samples: int  # kept by the current build
    tables: dict[str, int]  # versions


class Fate(StrEnum):
    """What became of a source. A closed set."""

    CAME = "came"
    WENT = "went"  # only where B is the older one
    REPLACED = "replaced"  # another object under the same name
    JUDGED = "judged"  # the same object with another status or reason
    SIDECAR = "sidecar"  # the same object with another caption file
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Standing:
    """Sources of one status and reason."""

    status: str
    reason: str
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Rows of `captions` or `scores` of one sort."""

    names: tuple[str, ...]  # captioner, fingerprint and outcome; or score and fingerprint
    a: int
    b: int


@dataclass(frozen=True)
class VersionDiff:
    dataset: str
    a: Side
    b: Side
    sources: dict[Fate, Some]  # all of them, also where there is none
    standings: tuple[Standing, ...]
    clips_came: Some
    clips_went: Some
    clips: tuple[BucketPair, ...]  # current clips by the bucket that the spec in force gives them
    clips_without_bucket: tuple[int, int]
    captions: tuple[Pair, ...]
    scores: tuple[Pair, ...]
    movement: Movement  # of the samples of the builds that were current


def diff_versions(dataset: Dataset, a: str, b: str) -> VersionDiff:
    """Between two versions by their names, without the @.

    Raises UsageError where there is no such version, or it can no longer be read.
    """
    first, second = find_version(dataset, a), find_version(dataset, b)
    with connect(dataset.tables, first.tables) as con:
        with connect(dataset.tables, second.tables) as other:
            for name, query in _compared(dataset.spec.buckets.durations).items():
                con.execute(f"CREATE TEMP VIEW a_{name} AS {query}")
                _copy(con, other, f"b_{name}", query)
            sides = _side(con, first), _side(other, second)
            captions, scores = (_pairs(con, other, query) for query in (_CAPTIONS, _SCORES))
        came, went, buckets, without = _clips(con, dataset.spec)
        return VersionDiff(
            dataset=dataset.uri,
            a=sides[0],
            b=sides[1],
            sources=_fates(con),
            standings=tuple(Standing(*row) for row in _rows(con, _STANDINGS)),
            clips_came=came,
            clips_went=went,
            clips=buckets,
            clips_without_bucket=without,
            captions=captions,
            scores=scores,
            movement=movement(con),
        )


def _fates(con: duckdb.DuckDBPyConnection) -> dict[Fate, Some]:
    there = {what: Some(n, tuple(first)) for what, n, first in _rows(con, _FATES)}
    return {fate: there.get(fate, NONE) for fate in Fate}


def _copy(
    con: duckdb.DuckDBPyConnection, other: duckdb.DuckDBPyConnection, name: str, query: str
) -> None:
    reader = other.sql(query).to_arrow_reader(10_000)
    con.register("copied", reader)
    con.execute(f"CREATE TEMP TABLE {name} AS FROM copied")
    con.unregister("copied")


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = con.sql(query).fetchall()
    return rows


# ── questions ────────────────────────────────────────────────────────────────────────────────────


def _compared(durations: tuple[float, ...]) -> dict[str, str]:
    return {
        "sources": "SELECT uri, version, status, reason, sidecar_uri, sidecar_version "
        "FROM current_sources",
        "clips": "SELECT clip_id, width, height, duration_seconds, "
        f"{duration_rung_sql(durations)} AS rung FROM current_clips",
        "samples": f"SELECT {COLUMNS} FROM current_samples",
    }


_FATES = f"""
SELECT what, count(*), min(uri, {FIRST}) FROM (
    SELECT uri, CASE WHEN a.version IS NULL THEN 'came' WHEN b.version IS NULL THEN 'went'
        WHEN a.version <> b.version THEN 'replaced'
        WHEN (a.status, a.reason) <> (b.status, b.reason) THEN 'judged'
        WHEN (a.sidecar_uri, a.sidecar_version) <> (b.sidecar_uri, b.sidecar_version)
            THEN 'sidecar' ELSE 'same' END AS what
    FROM a_sources AS a FULL JOIN b_sources AS b USING (uri)
) GROUP BY what
"""

_STANDINGS = """
SELECT status, reason, sum(a)::BIGINT, sum(b)::BIGINT FROM (
    SELECT status, reason, 1 AS a, 0 AS b FROM a_sources UNION ALL
    SELECT status, reason, 0, 1 FROM b_sources
) GROUP BY ALL ORDER BY status DESC, reason
"""

_CAPTIONS = """
SELECT [captioner, captioner_fingerprint, outcome] AS names, count(*) FROM captions GROUP BY names
"""
_SCORES = "SELECT [name, scorer_fingerprint] AS names, count(*) FROM scores GROUP BY names"

# Few shapes, however many clips.
_SHAPES = """
SELECT width, height, rung,
    count(in_a), coalesce(sum(duration_seconds) FILTER (in_a), 0),
    count(in_b), coalesce(sum(duration_seconds) FILTER (in_b), 0),
    count(*) FILTER (in_a IS NULL), count(*) FILTER (in_b IS NULL)
FROM (
    SELECT clip_id, width, height, rung, duration_seconds, a.there AS in_a, b.there AS in_b
    FROM (SELECT *, true AS there FROM a_clips) AS a
    FULL JOIN (SELECT *, true AS there FROM b_clips) AS b
    USING (clip_id, width, height, rung, duration_seconds)
) GROUP BY ALL
"""

_ALONE = f"""
SELECT count(*), min(clip_id, {FIRST})
FROM (SELECT clip_id FROM {{}}_clips ANTI JOIN {{}}_clips USING (clip_id))
"""


def _clips(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec
) -> tuple[Some, Some, tuple[BucketPair, ...], tuple[int, int]]:
    totals: dict[Bucket | None, list[float]] = defaultdict(lambda: [0.0] * 6)
    for width, height, rung, *counts in _rows(con, _SHAPES):
        bucket = _bucket(width, height, rung, spec)
        totals[bucket] = [old + new for old, new in zip(totals[bucket], counts, strict=True)]
    without = totals.pop(None, [0] * 6)
    pairs = tuple(
        BucketPair(
            bucket,
            int(clips_a), round(seconds_a / 3600, 6), int(clips_b), round(seconds_b / 3600, 6),
            int(came), int(went),
        )
        for bucket, (clips_a, seconds_a, clips_b, seconds_b, came, went) in sorted(
            ((bucket, total) for bucket, total in totals.items() if bucket is not None),
            key=lambda pair: by_size(pair[0]),
        )
    )  # fmt: skip
    came, went = (_some(con, _ALONE.format(*names)) for names in ("ba", "ab"))
    return came, went, pairs, (int(without[0]), int(without[2]))


def _bucket(width: int, height: int, rung: str, spec: DatasetSpec) -> Bucket | None:
    """The bucket that the spec puts a clip into; None: below a rung, or smaller than it asks."""
    short_side = spec.vae.short_side
    if reduced_size(width, height, short_side) is None:
        return None
    return bucket_of_shape(width, height, rung, spec.buckets, short_side)


def _some(con: duckdb.DuckDBPyConnection, query: str) -> Some:
    ((count, first),) = _rows(con, query)
    return Some(count, tuple(first or ()))


def _pairs(
    con: duckdb.DuckDBPyConnection, other: duckdb.DuckDBPyConnection, query: str
) -> tuple[Pair, ...]:
    a, b = ({tuple(names): n for names, n in _rows(c, query)} for c in (con, other))
    return tuple(Pair(names, a.get(names, 0), b.get(names, 0)) for names in sorted(a | b))


def _side(con: duckdb.DuckDBPyConnection, version: Version) -> Side:
    ((sources, clips, seconds, captions, samples),) = _rows(con, _COUNTS)
    events = con.sql("FROM builds ORDER BY sequence DESC LIMIT 1").to_arrow_table()
    last = next(iter(from_arrow(events, Build)), None)
    current = current_build(con)
    return Side(
        name=version.name,
        at="" if version.at is None else f"{version.at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
        event="" if last is None else f"{last.sequence} {last.event} {last.name}",
        build="" if current is None else current.name,
        sources=sources,
        clips=clips,
        hours=round(seconds / 3600, 6),
        captions=captions,
        samples=samples,
        tables=dict(version.tables),
    )


_COUNTS = """
SELECT (SELECT count(*) FROM current_sources), (SELECT count(*) FROM current_clips),
    (SELECT coalesce(sum(duration_seconds), 0) FROM current_clips),
    (SELECT count(*) FROM captions),
    (SELECT count(*) FROM current_samples WHERE outcome = 'kept')
"""


# ── in words ──────────────────────────────────────────────────────────────────────────────────


def same_dataset(a: str, b: str) -> tuple[str, str, str]:
    """The dataset and the two versions in D@A and D@B. Raises UsageError where it is not one."""
    if "@" not in a and "@" not in b:
        raise UsageError(
            f"{a} {b}: name two builds, telecine diff DATASET A B, or two versions, "
            f"telecine diff DATASET@A DATASET@B: {HOW}"
        )
    (dataset, first), (other, second) = split(a), split(b)
    if absolute(dataset) != absolute(other):
        raise UsageError(
            f"two versions of one dataset are compared, not of {dataset} and of {other}"
        )
    return dataset, first, second


_TOLD = {
    Fate.CAME: "came",
    Fate.WENT: "went",
    Fate.REPLACED: "replaced",
    Fate.JUDGED: "judged otherwise",
    Fate.SIDECAR: "with another caption file",
}


def told_sources(found: VersionDiff) -> list[str]:
    """A line for each fate of sources that there is."""
    fates = ((found.sources[fate], text) for fate, text in _TOLD.items())
    return [f"{some.count:,} {text}: {some}" for some, text in fates if some.count]
