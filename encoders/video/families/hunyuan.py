"""HunyuanVideo 1.0: exact, in the windows that its `encode` is defined by.

T = 29   frames  ▏0 ………… 16▕              a clip of at most 16 frames is one window
                        ▏12 ………… 28▕      17 frames, a new window every 12
         latents ▏0 1 2 3 4▕
                         ▏- 5 6 7▕        4 is that of the earlier window

Group norms and attention span a window, so its bounds are part of what the latents are. The
library blends neighbours over one latent, and there the earlier window has all the weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch

_WINDOW, _STEP = 17, 12  # frames
_SHARED = _WINDOW - _STEP  # frames: what the next window needs again


class HunyuanStreaming:
    """Bit-identical to `encode`."""

    def chunks(self, frames: int) -> Iterator[int]:
        yield min(frames, _WINDOW)
        for start in range(_WINDOW, frames, _STEP):
            yield min(_STEP, frames - start)

    def open(self, vae: torch.nn.Module, frames: int) -> _HunyuanStream:
        return _HunyuanStream(vae, frames)

    def identity(self) -> None:
        return None


class _HunyuanStream:
    def __init__(self, vae: torch.nn.Module, frames: int) -> None:
        self._vae = cast(Any, vae)
        self._left = frames
        self._pixels: torch.Tensor | None = None  # the last five frames
        self._latent: torch.Tensor | None = None  # the earlier window's last

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        self._left -= pixels.shape[2]
        if self._pixels is not None:
            pixels = torch.cat([self._pixels, pixels], dim=2)
        latents = cast(torch.Tensor, self._vae.quant_conv(self._vae.encoder(pixels)))
        if self._latent is not None:
            latents = torch.cat([self._latent, latents[:, :, 2:]], dim=2)
        if not self._left:
            return latents
        self._pixels = pixels[:, :, -_SHARED:].clone()
        self._latent = latents[:, :, -1:].clone()
        return latents[:, :, :-1]
