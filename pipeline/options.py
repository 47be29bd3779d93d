"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import UsageError
from infra.storage import Storage, StoreOptions

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
Gpus = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPUs for each encoder; a part of one lets several share it (default: 1 for a "
        "learned encoder where there is any, else 0).",
    ),
]
Vae = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Video encoder: dct, diffusers:FOLDER or diffusers:HUB_ID[@revision].",
    ),
]


def storage(endpoint_url: str | None, profile: str | None) -> Storage:
    return Storage(StoreOptions(endpoint_url=endpoint_url, profile=profile))


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read as text: {error}") from error


def out() -> Console:
    """What the command was run for."""
    return Console()


def progress() -> Console:
    """How it goes; apart from the above, so that other programs can read that."""
    return Console(stderr=True)
