"""What there is to know of a class of VAE that its config does not say, in one record.

    Family ─┬─ how its clips stream    exactly, or in windows
            ├─ strides, constants      where its config has them, and what is not in it
            ├─ quirks                  of pixels, of the model once it is loaded
            ├─ how it decodes          in pieces where it carries what they need, else whole
            └─ samples                 small ones, for tests

How a clip goes through an encoder a few frames at a time:

frames   ▏0▕▏1 2 3 4▕▏5 6 7 8▕ ...   as `chunks` says
            │    └── what later frames need of earlier ones stays in the stream
latents  ▏0▕▏  1    ▕▏   2   ▕ ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch

from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import JsonValue

Config: TypeAlias = Mapping[str, Any]  # a config.json's keys, with the class's defaults
Pieces: TypeAlias = Iterator[torch.Tensor]


class Stream(Protocol):
    """One clip on its way."""

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [1, 3, t, H, W] in [-1, 1], t as announced → the posterior's parameters
        [1, P, t', H', W'] (t' ≥ 0) that no later frame can change any more. The last push gives
        all that remain.
        """


class Streaming(Protocol):
    """How one class of VAE streams; holds the options, not the model."""

    def chunks(self, frames: int) -> Iterator[int]:
        """Sizes of the pieces to push; they add up to `frames`."""

    def open(self, vae: torch.nn.Module, frames: int) -> Stream: ...

    def identity(self) -> JsonValue:
        """What of it changes latents: None where it equals the model's own `encode` but for
        rounding.
        """


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A config with the strides of a real model and few channels; tests fill in the weights."""

    name: str
    arguments: Config  # of the class
    constants: int = 0  # how many latents_mean and latents_std it is given beside these
    temporal_stride: int
    spatial_stride: int
    channels: int
    # How its identity's SHA-256 begins, in float32, of no weights. Another one, and every build
    # that was made with this class is made again.
    identity: str


def given_strides(config: Config) -> tuple[int, int]:
    """(time, space) as the config gives them; in space else a half with every block but one.

    Raises KeyError, TypeError or ValueError where it does not say, as all of these do.
    """
    spatial = given_stride(config, "spatial") or 2 ** (len(config["block_out_channels"]) - 1)
    temporal = given_stride(config, "temporal")
    if temporal is None:
        raise ValueError("no temporal stride")
    return temporal, spatial


def given_stride(config: Config, axis: str) -> int | None:
    value = config.get(f"{axis}_compression_ratio") or config.get(f"scale_factor_{axis}")
    if not value:
        return None
    if value != int(value):
        raise ValueError(f"a stride of {value}")
    return int(value)


def demand(config: Config, key: str, value: object) -> None:
    """Raises UsageError where the config has another value there."""
    given = config.get(key, value)
    if given != value:
        raise UsageError(
            f"the VAE's config says {key} = {given}: clips can be streamed through this class "
            f"with {value} alone"
        )


def decode_whole(vae: Any, latents: torch.Tensor) -> Pieces:
    yield vae.decode(latents).sample


def as_loaded(_vae: Any, _dtype: torch.dtype) -> None:
    """Nothing is to be done."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A class of diffusers."""

    class_name: str
    name: str  # what its builds are called
    published: tuple[str, ...]  # the models that come with it, as the documents call them
    samples: tuple[Sample, ...]

    # One of the two: of any length, as the model's own `encode`; or the latent frames of a window
    # after its first, beyond which it is an approximation.
    exact: Callable[[Config], Streaming] | None = None
    window: int | None = None
    rounding: float = 0.0  # how far an exact stream of a sample may be from `encode`, in float32

    strides: Callable[[Config], tuple[int, int]] = given_strides  # (time, space)
    chunk: int | None = None  # valid frame counts are 1 + k · chunk; None: 1 + k · temporal stride
    causal: bool = True  # the first frame is encoded as a still image would be

    scale: float = 1.0  # what its trainers multiply normalised latents by
    buffers: bool = False  # the constants are tensors among its weights
    gaussian: bool = True  # it has a log variance to store or to sample from

    fine_pixels: bool = False  # pixels rounded to half precision are noise to it
    prepare: Callable[[Any, torch.dtype], None] = as_loaded  # the model in memory, in that dtype

    # [1, C, T', H', W'] → pixels [1, 3, t, H, W] about in [-1, 1], together all T frames
    decode: Callable[[Any, torch.Tensor], Pieces] = decode_whole
