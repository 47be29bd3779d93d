"""What the config of a diffusers VAE says of its latents, and what only its class knows.

    strides    from the ratios in the config, else from the blocks that make them
    channels   latent_channels | z_dim
    constants  normalised = (raw - mean) / std, where
               mean = latents_mean | shift_factor | 0
               std  = (latents_std | 1) / (scaling_factor | 1) / the class's own scale

`vae_model` holds a loaded model against all of it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telecine.encoders.torchvision_ops import mend_torchvision
from telecine.infra.errors import UsageError
from telecine.infra.extras import load
from telecine.manifests.fingerprint import JsonValue


@dataclass(frozen=True)
class Kind:
    """What a class does that its config does not say."""

    name: str  # what its builds are called
    causal: bool = True  # the first frame is encoded as a still image would be
    chunk: int | None = None  # valid frame counts are 1 + k · chunk; None: 1 + k · stride
    gaussian: bool = True  # it has a log variance to store or to sample from
    scale: float = 1.0  # what its trainers multiply normalised latents by
    buffers: bool = False  # the constants are tensors among its weights
    # It takes sines of pixels times 2π · 2^7: rounded to half precision first, they are noise.
    fine_pixels: bool = False


KINDS = {
    "AutoencoderKLWan": Kind("wan"),
    "AutoencoderKLQwenImage": Kind("qwenimage"),
    # Group norms take their statistics over all frames that are encoded at once.
    "AutoencoderKLHunyuanVideo": Kind("hunyuan", causal=False),
    "AutoencoderKLHunyuanVideo15": Kind("hunyuan15"),
    "AutoencoderKLLTXVideo": Kind("ltx", buffers=True),
    "AutoencoderKLLTX2Video": Kind("ltx2", buffers=True),
    # It encodes 8 frames at a time, what is left over with the first, and was trained on 1 + 8k.
    "AutoencoderKLCogVideoX": Kind("cogvideox", causal=False, chunk=8),
    # 0.5 is the sigma_data of the scheduler that its diffusion models come with.
    "AutoencoderKLCosmos": Kind("cosmos", gaussian=False, scale=0.5),
    "AutoencoderKLMochi": Kind("mochi", fine_pixels=True),
}

DECODERS = ("decode", "up_block", "upsample")  # how keys of the config begin that are its alone

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


@dataclass(frozen=True)
class VaeConfig:
    class_name: str
    kind: Kind
    full: Mapping[str, Any]  # the file's keys but those that begin with "_"; the class's defaults
    temporal_stride: int
    spatial_stride: int
    channels: int
    latents_mean: tuple[float, ...]  # C, or C × n, as `VideoEncoder` has it
    latents_std: tuple[float, ...]

    @property
    def chunk(self) -> int:
        """Valid frame counts are 1 + k · chunk."""
        return self.kind.chunk or self.temporal_stride

    @property
    def encoding(self) -> dict[str, JsonValue]:
        """What latents may depend on: not how the library's next release builds a decoder."""
        return {k: v for k, v in self.full.items() if not k.startswith(DECODERS)}

    @property
    def causal(self) -> bool:
        return self.kind.causal and bool(self.full.get("encoder_causal", True))


def kind_of(class_name: str) -> Kind:
    """Raises UsageError where the class is none that we take."""
    kind = KINDS.get(class_name)
    if kind is None:
        why = f": it {REFUSED[class_name]}" if class_name in REFUSED else ""
        raise UsageError(
            f"the VAE is an {class_name}, which is not supported{why}; "
            f"supported are {', '.join(sorted(KINDS))}"
        )
    return kind


def library_class(class_name: str) -> Any:
    """The class of that name in diffusers. Raises UsageError where there is none to import."""
    mend_torchvision()
    found = getattr(load("diffusers", "vae", "an encoder diffusers:..."), class_name, None)
    if found is None:
        raise UsageError(
            f"the installed diffusers has no {class_name}: pip install -U 'telecine[vae]'"
        )
    return found


def read_config(
    config: Mapping[str, Any], buffers: Mapping[str, Sequence[float]] | None = None
) -> VaeConfig:
    """Of the contents of config.json and, where the class keeps them there, the constants among
    its weights (`latents_mean`, `latents_std`).

    Raises UsageError where the class is not supported or the config contradicts itself.
    """
    class_name = str(config.get("_class_name"))
    kind = kind_of(class_name)
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    full = _defaults(class_name) | given
    try:
        channels = int(full.get("latent_channels") or full["z_dim"])
        mean, std = _constants(full | dict(buffers or {}), channels, kind.scale)
        return VaeConfig(
            class_name=class_name,
            kind=kind,
            full=full,
            temporal_stride=_temporal(full),
            spatial_stride=_spatial(full),
            channels=channels,
            latents_mean=mean,
            latents_std=std,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"the config of this {class_name} does not say what its latents are "
            f"({type(error).__name__}: {error}): is its config.json whole?"
        ) from error


def _defaults(class_name: str) -> dict[str, Any]:
    parameters = inspect.signature(library_class(class_name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _spatial(full: Mapping[str, Any]) -> int:
    given = full.get("spatial_compression_ratio") or full.get("scale_factor_spatial")
    if given:
        return _whole(given)
    if "spatial_expansions" in full:
        return math.prod(full["spatial_expansions"])
    if "downsample_type" in full:
        return int(full["patch_size"] * 2 ** _halvings(full, "spatial"))
    if "temperal_downsample" in full:
        return int(2 ** len(full["temperal_downsample"]))
    return int(2 ** (len(full["block_out_channels"]) - 1))


def _temporal(full: Mapping[str, Any]) -> int:
    given = full.get("temporal_compression_ratio") or full.get("scale_factor_temporal")
    if given:
        return _whole(given)
    if "temporal_expansions" in full:
        return math.prod(full["temporal_expansions"])
    if "downsample_type" in full:
        return int(full["patch_size_t"] * 2 ** _halvings(full, "temporal"))
    return int(2 ** sum(full["temperal_downsample"]))


def _halvings(full: Mapping[str, Any], axis: str) -> int:
    """How many of LTX's blocks halve this axis.

    The library's own formula counts every block for both, which is wrong where a block halves one
    alone (diffusers issue 13601).
    """
    scaling, kinds = full["spatio_temporal_scaling"], full["downsample_type"]
    if isinstance(scaling, bool):
        scaling = [scaling] * len(kinds)
    # The blocks of 0.9.0 halve all axes and know no `downsample_type`.
    old = [block == "LTXVideoDownBlock3D" for block in full["down_block_types"]]
    halved = (
        scales and (plain or kind in ("conv", "spatiotemporal", axis))
        for scales, plain, kind in zip(scaling, old, kinds, strict=False)
    )
    return sum(map(bool, halved))


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(f"a stride of {value}")
    return int(value)


def _constants(
    full: Mapping[str, Any], channels: int, scale: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    factor = scale * (full.get("scaling_factor") or 1.0)
    mean, std = full.get("latents_mean"), full.get("latents_std")
    if (mean is None) != (std is None):
        raise ValueError("of latents_mean and latents_std there is one alone")
    if mean is None or std is None:
        mean, std = [full.get("shift_factor") or 0.0] * channels, [1.0] * channels
    if len(mean) != len(std) or not len(mean) or len(mean) % channels:
        raise ValueError(f"{len(mean)} means and {len(std)} deviations of {channels} channels")
    if not all(map(math.isfinite, [*mean, *std])) or min(std) <= 0 or factor <= 0:
        raise ValueError("a mean, deviation or scaling_factor that is no scale")
    return tuple(map(float, mean)), tuple(float(value) / factor for value in std)
