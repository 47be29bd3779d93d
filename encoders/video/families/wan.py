"""Wan 2.1, Wan 2.2 and Qwen-Image: exact, by the cache that the library's own `encode` uses.

frames   ▏0▕▏1 2 3 4▕▏5 6 7 8▕ ...
latents  ▏0▕▏   1   ▕▏   2   ▕ ...

Every causal convolution has a slot for its last two input frames (one where it halves the frame
rate); norms look at one pixel, attention at one frame. `encode` runs this loop too, but over a
clip held whole. Chunks stay at its 4 frames: with more the convolutions round differently, and
latents would depend on an option of speed.

The library decodes in pieces too, but keeps all of them on the device to the end; here each is
given away as it is made, and equals its.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, cast

import torch

from telecine.encoders.video.families.base import Config, Family, Pieces, Sample, given_stride

_STEP = 4  # frames, as in the library's own loop


class WanStreaming:
    """Bit-identical to `encode`, but for pictures of 32 px: 2e-7, from the last 1×1 convolution."""

    def __init__(self, patch_size: int | None = None) -> None:
        self._patch = patch_size or 1

    def chunks(self, frames: int) -> Iterator[int]:
        yield 1
        yield from [_STEP] * ((frames - 1) // _STEP)

    def open(self, vae: torch.nn.Module, frames: int) -> _WanStream:
        return _WanStream(vae, self._patch)

    def identity(self) -> None:
        return None


class _WanStream:
    def __init__(self, vae: torch.nn.Module, patch: int) -> None:
        self._vae = cast(Any, vae)
        self._patch = patch
        convolutions = sum(isinstance(m, torch.nn.Conv3d) for m in self._vae.encoder.modules())
        self._cache: list[torch.Tensor | None] = [None] * convolutions

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self._vae.encoder(
            _patchify(pixels, self._patch), feat_cache=self._cache, feat_idx=[0]
        )
        return cast(torch.Tensor, self._vae.quant_conv(hidden))


def _patchify(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """[1, 3, t, H, W] → [1, 3·p², t, H/p, W/p], within a patch columns before rows."""
    _, channels, frames, height, width = pixels.shape
    cells = pixels.reshape(1, channels, frames, height // patch, patch, width // patch, patch)
    return cells.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _strides(config: Config) -> tuple[int, int]:
    """(time, space), else by the blocks that halve."""
    halves = config.get("temperal_downsample")
    spatial = given_stride(config, "spatial") or 2 ** len(cast(Any, halves))
    return given_stride(config, "temporal") or 2 ** sum(cast(Any, halves)), spatial


def _decode_wan(vae: Any, latents: torch.Tensor) -> Pieces:
    cache = _empty_cache(vae)
    for index, frame in enumerate(vae.post_quant_conv(latents).split(1, dim=2)):
        first = index == 0
        piece = vae.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=first)
        if vae.config.patch_size is not None:
            piece = sys.modules[type(vae).__module__].unpatchify(piece, vae.config.patch_size)
        yield piece


def _decode_qwen(vae: Any, latents: torch.Tensor) -> Pieces:
    cache = _empty_cache(vae)
    for frame in vae.post_quant_conv(latents).split(1, dim=2):
        yield vae.decoder(frame, feat_cache=cache, feat_idx=[0])


def _empty_cache(vae: Any) -> list[Any]:
    """A slot for each causal convolution; a few more do no harm."""
    return [None] * sum(1 for _ in vae.decoder.modules())


WAN = Family(
    class_name="AutoencoderKLWan",
    name="wan",
    published=("Wan 2.1", "Wan 2.2"),
    exact=lambda config: WanStreaming(config.get("patch_size")),
    strides=_strides,
    decode=_decode_wan,
    samples=(
        Sample(
            name="wan21",
            arguments={"base_dim": 4, "z_dim": 4, "num_res_blocks": 1},
            constants=4,
            temporal_stride=4,
            spatial_stride=8,
            channels=4,
            identity="4a000866e128e3ed",
        ),
        Sample(
            name="wan22",
            arguments={
                "base_dim": 4, "z_dim": 6, "num_res_blocks": 1, "is_residual": True,
                "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
            },
            constants=6,
            temporal_stride=4,
            spatial_stride=16,
            channels=6,
            identity="4e089b98af430029",
        ),
    ),
)  # fmt: skip

QWEN_IMAGE = Family(
    class_name="AutoencoderKLQwenImage",
    name="qwenimage",
    published=("Qwen-Image",),
    exact=lambda config: WanStreaming(config.get("patch_size")),
    strides=_strides,
    decode=_decode_qwen,
    samples=(
        Sample(
            name="qwen",
            arguments={"base_dim": 4, "z_dim": 4, "num_res_blocks": 1},
            constants=4,
            temporal_stride=4,
            spatial_stride=8,
            channels=4,
            identity="5c80d87c960ab417",
        ),
    ),
)
