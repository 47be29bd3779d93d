"""CogVideoX: exact, in the pieces of eight frames that its `encode` is defined by.

T = 25   frames  ▏0 … 8▕▏9 … 16▕▏17 … 24▕      the remainder of T / 8 goes to the first
         latents ▏0 1 2▕▏ 3 4  ▕▏  5 6  ▕

Group norms span a piece, so the pieces are part of what the latents are: the whole clip in one
call of the encoder gives others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch

_STEP = 8  # frames


class CogVideoXStreaming:
    """Bit-identical to `encode`."""

    def chunks(self, frames: int) -> Iterator[int]:
        pieces = max(frames // _STEP, 1)
        rest = (pieces - 1) * _STEP
        yield frames - rest
        yield from [_STEP] * (pieces - 1)

    def open(self, vae: torch.nn.Module, frames: int) -> _CogVideoXStream:
        return _CogVideoXStream(vae)

    def identity(self) -> None:
        return None


class _CogVideoXStream:
    def __init__(self, vae: torch.nn.Module) -> None:
        self._vae = cast(Any, vae)
        self._cache: dict[str, Any] | None = None

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden, self._cache = self._vae.encoder(pixels, conv_cache=self._cache)
        quantise = self._vae.quant_conv
        return cast(torch.Tensor, hidden if quantise is None else quantise(hidden))
