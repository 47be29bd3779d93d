"""Which AND-ed parts of an SQL condition are true of a clip, and the values that they speak of.

    motion > 0.02 AND (width >= 1280 OR kind = 'image')
    ├─ motion > 0.02                           false    motion = 0.004
    └─ (width >= 1280) OR (kind = 'image')     true     width = 1920, kind = 'video'

DuckDB's own parser takes the condition apart and writes each part out again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

_SELECT = "SELECT 1 WHERE "


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
        rows = con.sql(f"SELECT clip_id, {truth}{listed} FROM {relation}").fetchall()
    except duckdb.Error as failure:  # of a value: a cast, a division
        rows = con.sql(f"SELECT clip_id, NULL{listed} FROM {relation}").fetchall()
        error = str(failure).splitlines()[0]
    for clip_id, true, *values in rows:
        yield clip_id, Part(_bare(sql), true, dict(zip(columns, values, strict=True)), error)


def _parts(con: duckdb.DuckDBPyConnection, where: str) -> list[tuple[str, list[str]]]:
    """The parts as SQL, each with the names of columns in it; the whole where it is but one."""
    statement = f"{_SELECT}({where}\n)"
    ((text,),) = con.sql("SELECT json_serialize_sql(?)", params=[statement]).fetchall()
    tree = json.loads(text)
    if tree["error"]:
        raise duckdb.ParserException(tree["error_message"])
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
    if isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF":
            yield from tree["column_names"]
        for part in tree.values():
            yield from _columns(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _columns(part)


def _bare(sql: str) -> str:
    """Without the pair of parentheses around all of it; one within a string may keep it."""
    depth = 0
    for number, letter in enumerate(sql):
        depth += (letter == "(") - (letter == ")")
        if not depth and number < len(sql) - 1:
            return sql
    return sql[1:-1] if sql.startswith("(") else sql
