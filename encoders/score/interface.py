"""What scores are made with: an embedding of clips and texts, and a linear head over it.

    ScoreSpec ─▶ load_scorer ─▶ Scorer    clips ─▶ [d] each     texts ─▶ [n, d]
              └▶ load_head                [d] ─▶ one number, on the head's own scale

A scorer's fingerprint is that of its embeddings: of the model, how it is shown pictures and texts,
and how they are pooled. What these are compared with, and where lines are drawn, has digests of
its own in the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from telecine.encoders.caption.describer import CaptionRuntime
from telecine.encoders.hub import digest_of_file
from telecine.encoders.score.load import reason
from telecine.encoders.score.openclip import OpenClip, weights_of
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.specs import ScoreSpec

HEADS = (".safetensors", ".pt", ".pth")
_PLAIN = CaptionRuntime()


class Scorer(Protocol):
    """Embeds clips and texts. Cheap to construct: a model is loaded by the first `embed`."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int:
        """Of an embedding. Raises UsageError where the model is not at hand."""

    def identity(self) -> dict[str, JsonValue]:
        """Everything that changes an embedding."""

    @property
    def fingerprint(self) -> str:
        """`telecine.manifests.fingerprint.fingerprint(self.identity())`"""

    def embed(self, clips: Sequence[Sequence[bytes]]) -> list[npt.NDArray[np.float32] | str]:
        """Of each clip, from its stills' JPEG, float32 [d]: or why there is none.

        Raises a TelecineError where no other clip would fare better.
        """

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [n, d]; of an empty text, NaN."""


def load_scorer(spec: ScoreSpec, runtime: CaptionRuntime = _PLAIN) -> Scorer:
    """The scorer that `spec` names. Loads no weights before they are needed.

    Raises UsageError where there is none of that name.
    """
    name, _, which = (spec.scorer or "").partition(":")
    if name != "openclip" or not which:
        raise UsageError(
            f"there is no scorer {spec.scorer!r}: there is openclip:MODEL[@TAG_OR_FILE], "
            "openclip:FOLDER and openclip:hf-hub:ORG/NAME ([score] scorer in telecine.toml)"
        )
    return OpenClip(
        f"{name}:{which}",
        spec.dtype,
        weights=spec.weights,
        device=runtime.device,
        batch=runtime.batch,
    )


def pin_scorer(spec: ScoreSpec) -> ScoreSpec:
    """The spec with the digests of the model's and the head's files as they are now.

    Raises UsageError where they are not there, or do not go together.
    """
    scorer = load_scorer(spec)
    weights = weights_of(str(spec.scorer))
    head = None
    if spec.aesthetic is not None:
        load_head(spec.aesthetic, scorer.dimensions)
        head = digest_of_file(_head_file(spec.aesthetic))
    return spec.model_copy(update={"weights": weights, "aesthetic_weights": head})


def load_head(path: str | Path, dimensions: int) -> tuple[npt.NDArray[np.float32], float]:
    """Weight [d] and bias of the one linear layer, d → 1, in a file.

    Its tensors are `weight` [1, d] and `bias` [1], or both with the same words before them.
    Raises UsageError where it is anything else.
    """
    file = _head_file(path)
    tensors = _tensors(file)
    shapes = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}
    before = {name.removesuffix("weight").removesuffix("bias") for name in tensors}
    prefix = next(iter(before), "")
    expected = {f"{prefix}weight": (1, dimensions), f"{prefix}bias": (1,)}
    if shapes != expected:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UsageError(
            f"{file} is no head for this scorer: expected weight [1, {dimensions}] and bias [1], "
            f"found {found or 'no tensor'}; a head is for the embeddings it was trained on"
        )
    weight, bias = (tensors[name].float().cpu().numpy() for name in expected)
    if not (np.isfinite(weight).all() and math.isfinite(bias[0])):
        raise UsageError(f"{file} holds numbers that are not finite: it is damaged")
    return weight[0], float(bias[0])


def _head_file(path: str | Path) -> Path:
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:  # ~user of a user that is not there
        raise UsageError(f"[score] aesthetic: there is no file {path}: {error}") from error
    if not file.is_file() or file.suffix not in HEADS:
        raise UsageError(
            f"[score] aesthetic: there is no file {file.absolute()} that ends in {', '.join(HEADS)}"
        )
    return file


def _tensors(file: Path) -> Mapping[str, Any]:
    """Of a pickle, tensors alone: nothing in it is run."""
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zipfile, safetensors
        raise UsageError(f"{file} cannot be read as tensors: {reason(error)}") from error
    return found if isinstance(found, Mapping) else {}
