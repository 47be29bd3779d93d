"""listing: the rows of one table, as `inspect TABLE` lists them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from telecine.infra.errors import UsageError
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import words
from telecine.pipeline.catalog.conditions import columns_named, is_blank
from telecine.pipeline.catalog.dataset import described_columns
from telecine.pipeline.catalog.selection import check_where, create_filtered
from telecine.pipeline.catalog.statement import (
    check_columns,
    said,
    said_in_short,
    takes_whole_rows,
    words_in,
)


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
        "FROM filtered",
        "clip_id, kind, num_frames, duration_seconds, width, height, motion, brightness, sharpness",
        "clip_id",
    ),
    "stills": Listed(
        "SELECT * EXCLUDE (jpeg), octet_length(jpeg) AS jpeg_bytes FROM stills",
        "clip_id, position, seconds, width, height, jpeg_bytes",
        "clip_id, position",
    ),
    "frame_times": Listed(
        "SELECT clip_id, octet_length(stamps) AS stamps_bytes FROM frame_times",
        "clip_id, stamps_bytes",
        "clip_id",
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
        "sequence, event, name, regexp_extract(family, '([^ ]+)=' || build_id, 1) AS rendition, "
        "plan, num_shards, num_samples, build_id",
        "sequence",
    ),
    "text_embeddings": Listed(
        "FROM text_embeddings", "text_digest, outcome, tokens, truncated, detail", "text_digest"
    ),
    "column_samples": Listed(
        "FROM column_samples", "clip_id, column_name, tokens, truncated, path", "path, position"
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

    Clips have what is known of each beside their own columns. A condition over them is that of
    pipeline/catalog/selection.py; one over another table may hold no more.

    Raises UsageError, with DuckDB's words, for a table, condition or column that there is not.
    """
    if name not in LISTED:
        raise UsageError(f"there is no table {name!r}: choose one of {', '.join(LISTED)}")
    listed = LISTED[name]
    whole = takes_whole_rows(check_columns(con, columns)) if columns else False
    if name == "clips":
        there = described_columns(con, spec)
        create_filtered(con, spec, where or "", there if whole else words_in(columns or ""))
        chosen = con.sql(listed.relation)
    else:
        chosen = _rows(con, name, where)
        there = tuple(chosen.columns)
    try:
        if limit:
            chosen = chosen.order(listed.order)
        chosen = chosen.project(columns or listed.columns)
    except duckdb.Error as error:
        raise UsageError(
            f"cannot list {name} --columns {columns!r}: {said(error)}\n"
            f"{name} have the columns {', '.join(there)}"
        ) from error
    return chosen.limit(limit) if limit else chosen


def _rows(con: duckdb.DuckDBPyConnection, name: str, where: str | None) -> duckdb.DuckDBPyRelation:
    """Of another table than clips."""
    rows = con.sql(LISTED[name].relation)
    if is_blank(where):
        return rows
    try:
        columns_named(where)
        return con.sql(f"SELECT * FROM ({LISTED[name].relation}) AS {name} WHERE (\n{where}\n)")
    except (UsageError, duckdb.Error) as error:
        why = said_in_short(error) if isinstance(error, duckdb.Error) else error
        raise UsageError(
            f"cannot select {name} where {where!r}: {why}\n"
            f"{name} have the columns {', '.join(rows.columns)}"
        ) from error


@contextlib.contextmanager
def reading(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, name: str, where: str | None
) -> Iterator[None]:
    """An expression may fail on a value, a cast or a division: raises UsageError then."""
    try:
        yield
    except duckdb.Error as error:
        if name == "clips":
            check_where(con, spec, where)  # has its own words where it is the condition
        raise UsageError(f"cannot list {name}: {words(error)}") from error
