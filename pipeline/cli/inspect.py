"""inspect: what a dataset holds, the rows of one table, one clip, or two builds side by side."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from telecine.infra.errors import UsageError
from telecine.infra.text import counted, length, size
from telecine.pipeline.cli.diff import builds_diff, print_builds
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Store,
    out,
    say_read,
    with_groups,
)
from telecine.pipeline.cli.train.embed import state_text
from telecine.pipeline.terminal.text import (
    heading,
    line,
    plain,
    print_json,
    print_json_rows,
    print_rows,
    print_table,
)

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.look.summary import BuildReport, Summary


@with_groups
def inspect(
    dataset: DatasetArgument,
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE]",
            help="List rows: sources, clips, stills, captions, embeddings, scores, duplicates, "
            "samples, builds, text_embeddings or column_samples; or clip: one clip. Without it: a "
            "summary.",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="After `builds`: two of them, to compare. After `clip`: how its id begins.",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Rows to list, as an SQL condition over the columns.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to list, separated by commas; * for all.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Rows at most, 0 for all (default: 20; with --json all)."),
    ] = None,
    *,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds, and what was left out and why; compare two builds; one clip."""
    opened = store.open(dataset)
    if table == "clip":
        if not names or len(names) != 1 or where or columns:
            raise UsageError(f"name one clip: telecine inspect {dataset} clip CLIP_ID")
        from telecine.pipeline.cli.clip import inspect_clip

        inspect_clip(opened, names[0], as_json, out(), stills=True)
    elif names:
        if table != "builds" or len(names) != 2 or where or columns:
            raise UsageError(
                f"{' '.join(names)}: two builds are compared with "
                f"telecine inspect {dataset} builds A B; rows of a table are chosen with --where"
            )
        print_builds(builds_diff(opened, *names), as_json, out())
    elif table is None:
        if where is not None or columns is not None:
            raise UsageError(
                "--where and --columns choose rows of a table: name one, as in "
                f"telecine inspect {dataset} clips --where 'motion > 0.1'"
            )
        inspect_summary(opened, as_json, out())
    else:
        most = limit if limit is not None else 0 if as_json else 20
        inspect_table(opened, table, where, columns, most, as_json, out())
    say_read(opened)


def inspect_summary(dataset: Dataset, as_json: bool, console: Console) -> None:
    """`telecine inspect DATASET`"""
    from telecine.manifests.queries import connect
    from telecine.pipeline.embed.state import column_states
    from telecine.pipeline.look.summary import summary

    con = connect(dataset.tables)
    found = summary(con, dataset.tables.uri, dataset.spec, beside=con.cursor)
    found = dataclasses.replace(found, columns=tuple(column_states(dataset)))
    if as_json:
        print_json(found, console)
    else:
        print_summary(found, console)


def inspect_table(
    dataset: Dataset,
    name: str,
    where: str | None,
    columns: str | None,
    limit: int,
    as_json: bool,
    console: Console,
) -> None:
    """`telecine inspect DATASET TABLE`"""
    from telecine.manifests.queries import connect
    from telecine.pipeline.look.listing import listing, reading

    con = connect(dataset.tables)
    with reading(con, dataset.spec, name, where):
        rows = listing(con, dataset.spec, name, where, columns, limit)
        if as_json:
            print_json_rows(rows.to_arrow_reader(10_000), console)
            return
        shown = rows.to_arrow_table()
    print_rows(shown, console)
    if limit and shown.num_rows == limit:
        print(f"{limit} rows at most are shown; --limit 0 shows all", file=sys.stderr)


def print_summary(found: Summary, console: Console) -> None:
    line(console, f"dataset {found.dataset}")
    if not found.sources:
        line(console, "no sources yet: telecine ingest SOURCE... --dataset DATASET")
    else:
        _print_sources(found, console)
    if found.captions:
        heading(console, "captions")
        rows = [
            (c.captioner, c.captioner_fingerprint[:8], c.outcome, c.captions)
            for c in found.captions
        ]
        print_table(("captioner", "spec", "outcome", "captions"), rows, console)
    for alarm in found.repeated:
        console.print(
            Text("alarm: ", style="bold red")
            + plain(
                f"{alarm.captions:,} of {alarm.of:,} captions of {alarm.captioner} "
                f"{alarm.captioner_fingerprint[:8]} say the same: {alarm.text[:200]}"
            ),
            soft_wrap=True,
        )
    if found.scores:
        heading(console, f"scores of {found.scorer}")
        scores = [(s.name, s.scores, s.lowest, s.mean, s.highest) for s in found.scores]
        print_table(("score", "clips", "lowest", "mean", "highest"), scores, console)
    if found.duplicates:
        line(console, f"{counted(found.duplicates, 'clip')} with duplicate_rank > 0")
    for build in found.builds:
        _print_build(build, console)
        for column in (c for c in found.columns if c.build == build.name):
            line(console, f"column {column.column}  {state_text(column)}")
    for error in found.errors:
        console.print(Text("error: ", style="bold red") + plain(error), soft_wrap=True)


def _print_sources(found: Summary, console: Console) -> None:
    heading(console, "sources")
    rows = [
        (s.status, s.kind, s.sources, size(s.size_bytes), length(3600 * s.hours), s.clips)
        for s in found.sources
    ]
    print_table(("status", "kind", "sources", "size", "footage", "clips"), rows, console)
    if found.rejected:
        heading(console, "rejected")
        print_table(("reason", "sources"), found.rejected.items(), console)
    heading(console, "clips")
    clips = [(c.kind, c.clips, c.frames, length(3600 * c.hours), c.damaged) for c in found.clips]
    print_table(("kind", "clips", "frames", "footage", "damaged"), clips, console)
    lost = sum(found.frames_dropped.values())
    line(
        console,
        f"frames  {found.frames:,} decoded = {found.frames_kept:,} in clips "
        f"+ {lost:,} dropped{_reasons(found.frames_dropped)}",
    )


def _print_build(build: BuildReport, console: Console) -> None:
    now = ["current"] if build.current else []
    now += [f"rendition {build.rendition}"] if build.rendition else []
    heading(console, f"build {build.name}" + (f" ({', '.join(now)})" if now else ""))
    line(console, f"vae {build.vae_fingerprint}")
    line(console, f"pixels {build.pixel_fingerprint}")
    if build.in_progress:
        line(
            console,
            f"unfinished: {build.shards_written:,} of {build.shards_planned:,} shards written; "
            "run again to finish",
        )
    if build.buckets:
        names = ("resolution", "aspect", "duration", "clips", "footage", "latents", "shards")
        rows: list[tuple[Any, ...]] = [
            (b.resolution, b.aspect, b.duration, b.clips, length(3600 * b.hours),
             size(b.latent_bytes), b.shards)
            for b in build.buckets
        ]  # fmt: skip
        print_table(names, rows, console)
    kept, lost = sum(b.clips for b in build.buckets), sum(build.dropped.values())
    latents = size(sum(b.latent_bytes for b in build.buckets))
    shards = sum(b.shards for b in build.buckets)
    line(
        console,
        f"clips  {kept + lost:,} = {kept:,} in {shards:,} shards ({latents} of latents) "
        f"+ {lost:,} dropped{_reasons(build.dropped)}",
    )
    frames = build.frames
    if frames.unknown:
        return
    native = frames.encoded + frames.left_out + frames.resampled_away - frames.repeated
    line(
        console,
        f"frames {native:,} = {frames.encoded:,} encoded + {frames.left_out:,} left out "
        f"+ {frames.resampled_away:,} resampled away - {frames.repeated:,} repeated",
    )


def _reasons(counts: dict[str, int]) -> str:
    parts = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    return f" ({parts})" if parts else ""
