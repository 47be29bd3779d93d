"""Export: a build in a format of pipeline/export/formats.py, and what was written of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.console import Console

from telecine.infra import plugins
from telecine.infra.store.storage import join
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Store,
    out,
    with_groups,
)
from telecine.pipeline.export.formats import EXPORTERS, Options, taking

if TYPE_CHECKING:
    from telecine.pipeline.export.export import Exported

FORMATS = "; ".join(f"{row.name}: {row.help}" for row in EXPORTERS)
LISTED = 10  # files named on a terminal


class WithPlugins(typer.core.TyperCommand):
    """The command, whose help names the formats of plug-ins too: they are looked for only then."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        (option,) = (p for p in self.params if p.name == "form")
        assert isinstance(option, typer.core.TyperOption)
        option.help = "; ".join([FORMATS, *plugins.listed(plugins.EXPORTERS)]) + "."
        super().format_options(ctx, formatter)


@with_groups
def export(
    dataset: DatasetArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to write into; made if not there.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=FORMATS,
        ),
    ],
    build: Annotated[
        str | None, typer.Option(help="Name or id of the build (default: the current one).")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=taking("prefix")
            + ": where the dataset will lie (default: where it lies). With {} "
            "the shard's path goes there, as in 'pipe:aws s3 cp s3://bucket/data/{} -'.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,VAL,TEST",
            help=f"{taking('split')}: shares, by whole shards (default: 1,0,0). Clips of one "
            "source may fall to different parts.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write although the folder is not empty.")
    ] = False,
    *,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Write what a trainer or a publisher needs beside a build: lists, indexes, a dataset card."""
    from telecine.pipeline.export.export import export as run_export

    opened = store.open(dataset)
    options = Options(prefix=prefix, split=split)
    exported = run_export(opened, folder, form, options, build=build, overwrite=overwrite)
    print_exported(exported, as_json, out())


def print_exported(found: Exported, as_json: bool, console: Console) -> None:
    from telecine.infra.text import counted, size
    from telecine.pipeline.terminal.text import line, write

    if as_json:
        write(console, json.dumps(dataclasses.asdict(found), indent=2))
        return
    line(
        console,
        f"{found.format} of build {found.build}: {counted(found.num_samples, 'sample')} in "
        f"{counted(found.num_shards, 'shard')}, {size(found.size_bytes)}",
    )
    top = sorted(found.files, key=lambda name: (name.count("/"), name))
    for name in top[:LISTED]:
        line(console, f"wrote {join(found.folder, name)}")
    if len(top) > LISTED:
        line(console, f"and {counted(len(top) - LISTED, 'file')} more there")
    for note in found.notes:
        line(console, note)
