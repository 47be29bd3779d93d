"""embed: texts of a build's clips as embeddings, in a column beside its shards.

embedded 29 texts of 3,480 tokens
column   columns/t5 beside wan-1a2b3c4d: 31 samples in 4 tars, 1 written
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from telecine.infra.errors import CheckFailed
from telecine.infra.text import counted
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Machines,
    Store,
    given_embed,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.text import line, print_json

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.embed.state import ColumnState
    from telecine.pipeline.embed.step import EmbedOutcome


@with_groups
def embed(
    dataset: DatasetArgument,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="t5:, umt5:, clip: or transformers:FOLDER_OR_HUB_ID, a plug-in's NAME[:REST], or "
            "none for texts alone; from then on the one in force (default: that one).",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the column (default: the encoder's kind).")
    ] = None,
    build: Annotated[
        str | None, typer.Option(help="Beside which build (default: the current one).")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Of a text; more is cut, and counted (default: 512)."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="bfloat16|float16|float32",
            help="What the model computes in (default: bfloat16).",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try texts again that were given up.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Encode nothing: count what is stale or missing; exit 6 if anything is."
        ),
    ] = False,
    *,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Embed the texts of a build's clips, real tokens alone, into a column beside its shards."""
    from telecine.pipeline import recipes
    from telecine.pipeline.run import Run, RunOptions

    opened = store.open(dataset)
    if check:
        _check(opened, build, name, as_json, out())
        return
    asked = given_embed(opened.spec, encoder=encoder, name=name, max_tokens=max_tokens, dtype=dtype)
    options = RunOptions(retry_rejected=retry_failed, gpus_per_encoder=machines.gpus)
    opened = dataclasses.replace(opened, spec=asked)
    with machines.open_cluster() as cluster:
        embedded = recipes.embed(Run(opened, cluster, options, progress()), build)
    print_embedded(embedded, opened.uri, as_json, out())


def _check(
    dataset: Dataset, build: str | None, name: str | None, as_json: bool, console: Console
) -> None:
    """Raises CheckFailed where a column is not in step with its build."""
    from telecine.manifests.builds import completed_build
    from telecine.manifests.queries import connect
    from telecine.pipeline.embed.state import column_states

    chosen = completed_build(connect(dataset.tables), build)
    states = [s for s in column_states(dataset, chosen.build_id) if name in (None, s.column)]
    if as_json:
        print_json({"columns": [dataclasses.asdict(state) for state in states]}, console)
    else:
        for state in states:
            line(console, f"{state.column:<9} {state_text(state)}")
    if not states:
        raise CheckFailed(f"{chosen.name} has no column{f' named {name}' if name else ''}")
    if any(not state.in_step for state in states):
        raise CheckFailed(
            f"{chosen.name} and its columns are not in step: "
            f"telecine embed {shlex.quote(dataset.uri)}"
        )


def state_text(state: ColumnState) -> str:
    """What a column has of its build."""
    counts = [f"{state.fresh:,} of {counted(state.samples, 'sample')}"]
    counts += [f"{n:,} {what}" for n, what in _counts(state) if n]
    return f"{state.encoder}: {', '.join(counts)}"


def _counts(state: ColumnState) -> tuple[tuple[int, str], ...]:
    return (state.stale, "stale"), (state.missing, "missing"), (state.truncated, "truncated")


def print_embedded(embedded: EmbedOutcome, dataset: str, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(embedded, console)
        return
    done = "no text that was not embedded before"
    if embedded.encoded:
        done = f"{counted(embedded.encoded, 'text')} of {embedded.tokens:,} tokens"
    line(console, f"embedded {done}")
    if embedded.failed:
        where = "--where \"outcome = 'failed'\" --columns text_digest,detail"
        why = f"telecine inspect {shlex.quote(dataset)} text_embeddings {where}"
        line(console, f"failed   {counted(embedded.failed, 'text')}: {why}")
    line(
        console,
        f"column   columns/{embedded.column} beside {embedded.build}: "
        f"{counted(embedded.samples, 'sample')} in {counted(embedded.tars, 'tar')}, "
        f"{embedded.tars_written:,} written",
    )
    if embedded.truncated:
        line(console, f"cut      {counted(embedded.truncated, 'sample')} at --max-tokens")
    if embedded.uncaptioned:
        line(console, f"waiting  {counted(embedded.uncaptioned, 'sample')} without a caption")
