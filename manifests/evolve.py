"""Datasets of other versions of Telecine: what of them can be read and written, and as what.

    the table lacks a column       its default, in every row; added by the next append
    a row has NULL in a column     its default
    the table has a column more    left aside; NULL in the rows that this version appends
    a column must have a value     freed of that before a row that has none is appended
    another type, no default       refused, naming the column and the version that wrote it

A column that is missing is told apart from one that was measured: the default of a measurement is
None, which SQL has as NULL. `docs/decisions/0016-old-datasets-open.md` says what raises FORMAT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from telecine.infra.bugs import telecine_version
from telecine.infra.errors import UsageError
from telecine.infra.text import identifier, literal, literals
from telecine.manifests.schemas import Row, arrow_schema, defaults_of

FORMAT = 1  # of a dataset. Another one cannot be read or appended to by this code
NEEDS = "0.1.0"  # the first Telecine that reads and writes FORMAT

# In the metadata of a table's field: the version that added it to rows that were there.
ADDED = b"added"


def version() -> str:
    """Of this Telecine; `unknown` where it runs without being installed."""
    return telecine_version() or "unknown"


# ── the dataset ──────────────────────────────────────────────────────────────────────────────────


def stamp(number: int = FORMAT) -> dict[str, Any]:
    """The keys of a `telecine.toml` that say its format: none for 1, which had no number yet.

    So a Telecine from before there were numbers goes on opening what it can open.
    """
    return {} if number == 1 else {"format": number, "needs": NEEDS}


def without_stamp(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The specs of a `telecine.toml`. Raises UsageError where its format is not this code's."""
    rest = dict(values)
    number, needs = rest.pop("format", 1), rest.pop("needs", None)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise UsageError(f"{where}:\n  format = {number!r}: a whole number from 1 on is expected")
    if number != FORMAT:
        which = f"Telecine {needs} or newer" if needs else "the Telecine that wrote it"
        raise UsageError(
            f"{where} says that the dataset has format {number}; this Telecine ({version()}) "
            f"reads format {FORMAT}. Use {which}, or ingest into a new dataset"
        )
    return rest


# ── a table ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Columns:
    """What a table has, beside what this code declares of its rows."""

    row: type[Row]
    found: pa.Schema  # of the table

    @cached_property
    def missing(self) -> list[str]:
        found = set(self.found.names)  # pyarrow makes the list anew whenever it is asked
        return [n for n in arrow_schema(self.row).names if n not in found]

    @cached_property
    def unknown(self) -> list[str]:
        declared = set(arrow_schema(self.row).names)
        return [n for n in self.found.names if n not in declared]

    @property
    def same(self) -> bool:
        """The rows can be read and appended as they are declared."""
        return not (self.missing or self.unknown or self._added or self._with_nulls)

    @property
    def uneven(self) -> bool:
        """Some files may lack a column that others have."""
        return bool(self._added)

    @property
    def _added(self) -> list[str]:
        return [f.name for f in self.found if ADDED in (f.metadata or {})]

    @property
    def _with_nulls(self) -> list[str]:
        """Columns in which NULL stands for a default."""
        return [
            f.name
            for f in self.found
            if f.nullable and defaults_of(self.row).get(f.name) is not None
        ]

    def problems(self) -> list[str]:
        """Why the rows cannot be read, a line each."""
        both = [f for f in arrow_schema(self.row) if f.name not in self.missing]
        other = [
            f"column {f.name} is {self.found.field(f.name).type}, expected is {f.type}"
            for f in both
            if not _same(self.found.field(f.name).type, f.type)
        ]
        lost = [n for n in self.missing if n not in defaults_of(self.row)]
        return other + [f"there is no column {name}, which has no default" for name in lost]

    def unwritable(self) -> list[str]:
        """Why rows cannot be appended, a line each."""
        return [
            f"column {name}, which this Telecine does not know, must have a value"
            for name in self.unknown
            if not self.found.field(name).nullable
        ]

    def bound(self, rows: pa.Table) -> list[str]:
        """Columns that must have a value in the table, and have none in some of the rows."""
        return [
            f.name
            for f in self.found
            if not f.nullable and f.name in rows.column_names and rows.column(f.name).null_count
        ]

    def to_append(self, rows: pa.Table) -> pa.Table:
        """Rows as they are declared, in the form in which the table takes them.

        It keeps the texts it was made with: a reworded one must not bar appending.
        """
        fields, missing = [], set(self.missing)
        for field in rows.schema:
            if field.name not in missing:
                fields.append(field.remove_metadata())
            else:
                marked = {**(field.metadata or {}), ADDED: version().encode()}
                fields.append(field.with_nullable(True).with_metadata(marked))
        return rows.cast(pa.schema(fields))

    def filled(self, table: pa.Table) -> pa.Table:
        """Columns that were read, with defaults for NULL, as they are declared."""
        declared, defaults = arrow_schema(self.row), defaults_of(self.row)
        arrays = [
            _filled(table.column(name), declared.field(name).type, defaults.get(name))
            for name in table.column_names
        ]
        schema = pa.schema([declared.field(name) for name in table.column_names])
        return pa.table(arrays, schema=schema)


def _filled(column: pa.ChunkedArray, kind: pa.DataType, default: Any) -> pa.ChunkedArray:
    column = column.cast(kind)
    if default is None or not column.null_count:
        return column
    if not pa.types.is_nested(kind):
        return column.fill_null(pa.scalar(default, kind))
    values = [default if value is None else value for value in column.to_pylist()]
    return pa.chunked_array([pa.array(values, kind)])


def _same(found: pa.DataType, expected: pa.DataType) -> bool:
    """Equal but for names and nullability of list elements, which formats choose as they like."""
    if pa.types.is_list(expected) and pa.types.is_list(found):
        return _same(found.value_type, expected.value_type)
    if pa.types.is_struct(expected) and pa.types.is_struct(found):
        return {f.name: f.type for f in found} == {f.name: f.type for f in expected}
    return bool(found == expected)


# ── SQL ──────────────────────────────────────────────────────────────────────────────────────────


def select_of(columns: Columns, types: Mapping[str, str], files: Sequence[str]) -> str:
    """The rows of a table's Parquet files in DuckDB's SQL; `types` are its words for the columns.

    Where the table is as declared, nothing but the files is named: that is read fastest.
    """
    listed = f"[{literals(files)}]"
    if columns.same:
        return f"SELECT * FROM read_parquet({listed})"
    there = [name for name in types if name not in columns.missing]
    if columns.uneven:
        kinds = ", ".join(
            f"{literal(n)}: {{name: {literal(n)}, type: {literal(types[n])}, default_value: NULL}}"
            for n in there
        )
        listed += f", schema = MAP {{{kinds}}}"
    chosen = ", ".join(
        f"{_value(columns, name, kind)} AS {identifier(name)}" for name, kind in types.items()
    )
    return f"SELECT {chosen} FROM read_parquet({listed})"


def _value(columns: Columns, name: str, kind: str) -> str:
    if name in columns.missing:
        return f"CAST({_constant(defaults_of(columns.row)[name])} AS {kind})"
    return (
        _with_default(columns.row, name) if columns.found.field(name).nullable else identifier(name)
    )


def select_filled(row: type[Row], relation: str) -> str:
    """The rows of a relation that has every column of the type, with defaults for NULL."""
    names = arrow_schema(row).names
    return (
        f"SELECT {', '.join(f'{_with_default(row, n)} AS {identifier(n)}' for n in names)} "
        f"FROM {relation}"
    )


def _with_default(row: type[Row], name: str) -> str:
    default = defaults_of(row).get(name)
    return (
        identifier(name)
        if default is None
        else f"coalesce({identifier(name)}, {_constant(default)})"
    )


def _constant(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_constant, value))}]"
    return literal(value) if isinstance(value, str) else str(value)
