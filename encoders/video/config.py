"""What the config of a diffusers VAE says of its latents, with what its family's record adds.

    strides    from the ratios in the config, else from the blocks that make them
    channels   latent_channels | z_dim
    constants  normalised = (raw - mean) / std, where
               mean = latents_mean | shift_factor | 0
               std  = (latents_std | 1) / (scaling_factor | 1) / the family's own scale

`model` holds a loaded model against all of it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telecine.encoders.torchvision_ops import mend_torchvision
from telecine.encoders.video.families.base import Family
from telecine.encoders.video.families.registry import family_of
from telecine.infra.errors import UsageError
from telecine.infra.extras import load
from telecine.manifests.fingerprint import JsonValue

DECODERS = ("decode", "up_block", "upsample")  # how keys of the config begin that are its alone


@dataclass(frozen=True)
class VaeConfig:
    class_name: str
    family: Family
    full: Mapping[str, Any]  # the file's keys but those that begin with "_"; the class's defaults
    temporal_stride: int
    spatial_stride: int
    channels: int
    latents_mean: tuple[float, ...]  # C, or C × n, as `VideoEncoder` has it
    latents_std: tuple[float, ...]

    @property
    def chunk(self) -> int:
        """Valid frame counts are 1 + k · chunk."""
        return self.family.chunk or self.temporal_stride

    @property
    def encoding(self) -> dict[str, JsonValue]:
        """What latents may depend on: not how the library's next release builds a decoder."""
        return {k: v for k, v in self.full.items() if not k.startswith(DECODERS)}

    @property
    def causal(self) -> bool:
        return self.family.causal and bool(self.full.get("encoder_causal", True))


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
    family = family_of(class_name)
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    full = _defaults(class_name) | given
    try:
        channels = int(full.get("latent_channels") or full["z_dim"])
        mean, std = _constants(full | dict(buffers or {}), channels, family.scale)
        temporal, spatial = family.strides(full)
        return VaeConfig(
            class_name=class_name,
            family=family,
            full=full,
            temporal_stride=temporal,
            spatial_stride=spatial,
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
