"""caption, score: what is said of clips, by a captioner or an image-text model.

captioned 29 ok, 2 empty
in force  vlm:Qwen2.5-VL-3B: 29 of 31 clips have a text
next      telecine rebuild footage/dataset
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from telecine.infra.errors import CheckFailed
from telecine.infra.text import counted
from telecine.pipeline.cli.options import (
    AsJson,
    Asking,
    Batch,
    DatasetArgument,
    Machines,
    Store,
    given_caption,
    given_score,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.text import line, print_json

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.caption.step import CaptionOutcome
    from telecine.pipeline.score.step import ScoreOutcome

RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try clips again that were given up.")
]


@with_groups
def caption(
    dataset: DatasetArgument,
    captioner: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="auto, sidecar, signal, openclip:MODEL[@TAG_OR_FILE], vlm:FOLDER_OR_HUB_ID, "
            "openai:MODEL or a plug-in's NAME[:REST]; from then on the one in force (default: "
            "that one).",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Its options: a telecine.toml with a [caption] table."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Caption the clips that this SQL condition is true of.")
    ] = None,
    retry_failed: RetryFailed = False,
    no_choose: Annotated[
        bool, typer.Option("--no-choose", help="Leave the captioner in force as it is.")
    ] = False,
    *,
    asking: Asking,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Caption the clips that have no caption under a captioner; `rebuild` then uses them."""
    from telecine.pipeline import recipes
    from telecine.pipeline.run import Run, RunOptions

    opened = store.open(dataset)
    asked = given_caption(opened.spec, config, captioner)
    options = RunOptions(
        retry_rejected=retry_failed,
        gpus_per_encoder=machines.gpus,
        **dataclasses.asdict(asking),
    )
    opened = dataclasses.replace(opened, spec=asked)
    with machines.open_cluster() as cluster:
        run = Run(opened, cluster, options, progress())
        captioned = recipes.caption(run, where=where, choose=not no_choose)
    print_captioned(captioned, opened.uri, as_json, out())
    if captioned.outcomes.keys() == {"failed"}:
        raise CheckFailed(
            f"no clip got a caption; why: telecine inspect {shlex.quote(opened.uri)} captions "
            "--where \"outcome = 'failed'\" --columns captioner,detail"
        )


@with_groups
def score(
    dataset: DatasetArgument,
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="openclip:MODEL[@TAG_OR_FILE] or a plug-in's NAME[:REST]; from then on the one in "
            "force (default: that one).",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]TEXT",
            help="Also the similarity to this text, as the column similarity_NAME (default: the "
            "text's own words); may be given many times.",
        ),
    ] = None,
    aesthetic: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A linear head over the embedding: aesthetic_score."),
    ] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Group near-duplicates: duplicate_rank.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="Cosine similarity of duplicates (default: 0.95)."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="longest|largest", help="Which clip of a group is rank 0."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Score the clips that this SQL condition is true of.")
    ] = None,
    retry_failed: RetryFailed = False,
    batch: Batch = None,
    *,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Score clips by an image-text model: columns that every `--where` can use from then on."""
    from telecine.pipeline import recipes
    from telecine.pipeline.run import Run, RunOptions

    opened = store.open(dataset)
    asked = given_score(opened.spec, scorer, prompt or [], aesthetic, duplicates, threshold, keep)
    options = RunOptions(retry_rejected=retry_failed, gpus_per_encoder=machines.gpus, batch=batch)
    opened = dataclasses.replace(opened, spec=asked)
    with machines.open_cluster() as cluster:
        scored = recipes.score(Run(opened, cluster, options, progress()), where=where)
    print_scored(scored, opened, as_json, out())


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def print_captioned(
    captioned: CaptionOutcome, dataset: str, as_json: bool, console: Console
) -> None:
    if as_json:
        print_json(captioned, console)
        return
    counts = ", ".join(f"{n} {outcome}" for outcome, n in captioned.outcomes.items())
    texts = f"{captioned.with_text} of {counted(captioned.clips, 'clip')} have a text"
    lines = [f"captioned {counts or 'no clip that was not captioned before'}"]
    if not captioned.in_force:
        lines.append(f"aside     {captioned.captioner}: {texts}; the one in force stays so")
    else:
        lines.append(f"in force  {captioned.captioner}: {texts}")
    if captioned.waiting:
        lines.append(f"waiting   {counted(captioned.waiting, 'clip')} of the selection without one")
    if captioned.in_force and (captioned.outcomes or captioned.chosen):
        again = f"telecine score {shlex.quote(dataset)}, then " if captioned.score_first else ""
        lines.append(f"next      {again}telecine rebuild {shlex.quote(dataset)}")
    for text in lines:
        line(console, text)


def print_scored(scored: ScoreOutcome, dataset: Dataset, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(scored, console)
        return
    from telecine.pipeline.catalog.scores import score_columns

    for name, text in scored_lines(scored, dataset.uri):
        line(console, f"{name:<9} {text}")
    columns = ", ".join(score_columns(dataset.spec.score))
    if scored.in_force:
        line(console, f"in force  {scored.scorer}: clips have {columns}")
    else:
        line(console, f"aside     {scored.scorer}: the scorer in force stays so")


def scored_lines(scored: ScoreOutcome, dataset: str) -> Iterator[tuple[str, str]]:
    """What was scored in a run and what was not, each with the word that it begins with."""
    counts = ", ".join(f"{n} {name}" for name, n in sorted(scored.scores.items()))
    yield (
        "scored",
        f"{counted(scored.embedded, 'clip')} embedded; "
        + (counts or "no score that was not there before"),
    )
    if scored.failed:
        failed = f"telecine inspect {shlex.quote(dataset)} embeddings --where \"detail <> ''\""
        yield "failed", f"{counted(scored.failed, 'clip')}: {failed}"
    if (grouping := scored.grouping) is not None:
        yield (
            "grouped",
            f"{counted(grouping.clips, 'clip')}: {grouping.duplicates} duplicates in "
            f"{counted(grouping.groups, 'group')} at {grouping.threshold:g}; "
            f'--where "duplicate_rank = 0" takes one of each',
        )
    if scored.waiting:
        yield "waiting", f"{counted(scored.waiting, 'clip')} not scored yet"
