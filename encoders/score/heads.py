"""Linear heads over an embedding: [d] ─▶ one number, on the head's own scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.encoders.score.load import reason
from telecine.infra.errors import UsageError

HEADS = (".safetensors", ".pt", ".pth")


def load_head(path: str | Path, dimensions: int) -> tuple[npt.NDArray[np.float32], float]:
    """Weight [d] and bias of the one linear layer, d → 1, in a file.

    Its tensors are `weight` [1, d] and `bias` [1], or both with the same words before them.
    Raises UsageError where it is anything else.
    """
    file = head_file(path)
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


def head_file(path: str | Path) -> Path:
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
