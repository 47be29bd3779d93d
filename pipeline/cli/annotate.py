"""The commands that say something of clips: caption, score."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from telecine.infra.errors import CheckFailed
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
    Workers,
    dataset_at,
    given_caption,
    given_score,
    out,
    progress,
)

RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try clips again that were given up.")
]


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
    """Caption the clips that have no caption under a captioner; `rebuild` then uses them."""
    from telecine.pipeline.outcome import print_captioned
    from telecine.pipeline.recipes import RunOptions, recaption

    opened = dataset_at(dataset, endpoint_url, profile)
    asked = given_caption(opened.spec, config, captioner)
    options = RunOptions(
        workers=workers,
        ray_address=ray_address,
        retry_rejected=retry_failed,
        gpus_per_encoder=gpus,
        caption_url=caption_url,
        concurrency=concurrency,
        batch=batch,
    )
    opened = dataclasses.replace(opened, spec=asked)
    captioned = recaption(opened, options, progress(), where=where, choose=not no_choose)
    print_captioned(captioned, opened.uri, as_json, out())
    if captioned.outcomes.keys() == {"failed"}:
        raise CheckFailed(
            f"no clip got a caption; why: telecine inspect {shlex.quote(opened.uri)} captions "
            "--where \"outcome = 'failed'\" --columns captioner,detail"
        )


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
    workers: Workers = None,
    gpus: Gpus = None,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Score clips by an image-text model: columns that every `--where` can use from then on."""
    from telecine.pipeline.outcome import print_scored
    from telecine.pipeline.recipes import RunOptions, rescore

    opened = dataset_at(dataset, endpoint_url, profile)
    asked = given_score(opened.spec, scorer, prompt or [], aesthetic, duplicates, threshold, keep)
    options = RunOptions(
        workers=workers,
        ray_address=ray_address,
        retry_rejected=retry_failed,
        gpus_per_encoder=gpus,
        batch=batch,
    )
    opened = dataclasses.replace(opened, spec=asked)
    scored = rescore(opened, options, progress(), where=where)
    print_scored(scored, opened, as_json, out())
