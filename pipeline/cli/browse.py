"""The commands that show a dataset to people: in a browser, and as a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from telecine.pipeline.cli.options import (
    DatasetArgument,
    Store,
    out,
    with_groups,
)
from telecine.pipeline.terminal.text import line


@with_groups
def browse(
    dataset: DatasetArgument,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any that is free.")
    ] = 8042,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's are warned of.")
    ] = "127.0.0.1",
    *,
    store: Store,
) -> None:
    """Look at a dataset in a web browser: charts, clips, sources, builds. Reads only."""
    from telecine.pipeline.browse.app import browse as run_browse

    screen = out()
    run_browse(store.open(dataset), host, port, partial(line, screen))


@with_groups
def report(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The .html file to write.")
    ],
    where: Annotated[
        str | None,
        typer.Option(help="Chart and show the clips that this SQL condition is true of."),
    ] = None,
    clips: Annotated[
        int, typer.Option(min=0, max=200, help="Clips to show, the same ones every time.")
    ] = 24,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it is there.")
    ] = False,
    *,
    store: Store,
) -> None:
    """Write the overview and a sample of clips as one HTML file that needs nothing else."""
    from telecine.pipeline.browse.report import report as run_report

    opened = store.open(dataset)
    written = run_report(opened, output, where=where or "", clips=clips, overwrite=overwrite)
    out().print(written, markup=False, highlight=False, soft_wrap=True)
