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

from telecine.encoders.video.families.base import Family, Pieces, Sample

_STEP = 8  # frames
_DECODED = 2  # latent frames at a time, as the library has it; an odd one goes with the first


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


def _decode(vae: Any, latents: torch.Tensor) -> Pieces:
    """As the library, but each piece is given away as it is made."""
    frames = latents.shape[2]
    first = min(frames, _DECODED + frames % _DECODED)
    rest = [_DECODED] * ((frames - first) // _DECODED)
    cache = None
    for batch in torch.split(latents, [first, *rest], dim=2):
        if vae.post_quant_conv is not None:
            batch = vae.post_quant_conv(batch)
        piece, cache = vae.decoder(batch, conv_cache=cache)
        yield piece


COGVIDEOX = Family(
    class_name="AutoencoderKLCogVideoX",
    name="cogvideox",
    published=("CogVideoX",),
    exact=lambda config: CogVideoXStreaming(),
    # It encodes 8 frames at a time, what is left over with the first, and was trained on 1 + 8k.
    chunk=_STEP,
    causal=False,
    decode=_decode,
    samples=(
        Sample(
            name="cogvideox",
            arguments={
                "block_out_channels": (8, 8, 16, 16), "latent_channels": 4, "layers_per_block": 1,
                "norm_num_groups": 4, "scaling_factor": 1.15258426,
            },
            temporal_stride=4,
            spatial_stride=8,
            channels=4,
            identity="cd8f20f1a19a053d",
        ),
    ),
)  # fmt: skip
