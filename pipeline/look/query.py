"""query: SQL over the tables. `telecine query DATASET "SELECT ..."`

SQL ─▶ one statement that reads, or refused ─▶ the view `dataset`, as far as it is named
    ─▶ DuckDB, which can reach nothing but the tables ─▶ batches ─▶ whoever shows or keeps them
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from telecine.infra.errors import StorageError, UsageError
from telecine.infra.store import output
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import VIEWS
from telecine.manifests.schemas import TABLES
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.dataset import create_dataset_view
from telecine.pipeline.catalog.statement import (
    JOINED,
    parsed,
    said,
    tables_there,
    takes_whole_rows,
    words_in,
)

NAMES = (*TABLES, *VIEWS, JOINED)

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
        create_dataset_view(con, spec, words_in(sql) if narrow else None)
    try:
        rows = con.sql(sql)
    except duckdb.Error as error:
        if not narrow:
            raise _mistaken(con, spec, sql, error) from error
        create_dataset_view(con, spec)  # a column may be meant that the text does not spell out
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


def _names(sql: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", sql, re.IGNORECASE) is not None


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


def _mistaken(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, sql: str, error: duckdb.Error
) -> UsageError:
    """What DuckDB says, and the columns of the tables that are named, or else the tables."""
    there = [name for name in NAMES if _names(sql, name)]
    if JOINED in there:
        create_dataset_view(con, spec)
    columns = [
        f"{name} has the columns {', '.join(con.sql(f'FROM {name}').columns)}" for name in there
    ]
    return UsageError("\n".join([said(error), *(columns or [tables_there()])]))


@contextlib.contextmanager
def explained(con: duckdb.DuckDBPyConnection, dataset: Dataset, sql: str) -> Iterator[None]:
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


def batches_of(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Arrow passes DuckDB's errors on as errors of its own, or of the disk's."""
    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        raise duckdb.Error(str(error)) from error


# ── a file ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Written:
    """A Parquet file."""

    path: Path
    rows: int
    columns: int
    size_bytes: int


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> Written:
    """The file is there whole or not at all. Raises UsageError where it cannot hold a column."""
    count = 0
    with _told_of_columns(path), output.writing(path) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in _groups(batches):
                writer.write_table(group)
                count += group.num_rows
        written = file.tell()
    return Written(path, count, len(schema.names), written)


@contextlib.contextmanager
def _told_of_columns(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        raise UsageError(
            f"{path} cannot hold a column: {error}. Cast it, as in column::VARCHAR"
        ) from error


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
