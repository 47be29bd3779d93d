"""The one language of `--where`: which clips are meant.

A condition over clips is an SQL expression over `described_clips`: a clip's own columns, the
scores, source and caption in force. What hangs on a build (`in_build`, its bucket, its shard) is no
part of it, since a build is made from what a condition takes. A clip is taken where the condition
is true of it, not where it is false or unknown (NULL). Whoever lists, counts, charts, captions,
scores or builds clips by a condition asks here: what was looked at can be built.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import duckdb
import pyarrow as pa

from telecine.infra.errors import UsageError
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.conditions import ROWS, columns_named, is_blank
from telecine.pipeline.catalog.dataset import (
    PLACE_COLUMNS,
    create_dataset_view,
    create_described_clips,
    described_columns,
)
from telecine.pipeline.catalog.scores import TEXT_SIMILARITY, is_score, score_columns
from telecine.pipeline.catalog.statement import said_in_short


def check_where(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str | None) -> int:
    """How many clips there are now that a condition takes; None and blank ones take all.

    Raises UsageError, with what is wrong and the columns there are, where it is none.
    """
    with explaining(con, spec, where):
        ((count,),) = con.sql(f"SELECT count(*) FROM ({taken(con, spec, where)})").fetchall()
    return int(count)


def create_selected_clips(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> None:
    """Make `selected_clips`, the ids of the current clips that the spec's selection takes."""
    where = spec.select.where
    kind = "VIEW" if is_blank(where) else "TABLE"  # so that it is evaluated once
    with explaining(con, spec, where):
        con.execute(f"CREATE TEMP {kind} selected_clips AS {taken(con, spec, where)}")


def selected(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str) -> pa.Table:
    """The ids of the current clips that a condition takes, as `clip_id`. Raises UsageError."""
    with explaining(con, spec, where):
        return con.sql(taken(con, spec, where)).to_arrow_table()


def selected_or_none(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str | None
) -> pa.Table | None:
    """`selected`; None where there is no condition: all are meant.

    Raises UsageError also where it takes no clip.
    """
    if where is None or is_blank(where):
        return None
    found = selected(con, spec, where)
    if not found.num_rows:
        raise UsageError(f"--where {where!r} takes none of the clips")
    return found


def taken(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str | None) -> str:
    """SQL: the ids of the current clips that a condition takes. Makes `described_clips`.

    Raises UsageError where it is no condition over clips. What it says of one value may still fail
    when the query is asked: see `explaining`.
    """
    if where is None or is_blank(where):
        return "SELECT clip_id FROM current_clips"
    _bound(con, spec, where)
    return f"SELECT clip_id FROM described_clips AS {ROWS} WHERE (\n{where}\n)"


def create_filtered(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    where: str,
    names: Iterable[str] = (),
    place: str = "",
) -> None:
    """Make the views `dataset` and `filtered`: what a condition is true of; all, where it is blank.

    Both have the columns that the condition and the names name, and a clip's own. `place`: SQL,
    our own, over a clip's place in the current build, which has to be true too.
    Raises UsageError where it is no condition over clips.
    """
    named = {*names, *PLACE_COLUMNS} if place else set(names)
    conditions = [place] if place else []
    if not is_blank(where):
        _bound(con, spec, where)
        named |= columns_named(where)
        conditions.append(f"(\n{where}\n)")
    create_dataset_view(con, spec, named)
    chosen = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    con.execute(f"CREATE OR REPLACE TEMP VIEW filtered AS SELECT * FROM dataset AS {ROWS}{chosen}")


@contextlib.contextmanager
def explaining(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str | None
) -> Iterator[None]:
    """Turns what DuckDB says of a condition, also of one value on its way, into UsageError."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        if is_blank(where):
            raise
        raise _refused(con, spec, str(where), said_in_short(error)) from error


def cannot_select(where: str) -> str:
    """How every refusal of a condition begins; why stands behind it."""
    return f"cannot select clips where {where!r}: "


def _bound(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str) -> None:
    """Make the view `described_clips` with what a condition names. Raises UsageError."""
    try:
        names = columns_named(where)
    except UsageError as error:
        raise _refused(con, spec, where, str(error)) from error
    create_described_clips(con, spec, names)
    with explaining(con, spec, where):
        con.sql(f"SELECT 1 FROM described_clips AS {ROWS} WHERE (\n{where}\n)")


def _refused(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str, why: str) -> UsageError:
    message = f"{cannot_select(where)}{why}\nclips have the columns "
    message += ", ".join(described_columns(con, spec))
    try:
        named = columns_named(where)
    except UsageError:
        named = frozenset()
    if any(map(is_score, named)) and TEXT_SIMILARITY not in score_columns(spec.score):
        message += "; scores come with: telecine score DATASET --scorer openclip:MODEL"
    if place := sorted(named.intersection(PLACE_COLUMNS)):
        message += (
            f"; {', '.join(place)} is of the current build and not of the clip itself: ask for it "
            "with telecine query"
        )
    return UsageError(message)
