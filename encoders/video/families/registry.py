"""Every family of VAEs, and how each streams. A new one is a record and a line here.

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

from telecine.encoders.video.families.base import Config, Family, Streaming
from telecine.encoders.video.families.cogvideox import COGVIDEOX
from telecine.encoders.video.families.cosmos import COSMOS
from telecine.encoders.video.families.hunyuan import HUNYUAN, HUNYUAN15
from telecine.encoders.video.families.ltx import LTX, LTX2
from telecine.encoders.video.families.mochi import MOCHI
from telecine.encoders.video.families.wan import QWEN_IMAGE, WAN
from telecine.encoders.video.families.windows import WindowStreaming
from telecine.infra.errors import UsageError
from telecine.manifests.specs import VaeSpec

FAMILIES = (WAN, QWEN_IMAGE, HUNYUAN, HUNYUAN15, LTX, LTX2, COGVIDEOX, COSMOS, MOCHI)

REFUSED = {
    "AutoencoderKL": "encodes single images",
    "AutoencoderDC": "encodes single images",
    "AutoencoderKLFlux2": "encodes single images",
    "AutoencoderKLHunyuanImage": "encodes single images",
    "AutoencoderKLQwenImage21": "encodes single images: its convolutions are folded to 2-D",
    "AutoencoderKLTemporalDecoder": "encodes each frame on its own and takes no clips",
    "AutoencoderKLAllegro": "encodes fixed windows only and leaves zeros beside them",
    "AutoencoderKLMagvit": "cannot go on after a clip that it refuses",
    "AutoencoderKLKVAEVideo": "has no log variance but a made-up one, and no constants",
    "AutoencoderKLMiniMaxH3": "wants pixels normalised as ImageNet's are",
    "AutoencoderVidTok": "takes no single frame",
}

_SHARED = 5  # latent frames of a window that the one before it has given


def family_of(class_name: str) -> Family:
    """Raises UsageError where the class is none that we take."""
    for family in FAMILIES:
        if family.class_name == class_name:
            return family
    why = f": it {REFUSED[class_name]}" if class_name in REFUSED else ""
    raise UsageError(
        f"the VAE is an {class_name}, which is not supported{why}; "
        f"supported are {', '.join(sorted(family.class_name for family in FAMILIES))}"
    )


def streaming_for(family: Family, config: Config, spec: VaeSpec) -> Streaming:
    """How a model of this family and config encodes clips, without tiles.

    Raises UsageError if its config cannot be streamed, or `spec.window` is given where clips
    stream exactly, or is no length of a window.
    """
    if family.exact is None:
        return _windows(family, config, spec.window)
    if spec.window is not None:
        raise UsageError(
            f"[vae] window = {spec.window}: {family.class_name} streams clips of any length "
            "exactly, without windows of ours; leave it out"
        )
    return family.exact(config)


def _windows(family: Family, config: Config, asked: int | None) -> Streaming:
    """Larger pictures want a `window` shorter than the record's, or `tile`."""
    stride, _ = family.strides(config)
    window = asked or 1 + stride * (family.window or 1)
    if window % stride != 1 % stride or window <= stride:
        below = 1 + stride * max((window - 1) // stride, 1)
        raise UsageError(
            f"[vae] window = {window}: {family.class_name} encodes 1 + k·{stride} frames at once, "
            f"k at least 1; {below} or {below + stride} would do"
        )
    return WindowStreaming(window, min(1 + stride * (_SHARED - 1), window - stride), stride)
