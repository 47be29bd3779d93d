"""An SQL condition: what it names, what it may not hold, which of its AND-ed parts are true.

    motion > 0.02 AND (width >= 1280 OR kind = 'image')
    ├─ motion > 0.02                           false    motion = 0.004
    └─ (width >= 1280) OR (kind = 'image')     true     width = 1920, kind = 'video'

A condition looks at one row by itself and says the same of it at every run, on every machine.
DuckDB's own parser takes it apart and writes each part out again: what stands in a comment or a
string is no column.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb

from telecine.infra.errors import UsageError
from telecine.pipeline.catalog.statement import nodes, said_in_short, tree_of

ROWS = "clips"  # what a condition may call the rows that it is asked of, as in clips.motion
_SELECT = "SELECT 1 WHERE "


def is_blank(where: str | None) -> bool:
    """Whether all rows are meant."""
    return not (where or "").strip()


def columns_named(where: str | None) -> frozenset[str]:
    """The columns that a condition names, in lower case, with what they are qualified by.

    Raises UsageError, without its text, where it may not be asked of rows. Whether there are such
    columns and functions shows when it is bound to some.
    """
    return frozenset() if where is None or is_blank(where) else _columns_named(where)


@lru_cache(maxsize=256)
def _columns_named(where: str) -> frozenset[str]:
    with duckdb.connect(":memory:") as con:
        try:
            tree_of(con, f"{_SELECT}\n{where}\n")  # ends no parenthesis that it did not begin
            tree = tree_of(con, f"{_SELECT}(\n{where}\n)")  # and is one expression
        except duckdb.Error as error:
            raise UsageError(said_in_short(error)) from error
        for refusal in _refusals(con, list(nodes(tree))):
            raise UsageError(refusal)
    return frozenset(name.lower() for name in _columns(tree))


def _refusals(con: duckdb.DuckDBPyConnection, found: list[dict[str, Any]]) -> Iterator[str]:
    """Why a condition may not be asked, the first reason first."""
    classes = {node.get("class") for node in found}
    if "SUBQUERY" in classes:
        yield "there is a query within it, but a row is taken for what it is by itself"
    if changing := sorted(_called(found) & _changing(con)):
        names = ", ".join(f"{name}()" for name in changing)
        yield f"{names} is not the same at every run and on every machine"
    if any(str(n.get("type_name")).upper() in _ZONED for n in found):
        yield "what a time with a time zone is hangs on the machine: cast to TIMESTAMP"
    if "PARAMETER" in classes:
        yield "there is a parameter in it, for which no value is given"
    whole = any(node.get("column_names") in ([ROWS],) for node in found)
    if whole or not classes.isdisjoint({"STAR", "POSITIONAL_REFERENCE"}):
        yield "it must name each column that it means, without *, COLUMNS() or #1"


def _called(found: Iterable[dict[str, Any]]) -> set[str]:
    """Functions by name; some, like current_date, are written without parentheses."""
    names = [str(node.get("function_name", "")) for node in found]
    names += [node["column_names"][0] for node in found if node.get("column_names")]
    return {name.lower() for name in names}


_ZONED = frozenset({"TIMESTAMPTZ", "TIMETZ", "TIMESTAMP WITH TIME ZONE", "TIME WITH TIME ZONE"})

_UNSTEADY = """
SELECT lower(function_name) FROM duckdb_functions() WHERE function_type = 'scalar'
GROUP BY ALL HAVING NOT bool_or(stability = 'CONSISTENT')
"""
_MACROS = "SELECT lower(function_name), macro_definition FROM duckdb_functions() "
_MACROS += "WHERE function_type = 'macro'"

# Values without parentheses, and functions of time zones and of the program's version.
_MORE = frozenset(
    {"current_timestamp", "current_time", "localtime", "localtimestamp", "to_timestamp",
     "timezone", "version"}
)  # fmt: skip


def _changing(con: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Functions whose value hangs on the clock, on chance or on what the database is."""
    changing = {*_MORE, *(name for (name,) in con.sql(_UNSTEADY).fetchall())}
    macros = con.sql(_MACROS).fetchall()
    before = 0
    while before < len(changing):
        before = len(changing)
        words = re.compile(rf"\b(?:select|{'|'.join(map(re.escape, changing))})\b", re.IGNORECASE)
        changing |= {name for name, definition in macros if words.search(definition)}
    return frozenset(changing)


# ── its parts ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Part:
    sql: str  # as DuckDB writes it
    true: bool | None  # None: unknown, since a value is NULL, or the part cannot be evaluated
    values: Mapping[str, Any]  # of the columns that it names
    error: str = ""  # why it cannot be evaluated


def judged(
    con: duckdb.DuckDBPyConnection, relation: str, where: str
) -> dict[str, tuple[Part, ...]]:
    """By clip_id, for each row of a relation that has one, the parts of the condition.

    Raises duckdb.Error where it is no condition at all.
    """
    there = {name.lower(): name for name in con.sql(f"FROM {relation}").columns}
    found: dict[str, list[Part]] = defaultdict(list)
    for sql, named in _parts(con, where):
        columns = list(dict.fromkeys(there[n.lower()] for n in named if n.lower() in there))
        for clip_id, part in _judge(con, relation, sql, columns):
            found[clip_id].append(part)
    return {clip_id: tuple(parts) for clip_id, parts in found.items()}


def _judge(
    con: duckdb.DuckDBPyConnection, relation: str, sql: str, columns: list[str]
) -> Iterator[tuple[str, Part]]:
    listed = "".join(f', "{name}"' for name in columns)
    truth, error = f"CAST(({sql}\n) AS BOOLEAN)", ""
    try:
        rows = con.sql(f"SELECT clip_id, {truth}{listed} FROM {relation} AS {ROWS}").fetchall()
    except duckdb.Error as failure:  # of a value: a cast, a division
        rows = con.sql(f"SELECT clip_id, NULL{listed} FROM {relation}").fetchall()
        error = said_in_short(failure)
    for clip_id, true, *values in rows:
        yield clip_id, Part(_bare(sql), true, dict(zip(columns, values, strict=True)), error)


def _parts(con: duckdb.DuckDBPyConnection, where: str) -> list[tuple[str, list[str]]]:
    """The parts as SQL, each with the names of columns in it; the whole where it is but one."""
    tree = tree_of(con, f"{_SELECT}({where}\n)")
    node = tree["statements"][0]["node"]
    parts = []
    for condition in _flat(node["where_clause"]):
        node["where_clause"] = condition
        written = con.sql("SELECT json_deserialize_sql(?::JSON)", params=[json.dumps(tree)])
        ((sql,),) = written.fetchall()
        parts.append((sql.removeprefix(_SELECT), list(_columns(condition))))
    return parts


def _flat(condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if condition["type"] != "CONJUNCTION_AND":
        yield condition
        return
    for child in condition["children"]:
        yield from _flat(child)


def _columns(tree: Any) -> Iterator[str]:
    """Of `clip.motion` both words: which of them is a column, the relation says."""
    for node in nodes(tree):
        if node.get("class") == "COLUMN_REF":
            yield from node["column_names"]


def _bare(sql: str) -> str:
    """Without the pair of parentheses around all of it; one within a string may keep it."""
    depth = 0
    for number, letter in enumerate(sql):
        depth += (letter == "(") - (letter == ")")
        if not depth and number < len(sql) - 1:
            return sql
    return sql[1:-1] if sql.startswith("(") else sql
