"""The commands that choose among builds, check them, look into them and clear them away."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from telecine.infra.errors import CheckFailed
from telecine.infra.text import counted, size
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Machines,
    Store,
    Vae,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.text import line, print_json

if TYPE_CHECKING:
    from telecine.pipeline.lifecycle.gc import Garbage
    from telecine.pipeline.lifecycle.repair import Repaired
    from telecine.pipeline.lifecycle.verify import Verified

LISTED = 50  # findings printed on a terminal; the JSON has them all

BuildArgument = Annotated[
    str, typer.Argument(metavar="BUILD", help="Its name or id, or how one of them begins.")
]


@with_groups
def promote(
    dataset: DatasetArgument,
    build: BuildArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Make it current although a gate says no.")
    ] = False,
    *,
    store: Store,
) -> None:
    """Make a build the current one: what `ingest` adds to and trainers follow."""
    from telecine.pipeline.lifecycle.promote import promote as run_promote

    opened = store.open(dataset)
    promoted = run_promote(opened, build, force=force)
    out().print(str(promoted), markup=False, highlight=False, soft_wrap=True)


@with_groups
def rollback(
    dataset: DatasetArgument,
    *,
    store: Store,
) -> None:
    """Go back to the build that was current before."""
    from telecine.pipeline.lifecycle.promote import rollback as run_rollback

    opened = store.open(dataset)
    out().print(str(run_rollback(opened)), markup=False, highlight=False, soft_wrap=True)


@with_groups
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
    from telecine.pipeline.run import Run, RunOptions

    opened = store.open(dataset)
    options = RunOptions(gpus_per_encoder=machines.gpus)
    with machines.open_cluster() as cluster:
        run = Run(opened, cluster, options, progress())
        verified = recipes.verify(run, build, repair=repair)
    print_verified(verified, opened.uri, as_json, out())
    if not verified.sound:
        raise CheckFailed(verified.verdict)


@with_groups
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
    *,
    store: Store,
) -> None:
    """Decode a sample's latents back to pictures, to look at."""
    from telecine.pipeline.look.decode import View
    from telecine.pipeline.look.decode import decode as run_decode

    opened = store.open(dataset)
    view = View(clip_id, build, side_by_side, frame, vae)
    decoded = run_decode(opened, view, output, overwrite=overwrite, progress=progress())
    out().print(str(decoded), markup=False, highlight=False, soft_wrap=True)


@with_groups
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
    *,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """List builds that are not current and files that nothing names; with --yes, delete them."""
    from telecine.pipeline.lifecycle.gc import collect, delete

    opened = store.open(dataset)
    garbage = collect(opened, keep or [], unfinished)
    if yes:
        delete(opened, garbage, progress())
    print_garbage(garbage, deleted=yes, as_json=as_json, console=out())


# ── what they say ─────────────────────────────────────────────────────────────────────────────────


def print_verified(verified: Verified, dataset: str, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(verified.as_values(), console)
        return
    line(
        console,
        f"build    {verified.name}: {counted(verified.shards, 'shard')}, "
        f"{counted(verified.samples, 'sample')}, {size(verified.size_bytes)}",
    )
    for finding in verified.findings[:LISTED]:
        clip = f" clip {finding.clip_id}:" if finding.clip_id else ""
        line(console, f"{finding.kind:<8} {finding.shard_path}:{clip} {finding.detail}")
    if len(verified.findings) > LISTED:
        line(console, f"         and {len(verified.findings) - LISTED:,} more; --json lists all")
    if verified.repaired is not None:
        _print_repaired(verified.repaired, console)
    if verified.in_progress:
        line(console, "a plan of it is in progress; what that has written is not checked")
    if verified.sound:
        line(console, f"verified {verified.verdict}")
    elif verified.repaired is None:
        again = f"telecine verify {shlex.quote(dataset)} {verified.name} --repair"
        line(console, f"repair   {again}")


def _print_repaired(repaired: Repaired, console: Console) -> None:
    line(console, f"repaired {counted(len(repaired.put_back), 'shard')} put back as they were")
    if repaired.replaced:
        lost = ", ".join(f"{reason} {n:,}" for reason, n in sorted(repaired.dropped.items()))
        line(
            console,
            f"replaced {counted(len(repaired.replaced), 'shard')} by {len(repaired.added):,}"
            + (f"; dropped {counted(sum(repaired.dropped.values()), 'sample')} ({lost})"
               if lost else ""),
        )  # fmt: skip


def print_garbage(garbage: Garbage, *, deleted: bool, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(garbage.as_values() | {"deleted": deleted}, console)
        return
    groups = garbage.groups()
    for what, name, files in groups:
        total = sum(info.size_bytes for info in files)
        line(
            console,
            f"{what:<11} {name + ': ' if name else ''}{counted(len(files), 'file')}, {size(total)}",
        )
    for name, why in garbage.left_alone:
        line(console, f"left alone  {name}: {why}")
    if not groups:
        line(console, "nothing to delete")
    elif deleted:
        line(console, f"deleted     {size(garbage.size_bytes)}")
    else:
        line(console, f"to free     {size(garbage.size_bytes)}; nothing is deleted without --yes")
