"""statement: one SQL statement that reads the tables and nothing else; anything else is refused.

DuckDB's own lock does not suffice: it keeps away from every file but the tables', and those it
would write to as well as read. A WITH may hold a COPY TO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from telecine.infra.errors import UsageError
from telecine.infra.text import one_line
from telecine.manifests.queries import VIEWS
from telecine.manifests.schemas import TABLES
from telecine.manifests.tables import one_line as in_one_line
from telecine.manifests.tables import words

JOINED = "dataset"  # the view of pipeline/catalog/dataset.py

# What a statement may be made of: a WITH may hold a COPY TO, an INSERT, an UPDATE or a DELETE too.
_READ = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})

# Table functions that make rows of their arguments. The others read files, or run text as SQL.
_PURE = frozenset(
    {"unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree"}
)


def parsed(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """The syntax tree of one statement that reads the tables and nothing else."""
    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1:
            raise UsageError(f"a query is one statement; this is {len(statements) or 'none'}")
        kind = statements[0].type
        if kind == duckdb.StatementType.MULTI:
            raise UsageError("PIVOT needs its columns named here, as in ON kind IN ('video')")
        if kind != duckdb.StatementType.SELECT:
            raise _refused(kind.name)
        tree = tree_of(con, sql)
    except duckdb.Error as error:
        raise UsageError(f"{said(error)}\n{tables_there()}") from error
    for node in nodes(tree):
        _refuse_others(node)
    return tree


def tree_of(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """What DuckDB's parser makes of a SELECT. Raises duckdb.Error where that is nothing."""
    try:
        ((text,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        tree = json.loads(text)
    except RecursionError as error:
        raise UsageError("this SQL is nested too deeply: write it with fewer levels") from error
    if tree.get("error"):
        raise duckdb.ParserException(f"Parser Error: {tree.get('error_message')}")
    return tree


def check_columns(con: duckdb.DuckDBPyConnection, columns: str) -> Any:
    """The syntax tree of columns to list.

    Raises UsageError where they would read anything but the tables.
    """
    return parsed(con, f"SELECT {columns}\nFROM {JOINED}")


def _refused(what: str) -> UsageError:
    return UsageError(
        "a query reads: one SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE, SHOW TABLES). "
        f"{what} is refused"
    )


def _refuse_others(node: dict[str, Any]) -> None:
    """What a SELECT may hold beside questions to the tables."""
    kind = str(node.get("type"))
    if kind.endswith("_NODE") and kind not in _READ:
        raise _refused(kind.removesuffix("_QUERY_NODE").removesuffix("_NODE"))
    if kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in _PURE:
            raise UsageError(
                f"{name}() is refused: a query reads the tables alone\n{tables_there()}"
            )
    if kind == "BASE_TABLE" and re.search(r"[./\\]", str(node.get("table_name", ""))):
        raise UsageError(f"there is no table {node['table_name']!r}\n{tables_there()}")


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON value, in the order of its text."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def takes_whole_rows(tree: Any) -> bool:
    """Whether the query may give columns that its text does not name; if in doubt, yes.

    A star, COLUMNS(...), SUMMARIZE and DESCRIBE do; a table's name in place of a column, NATURAL
    and columns by position may.
    """
    found = list(nodes(tree))
    tables = {str(n.get(key, "")).lower() for n in found for key in ("alias", "table_name")}
    for node in found:
        kind, names = node.get("type"), node.get("column_names") or ()
        if "STAR" in (kind, node.get("class")) or node.get("ref_type") == "NATURAL":
            return True
        if kind in ("SHOW_REF", "PIVOT", "POSITIONAL_REFERENCE") or node.get("column_name_alias"):
            return True
        if kind == "COLUMN_REF" and names and str(names[-1]).lower() in tables - {""}:
            return True
    return False


def words_in(sql: str) -> set[str]:
    """In lower case: all names of columns in it, and more."""
    return set(re.findall(r"\w+", sql.lower()))


def tables_there() -> str:
    return (
        f"the tables are {', '.join(TABLES)}; {', '.join(VIEWS)} are what of them is in force, "
        f"and {JOINED} has a row per current clip with all that is known of it"
    )


def said(error: duckdb.Error) -> str:
    """DuckDB's words, which may quote other people's text."""
    return "\n".join(one_line(line) for line in words(error).split("\n") if line.strip())


def said_in_short(error: duckdb.Error) -> str:
    """The same in one line, without the SQL around what a user wrote."""
    return one_line(in_one_line(error))
