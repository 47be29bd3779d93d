"""ingest: raw footage into samples of a dataset, and what came of it; and the demo, which does so.

scanned  12 sources → 31 clips, 1 rejected, 0 duplicates; read 1.02 bytes per byte of footage
scored   31 clips embedded; 31 similarity_red, 31 text_similarity
built    dct-e20ab277: 29 samples in 4 shards (1420 frames encoded, 0 samples copied), 2 dropped
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from telecine.infra.store.storage import Storage, absolute
from telecine.infra.text import counted
from telecine.pipeline.cli.options import (
    AsJson,
    Asking,
    Machines,
    Store,
    Vae,
    Workers,
    given_spec,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.bugs import say_bugs
from telecine.pipeline.terminal.text import line, print_json

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.recipes import Ingested
    from telecine.pipeline.scan.compare import Discovery
    from telecine.pipeline.scan.discover import LeftOut


@with_groups
def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Footage: files, folders or s3://bucket/prefix."),
    ],
    dataset: Annotated[
        str, typer.Option(help="The dataset to add to or to make: a folder or s3://bucket/prefix.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="Specs for a new dataset, as a telecine.toml (see docs/specs.md)."),
    ] = None,
    vae: Vae = None,
    captioner: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Captioner of a new dataset, as in telecine caption."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Selection of a new dataset: clips that this SQL condition is true of."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and do none of it.")
    ] = False,
    retry_rejected: Annotated[
        bool,
        typer.Option(
            "--retry-rejected", help="Try again what was rejected, or dropped from the build."
        ),
    ] = False,
    allow_duplicates: Annotated[
        bool,
        typer.Option(
            "--allow-duplicates", help="Ingest an object although another has the same bytes."
        ),
    ] = False,
    *,
    asking: Asking,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Turn what is new among the footage into samples of the dataset."""
    from telecine.manifests.dataset import resolve_dataset
    from telecine.pipeline import recipes
    from telecine.pipeline.cli.rebuild import refuse_failed
    from telecine.pipeline.run import Run, RunOptions

    roots = [absolute(source) for source in sources]
    asked = given_spec(config, vae, captioner=captioner, where=where)
    opened = resolve_dataset(absolute(dataset), store.storage(), asked)
    options = RunOptions(
        retry_rejected=retry_rejected,
        allow_duplicates=allow_duplicates,
        gpus_per_encoder=machines.gpus,
        **dataclasses.asdict(asking),
    )
    if dry_run:
        found = recipes.find(opened, roots, options)
        say_left_out(found.left_out)
        print_found(found, as_json, out())
        return
    with machines.open_cluster() as cluster:
        ingested = recipes.ingest(Run(opened, cluster, options, progress()), roots)
    say_left_out(ingested.left_out)
    say_older_rules(opened)
    print_ingested(ingested, opened.uri, as_json, out())
    beside = (one.bugs for one in ingested.build.renditions.values())
    say_bugs(ingested.scan.bugs, ingested.build.bugs, *beside)
    refuse_failed(ingested.build, opened.uri)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to put footage and dataset into.")] = Path(
        "demo"
    ),
    workers: Workers = None,
) -> None:
    """Render a small footage set, ingest it, and show what was made and where."""
    from telecine.manifests.dataset import create_dataset
    from telecine.pipeline import recipes
    from telecine.pipeline.cli.inspect import inspect_summary
    from telecine.pipeline.demo.footage import render
    from telecine.pipeline.run import Run

    screen = out()
    footage = folder.resolve() / "footage"
    files = render(footage)
    line(screen, f"rendered {len(files)} files into {footage}")
    opened = create_dataset(str(folder.resolve() / "dataset"), Storage(), None)
    with Machines(workers).open_cluster() as cluster:
        ingested = recipes.ingest(Run(opened, cluster, progress=progress()), [str(footage)])
    print_ingested(ingested, opened.uri, False, screen)
    inspect_summary(opened, False, screen)


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def say_left_out(left_out: LeftOut) -> None:
    for text in left_out.lines():
        print(text, file=sys.stderr)


def say_older_rules(dataset: Dataset) -> None:
    """Which rules hold where a dataset was begun under older ones."""
    from telecine.manifests.dataset import SPEC_FILE
    from telecine.manifests.specs import PixelSpec, ScanSpec

    spec, scan, pixels = dataset.spec, ScanSpec(), PixelSpec()
    if (spec.scan.version, spec.pixels.version) != (scan.version, pixels.version):
        print(
            "this dataset was begun under older rules: clips that are there stay as they were cut "
            f"and measured, new footage follows version {scan.version}. To have all of it scanned "
            f"again, write version = {scan.version} under [scan] and version = {pixels.version} "
            f"under [pixels] in {dataset.path(SPEC_FILE)}",
            file=sys.stderr,
        )


def print_ingested(ingested: Ingested, dataset: str, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(ingested, console)
        return
    for text in _lines(ingested, dataset):
        line(console, text)


def _lines(ingested: Ingested, dataset: str) -> Iterator[str]:
    from telecine.pipeline.cli.annotate import scored_lines
    from telecine.pipeline.cli.rebuild import built_lines, ratio

    scan = ingested.scan
    yield (
        f"scanned  {counted(scan.scanned, 'source')} → {counted(scan.clips, 'clip')}, "
        f"{scan.rejected} rejected, {counted(scan.duplicates, 'duplicate')}"
        + ratio(scan.bytes_read, scan.bytes_of_footage)
    )
    if scan.tried_again:
        yield f"again    {counted(scan.tried_again, 'source')} whose scan had not come to its end"
    if scan.unfinished:
        yield (
            f"waiting  {counted(scan.unfinished, 'source')} whose scan crashed, ran out of memory "
            "or stood still: the next ingest tries again"
        )
    if not ingested.captions.keys() <= {"ok", "truncated"}:  # some clip has no text for it
        captions = sorted(ingested.captions.items())
        yield f"captioned {', '.join(f'{n} {outcome}' for outcome, n in captions)}"
    if ingested.scores.scorer:
        for name, text in scored_lines(ingested.scores, dataset):
            yield f"{name:<8} {text}"
    yield from built_lines(ingested.build, dataset)
    if scan.rejected:
        inspect = f"telecine inspect {shlex.quote(dataset)}"
        yield f"rejected {inspect} sources --where \"status = 'rejected'\""


def print_found(found: Discovery, as_json: bool, console: Console) -> None:
    """For --dry-run: what there is to do, by state, and the bytes that the scan will read."""
    from telecine.pipeline.scan.compare import TO_SCAN, State

    tallies = {s: found.tallies[s] for s in State if found.tallies[s].objects}
    if as_json:
        states = {str(state): dataclasses.asdict(tally) for state, tally in tallies.items()}
        left_out = dataclasses.asdict(found.left_out)
        whole = {"sources": states, "bytes_to_read": found.bytes_to_read, "left_out": left_out}
        print_json(whole, console)
        return
    for state, tally in tallies.items():
        verb = "scan" if state in TO_SCAN else "skip"
        sources = f"{counted(tally.objects, 'source')}, {tally.size_bytes:,} bytes"
        line(console, f"{verb}  {state:<16} {sources}")
    line(console, f"to read: {found.bytes_to_read:,} bytes")
