"""HunyuanVideo 1.0: exact, in the windows that its `encode` is defined by. 1.5: windows of ours.

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

from telecine.encoders.video.families.base import Config, Family, Sample, demand

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


def _exact(config: Config) -> HunyuanStreaming:
    demand(config, "temporal_compression_ratio", 4)
    return HunyuanStreaming()


HUNYUAN = Family(
    class_name="AutoencoderKLHunyuanVideo",
    name="hunyuan",
    published=("HunyuanVideo 1.0",),
    exact=_exact,
    # Group norms take their statistics over all frames that are encoded at once.
    causal=False,
    samples=(
        Sample(
            name="hunyuan",
            arguments={
                "latent_channels": 4, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1,
                "norm_num_groups": 4, "scaling_factor": 0.476986,
            },
            temporal_stride=4,
            spatial_stride=8,
            channels=4,
            identity="def44c83f8604195",
        ),
    ),
)  # fmt: skip

HUNYUAN15 = Family(
    class_name="AutoencoderKLHunyuanVideo15",
    name="hunyuan15",
    published=("HunyuanVideo 1.5",),
    window=16,  # 65 frames, which an 80 GB card takes at 480p in bfloat16, hardly more
    samples=(
        Sample(
            name="hunyuan15",
            arguments={
                "latent_channels": 4, "block_out_channels": (8, 8, 16, 16, 16),
                "layers_per_block": 1, "scaling_factor": 1.03682,
            },
            temporal_stride=4,
            spatial_stride=16,
            channels=4,
            identity="acf8b9d191d89726",
        ),
    ),
)  # fmt: skip
