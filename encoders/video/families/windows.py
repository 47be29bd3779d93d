"""Models whose later latents depend on every earlier frame: windows, each encoded at once.

window 9, overlap 5, stride 4
frames   ▏0 … 4 5 … 8▕
              ▏4 … 8 9 … 12▕            again from what the overlap holds
latents  ▏0  1    2  ▕
              ▏-  -     3  ▕            those of the overlap are known already

A window begins on the last frame of a latent, which it takes for a clip's first frame; the latents
of the overlap warm it up and are dropped. A clip no longer than a window is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch

from telecine.manifests.fingerprint import JsonValue


class WindowStreaming:
    """Equal to `encode` up to `window` frames, an approximation beyond.

    `window` and `overlap` are 1 + k · `stride` frames. Raises ValueError if they are not, or if
    the overlap is as long as the window.
    """

    def __init__(self, window: int, overlap: int, stride: int) -> None:
        if window % stride != 1 % stride or overlap % stride != 1 % stride:
            raise ValueError(f"window {window} and overlap {overlap} must be 1 + k·{stride} frames")
        if not 0 < overlap < window:
            raise ValueError(f"the overlap, {overlap} frames, must be less than {window}, a window")
        self._window, self._overlap, self._stride = window, overlap, stride

    def chunks(self, frames: int) -> Iterator[int]:
        yield min(frames, self._window)
        step = self._window - self._overlap
        for start in range(self._window, frames, step):
            yield min(step, frames - start)

    def open(self, vae: torch.nn.Module, frames: int) -> _WindowStream:
        return _WindowStream(vae, self._overlap, self._stride)

    def identity(self) -> JsonValue:
        return {"window": self._window, "overlap": self._overlap}


class _WindowStream:
    def __init__(self, vae: torch.nn.Module, overlap: int, stride: int) -> None:
        self._vae = cast(Any, vae)
        self._overlap = overlap
        self._known = 1 + (overlap - 1) // stride  # latents
        self._pixels: torch.Tensor | None = None

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        known = 0
        if self._pixels is not None:
            pixels, known = torch.cat([self._pixels, pixels], dim=2), self._known
        self._pixels = pixels[:, :, -self._overlap :].clone()
        parameters = self._vae.encode(pixels).latent_dist.parameters
        return cast(torch.Tensor, parameters[:, :, known:])
