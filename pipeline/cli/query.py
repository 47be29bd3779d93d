"""Query: ask the tables anything, in SQL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from telecine.infra.errors import UsageError
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    EndpointUrl,
    Profile,
    dataset_at,
    out,
    say_read,
)


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
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
) -> None:
    """Ask the tables anything, in SQL."""
    from telecine.pipeline.look.query import Wanted
    from telecine.pipeline.look.query import query as run_query

    text = _sql(sql, file, dataset)
    wanted = Wanted(
        limit=limit, as_json=as_json, as_csv=as_csv, parquet=parquet, overwrite=overwrite
    )
    opened = dataset_at(dataset, endpoint_url, profile)
    try:
        run_query(opened, text, wanted, out())
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
