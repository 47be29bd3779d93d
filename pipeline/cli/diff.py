"""The commands that look closely: what differs between builds or versions, why a clip is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from telecine.infra.text import length, size
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Store,
    out,
    say_read,
    with_groups,
)
from telecine.pipeline.terminal.text import heading, line, plain, print_json, print_table

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.lifecycle.channels import Channel
    from telecine.pipeline.look.diff import Diff
    from telecine.pipeline.look.explain import Explained, ExplainedClip
    from telecine.pipeline.look.movement import BucketPair, Movement
    from telecine.pipeline.look.steps import Step
    from telecine.pipeline.look.versions import Pair, VersionDiff

CHANNELS = 5  # that differ most, on a terminal
LISTED = 100  # clips of a source printed on a terminal; the JSON has them all
_STYLES = {"ok": "green", "no": "red", "waiting": "yellow"}  # of a step's state


@with_groups
def diff(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="The dataset; or a version of it: DATASET@N right after event N of `telecine "
            "inspect DATASET builds`, DATASET@now, DATASET@2026-11-20T10:30 (UTC).",
        ),
    ],
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A build by its name or id; or another version, DATASET@VERSION."
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="The other build (none where versions are compared)."),
    ] = None,
    *,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Say what came, went and changed: between two builds, or two versions of the dataset."""
    if b is not None:
        print_builds(builds_diff(store.open(dataset), a, b), as_json, out())
        return
    from telecine.pipeline.look.versions import diff_versions, same_dataset

    name, first, second = same_dataset(dataset, a)
    opened = store.open(name)
    print_versions(diff_versions(opened, first, second), as_json, out())


@with_groups
def explain(
    dataset: DatasetArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="URI_OR_CLIP_ID",
            help="Footage by its uri or how that ends, or a clip by how its id begins.",
        ),
    ],
    *,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Say step by step why footage is in the current build, or is not, and what to do about it."""
    from telecine.pipeline.look.explain import explain as run_explain

    opened = store.open(dataset)
    print_explained(run_explain(opened, name), as_json, out())
    say_read(opened)


# ── two builds ────────────────────────────────────────────────────────────────────────────────────


def builds_diff(dataset: Dataset, a: str, b: str) -> Diff:
    """Of two builds, each given by its name or the beginning of its id.

    Raises UsageError where there is no such build.
    """
    from telecine.manifests.builds import find_build
    from telecine.manifests.queries import connect
    from telecine.pipeline.look.diff import diff

    con = connect(dataset.tables)
    return diff(con, find_build(con, a), find_build(con, b))


def print_builds(found: Diff, as_json: bool, console: Console) -> None:
    """Two builds side by side."""
    if as_json:
        print_json(found.as_values(), console)
        return
    from telecine.pipeline.lifecycle.changes import told as told_changes
    from telecine.pipeline.look.diff import told as told_samples

    a, b = found.a, found.b
    rows = [
        ("build_id", a.build_id, b.build_id),
        ("state", a.state, b.state),
        ("samples", f"{a.samples:,}", f"{b.samples:,}"),
        ("shards", f"{a.shards:,}", f"{b.shards:,}"),
        ("latents", size(a.latent_bytes), size(b.latent_bytes)),
        ("tars", size(a.shard_bytes), size(b.shard_bytes)),
    ]
    print_table(("", f"A: {a.name}", f"B: {b.name}"), rows, console)
    heading(console, "spec and encoder")
    for text in told_changes(found.changes):
        line(console, text)
    if not found.changes:
        line(console, "equal")
    _print_channels(found, console)
    _print_canaries(found, console)
    _print_buckets(found.movement.buckets, console)
    _print_dropped(found.movement, console)
    heading(console, "samples")
    for text in told_samples(found):
        line(console, text)


def _print_channels(found: Diff, console: Console) -> None:
    heading(console, f"latents of the {found.both:,} clips in both, by channel")
    if not found.channels:
        for name, channels in (("A", found.latents_a), ("B", found.latents_b)):
            line(console, f"{name}: {_spread(channels)}")
        line(console, "not compared channel by channel: their numbers differ, or are not there")
        return
    far = sorted(found.channels, key=lambda pair: pair.distance, reverse=True)
    names = ("channel", "mean A", "mean B", "shift in stds of A", "std A", "std B", "std B / A")
    rows = [
        [c.number, *map(_figure, (c.mean_a, c.mean_b, c.shift, c.std_a, c.std_b, c.ratio))]
        for c in far[:CHANNELS]
    ]
    print_table(names, rows, console)
    if len(far) > CHANNELS:
        line(console, f"the {CHANNELS} that differ most of {len(far)}; --json has all")


def _spread(channels: Sequence[Channel]) -> str:
    if not channels:
        return "nothing measured"
    means, stds = [c.mean for c in channels], [c.std for c in channels]
    return (
        f"{len(channels)} channels, means from {min(means):.3g} to {max(means):.3g}, "
        f"standard deviations from {min(stds):.3g} to {max(stds):.3g}"
    )


def _figure(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _print_canaries(found: Diff, console: Console) -> None:
    heading(console, "canaries, decoded again, in dB of PSNR")
    if found.canary_medians is None:
        line(console, "none in both")
        return
    rows: list[tuple[Any, ...]] = [
        (c.clip_id, f"{c.db_a:.2f}", f"{c.db_b:.2f}", f"{c.db_b - c.db_a:+.2f}")
        for c in found.canaries
    ]
    a, b = found.canary_medians
    gain = median(c.db_b - c.db_a for c in found.canaries)
    rows.append(("median", f"{a:.2f}", f"{b:.2f}", f"{gain:+.2f}"))
    print_table(("clip", "A", "B", "B - A"), rows, console)


# ── what became of samples, and of clips ──────────────────────────────────────────────────────────


def _print_buckets(pairs: Iterable[BucketPair], console: Console, *, changed: bool = False) -> None:
    """All buckets, or those whose clips are not the same on both sides."""
    heading(console, "buckets that changed" if changed else "buckets")
    names = ("bucket", "clips A", "clips B", "came", "went", "footage A", "footage B")
    rows: list[tuple[Any, ...]] = [
        (p.bucket.folder, p.clips_a, p.clips_b, p.came, p.went,
         length(3600 * p.hours_a), length(3600 * p.hours_b))
        for p in pairs if p.came or p.went or not changed
    ]  # fmt: skip
    if rows:
        print_table(names, rows, console)
    else:
        line(console, "none")


def _print_dropped(found: Movement, console: Console) -> None:
    if found.dropped:
        heading(console, "dropped")
        names = ("reason", "A", "B", "B - A")
        rows = [(d.reason, d.a, d.b, f"{d.b - d.a:+,}") for d in found.dropped]
        print_table(names, rows, console)


# ── two versions ──────────────────────────────────────────────────────────────────────────────────


def print_versions(found: VersionDiff, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(found, console)
        return
    from telecine.pipeline.look.versions import told_sources

    _print_sides(found, console)
    heading(console, "sources")
    for text in told_sources(found):
        line(console, text)
    rows = [(s.status, s.reason, s.a, s.b, f"{s.b - s.a:+,}") for s in found.standings]
    if rows:
        print_table(("status", "reason", "A", "B", "B - A"), rows, console)
    heading(console, "clips")
    for some, text in ((found.clips_came, "came"), (found.clips_went, "went")):
        line(console, f"{some.count:,} {text}" + (f": {some}" if some.count else ""))
    if any(found.clips_without_bucket):
        a, b = found.clips_without_bucket
        line(console, f"without a bucket: {a:,} in A, {b:,} in B")
    _print_buckets(found.clips, console, changed=True)
    for what, names, pairs in (
        ("captions", ("captioner", "spec", "outcome"), found.captions),
        ("scores", ("score", "spec"), found.scores),
    ):
        if pairs:
            heading(console, what)
            print_table((*names, "A", "B", "B - A"), _pair_rows(pairs), console)
    _print_moves(found, console)


def _pair_rows(pairs: tuple[Pair, ...]) -> Iterator[tuple[Any, ...]]:
    for pair in pairs:
        name, fingerprint, *rest = pair.names
        yield (name, fingerprint[:8], *rest, pair.a, pair.b, f"{pair.b - pair.a:+,}")


def _print_sides(found: VersionDiff, console: Console) -> None:
    a, b = found.a, found.b
    rows = [
        ("at", a.at or "now", b.at or "now"),
        ("last event", a.event or "none", b.event or "none"),
        ("current build", a.build or "none", b.build or "none"),
        *((name, f"{getattr(a, name):,}", f"{getattr(b, name):,}")
          for name in ("sources", "clips", "captions", "samples")),
        ("footage", length(3600 * a.hours), length(3600 * b.hours)),
    ]  # fmt: skip
    print_table(("", f"A: {a.name}", f"B: {b.name}"), rows, console)


def _print_moves(found: VersionDiff, console: Console) -> None:
    from telecine.pipeline.look.movement import summary_line, told

    heading(console, f"samples of the current builds, A: {found.a.build or 'none'}, "
                     f"B: {found.b.build or 'none'}")  # fmt: skip
    line(console, summary_line(found.movement))
    for text in told(found.movement):
        line(console, text)
    _print_buckets(found.movement.buckets, console, changed=True)
    _print_dropped(found.movement, console)


# ── why footage is where it is ────────────────────────────────────────────────────────────────────


def print_explained(found: Explained, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(found, console)
        return
    alone = len(found.clips) == 1
    steps = [*found.steps, *(found.clips[0].steps if alone else ())]
    console.print(_steps(steps))
    if not alone and found.clips:
        _print_clips(found.clips, console)
    console.print()
    console.print(plain(str(found.verdict)), soft_wrap=True)


def _steps(steps: list[Step]) -> Table:
    from telecine.pipeline.look.verdict import shown

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in steps:
        state = Text(str(step.state), style=_STYLES[str(step.state)])
        table.add_row(plain(step.name), state, plain(step.text))
        for part in step.facts.get("parts", ()):
            values = ", ".join(f"{name} = {shown(v)}" for name, v in part["values"].items())
            verdict = {True: "true", False: "false", None: "unknown"}[part["true"]]
            table.add_row("", "", plain(f"{verdict:<8} {part['sql']}   {values}{part['error']}"))
    return table


def _print_clips(clips: tuple[ExplainedClip, ...], console: Console) -> None:
    console.print()
    for clip in clips[:LISTED]:
        line(console, f"{clip.clip_id}  {clip.span}: {clip.verdict.text}")
    if len(clips) > LISTED:
        line(console, f"and {len(clips) - LISTED:,} more clips; --json has all")
