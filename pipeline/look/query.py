"""query: SQL over the tables. `telecine query DATASET "SELECT ..."`

SQL ─▶ one statement that reads, or refused ─▶ the view `dataset`, as far as it is named
    ─▶ DuckDB, which can reach nothing but the tables ─▶ batches ─▶ a table, JSON, CSV or Parquet
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from telecine.infra import output
from telecine.infra.errors import StorageError, UsageError
from telecine.infra.text import counted, json_value, one_line, size
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import VIEWS, connect
from telecine.manifests.schemas import TABLES
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.dataset import create_joined
from telecine.pipeline.catalog.statement import JOINED, parsed, said, tables_there, takes_whole_rows
from telecine.pipeline.terminal.text import line, print_json_rows, print_rows

NAMES = (*TABLES, *VIEWS, JOINED)

SHOWN = 50  # rows on a terminal, unless told otherwise
BATCH_ROWS = 2048  # of stills at 30 kB: 60 MB
GROUP_ROWS, GROUP_BYTES = 100_000, 64 * 2**20  # of a row group of a Parquet file


def ask(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, sql: str, limit: int = 0
) -> duckdb.DuckDBPyRelation:
    """What a query gives, not yet read; `limit` 0 means all. No two columns have one name.

    Raises UsageError for anything but one statement that reads, and for what DuckDB cannot make
    out, with its words.
    """
    tree, sql = parsed(con, sql), _without_end(sql)
    named = _names(sql, JOINED) or _names(sql, "SHOW")  # which lists it
    narrow = named and not takes_whole_rows(tree)
    if named:
        create_joined(con, spec, [_words(sql)] if narrow else ["*"])
    try:
        rows = con.sql(sql)
    except duckdb.Error as error:
        if not narrow:
            raise _mistaken(con, spec, sql, error) from error
        create_joined(con, spec)  # a column may be meant that the text does not spell out
        try:
            rows = con.sql(sql)
        except duckdb.Error:
            raise _mistaken(con, spec, sql, error) from error
    return rows.limit(limit) if limit else rows.project("*")


def _without_end(sql: str) -> str:
    """Without its semicolon and comments after it: DuckDB puts the text inside another."""
    text = sql.encode()
    end = len(text)
    for offset, kind in reversed(duckdb.tokenize(sql)):
        if text[offset : offset + 1] == b";":
            end = offset
        elif kind != duckdb.token_type.comment:
            break
    return text[:end].decode()


def _words(sql: str) -> str:
    return " ".join(re.findall(r"\w+", sql))


def _names(sql: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", sql, re.IGNORECASE) is not None


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


def _mistaken(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, sql: str, error: duckdb.Error
) -> UsageError:
    """What DuckDB says, and the columns of the tables that are named, or else the tables."""
    there = [name for name in NAMES if _names(sql, name)]
    if JOINED in there:
        create_joined(con, spec)
    columns = [
        f"{name} has the columns {', '.join(con.sql(f'FROM {name}').columns)}" for name in there
    ]
    return UsageError("\n".join([said(error), *(columns or [tables_there()])]))


@contextlib.contextmanager
def _explained(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, sql: str, wanted: Wanted
) -> Iterator[None]:
    """What goes wrong on the way: a value that does not fit a cast, a file that is gone."""
    try:
        yield
    except duckdb.Error as error:
        words = said(error)
        if words.startswith("IO Error"):
            raise StorageError(f"the tables of {dataset.uri} cannot be read: {words}") from error
        if words.startswith("Out of Memory Error"):
            raise UsageError(
                f"this needs more memory than a query has: {words}\n"
                "Aggregate, select fewer columns, or sort less"
            ) from error
        raise _mistaken(con, dataset.spec, sql, error) from error
    except pa.ArrowNotImplementedError as error:
        raise UsageError(
            f"{wanted.parquet} cannot hold a column: {error}. Cast it, as in column::VARCHAR"
        ) from error


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Arrow passes DuckDB's errors on as errors of its own, or of the disk's."""
    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        raise duckdb.Error(str(error)) from error


# ── the command ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wanted:
    """How rows are given. At most one of the last three; none of them: a table."""

    limit: int | None = None  # 0: all; None: SHOWN in a table, all elsewhere
    as_json: bool = False
    as_csv: bool = False
    parquet: Path | None = None
    overwrite: bool = False


def query(dataset: Dataset, sql: str, wanted: Wanted, console: Console) -> None:
    """`telecine query DATASET SQL`: rows are written as they are read."""
    if sum([wanted.as_json, wanted.as_csv, wanted.parquet is not None]) > 1:
        raise UsageError("--json, --csv and --parquet are three forms of output: give one of them")
    if wanted.parquet is not None:
        output.check_file(
            wanted.parquet, "--parquet", dataset=dataset.uri, overwrite=wanted.overwrite
        )
    con = connect(dataset.tables)
    with _explained(con, dataset, sql, wanted):
        if not (wanted.as_json or wanted.as_csv or wanted.parquet):
            most = SHOWN if wanted.limit is None else wanted.limit
            _print_table(ask(con, dataset.spec, sql, most and most + 1), most, console)
            return
        reader = ask(con, dataset.spec, sql, wanted.limit or 0).to_arrow_reader(BATCH_ROWS)
        if wanted.parquet is not None:
            written = _write_parquet(reader.schema, _batches(reader), wanted.parquet)
            line(console, written)
        elif wanted.as_csv:
            _write_csv(reader.schema.names, _batches(reader), console)
        else:
            print_json_rows(_batches(reader), console)


def _print_table(rows: duckdb.DuckDBPyRelation, most: int, console: Console) -> None:
    found = rows.to_arrow_table()
    print_rows(found.slice(0, most) if most else found, console)
    if most and found.num_rows > most:
        print(f"{most} rows at most are shown; --limit 0 shows all", file=sys.stderr)


def _write_csv(names: Iterable[str], batches: Iterable[pa.RecordBatch], console: Console) -> None:
    """RFC 4180 with a line of names. Lists and structs are JSON, bytes base64, NULL is empty.

    On a terminal what would be taken for a command to it is escaped; a file gets it as it is.
    """

    def field(value: Any) -> str:
        text = _field(value)
        return one_line(text) if console.is_terminal else text

    rows = csv.writer(console.file)
    rows.writerow(map(field, names))
    for batch in batches:
        columns = [column.to_pylist() for column in batch.columns]
        rows.writerows([field(value) for value in row] for row in zip(*columns, strict=True))


def _field(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return str(json_value(value))
    if isinstance(value, list | dict):
        return json.dumps(json_value(value), ensure_ascii=False)
    return "" if value is None else str(value)


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> str:
    """The file is there whole or not at all. Says what was written."""
    count = 0
    with output.writing(path) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in _groups(batches):
                writer.write_table(group)
                count += group.num_rows
        written = file.tell()
    columns = len(schema.names)
    return f"{path}: {counted(count, 'row')}, {counted(columns, 'column')}, {size(written)}"


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches gathered into row groups."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        full = sum(b.num_rows for b in held) >= GROUP_ROWS
        if full or sum(b.nbytes for b in held) >= GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
