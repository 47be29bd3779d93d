"""LTX-Video 0.9.x and LTX-2: exact but for rounding, by a cache that the library has not got.

frames   ▏0 ……… 16▕▏17 ……… 32▕ ...
latents  ▏0  1   2▕▏  3    4 ▕ ...

Norms look at one pixel and there is no attention: only causal convolutions reach back in time,
and they pad by repeating their first frame. While a later chunk is pushed, the padding is replaced
by what the chunk before left behind, and downsamplers do not repeat their first frame once more.
Both hang on the modules of one model for the time of one push, so streams do not meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from telecine.encoders.video.families.base import (
    Config,
    Family,
    Pieces,
    Sample,
    demand,
    given_stride,
)

_STEP = 16  # frames, of two latents: 3.0 GiB of LTX-2 at 1080p in bfloat16, 3.9 of LTX 0.9
_SEED = 0  # of the noise that some decoders add


class LtxStreaming:
    """Within 3e-6 of `encode` in float32, on tiny random models with latents of about 0.4."""

    def chunks(self, frames: int) -> Iterator[int]:
        yield min(frames, 1 + _STEP)
        for start in range(1 + _STEP, frames, _STEP):
            yield min(_STEP, frames - start)

    def open(self, vae: torch.nn.Module, frames: int) -> _LtxStream:
        return _LtxStream(vae)

    def identity(self) -> None:
        return None


class _LtxStream:
    def __init__(self, vae: nn.Module) -> None:
        self._encoder = cast(nn.Module, vae.encoder)
        self._cache: dict[nn.Module, torch.Tensor] = {}

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        later = bool(self._cache)
        with ExitStack() as hooks:
            for module in self._encoder.modules():
                name = type(module).__name__
                if name.endswith("CausalConv3d"):
                    convolution = cast(nn.Conv3d, module.conv)
                    hook = convolution.register_forward_pre_hook(self._carry)
                    hooks.callback(hook.remove)
                elif later and name.endswith("Downsampler3d"):
                    module.forward = partial(_downsample, module)
                    hooks.callback(delattr, module, "forward")
            return cast(torch.Tensor, self._encoder(pixels))

    def _carry(self, module: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
        """The padded input of a convolution, [1, C, k-1 + t, h, w], its padding made true.

        With a stride of 2 one frame reaches over, not two. Written in place: the library has just
        joined padding and frames, and a copy is a large part of what a chunk needs.
        """
        convolution, (padded,) = cast(nn.Conv3d, module), given
        padding = convolution.kernel_size[0] - 1
        unused = convolution.stride[0] - 1
        if module in self._cache:
            padded = padded[:, :, unused:]
            padded[:, :, : padding - unused] = self._cache[module]
        self._cache[module] = padded[:, :, padded.shape[2] - (padding - unused) :].clone()
        return padded


def _downsample(down: Any, hidden: torch.Tensor, **causal: bool) -> torch.Tensor:
    """`forward` of a downsampler without its repeat of the first frame."""

    def folded(x: torch.Tensor) -> torch.Tensor:
        """Blocks of frames, rows and columns into channels."""
        (t, h, w), (n, c, frames, height, width) = down.stride, x.shape
        blocks = x.reshape(n, c, frames // t, t, height // h, h, width // w, w)
        return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)

    residual = folded(hidden)
    n, c, *rest = residual.shape
    residual = residual.reshape(n, c // down.group_size, down.group_size, *rest).mean(dim=2)
    return folded(down.conv(hidden, **causal)) + residual


def _exact(config: Config) -> LtxStreaming:
    demand(config, "encoder_causal", True)
    demand(config, "patch_size_t", 1)
    return LtxStreaming()


def _strides(config: Config) -> tuple[int, int]:
    """(time, space), else by the patch and the blocks that halve."""
    temporal = given_stride(config, "temporal")
    spatial = given_stride(config, "spatial")
    return (
        temporal or int(config["patch_size_t"] * 2 ** _halvings(config, "temporal")),
        spatial or int(config["patch_size"] * 2 ** _halvings(config, "spatial")),
    )


def _halvings(config: Config, axis: str) -> int:
    """How many blocks halve this axis.

    The library's own formula counts every block for both, which is wrong where a block halves one
    alone (diffusers issue 13601).
    """
    scaling, kinds = config["spatio_temporal_scaling"], config["downsample_type"]
    if isinstance(scaling, bool):
        scaling = [scaling] * len(kinds)
    # The blocks of 0.9.0 halve all axes and know no `downsample_type`.
    old = [block == "LTXVideoDownBlock3D" for block in config["down_block_types"]]
    halved = (
        scales and (plain or kind in ("conv", "spatiotemporal", axis))
        for scales, plain, kind in zip(scaling, old, kinds, strict=False)
    )
    return sum(map(bool, halved))


def _decode(vae: Any, latents: torch.Tensor) -> Pieces:
    """Some are told how noisy their latents are: not at all. Some add noise of their own."""
    time = latents.new_zeros(1) if vae.config.timestep_conditioning else None
    devices = [latents.device] if latents.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(_SEED)
        pixels = vae.decode(latents, time).sample
    yield pixels


LTX = Family(
    class_name="AutoencoderKLLTXVideo",
    name="ltx",
    published=("LTX-Video 0.9",),
    exact=_exact,
    rounding=1e-5,
    strides=_strides,
    buffers=True,
    decode=_decode,
    samples=(
        Sample(
            name="ltx090",
            arguments={
                "latent_channels": 8, "block_out_channels": (8, 8, 16, 16),
                "decoder_block_out_channels": (8, 8, 16, 16), "layers_per_block": (1, 1, 1, 1, 1),
                "decoder_layers_per_block": (1, 1, 1, 1, 1), "scaling_factor": 0.9,
            },
            temporal_stride=8,
            spatial_stride=32,
            channels=8,
            identity="44d44b4d507e3e20",
        ),
        Sample(
            name="ltx095",
            arguments={
                "latent_channels": 8, "block_out_channels": (8, 16, 32, 64, 64),
                "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
                "decoder_block_out_channels": (8, 16, 32), "layers_per_block": (1, 1, 1, 1, 1),
                "decoder_layers_per_block": (1, 1, 1, 1), "spatio_temporal_scaling": (True,) * 4,
                "decoder_spatio_temporal_scaling": (True,) * 3,
                "decoder_inject_noise": (False,) * 4,
                "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
                "upsample_residual": (True,) * 3, "upsample_factor": (2,) * 3,
                "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
            },
            temporal_stride=8,
            spatial_stride=32,
            channels=8,
            identity="a9e7be772dd4b2be",
        ),
    ),
)  # fmt: skip

LTX2 = Family(
    class_name="AutoencoderKLLTX2Video",
    name="ltx2",
    published=("LTX-2",),
    exact=_exact,
    rounding=1e-5,
    strides=_strides,
    buffers=True,
    decode=_decode,
    samples=(
        Sample(
            name="ltx2",
            arguments={
                "latent_channels": 8, "block_out_channels": (16, 32, 64, 64),
                "decoder_block_out_channels": (8, 16, 32), "layers_per_block": (1, 1, 1, 1, 1),
                "decoder_layers_per_block": (1, 1, 1, 1),
                "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
            },
            temporal_stride=8,
            spatial_stride=32,
            channels=8,
            identity="8e60196a4b2b47f0",
        ),
    ),
)  # fmt: skip
