"""feed: what a trainer will get of a dataset, said before an accelerator waits for it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from telecine.infra.errors import UsageError
from telecine.infra.text import counted, size
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Store,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.text import line, print_json, print_table

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.cli.train.measure import Measured
    from telecine.pipeline.feed.plan.options import OrderOptions
    from telecine.pipeline.feed.plan.report import EpochReport
    from telecine.pipeline.feed.plan.steps import Source


@dataclass(frozen=True)
class Packing:
    """What the order of an epoch is made by."""

    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a pack: patches of space and time.")
    ] = 65_536
    packs_per_step: Annotated[
        int, typer.Option(min=1, help="Packs of an optimizer step, all ranks together.")
    ] = 8
    split: Annotated[
        str,
        typer.Option(
            metavar="prefix|windows|leave",
            help="Clips longer than a pack: their beginning, all of them in pieces, or none.",
        ),
    ] = "prefix"
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 0
    image_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of images (default: as many as there are)."),
    ] = None
    renditions: Annotated[
        str,
        typer.Option(
            metavar="apart|drawn|paired",
            help="Several builds of one clip: each by itself, one drawn by weight, or all of them "
            "in one pack.",
        ),
    ] = "apart"

    def options(self) -> OrderOptions:
        from telecine.pipeline.feed.plan.options import OrderOptions

        return OrderOptions(**vars(self))


@with_groups
def feed(
    dataset: DatasetArgument,
    build: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="Build to feed from (default: the current one); several share by their weights.",
        ),
    ] = None,
    *,
    packing: Packing,
    where: Annotated[
        str | None,
        typer.Option(help="Only clips that this SQL condition is true of (docs/inspect.md)."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.arrow",
            help="Write an index of the samples that are taken, for Feed(build=FILE.arrow).",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the index if it is there.")
    ] = False,
    steps_per_second: Annotated[
        float, typer.Option(min=0, help="Optimizer steps a second, for the bytes a second.")
    ] = 1.0,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Also read it: an epoch, for 20 seconds at most, as one rank."
        ),
    ] = False,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Say what an epoch of packs will be: steps, padding, what is left out, the mix."""
    from telecine.pipeline.feed.plan.order import Order
    from telecine.pipeline.feed.plan.report import report
    from telecine.pipeline.feed.plan.steps import Source
    from telecine.pipeline.look.feeding import (
        asked_builds,
        check_index_file,
        index_of,
        write_index_file,
    )

    asked, options = asked_builds(build or []), packing.options()
    opened = store.open(dataset)
    if index is not None:
        if len(asked) > 1:
            raise UsageError(f"--index {index}: an index is of one build; write one for each")
        check_index_file(index, opened.uri, overwrite=overwrite)
    sources = [Source(index_of(opened, one.build, where), one.weight) for one in asked]
    order = Order(sources, options)
    found = Told(report(order), order.options, tuple(sources))
    if index is not None:
        size_bytes = write_index_file(sources[0].index, index)
        found = replace(found, index=str(index), index_bytes=size_bytes)
    if measure:
        found = replace(found, measured=_measured(opened, sources, packing, found.epoch.packs))
    print_told(found, steps_per_second, as_json, out())


def _measured(
    dataset: Dataset, sources: Sequence[Source], packing: Packing, packs: int
) -> Measured:
    from telecine.feed import Feed
    from telecine.pipeline.cli.train.measure import measure
    from telecine.pipeline.look.feeding import write_index_file

    with tempfile.TemporaryDirectory() as folder:
        weights = {}
        for number, source in enumerate(sources):
            path = Path(folder, f"{number}.arrow")
            write_index_file(source.index, path)
            weights[str(path)] = source.weight or source.index.rows.num_rows
        read = Feed(
            dataset.uri,
            weights,
            endpoint_url=dataset.storage.options.endpoint_url,
            profile=dataset.storage.options.profile,
            **vars(packing),
        )
        return measure(read, packs, progress())


# ── what it says ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Told:
    epoch: EpochReport
    options: OrderOptions
    sources: tuple[Source, ...]
    index: str = ""  # file that was written
    index_bytes: int = 0
    measured: Measured | None = None

    @property
    def step_bytes(self) -> float:
        """Of the latents of a step, in the mean, for all ranks together."""
        return self.epoch.bytes_per_pack * self.options.packs_per_step

    def as_values(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        named = [vars(_Named.of(source)) for source in self.sources]
        index = {"file": self.index, "size_bytes": self.index_bytes} if self.index else None
        return {
            "builds": named,
            "index": index,
            "measured": asdict(self.measured) if self.measured else None,
            "options": asdict(self.options),
            **asdict(self.epoch),
        }


@dataclass(frozen=True)
class _Named:
    build: str
    digest: str
    samples: int
    weight: float | None

    @classmethod
    def of(cls, source: Source) -> _Named:
        facts = source.index.facts
        return cls(facts.build, facts.digest, source.index.rows.num_rows, source.weight)


def print_told(told: Told, steps_per_second: float, as_json: bool, console: Console) -> None:
    each = told.step_bytes
    rate = each * steps_per_second
    if as_json:
        rates = {"steps_per_second": steps_per_second, "bytes_a_second": rate}
        print_json({**told.as_values(), **rates}, console)
        return
    for named in map(_Named.of, told.sources):
        weight = f", weight {named.weight:g}" if named.weight else ""
        line(console, f"build     {named.build}: {counted(named.samples, 'sample')}{weight}")
    _print_epoch(told, console)
    at = f"{size(rate)} a second at {steps_per_second:g} steps a second, all ranks together"
    line(console, f"latents   {size(each)} a step: {at}")
    if told.measured:
        _print_measured(told.measured, console)
    _print_mix(told.epoch, console)
    if told.index:
        console.print()
        line(console, f"wrote     {told.index}, {size(told.index_bytes)}")


def _print_epoch(told: Told, console: Console) -> None:
    found, options = told.epoch, told.options
    packs = f"{counted(found.packs, 'pack')} of {options.tokens:,} tokens"
    steps = f"{counted(found.steps, 'step')} of {options.packs_per_step:,}"
    line(console, f"epoch     {counted(found.samples, 'sample')} in {packs}, {steps}")
    line(console, f"tokens    {found.tokens:,}; padding {found.padding:.2%}")
    worst = f"{found.slowest_worst:.3f} in the worst"
    line(console, f"slowest   {found.slowest:.3f} × the mean pack of its step, {worst}")
    for name, count in found.left_out.items():
        if count:
            line(console, f"left out  {counted(count, 'sample')}: {name}")
    told_of = (
        (found.shortened, f"shortened to what fits, by {found.frames_left:,} latent frames"),
        (found.divided, "longer than a pack, in several pieces"),
        (found.repeated_samples, "drawn again within the epoch"),
    )
    for count, what in told_of:
        if count:
            line(console, f"of them   {counted(count, 'sample')} {what}")
    if found.repeated_packs:
        line(console, f"repeated  {counted(found.repeated_packs, 'pack')} to fill the last step")


def _print_measured(found: Measured, console: Console) -> None:
    rate = f"{size(found.bytes_a_second)} a second, {size(found.bytes_a_cpu_second)} a CPU second"
    memory = "" if found.memory_bytes is None else f", {size(found.memory_bytes)} of memory"
    packs = f"{counted(found.packs, 'pack')}, {size(found.size_bytes)}"
    line(console, f"read      {packs} in {found.seconds:.1f} s: {rate}{memory}")


def _print_mix(found: EpochReport, console: Console) -> None:
    parts = {"videos": found.videos, "images": found.images, **found.buckets}
    whole = found.videos.tokens + found.images.tokens  # what is repeated is not counted again
    rows = [
        [name, f"{part.samples:,}", f"{part.tokens:,}", f"{part.tokens / whole:.1%}"]
        for name, part in parts.items()
        if part.samples
    ]
    console.print()
    print_table(["part", "samples", "tokens", "share"], rows, console)
