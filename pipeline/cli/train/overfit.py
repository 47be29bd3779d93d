"""overfit: prove on a build that a diffusion transformer trains on what the feed gives of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from telecine.infra.errors import CheckFailed
from telecine.infra.text import counted
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Store,
    Vae,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.text import print_json


@with_groups
def overfit(
    dataset: DatasetArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A .png: per clip its footage, its round trip and its sample.",
        ),
    ],
    clips: Annotated[int, typer.Option(min=2, help="How many to learn by heart.")] = 4,
    minutes: Annotated[
        float,
        typer.Option(min=0.01, help="That training takes at most; --held-out takes as many again."),
    ] = 3.0,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out",
            help="Also train on two thirds of the sources and measure on the others, beside a "
            "control whose axes are exchanged.",
        ),
    ] = False,
    tokens: Annotated[
        int,
        typer.Option(min=16, help="Patches of a clip at most: of a longer one its first frames."),
    ] = 512,
    build: Annotated[
        str | None, typer.Option(help="Name or id of the build (default: the current one).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it is there.")
    ] = False,
    vae: Vae = None,
    *,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Prove that a small diffusion transformer trains on a build, and say which number fails."""
    from telecine.pipeline.overfit.step import overfit as run_overfit
    from telecine.pipeline.overfit.work import Options

    opened = store.open(dataset)
    options = Options(clips, minutes, tokens, held_out, build, vae)
    learned = run_overfit(opened, options, output, overwrite=overwrite, progress=progress())
    if as_json:
        print_json(learned.to_json(), out())
    else:
        out().print(str(learned), markup=False, highlight=False, soft_wrap=True)
    if learned.failed:
        raise CheckFailed(
            f"{counted(len(learned.failed), 'number')} of {len(learned.checks)} beyond bounds: "
            + "; ".join(check.name for check in learned.failed)
            + ". docs/train.md says which number sees which fault"
        )
