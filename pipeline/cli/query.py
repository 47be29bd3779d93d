"""query: ask the tables anything, in SQL."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from telecine.infra.errors import UsageError
from telecine.infra.store.output import check_file
from telecine.infra.text import counted, json_value, one_line, size
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Store,
    out,
    say_read,
    with_groups,
)
from telecine.pipeline.terminal.text import line, print_json_rows, print_rows

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from telecine.manifests.dataset import Dataset

SHOWN = 50  # rows on a terminal, unless told otherwise


@with_groups
def query(
    dataset: DatasetArgument,
    sql: Annotated[
        str | None,
        typer.Argument(
            metavar="[SQL]",
            help="One SELECT over sources, clips, stills, captions, embeddings, scores, "
            "duplicates, samples, builds, or over dataset, which joins them; - reads it from "
            "standard input.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the SQL from a file.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, help="Rows at most, 0 for all (default: 50; all where it is no table)."
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180).")] = False,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows into a Parquet file.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the Parquet file if it is there.")
    ] = False,
    *,
    store: Store,
) -> None:
    """Ask the tables anything, in SQL."""
    text = _sql(sql, file, dataset)
    wanted = Wanted(
        limit=limit, as_json=as_json, as_csv=as_csv, parquet=parquet, overwrite=overwrite
    )
    opened = store.open(dataset)
    try:
        answer(opened, text, wanted, out())
        sys.stdout.flush()
        say_read(opened)
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sql(sql: str | None, file: Path | None, dataset: str) -> str:
    """From the line, a file or standard input."""
    if (sql is None) == (file is None):
        raise UsageError(
            "give the SQL either on the line or with --file, as in\n"
            f'  telecine query {dataset} "SELECT kind, count(*) FROM clips GROUP BY kind"'
        )
    if sql == "-":
        return sys.stdin.read()
    if file is None:
        return str(sql)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--file {file}: cannot be read as text: {error}") from error


# ── the answer ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wanted:
    """How rows are given. At most one of the last three; none of them: a table."""

    limit: int | None = None  # 0: all; None: SHOWN in a table, all elsewhere
    as_json: bool = False
    as_csv: bool = False
    parquet: Path | None = None
    overwrite: bool = False


def answer(dataset: Dataset, sql: str, wanted: Wanted, console: Console) -> None:
    """`telecine query DATASET SQL`: rows are written as they are read."""
    from telecine.manifests.queries import connect
    from telecine.pipeline.look.query import BATCH_ROWS, ask, batches_of, explained, write_parquet

    if sum([wanted.as_json, wanted.as_csv, wanted.parquet is not None]) > 1:
        raise UsageError("--json, --csv and --parquet are three forms of output: give one of them")
    if wanted.parquet is not None:
        check_file(wanted.parquet, "--parquet", dataset=dataset.uri, overwrite=wanted.overwrite)
    con = connect(dataset.tables)
    with explained(con, dataset, sql):
        if not (wanted.as_json or wanted.as_csv or wanted.parquet):
            most = SHOWN if wanted.limit is None else wanted.limit
            _print_table(ask(con, dataset.spec, sql, most and most + 1), most, console)
            return
        reader = ask(con, dataset.spec, sql, wanted.limit or 0).to_arrow_reader(BATCH_ROWS)
        if wanted.parquet is not None:
            written = write_parquet(reader.schema, batches_of(reader), wanted.parquet)
            line(
                console,
                f"{written.path}: {counted(written.rows, 'row')}, "
                f"{counted(written.columns, 'column')}, {size(written.size_bytes)}",
            )
        elif wanted.as_csv:
            _write_csv(reader.schema.names, batches_of(reader), console)
        else:
            print_json_rows(batches_of(reader), console)


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
