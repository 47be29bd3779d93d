"""listing: pages of clips and of rejected sources.

A page begins after the last row of the one before it, so that the thousandth takes as long as the
first, and every row is on one page. In an order by some column, NULL last, then by clip_id:

    ... page ──▶ after=clip_id of its last row        before=clip_id of its first row ◀── page ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from telecine.infra.errors import UsageError
from telecine.infra.text import identifier, literal, literals
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.columns import Column, place_condition
from telecine.pipeline.catalog.narrow import narrow, uris_of
from telecine.pipeline.catalog.selection import create_filtered, explaining

SIZE, MOST = 24, 200  # clips of a page
SHOWN = (
    "kind", "duration_seconds", "width", "height", "num_stills", "motion",
    "uri", "caption", "captioner", "in_build", "drop_reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """Which clips, in which order, and where the page begins."""

    where: str = ""
    place: str = ""  # as in place_condition: what the current build did with them
    sort: str = "clip_id"
    descending: bool = False
    size: int = SIZE
    after: str = ""  # clip_id
    before: str = ""  # clip_id


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    total: int
    first: int  # number of the page's first row, from 1; 0 where there is none

    @property
    def last(self) -> int:
        return self.first + len(self.rows) - 1 if self.rows else 0

    @property
    def has_before(self) -> bool:
        return self.first > 1

    @property
    def has_after(self) -> bool:
        return self.last < self.total


def clips_page(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, asked: Asked, there: Sequence[Column]
) -> Page:
    """`there` are the columns there are. From here on `con` knows the page's clips alone.

    Raises UsageError where clause, column or clip is none.
    """
    total, first, ids = clip_ids(con, spec, asked, there)
    return Page(_details(con, spec, ids, asked.sort), total, first)


def clip_ids(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, asked: Asked, there: Sequence[Column]
) -> tuple[int, int, list[str]]:
    """How many clips there are, the number of the page's first one, and the clips on the page."""
    _check(asked, there)
    create_filtered(con, spec, asked.where, [asked.sort], place_condition(asked.place))
    order = _Order(identifier(asked.sort), "clip_id", asked.descending)
    with explaining(con, spec, asked.where):
        return _some(con, "filtered", order, asked, _at(con, asked))


def _check(asked: Asked, there: Sequence[Column]) -> None:
    sortable = [column.name for column in there if column.sorts]
    if asked.sort not in sortable:
        raise UsageError(f"cannot sort by {asked.sort!r}: there are {', '.join(sortable)}")
    if not 1 <= asked.size <= MOST:
        raise UsageError(f"a page has 1 to {MOST} clips, not {asked.size}")
    if asked.after and asked.before:
        raise UsageError("a page begins after a clip or ends before one: give one of them")


@dataclass(frozen=True, slots=True)
class _Order:
    """By a column, those without a value last, then by a key that no two rows share."""

    column: str
    key: str
    descending: bool = False

    def by(self, *, backwards: bool = False) -> str:
        down = self.descending != backwards
        nulls = "FIRST" if backwards else "LAST"
        return (
            f"{self.column} {'DESC' if down else 'ASC'} NULLS {nulls}, "
            f"{self.key} {'DESC' if backwards else 'ASC'}"
        )

    def later(self, value: Any) -> str:
        """A condition: the row comes after one that has this value and the key $key."""
        if value is None:
            return f"({self.column} IS NULL AND {self.key} > $key)"
        sign = "<" if self.descending else ">"
        return (
            f"({self.column} {sign} $value OR {self.column} IS NULL "
            f"OR {self.column} = $value AND {self.key} > $key)"
        )


def _at(con: duckdb.DuckDBPyConnection, asked: Asked) -> tuple[Any, str] | None:
    """Value and key of the row that the page is beside. The clause may take it no longer."""
    key = asked.after or asked.before
    if not key:
        return None
    query = f"SELECT {identifier(asked.sort)} FROM dataset WHERE clip_id = $key LIMIT 1"
    found = con.sql(query, params={"key": key}).fetchall()
    if not found:
        raise UsageError(f"there is no clip {key!r} any more: begin at the first page")
    return found[0][0], key


def _some(
    con: duckdb.DuckDBPyConnection,
    view: str,
    order: _Order,
    asked: Asked,
    at: tuple[Any, str] | None,
) -> tuple[int, int, list[str]]:
    """How many rows there are, the number of the first one on the page, and the page's keys."""
    if at is None:
        ((total,),) = con.sql(f"SELECT count(*) FROM {view}").fetchall()
        ids = _keys(con, f"SELECT {order.key} FROM {view} ORDER BY {order.by()}", asked.size, {})
        return total, 1 if ids else 0, ids
    value, key = at
    params = {"key": key} | ({} if value is None else {"value": value})
    later = f"coalesce({order.later(value)}, false)"
    wanted = later if asked.after else f"NOT {later} AND {order.key} <> $key"
    counts = f"SELECT count(*), count(*) FILTER ({wanted}) FROM {view}"
    ((total, there),) = con.sql(counts, params=params).fetchall()
    by = order.by(backwards=bool(asked.before))
    query = f"SELECT {order.key} FROM {view} WHERE {wanted} ORDER BY {by}"
    ids = _keys(con, query, asked.size, params)
    if asked.before:
        return total, there - len(ids) + 1 if ids else 0, ids[::-1]
    return total, total - there + 1 if ids else 0, ids


def _keys(
    con: duckdb.DuckDBPyConnection, query: str, size: int, params: dict[str, Any]
) -> list[str]:
    rows = con.sql(f"{query} LIMIT {size}", params=params).fetchall()
    return [row[0] for row in rows]


def _details(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, ids: list[str], sort: str
) -> list[dict[str, Any]]:
    """What the grid shows of some clips, in their order; `sorted` is what they are sorted by."""
    if not ids:
        return []
    narrow(con, ids, uris_of(con, ids))
    create_filtered(con, spec, "", [*SHOWN, sort])
    found = con.sql(
        f"SELECT clip_id, {', '.join(SHOWN)}, {identifier(sort)} AS sorted FROM filtered"
    )
    names = found.columns
    rows = {row[0]: dict(zip(names, row, strict=True)) for row in found.fetchall()}
    return [rows[clip_id] for clip_id in ids if clip_id in rows]


# ── rejected sources ─────────────────────────────────────────────────────────────────────────────

REJECTED = 50  # sources of a page
_FACTS = "source_id, uri, size_bytes, kind, container, codec, reason, detail, status, duplicate_of"


def rejected_page(
    con: duckdb.DuckDBPyConnection, reason: str = "", after: str = "", before: str = ""
) -> Page:
    """Sources that were rejected, for one reason or for any, by URI; `after` is a source_id."""
    where = "status = 'rejected'" + (f" AND reason = {literal(reason)}" if reason else "")
    con.execute(
        "CREATE OR REPLACE TEMP VIEW rejected AS SELECT * FROM current_sources WHERE " + where
    )
    asked = Asked(size=REJECTED, after=after, before=before)
    at = None
    if beside := after or before:
        query = "SELECT uri FROM current_sources WHERE source_id = $key LIMIT 1"
        found = con.sql(query, params={"key": beside}).fetchall()
        if not found:
            raise UsageError(f"there is no source {beside!r} any more: begin at the first page")
        at = found[0][0], beside
    total, first, ids = _some(con, "rejected", _Order("uri", "source_id"), asked, at)
    if not ids:
        return Page([], total, 0)
    listed = literals(ids)
    rows = con.sql(f"SELECT {_FACTS} FROM rejected WHERE source_id IN ({listed}) ORDER BY uri")
    return Page([dict(zip(rows.columns, r, strict=True)) for r in rows.fetchall()], total, first)
