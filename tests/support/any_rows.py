"""Rows of a table with anything in them, for Hypothesis."""

from __future__ import annotations

import types
import typing
from typing import Any

from hypothesis import strategies as st

_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    type(None): st.none(),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _VALUES:
        return _VALUES[hint]
    if isinstance(hint, types.UnionType):
        return st.one_of(map(values_of, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return st.lists(values_of(typing.get_args(hint)[0]), max_size=3).map(tuple)
    return rows_of(hint)


def rows_of(row: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(row)
    return st.builds(row, **{name: values_of(hint) for name, hint in hints.items()})
