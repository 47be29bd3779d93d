"""The command: one subcommand per recipe. `telecine --help` is the whole of it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from telecine.infra.errors import StorageError, TelecineError
from telecine.infra.storage import Storage, absolute
from telecine.pipeline.cli import annotate as cli_captions
from telecine.pipeline.cli import browse as cli_browse
from telecine.pipeline.cli import builds as cli_builds
from telecine.pipeline.cli import diff as cli_clips
from telecine.pipeline.cli import export as cli_export
from telecine.pipeline.cli import query as cli_query
from telecine.pipeline.cli.inspect import inspect, inspect_summary
from telecine.pipeline.cli.options import (
    AsJson,
    Batch,
    CaptionUrl,
    Concurrency,
    DatasetArgument,
    EndpointUrl,
    Gpus,
    Profile,
    RayAddress,
    Vae,
    Workers,
    dataset_at,
    given_spec,
    out,
    progress,
    storage,
)
from telecine.pipeline.cli.plugins import Commands

app = typer.Typer(
    name="telecine",
    cls=Commands,
    help="Raw footage in, bucketed latent shards out, kept true when footage, captions or the VAE "
    "change.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # brackets in help are meant
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        print(f"telecine {importlib.metadata.version('telecine')}")
        raise typer.Exit


@app.callback()
def telecine(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which version this is.", callback=_version),
    ] = False,
) -> None:
    pass


@app.command()
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
    caption_url: CaptionUrl = "",
    concurrency: Concurrency = 32,
    batch: Batch = None,
    workers: Workers = None,
    gpus: Gpus = None,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Turn what is new among the footage into samples of the dataset."""
    from telecine.manifests.dataset import resolve_dataset
    from telecine.pipeline.outcome import print_outcome, print_preview, refuse_failed
    from telecine.pipeline.recipes import RunOptions
    from telecine.pipeline.recipes import find as find_news
    from telecine.pipeline.recipes import ingest as run_ingest

    roots = [absolute(source) for source in sources]
    opened = resolve_dataset(
        absolute(dataset),
        storage(endpoint_url, profile),
        given_spec(config, vae, captioner=captioner, where=where),
    )
    options = RunOptions(
        workers=workers,
        ray_address=ray_address,
        retry_rejected=retry_rejected,
        allow_duplicates=allow_duplicates,
        gpus_per_encoder=gpus,
        caption_url=caption_url,
        concurrency=concurrency,
        batch=batch,
    )
    if dry_run:
        print_preview(find_news(roots, opened, options, progress()), as_json, out())
        return
    ingested = run_ingest(roots, opened, options, progress())
    print_outcome(ingested, opened.uri, as_json, out())
    refuse_failed(ingested.build, opened.uri)


@app.command()
def rebuild(
    dataset: DatasetArgument,
    vae: Vae = None,
    where: Annotated[
        str | None,
        typer.Option(help="Take the clips that this SQL condition is true of; '' takes all."),
    ] = None,
    shard_bytes: Annotated[
        int | None, typer.Option(min=1_000_000, help="Fill each shard up to this many bytes.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="More keys of the spec, as a telecine.toml with only those to change."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder of the build under shards/ (default: by its spec).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do and why, and do none of it.")
    ] = False,
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Leave the present build current.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make it current although a gate says no.")
    ] = False,
    retry_dropped: Annotated[
        bool, typer.Option("--retry-dropped", help="Try clips again that the build left out.")
    ] = False,
    workers: Workers = None,
    gpus: Gpus = None,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make the shards again under another VAE, selection or texts, beside those there are."""
    from telecine.manifests.dataset import asked_spec
    from telecine.pipeline.outcome import print_built, refuse_failed
    from telecine.pipeline.recipes import RunOptions
    from telecine.pipeline.recipes import preview as preview_rebuild
    from telecine.pipeline.recipes import rebuild as run_rebuild

    opened = dataset_at(dataset, endpoint_url, profile)
    asked = asked_spec(opened.spec, given_spec(config, vae), where=where, target_bytes=shard_bytes)
    opened = dataclasses.replace(opened, spec=asked)
    options = RunOptions(
        workers=workers,
        ray_address=ray_address,
        retry_rejected=retry_dropped,
        gpus_per_encoder=gpus,
        promote=not no_promote,
        force=force,
    )
    if dry_run:
        preview_rebuild(opened, options, name, as_json, out())
        return
    built = run_rebuild(opened, options, progress(), name)
    print_built(built, opened.uri, as_json, out())
    refuse_failed(built, opened.uri)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to put footage and dataset into.")] = Path(
        "demo"
    ),
    workers: Workers = None,
) -> None:
    """Render a small footage set, ingest it, and show what was made and where."""
    from telecine.manifests.dataset import create_dataset
    from telecine.pipeline.demo.footage import render
    from telecine.pipeline.outcome import print_outcome
    from telecine.pipeline.recipes import RunOptions
    from telecine.pipeline.recipes import ingest as run_ingest

    screen = out()
    footage = folder.resolve() / "footage"
    files = render(footage)
    screen.print(f"rendered {len(files)} files into {footage}", markup=False, highlight=False)
    opened = create_dataset(str(folder.resolve() / "dataset"), Storage(), None)
    options = RunOptions(workers=workers)
    ingested = run_ingest([str(footage)], opened, options, progress())
    print_outcome(ingested, opened.uri, False, screen)
    inspect_summary(opened, False, screen)


app.command()(inspect)
app.command()(cli_captions.caption)
app.command()(cli_captions.score)
app.command()(cli_query.query)
app.command()(cli_clips.diff)
app.command()(cli_clips.explain)
app.command()(cli_browse.browse)
app.command()(cli_browse.report)
app.command(cls=cli_export.WithPlugins)(cli_export.export)
for command in (cli_builds.promote, cli_builds.rollback, cli_builds.verify, cli_builds.decode):
    app.command()(command)
app.command()(cli_builds.gc)


def main() -> None:
    """Run the command. Exit codes: see infra/errors.py; 2 also for a wrong option, 130 for ^C."""
    interrupts: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        interrupts.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        app()
    except BaseException as error:
        # A library may turn the interrupt into an error of its own.
        if interrupts:
            _stopped()
        if isinstance(error, TelecineError):
            _fail(str(error), error.exit_code)
        if not isinstance(error, Exception) or not _is_of_disk(error):
            raise
        from telecine.manifests.tables import words

        _fail(f"{type(error).__name__}: {words(error).strip()}", StorageError.exit_code)


def _stopped() -> NoReturn:
    print("stopped; run the same command again to go on", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _is_of_disk(error: Exception) -> bool:
    """What the disk or the libraries that read tables from it say, in words for a user."""
    import duckdb
    import pyarrow as pa

    return isinstance(error, (OSError, duckdb.Error, pa.ArrowException))
