"""The models that a run uses beside the VAE: which they are, if they are here, what they get.

spec ─▶ with_models: digests of their files ─▶ check_models: here, and still the same
                                          └─▶ captioner_needs, scorer_needs: CPUs, GPUs, device
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from telecine.encoders.kinds import RunsOn
from telecine.encoders.load import (
    captioner_kind,
    load_captioner,
    pin_captioner,
    pin_scorer,
    scorer_kind,
)
from telecine.encoders.runtime import ModelRuntime, Secret
from telecine.infra.errors import UsageError
from telecine.infra.ray import Cluster, Resources
from telecine.manifests.dataset import Dataset
from telecine.manifests.specs import CaptionSpec, DatasetSpec, ScoreSpec
from telecine.pipeline.drive import model_resources

if TYPE_CHECKING:
    from telecine.pipeline.recipes import RunOptions

# Asked what a worker gets, where there is one to start.
Needs: TypeAlias = Callable[[], tuple[Resources, ModelRuntime]]

SERVER_WORKERS = 4  # the last requests of one batch run beside those of others


def with_models(dataset: Dataset) -> Dataset:
    """The dataset with its models named by what is in their files, where its spec does not yet."""
    spec = dataset.spec
    second = spec.caption_mix.second
    mix = spec.caption_mix.model_copy(update={"second": second and _pinned(second)})
    score = spec.score
    unnamed = score.weights is None or (score.aesthetic and score.aesthetic_weights is None)
    if score.scorer is not None and unnamed:
        score = pin_scorer(score)
    pinned = {"caption": _pinned(spec.caption), "caption_mix": mix, "score": score}
    return dataclasses.replace(dataset, spec=spec.model_copy(update=pinned))


def _pinned(caption: CaptionSpec) -> CaptionSpec:
    load_captioner(caption)  # a wrong name or option is told before files are looked for
    return pin_captioner(caption) if caption.weights is None else caption


def check_models(spec: DatasetSpec, url: str) -> None:
    """Raises UsageError where a model is out of reach, or not the one that the spec was made with.

    It reads all of their files: a network or a disk that is slow is slow here.
    """
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


def captioner_needs(
    spec: CaptionSpec, cluster: Cluster, options: RunOptions
) -> tuple[Resources, ModelRuntime]:
    """What a worker with the captioner gets, and how it runs there.

    Raises UsageError, as `check_captioner`, before the cluster is started.
    """
    check_captioner(spec, options.caption_url)
    runs_on = captioner_kind(spec.captioner).runs_on
    if runs_on == RunsOn.CPU:
        return Resources(), ModelRuntime()
    if runs_on == RunsOn.SERVER:
        workers = min(SERVER_WORKERS, options.concurrency, options.workers or SERVER_WORKERS)
        runtime = ModelRuntime(
            url=server_url(options.caption_url),
            key=Secret(os.environ.get("OPENAI_API_KEY", "")),
            concurrency=options.concurrency // workers,
        )
        return Resources(cpus=0.25, workers=workers), runtime
    return _model_needs(cluster, options)


def scorer_needs(
    spec: ScoreSpec, cluster: Cluster, options: RunOptions
) -> tuple[Resources, ModelRuntime]:
    """What a worker with the scorer gets, and how it runs there."""
    if scorer_kind(str(spec.scorer)).runs_on == RunsOn.CPU:
        return Resources(), ModelRuntime(batch=options.batch)
    return _model_needs(cluster, options)


def _model_needs(cluster: Cluster, options: RunOptions) -> tuple[Resources, ModelRuntime]:
    resources = model_resources(cluster, gpus=options.gpus_per_encoder)
    device = "cuda" if resources.gpus else "cpu"
    return resources, ModelRuntime(device=device, batch=options.batch)
