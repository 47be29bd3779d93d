"""Which clips are meant: an SQL condition over the columns of `clips` and the scores in force."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from telecine.infra.errors import UsageError
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import words
from telecine.pipeline.catalog.scores import (
    TEXT_SIMILARITY,
    create_scored_clips,
    score_columns,
    uses_scores,
)


def check_where(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str | None) -> int:
    """How many clips there are now that an SQL condition takes.

    Raises UsageError, with DuckDB's words and the columns there are, where it is no condition over
    a clip's own columns and scores, or one that says something else each time: then so would every
    plan. None takes all.
    """
    if where is None:
        ((count,),) = con.sql("SELECT count(*) FROM current_clips").fetchall()
        return int(count)
    create_scored_clips(con, spec, [where])
    try:
        changing = _changing(con, where)
        asks = _asks_again(con, where)
        clips = con.sql("FROM scored_clips").filter(where)
        (counted,) = clips.aggregate("count(*)").fetchall()
    except duckdb.Error as error:
        raise _refused(con, spec, where, words(error)) from error
    if changing:
        raise _refused(con, spec, where, f"{changing} is not the same at every run")
    if asks:
        raise _refused(
            con, spec, where, "a query within it; a clip is taken for what it is by itself"
        )
    return int(counted[0])


_CHANGING = """
SELECT DISTINCT lower(called) FROM (
    SELECT unnest(json_extract_string(tree, '$..function_name') ||
        json_extract_string(tree, '$..column_names[0]')) AS called
    FROM (SELECT json_serialize_sql(?) AS tree)
) WHERE lower(called) IN (
    SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'
) OR lower(called) IN ('current_timestamp', 'current_time', 'localtime', 'localtimestamp')
ORDER BY ALL
"""


def _changing(con: duckdb.DuckDBPyConnection, where: str) -> str:
    """Functions of the condition whose value hangs on the clock or on chance."""
    found = con.execute(_CHANGING, [f"SELECT 1 WHERE ({where}\n)"]).fetchall()
    return ", ".join(f"{name}()" for (name,) in found)


_SUBQUERIES = """
SELECT list_contains(json_extract_string(json_serialize_sql(?), '$..class'), 'SUBQUERY')
"""


def _asks_again(con: duckdb.DuckDBPyConnection, where: str) -> bool:
    """Whether a query is within the condition: a sample, or rows that change beside the clip."""
    ((asks,),) = con.execute(_SUBQUERIES, [f"SELECT 1 WHERE ({where}\n)"]).fetchall()
    return bool(asks)


def create_selected_clips(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> None:
    """Make `selected_clips`, the ids of the current clips that the spec's selection takes."""
    where = spec.select.where
    if not where:
        con.sql("FROM current_clips").project("clip_id").create_view("selected_clips")
        return
    try:
        _taken(con, spec, where).create("selected_clips")  # so that it is evaluated once
    except duckdb.Error as error:
        raise _refused(con, spec, where, words(error)) from error


def selected(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str) -> pa.Table:
    """The ids of the current clips that a condition takes, as `clip_id`. Raises UsageError."""
    try:
        return _taken(con, spec, where).to_arrow_table()
    except duckdb.Error as error:
        raise _refused(con, spec, where, words(error)) from error


def selected_or_none(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str | None
) -> pa.Table | None:
    """`selected` of a condition that is checked first; None where there is none: all are meant.

    Raises UsageError also where it takes no clip.
    """
    if not where:
        return None
    if not check_where(con, spec, where):
        raise UsageError(f"--where {where!r} takes none of the clips")
    return selected(con, spec, where)


def _taken(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str
) -> duckdb.DuckDBPyRelation:
    create_scored_clips(con, spec, [where])
    return con.sql("FROM scored_clips").filter(where).project("clip_id")


def _refused(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str, why: str) -> UsageError:
    columns = [*con.sql("FROM current_clips").columns, *score_columns(spec.score)]
    message = f"cannot select clips where {where!r}: {why}\nclips have the columns "
    message += ", ".join(columns)
    if uses_scores(where) and TEXT_SIMILARITY not in columns:
        message += "; scores come with: telecine score DATASET --scorer openclip:MODEL"
    return UsageError(message)
