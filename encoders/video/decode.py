"""Raw latents back to pixels: in pieces where the class carries what they need, else whole.

Wan, Qwen-Image and CogVideoX decode in pieces themselves but keep all of them on the device to the
end; here each is given away as it is made, and equals theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

BATCH = 2  # CogVideoX's latent frames at a time; an odd one goes with the first
SEED = 0  # of the noise that some decoders of LTX-Video add

Pieces = Iterator[torch.Tensor]


def decode_pieces(vae: Any, latents: torch.Tensor) -> Pieces:
    """[1, C, T', H', W'] → pixels [1, 3, t, H, W] about in [-1, 1], together all T frames."""
    return _BY_CLASS.get(type(vae).__name__, _whole)(vae, latents)


def _wan(vae: Any, latents: torch.Tensor) -> Pieces:
    cache = _empty_cache(vae)
    for index, frame in enumerate(vae.post_quant_conv(latents).split(1, dim=2)):
        first = index == 0
        piece = vae.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=first)
        if vae.config.patch_size is not None:
            piece = sys.modules[type(vae).__module__].unpatchify(piece, vae.config.patch_size)
        yield piece


def _qwen(vae: Any, latents: torch.Tensor) -> Pieces:
    cache = _empty_cache(vae)
    for frame in vae.post_quant_conv(latents).split(1, dim=2):
        yield vae.decoder(frame, feat_cache=cache, feat_idx=[0])


def _empty_cache(vae: Any) -> list[Any]:
    """A slot for each causal convolution; a few more do no harm."""
    return [None] * sum(1 for _ in vae.decoder.modules())


def _cogvideox(vae: Any, latents: torch.Tensor) -> Pieces:
    frames = latents.shape[2]
    first = min(frames, BATCH + frames % BATCH)
    cache = None
    for batch in torch.split(latents, [first, *[BATCH] * ((frames - first) // BATCH)], dim=2):
        if vae.post_quant_conv is not None:
            batch = vae.post_quant_conv(batch)
        piece, cache = vae.decoder(batch, conv_cache=cache)
        yield piece


def _ltx(vae: Any, latents: torch.Tensor) -> Pieces:
    """Some are told how noisy their latents are: not at all. Some add noise of their own."""
    time = latents.new_zeros(1) if vae.config.timestep_conditioning else None
    devices = [latents.device] if latents.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(SEED)
        pixels = vae.decode(latents, time).sample
    yield pixels


def _whole(vae: Any, latents: torch.Tensor) -> Pieces:
    yield vae.decode(latents).sample


_BY_CLASS: dict[str, Callable[[Any, torch.Tensor], Pieces]] = {
    "AutoencoderKLWan": _wan,
    "AutoencoderKLQwenImage": _qwen,
    "AutoencoderKLCogVideoX": _cogvideox,
    "AutoencoderKLLTXVideo": _ltx,
    "AutoencoderKLLTX2Video": _ltx,
}
