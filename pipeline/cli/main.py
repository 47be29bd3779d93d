"""The command: one subcommand per recipe. `telecine --help` is the whole of it."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from telecine.infra import extras, plugins
from telecine.infra.errors import StorageError, TelecineError
from telecine.pipeline.cli.annotate import caption, score
from telecine.pipeline.cli.browse import browse, report
from telecine.pipeline.cli.builds import decode, gc, promote, rollback, verify
from telecine.pipeline.cli.diff import diff, explain
from telecine.pipeline.cli.export import WithPlugins, export
from telecine.pipeline.cli.ingest import demo, ingest
from telecine.pipeline.cli.inspect import inspect
from telecine.pipeline.cli.query import query
from telecine.pipeline.cli.rebuild import rebuild
from telecine.pipeline.cli.train.embed import embed
from telecine.pipeline.cli.train.feed import feed
from telecine.pipeline.cli.train.overfit import overfit

PLUGIN_OPTIONS = {
    plugins.ENCODERS: "--vae",
    plugins.CAPTIONERS: "--captioner",
    plugins.SCORERS: "--scorer",
    plugins.TEXT_ENCODERS: "--encoder",
    plugins.EXPORTERS: "--format",
}


class Commands(TyperGroup):
    """The commands, and below them in help the plug-ins that are installed; none is imported."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)
        found = [
            (f"{option} {plugin.name}", str(plugin))
            for group, option in PLUGIN_OPTIONS.items()
            for plugin in plugins.installed(group)
        ]
        if found:
            with formatter.section("Plug-ins"):
                formatter.write_dl(found)


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
        from importlib.metadata import version

        print(f"telecine {version('telecine')}")
        raise typer.Exit


@app.callback()
def telecine(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which version this is.", callback=_version),
    ] = False,
) -> None:
    pass


COMMANDS = (
    ingest, rebuild, inspect, demo, caption, score, embed, query, diff, explain, browse, report,
    export, feed, overfit, promote, rollback, verify, decode, gc,
)  # fmt: skip
for command in COMMANDS:
    app.command(cls=WithPlugins if command is export else None)(command)


class _ToStderr(logging.Handler):
    """To whatever is standard error when it is said: a bar of progress may stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def main() -> None:
    """Run the command. Exit codes: see infra/errors.py; 2 also for a wrong option, 130 for ^C."""
    interrupts: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        interrupts.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = _unraisable
    logging.getLogger("telecine").addHandler(_ToStderr(logging.WARNING))
    try:
        with extras.explained("this command"):
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


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """An interrupt that falls into a library's destructor cannot be raised there: it is noted."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(found)


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
