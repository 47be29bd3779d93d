"""The commands that choose among builds, check them, look into them and clear them away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from telecine.infra.errors import CheckFailed
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    EndpointUrl,
    Machines,
    Profile,
    Store,
    Vae,
    dataset_at,
    out,
    progress,
)

BuildArgument = Annotated[
    str, typer.Argument(metavar="BUILD", help="Its name or id, or how one of them begins.")
]


def promote(
    dataset: DatasetArgument,
    build: BuildArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Make it current although a gate says no.")
    ] = False,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
) -> None:
    """Make a build the current one: what `ingest` adds to and trainers follow."""
    from telecine.pipeline.lifecycle.promote import promote as run_promote

    opened = dataset_at(dataset, endpoint_url, profile)
    promoted = run_promote(opened, build, force=force)
    out().print(promoted, markup=False, highlight=False, soft_wrap=True)


def rollback(
    dataset: DatasetArgument,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
) -> None:
    """Go back to the build that was current before."""
    from telecine.pipeline.lifecycle.promote import rollback as run_rollback

    opened = dataset_at(dataset, endpoint_url, profile)
    out().print(run_rollback(opened), markup=False, highlight=False, soft_wrap=True)


def verify(
    dataset: DatasetArgument,
    build: Annotated[
        str | None,
        typer.Argument(metavar="[BUILD]", help="Its name or id (default: the current build)."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make missing and damaged shards again.")
    ] = False,
    *,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Read every shard of a build again and check it against the tables."""
    from telecine.pipeline import recipes
    from telecine.pipeline.lifecycle.verify import print_verified
    from telecine.pipeline.run import Run, RunOptions

    opened = store.open(dataset)
    options = RunOptions(gpus_per_encoder=machines.gpus)
    with machines.open_cluster() as cluster:
        run = Run(opened, cluster, options, progress())
        verified = recipes.verify(run, build, repair=repair)
    print_verified(verified, opened.uri, as_json, out())
    if not verified.sound:
        raise CheckFailed(verified.verdict)


def decode(
    dataset: DatasetArgument,
    clip_id: Annotated[
        str, typer.Argument(metavar="CLIP_ID", help="A clip, or how its id begins.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="An .mp4, or a .png of one frame."),
    ],
    build: Annotated[
        str | None, typer.Option(help="Name or id of the build (default: the current one).")
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Put the original frames to the left.")
    ] = False,
    frame: Annotated[
        int, typer.Option(min=0, help="For a .png of a video: which of its frames.")
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it is there.")
    ] = False,
    vae: Vae = None,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
) -> None:
    """Decode a sample's latents back to pictures, to look at."""
    from telecine.pipeline.look.decode import decode as run_decode

    opened = dataset_at(dataset, endpoint_url, profile)
    decoded = run_decode(
        opened,
        clip_id,
        output,
        build=build,
        side_by_side=side_by_side,
        frame=frame,
        vae=vae,
        overwrite=overwrite,
        progress=progress(),
    )
    out().print(str(decoded), markup=False, highlight=False, soft_wrap=True)


def gc(
    dataset: DatasetArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="BUILD", help="Leave this build alone; may be given many times."),
    ] = None,
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Also builds that are not finished, or being written."),
    ] = False,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List builds that are not current and files that nothing names; with --yes, delete them."""
    from telecine.pipeline.lifecycle.gc import collect, delete, print_garbage

    opened = dataset_at(dataset, endpoint_url, profile)
    garbage = collect(opened, keep or [], unfinished)
    if yes:
        delete(opened, garbage, progress())
    print_garbage(garbage, deleted=yes, as_json=as_json, console=out())
