"""inspect: a summary, or the rows of one table. Printing is in display.py."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import duckdb
from rich.console import Console

from telecine.infra.errors import UsageError
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import words
from telecine.pipeline.catalog.scores import create_scored_clips, score_columns
from telecine.pipeline.catalog.statement import check_columns, check_condition
from telecine.pipeline.look.summary import summary
from telecine.pipeline.terminal import text as display


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


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def inspect_summary(dataset: Dataset, as_json: bool, console: Console) -> None:
    """`telecine inspect DATASET`"""
    con = connect(dataset.tables)
    found = summary(con, dataset.tables.uri, dataset.spec, beside=con.cursor)
    if as_json:
        display.print_json(found, console)
    else:
        display.print_summary(found, console)


def inspect_table(
    dataset: Dataset,
    name: str,
    where: str | None,
    columns: str | None,
    limit: int,
    as_json: bool,
    console: Console,
) -> None:
    """`telecine inspect DATASET TABLE`"""
    rows = listing(connect(dataset.tables), dataset.spec, name, where, columns, limit)
    try:
        if as_json:
            display.print_json_rows(rows.to_arrow_reader(10_000), console)
        else:
            shown = rows.to_arrow_table()
            display.print_rows(shown, console)
            if limit and shown.num_rows == limit:
                print(f"{limit} rows at most are shown; --limit 0 shows all", file=sys.stderr)
    except duckdb.Error as error:  # a condition may fail on a value: a cast, a division
        raise UsageError(f"cannot list {name}: {words(error)}") from error
