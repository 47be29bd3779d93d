"""Which class of VAE streams how.

Exactly, without limit of length      Wan, Qwen-Image, CogVideoX, HunyuanVideo 1.0, LTX, LTX-2
Exactly up to a window, then nearly   HunyuanVideo 1.5, Cosmos, Mochi: attention over all that was

How near, with tiny random weights and noise as pixels, over a clip of two windows and a half: RMS
error as a fraction of the latents' standard deviation, by latent frames shared between windows.
Trained weights are another matter; the order of the columns should hold.

    shared latents           1      3      5      9
    HunyuanVideo 1.5      0.43   0.17   0.06   0.02
    Mochi                 0.34   0.20   0.12   0.08
    Cosmos                0.50   0.54   0.35   0.26

Five are shared, so a long clip costs about 1.4 times what one window of its length would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from telecine.encoders.video.families.base import Streaming
from telecine.encoders.video.families.cogvideox import CogVideoXStreaming
from telecine.encoders.video.families.hunyuan import HunyuanStreaming
from telecine.encoders.video.families.ltx import LtxStreaming
from telecine.encoders.video.families.wan import WanStreaming
from telecine.encoders.video.families.windows import WindowStreaming
from telecine.infra.errors import UsageError
from telecine.manifests.specs import VaeSpec

_SHARED = 5  # latent frames of a window that the one before it has given

# Latent frames of a window after its first. Cosmos has constants for 16 latent frames, which is the
# length it was made for; one more for the others is 65 and 97 frames, which an 80 GB card takes at
# 480p in bfloat16, hardly more. Larger pictures want `window` shorter, or `tile`.
_LATER = {
    "AutoencoderKLHunyuanVideo15": 16,
    "AutoencoderKLCosmos": 15,
    "AutoencoderKLMochi": 16,
}


def streaming_for(class_name: str, config: Mapping[str, Any], spec: VaeSpec) -> Streaming:
    """How a model of this class and config (defaults filled in) encodes clips, without tiles.

    Raises UsageError if the class or its config cannot be streamed, or `spec.window` is given
    where clips stream exactly, or is no length of a window.
    """
    if class_name in _LATER:
        return _windows(class_name, config, spec.window)
    make = _EXACT.get(class_name)
    if make is None:
        raise UsageError(
            f"the VAE is an {class_name}, and of that it is not known how later frames need "
            f"earlier ones; known are {', '.join(sorted([*_EXACT, *_LATER]))}"
        )
    if spec.window is not None:
        raise UsageError(
            f"[vae] window = {spec.window}: {class_name} streams clips of any length exactly, "
            "without windows of ours; leave it out"
        )
    return make(config)


def _wan(config: Mapping[str, Any]) -> Streaming:
    return WanStreaming(config.get("patch_size"))


def _cogvideox(config: Mapping[str, Any]) -> Streaming:
    return CogVideoXStreaming()


def _hunyuan(config: Mapping[str, Any]) -> Streaming:
    _want(config, "temporal_compression_ratio", 4)
    return HunyuanStreaming()


def _ltx(config: Mapping[str, Any]) -> Streaming:
    _want(config, "encoder_causal", True)
    _want(config, "patch_size_t", 1)
    return LtxStreaming()


_EXACT: dict[str, Callable[[Mapping[str, Any]], Streaming]] = {
    "AutoencoderKLWan": _wan,
    "AutoencoderKLQwenImage": _wan,
    "AutoencoderKLCogVideoX": _cogvideox,
    "AutoencoderKLHunyuanVideo": _hunyuan,
    "AutoencoderKLLTXVideo": _ltx,
    "AutoencoderKLLTX2Video": _ltx,
}


def _want(config: Mapping[str, Any], key: str, value: object) -> None:
    given = config.get(key, value)
    if given != value:
        raise UsageError(
            f"the VAE's config says {key} = {given}: clips can be streamed through this class "
            f"with {value} alone"
        )


def _windows(class_name: str, config: Mapping[str, Any], asked: int | None) -> Streaming:
    stride = int(
        config.get("temporal_compression_ratio") or math.prod(config["temporal_expansions"])
    )
    window = asked or 1 + stride * _LATER[class_name]
    if window % stride != 1 % stride or window <= stride:
        below = 1 + stride * max((window - 1) // stride, 1)
        raise UsageError(
            f"[vae] window = {window}: {class_name} encodes 1 + k·{stride} frames at once, k at "
            f"least 1; {below} or {below + stride} would do"
        )
    return WindowStreaming(window, min(1 + stride * (_SHARED - 1), window - stride), stride)
