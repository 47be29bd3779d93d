"""The command: one subcommand per recipe. `telecine --help` is the whole of it."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from infra.errors import StorageError, TelecineError, UsageError
from infra.storage import Storage, StoreOptions, absolute

app = typer.Typer(
    name="telecine",
    help="Raw footage in, bucketed latent shards out, kept true when footage, captions or the VAE "
    "change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        print(f"telecine {importlib.metadata.version('telecine')}")
        raise typer.Exit


DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/prefix.")
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(help="URL of an S3-compatible store (default: AWS, or AWS_ENDPOINT_URL)."),
]
Profile = Annotated[
    str | None, typer.Option(help="Profile of ~/.aws to use (default: AWS_PROFILE).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Join this Ray cluster (default: RAY_ADDRESS, else this machine alone)."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes at most (default: one per core)."),
]


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
    workers: Workers = None,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Turn what is new among the footage into samples of the dataset."""
    from manifests.dataset import parse_spec, resolve_dataset
    from pipeline.outcome import print_outcome, print_preview
    from pipeline.recipes import RunOptions
    from pipeline.recipes import find as find_news
    from pipeline.recipes import ingest as run_ingest

    storage = Storage(StoreOptions(endpoint_url=endpoint_url, profile=profile))
    given = None if config is None else parse_spec(_read(config), str(config))
    roots = [absolute(source) for source in sources]
    opened = resolve_dataset(absolute(dataset), storage, given)
    options = RunOptions(
        workers=workers,
        ray_address=ray_address,
        retry_rejected=retry_rejected,
        allow_duplicates=allow_duplicates,
    )
    progress = Console(stderr=True)
    if dry_run:
        print_preview(find_news(roots, opened, options, progress), as_json, _out())
        return
    ingested = run_ingest(roots, opened, options, progress)
    print_outcome(ingested, opened.uri, as_json, _out())


@app.command()
def inspect(
    dataset: DatasetArgument,
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE]",
            help="List rows: sources, clips, stills, captions, samples or builds. "
            "Without it: a summary.",
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
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds, and what was left out and why."""
    from manifests.dataset import open_dataset
    from pipeline import report

    storage = Storage(StoreOptions(endpoint_url=endpoint_url, profile=profile))
    opened = open_dataset(absolute(dataset), storage)
    if table is None:
        if where is not None or columns is not None:
            raise UsageError(
                "--where and --columns choose rows of a table: name one, as in "
                f"telecine inspect {dataset} clips --where 'motion > 0.1'"
            )
        report.inspect_summary(opened.tables, as_json, _out())
    else:
        most = limit if limit is not None else 0 if as_json else 20
        report.inspect_table(opened.tables, table, where, columns, most, as_json, _out())


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to put footage and dataset into.")] = Path(
        "demo"
    ),
    workers: Workers = None,
) -> None:
    """Render a small footage set, ingest it, and show what was made and where."""
    from manifests.dataset import create_dataset
    from pipeline import report
    from pipeline.demo import render
    from pipeline.outcome import print_outcome
    from pipeline.recipes import RunOptions
    from pipeline.recipes import ingest as run_ingest

    out = _out()
    footage = folder.resolve() / "footage"
    files = render(footage)
    out.print(f"rendered {len(files)} files into {footage}", markup=False, highlight=False)
    opened = create_dataset(str(folder.resolve() / "dataset"), Storage(), None)
    options = RunOptions(workers=workers)
    ingested = run_ingest([str(footage)], opened, options, Console(stderr=True))
    print_outcome(ingested, opened.uri, False, out)
    report.inspect_summary(opened.tables, False, out)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read as text: {error}") from error


def _out() -> Console:
    return Console()


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
        _fail(f"{type(error).__name__}: {str(error).strip()}", StorageError.exit_code)


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
