"""listing: the rows of one table, as `inspect TABLE` lists them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from telecine.infra.errors import UsageError
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import words
from telecine.pipeline.catalog.scores import create_scored_clips, score_columns
from telecine.pipeline.catalog.statement import check_columns, check_condition


@dataclass(frozen=True)
class Listed:
    """What `inspect TABLE` reads, and the columns and order it shows unless told otherwise."""

    relation: str
    columns: str
    order: str


LISTED = {
    "sources": Listed(
        "FROM current_sources",
        "status, reason, kind, width, height, duration_seconds, num_clips, uri",
        "uri",
    ),
    "clips": Listed(
        "FROM scored_clips",
        "clip_id, kind, num_frames, duration_seconds, width, height, motion, brightness, sharpness",
        "clip_id",
    ),
    "stills": Listed(
        "SELECT * EXCLUDE (jpeg), octet_length(jpeg) AS jpeg_bytes FROM stills",
        "clip_id, position, seconds, width, height, jpeg_bytes",
        "clip_id, position",
    ),
    "captions": Listed("FROM captions", "clip_id, captioner, outcome, text", "clip_id"),
    "embeddings": Listed(
        "SELECT * EXCLUDE (embedding), octet_length(embedding) // 2 AS dimensions FROM embeddings",
        "clip_id, scorer, dimensions, detail",
        "clip_id",
    ),
    "scores": Listed("FROM scores", "clip_id, name, value", "clip_id, name"),
    "duplicates": Listed(
        "FROM duplicates",
        "clip_id, round, duplicate_group, duplicate_rank",
        "duplicate_group, duplicate_rank",
    ),
    "samples": Listed(
        "FROM current_samples",
        "clip_id, outcome, reason, resolution, aspect, duration, latent_shape, shard_path",
        "clip_id",
    ),
    "builds": Listed(
        "FROM builds",
        "sequence, event, name, plan, num_shards, num_samples, build_id",
        "sequence",
    ),
}


def listing(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    name: str,
    where: str | None = None,
    columns: str | None = None,
    limit: int = 20,
) -> duckdb.DuckDBPyRelation:
    """Rows of a table in force; `columns` are SQL expressions, `limit` 0 means all, unordered.

    Clips have the scores in force under the spec as columns too.

    Raises UsageError, with DuckDB's words, for a table, condition or column that there is not.
    """
    if name not in LISTED:
        raise UsageError(f"there is no table {name!r}: choose one of {', '.join(LISTED)}")
    listed = LISTED[name]
    if name == "clips":
        create_scored_clips(con, spec, [where, columns])
    rows = con.sql(listed.relation)
    try:
        chosen = rows.filter(where) if where else rows
        if limit:
            chosen = chosen.order(listed.order)
        chosen = chosen.project(columns or listed.columns)
        chosen = chosen.limit(limit) if limit else chosen
        if where:
            check_condition(con, where)
        if columns:
            check_columns(con, columns)
    except duckdb.Error as error:
        there = [*rows.columns]
        if name == "clips":
            there += [c for c in score_columns(spec.score) if c not in there]
        raise _refused(name, where, columns, there, error) from error
    return chosen


def _refused(
    name: str,
    where: str | None,
    columns: str | None,
    there: list[str],
    error: duckdb.Error,
) -> UsageError:
    given = f"--where {where!r}" if where else ""
    given += f" --columns {columns!r}" if columns else ""
    return UsageError(
        f"cannot list {name} {given.strip()}: {words(error)}\n"
        f"{name} has the columns {', '.join(there)}"
    )


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """A condition may fail on a value, a cast or a division: raises UsageError then."""
    try:
        yield
    except duckdb.Error as error:
        raise UsageError(f"cannot list {name}: {words(error)}") from error
