"""Rows as Arrow tables and back: what a row type's fields say, as a schema.

A field's metadata is that of `column` in manifests/schemas.py.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

RowType = typing.TypeVar("RowType")

_SCALARS: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}


def _arrow_type(hint: Any) -> pa.DataType:
    hint = _told(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if typing.get_origin(hint) is tuple:
        return pa.list_(_arrow_type(typing.get_args(hint)[0]))
    if dataclasses.is_dataclass(hint):
        return pa.struct([(name, _arrow_type(t)) for name, t in _hints(hint).items()])
    raise TypeError(f"no Arrow type for {hint!r}")


def _hints(row: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(row)


def _told(hint: Any) -> Any:
    """The type of a value that is there: of `float | None` float."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if isinstance(hint, types.UnionType) and len(parts) == 1 else hint


def arrow_schema(row: Any) -> pa.Schema:
    """The Arrow schema of a row type; each field's metadata holds its line of text.

    NULL may stand in a column that came later: a Telecine that does not know it appends rows too.
    """
    return _schema(row)


@functools.cache
def _schema(row: Any) -> pa.Schema:
    hints = _hints(row)
    return pa.schema(
        pa.field(
            f.name,
            _arrow_type(hints[f.name]),
            nullable=bool(f.metadata.get("since")) or _told(hints[f.name]) is not hints[f.name],
            metadata={"text": f.metadata["text"]},
        )
        for f in dataclasses.fields(row)
    )


def defaults_of(row: Any) -> Mapping[str, Any]:
    """What a row without the column says, by column; a column without a default is left out."""
    return _defaults(row)


@functools.cache
def _defaults(row: Any) -> Mapping[str, Any]:
    fields = dataclasses.fields(row)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def to_arrow(rows: Iterable[RowType], row: type[RowType]) -> pa.Table:
    values = [dataclasses.asdict(typing.cast(Any, r)) for r in rows]
    try:
        return pa.Table.from_pylist(values, schema=arrow_schema(row))
    except UnicodeEncodeError:
        return pa.Table.from_pylist([_encodable(v) for v in values], schema=arrow_schema(row))


def _encodable(value: Any) -> Any:
    """With escapes for lone surrogates: half characters, in decoders' messages and JSON escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _encodable(part) for name, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list | tuple) else value


def from_arrow(table: pa.Table, row: type[RowType]) -> list[RowType]:
    """Rows of a table; other columns than the type's are left aside.

    A default stands in for NULL, and for a column that the table has not got.
    """
    defaults = defaults_of(row)
    columns = {
        name: _decoder(hint, defaults.get(name))
        for name, hint in _hints(row).items()
        if name in table.column_names or name not in defaults
    }
    picked = table.select(list(columns)).to_pylist()
    return [row(**{name: read(r[name]) for name, read in columns.items()}) for r in picked]


def _decoder(hint: Any, default: Any) -> Any:
    hint = _told(hint)
    if typing.get_origin(hint) is not tuple:
        return lambda value: default if value is None else value
    item = typing.get_args(hint)[0]
    make: Any = item if dataclasses.is_dataclass(item) else None
    return lambda values: (
        default if values is None else tuple(make(**v) if make else v for v in values)
    )
