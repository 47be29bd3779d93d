"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from infra.errors import UsageError
from infra.storage import Storage, StoreOptions, absolute

if TYPE_CHECKING:
    from manifests.dataset import Dataset
    from manifests.specs import DatasetSpec

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


def given_spec(config: Path | None, vae: str | None) -> DatasetSpec | None:
    """What a file and the line say of the spec; folders of weights are made absolute."""
    from encoders.vae_weights import absolute
    from manifests.dataset import parse_spec
    from manifests.specs import DatasetSpec

    given: dict[str, Any] = {}
    if config is not None:
        given = parse_spec(_read(config), str(config)).model_dump(exclude_unset=True)
    if vae is not None:
        given.setdefault("vae", {})["encoder"] = vae
    if "encoder" in given.get("vae", {}):
        given["vae"]["encoder"] = absolute(given["vae"]["encoder"])
    return DatasetSpec.model_validate(given) if given else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read as text: {error}") from error


def dataset_at(uri: str, endpoint_url: str | None, profile: str | None) -> Dataset:
    """The dataset that is there. Raises UsageError where there is none."""
    from manifests.dataset import open_dataset

    return open_dataset(absolute(uri), storage(endpoint_url, profile))


def storage(endpoint_url: str | None, profile: str | None) -> Storage:
    return Storage(StoreOptions(endpoint_url=endpoint_url, profile=profile))


def out() -> Console:
    """What the command was run for."""
    return Console()


def progress() -> Console:
    """How it goes; apart from the above, so that other programs can read that."""
    return Console(stderr=True)
