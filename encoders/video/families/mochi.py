"""Mochi: attention over all that was, so in windows; sines of its pixels."""

from __future__ import annotations

import math
from typing import Any

import torch

from telecine.encoders.video.families.base import Config, Family, Sample, given_stride


def _strides(config: Config) -> tuple[int, int]:
    """(time, space), else by what the blocks expand."""
    temporal, spatial = (
        given_stride(config, axis) or math.prod(config[f"{axis}_expansions"])
        for axis in ("temporal", "spatial")
    )
    return temporal, spatial


def _prepare(vae: Any, dtype: torch.dtype) -> None:
    """Its sines are taken in float32, and go on in the dtype of the rest."""
    vae.encoder.fourier_features.register_forward_hook(
        lambda _module, _given, features: features.to(dtype)
    )


MOCHI = Family(
    class_name="AutoencoderKLMochi",
    name="mochi",
    published=("Mochi",),
    window=16,  # 97 frames, which an 80 GB card takes at 480p in bfloat16, hardly more
    strides=_strides,
    # It takes sines of pixels times 2π · 2^7: rounded to half precision first, they are noise.
    fine_pixels=True,
    prepare=_prepare,
    samples=(
        Sample(
            name="mochi",
            arguments={
                "encoder_block_out_channels": (32, 32, 32, 32),
                "decoder_block_out_channels": (32, 32, 32, 32),
                "latent_channels": 4, "layers_per_block": (1, 1, 1, 1, 1),
            },
            constants=4,
            temporal_stride=6,
            spatial_stride=8,
            channels=4,
            identity="aeed3e102e4705d6",
        ),
    ),
)  # fmt: skip
