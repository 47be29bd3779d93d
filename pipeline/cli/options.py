"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage, StoreOptions, absolute
from telecine.pipeline.cli.cluster import open_cluster

if TYPE_CHECKING:
    from telecine.infra.cluster import Cluster
    from telecine.manifests.dataset import Dataset
    from telecine.manifests.specs import DatasetSpec
    from telecine.pipeline.progress import Progress

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
    typer.Option(
        min=0,
        help="Worker processes at most (default: one per core). 0: none, everything in the "
        "command's own, without Ray, for tests and debugging.",
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPUs for each encoder; a part of one lets several share it (default: 1 for a "
        "learned encoder where there is any, else 0).",
    ),
]
CaptionUrl = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Of the OpenAI-compatible server of an openai: captioner, as in "
        "http://host:8000/v1 (default: OPENAI_BASE_URL). Its key: OPENAI_API_KEY.",
    ),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests to a captioning server at once.")]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="What a captioner or scorer takes at once (default: its own)."),
]
Vae = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Video encoder: dct, diffusers:FOLDER, diffusers:HUB_ID[@revision] or a plug-in's "
        "NAME[:REST].",
    ),
]


# ── options that go together ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Store:
    """How the objects of a dataset are reached."""

    endpoint_url: EndpointUrl = None
    profile: Profile = None

    def open(self, dataset: str) -> Dataset:
        """The dataset that is there. Raises UsageError where there is none."""
        from telecine.manifests.dataset import open_dataset

        return open_dataset(absolute(dataset), self.storage())

    def storage(self) -> Storage:
        return Storage(StoreOptions(endpoint_url=self.endpoint_url, profile=self.profile))


@dataclass(frozen=True)
class Machines:
    """What the workers run on."""

    workers: Workers = None
    gpus: Gpus = None
    ray_address: RayAddress = None

    def open_cluster(self) -> AbstractContextManager[Cluster]:
        return open_cluster(self.workers, self.ray_address)


@dataclass(frozen=True)
class Asking:
    """How a captioner is asked."""

    caption_url: CaptionUrl = ""
    concurrency: Concurrency = 32
    batch: Batch = None


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command for Typer, which knows of single options alone: in place of each parameter that
    is one of the groups above there are the options that it holds.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group = parameter.annotation
        if not (isinstance(group, type) and dataclasses.is_dataclass(group)):
            parameters.append(parameter)
            continue
        groups[name] = group
        parameters += inspect.signature(group, eval_str=True).parameters.values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in dataclasses.fields(group)})
        command(**given)

    options = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


# ── what is asked of the spec ────────────────────────────────────────────────────────────────────


def given_spec(
    config: Path | None,
    vae: str | None,
    *,
    captioner: str | None = None,
    where: str | None = None,
) -> DatasetSpec | None:
    """What a file and the line say of the spec; folders of weights are made absolute."""
    from telecine.manifests.dataset import parse_spec
    from telecine.pipeline.models import absolute_spec

    given: dict[str, Any] = {}
    if config is not None:
        given = parse_spec(_read(config), str(config)).model_dump(exclude_unset=True)
    line = {
        ("vae", "encoder"): vae,
        ("caption", "captioner"): captioner,
        ("select", "where"): where,
    }
    for (table, key), value in line.items():
        if value is not None:
            given.setdefault(table, {})[key] = value
    return absolute_spec(given, str(config or "the options")) if given else None


def given_caption(spec: DatasetSpec, config: Path | None, captioner: str | None) -> DatasetSpec:
    """The spec with the captioner that is asked for; one that is named is looked at anew."""
    given = given_spec(config, None, captioner=captioner)
    tables = given.model_dump(exclude_unset=True) if given else {}
    if other := sorted(tables.keys() - {"caption"}):
        raise UsageError(
            f"--config {config}: telecine caption takes the table [caption] alone, not "
            f"{', '.join(other)}; telecine rebuild --config takes the others"
        )
    asked = spec.overlaid(tables)
    if captioner is None:
        return asked
    return asked.model_copy(update={"caption": asked.caption.model_copy(update={"weights": None})})


def given_embed(spec: DatasetSpec, **given: str | int | None) -> DatasetSpec:
    """The spec with the keys of [embed] that are given, None: not; another encoder has its own."""
    from pydantic import ValidationError

    from telecine.encoders.load import absolute_text_encoder
    from telecine.manifests.specs import EmbedSpec

    said: dict[str, str | int | None] = {k: v for k, v in given.items() if v is not None}
    known = spec.embed.model_dump()
    if "encoder" in said:
        said["encoder"] = absolute_text_encoder(str(said["encoder"]))
        said["weights"] = None
        if said["encoder"] != spec.embed.encoder:
            known = EmbedSpec().model_dump()
    try:
        embed = EmbedSpec.model_validate(known | said)
    except ValidationError as error:
        raise UsageError("; ".join(str(e["msg"]) for e in error.errors())) from error
    return spec.model_copy(update={"embed": embed})


def given_score(
    spec: DatasetSpec,
    scorer: str | None,
    prompts: Sequence[str],
    aesthetic: Path | None,
    duplicates: bool,
    threshold: float | None,
    keep: str | None,
) -> DatasetSpec:
    """The spec with the scores that are asked for beside those in force.

    Raises UsageError where there is nothing to score by, or two prompts have one name.
    """
    from pydantic import ValidationError

    from telecine.encoders.load import absolute_scorer
    from telecine.manifests.specs import ScoreSpec

    known = spec.score.model_dump()
    if scorer is not None:
        named = absolute_scorer(scorer)
        if named != spec.score.scorer:  # a head is for one model's embeddings
            known |= {"aesthetic": None, "aesthetic_weights": None}
        known |= {"scorer": named, "weights": None}
    if known["scorer"] is None:
        raise UsageError("no scorer is in force yet: name one, --scorer openclip:MODEL@TAG_OR_FILE")
    known["prompts"] = {**known["prompts"], **_prompts(prompts)}
    if aesthetic is not None:
        known |= {"aesthetic": str(aesthetic.expanduser().resolve()), "aesthetic_weights": None}
    if threshold is not None or keep is not None or duplicates:
        known["duplicate_threshold"] = threshold or known["duplicate_threshold"] or THRESHOLD
        known["duplicate_keep"] = keep or known["duplicate_keep"]
    try:
        return spec.model_copy(update={"score": ScoreSpec.model_validate(known)})
    except ValidationError as error:
        raise UsageError("; ".join(str(e["msg"]) for e in error.errors())) from error


THRESHOLD = 0.95


def _prompts(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        named = re.fullmatch(r"([a-z][a-z0-9_]*)=(.+)", text, re.DOTALL)
        name, prompt = named.groups() if named else (_slug(text), text)
        if not name:
            raise UsageError(f"--prompt {text!r}: give it a name of a-z 0-9 _, as in NAME={text}")
        if found.setdefault(name, prompt) != prompt:
            raise UsageError(
                f"--prompt: both {found[name]!r} and {prompt!r} are named {name}; name one "
                "otherwise, as in NAME=TEXT"
            )
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_0123456789")[:48].rstrip("_")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read as text: {error}") from error


# ── what a command opens and writes to ───────────────────────────────────────────────────────────


def out() -> Console:
    """What the command was run for."""
    return Console()


def progress() -> Progress:
    """How it goes; apart from the above, so that other programs can read that."""
    from telecine.pipeline.terminal.progress import ConsoleProgress

    return ConsoleProgress(Console(stderr=True))


def say_read(dataset: Dataset) -> None:
    """How much the answer cost, where reading costs money and time; the log is not counted."""
    from telecine.infra.text import size

    if not dataset.tables.on_disk:
        read = size(dataset.tables.bytes_read)
        print(f"read {read} of tables from {dataset.uri}", file=sys.stderr)
