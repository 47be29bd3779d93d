"""Tables and lines on a terminal, and rows as JSON.

File names, captions and decoders' messages are other people's text: shown as they are, never as
markup, with control characters (terminal escapes, line breaks, text direction) escaped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from telecine.infra.text import cell, json_value, one_line

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import DataclassInstance

# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def print_json(value: DataclassInstance | dict[str, Any], console: Console) -> None:
    """An object, indented; of a dataclass all of its fields."""
    whole = value if isinstance(value, dict) else dataclasses.asdict(value)
    write(console, json.dumps(json_value(whole), indent=2))


def print_json_rows(batches: Iterable[pa.RecordBatch], console: Console) -> None:
    """One array, one row a line, written as it is read."""
    separator = "[\n"
    for batch in batches:
        for row in batch.to_pylist():
            console.file.write(separator + json.dumps(json_value(row)))
            separator = ",\n"
    write(console, "\n]" if separator == ",\n" else "[]")


def write(console: Console, text: str) -> None:
    """A line, past rich, which would wrap long lines."""
    console.file.write(text + "\n")


# ── a terminal ───────────────────────────────────────────────────────────────────────────────────


LEGIBLE = 12  # characters of a column that may be folded no further


def plain(value: Any) -> Text:
    """A cell: one line, nothing in it taken for markup or sent to the terminal as a command."""
    return Text(one_line(value))


def print_rows(rows: pa.Table, console: Console) -> None:
    """A line per row where the columns fit the terminal, else a block per row."""
    if not rows.num_rows:
        console.print("no rows")
        return
    values = [list(row.values()) for row in _with_all_columns(rows)]
    widths = [
        max(len(name), min(LEGIBLE, max(len(cell(row[index])) for row in values))) + 2
        for index, name in enumerate(rows.column_names)
    ]
    if sum(widths) <= console.width:
        print_table(rows.column_names, values, console)
    else:
        _print_blocks(rows.column_names, values, console)


def _print_blocks(names: Sequence[str], rows: list[list[Any]], console: Console) -> None:
    for number, row in enumerate(rows):
        if number:
            console.print()
        block = Table.grid(padding=(0, 2))
        block.add_column(style="bold")
        block.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            block.add_row(plain(name), plain(value))
        console.print(block)


def _with_all_columns(rows: pa.Table) -> list[dict[str, Any]]:
    """Two columns may have one name; a dict would keep one of them."""
    unique = rows.rename_columns([str(n) for n in range(rows.num_columns)])
    found: list[dict[str, Any]] = unique.to_pylist()
    return found


_MEASURES = frozenset({"size", "footage", "latents"})


def print_table(names: Sequence[str], rows: Iterable[Iterable[Any]], console: Console) -> None:
    """Numbers to the right; long text is folded, not cut: it is there to be copied."""
    body = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        values = {type(row[index]) for row in body} - {type(None)}
        numbers = name in _MEASURES or values <= {int, float}
        table.add_column(plain(name), justify="right" if numbers else "left", overflow="fold")
    for row in body:
        table.add_row(*map(plain, row))
    console.print(table)


def heading(console: Console, text: str) -> None:
    """A line in bold, after an empty one; nothing in it is taken for markup."""
    console.print()
    console.print(plain(text).markup, style="bold", soft_wrap=True)


def line(console: Console, text: str) -> None:
    """However long, and nothing in it taken for markup."""
    console.print(plain(text), soft_wrap=True)
