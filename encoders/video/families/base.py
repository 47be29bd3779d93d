"""How a clip goes through a VAE's encoder a few frames at a time.

frames   ▏0▕▏1 2 3 4▕▏5 6 7 8▕ ...   as `chunks` says
            │    └── what later frames need of earlier ones stays in the stream
latents  ▏0▕▏  1    ▕▏   2   ▕ ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from telecine.manifests.fingerprint import JsonValue


class Stream(Protocol):
    """One clip on its way."""

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [1, 3, t, H, W] in [-1, 1], t as announced → the posterior's parameters
        [1, P, t', H', W'] (t' ≥ 0) that no later frame can change any more. The last push gives
        all that remain.
        """


class Streaming(Protocol):
    """How one class of VAE streams; holds the options, not the model."""

    def chunks(self, frames: int) -> Iterator[int]:
        """Sizes of the pieces to push; they add up to `frames`."""

    def open(self, vae: torch.nn.Module, frames: int) -> Stream: ...

    def identity(self) -> JsonValue:
        """What of it changes latents: None where it equals the model's own `encode` but for
        rounding.
        """
