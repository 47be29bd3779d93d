"""The interface that every video encoder stands behind, the DCT and learned VAEs alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from telecine.encoders.frames import FrameBlock, Latents, Pixels
from telecine.manifests.fingerprint import JsonValue


class VideoEncoder(Protocol):
    """Frames to latents and back, in bounded memory.

    T pixel frames  ──▶  T' = latent frames, [C, T', H / spatial_stride, W / spatial_stride]
    causal:  ▏0▕ 1 2 3 4 ▏5 6 7 8 ▏…      T = 1 + k · temporal_stride, T' = 1 + k
    """

    @property
    def temporal_stride(self) -> int: ...
    @property
    def spatial_stride(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def causal(self) -> bool:
        """The first frame is encoded on its own, as a still image would be."""

    @property
    def latents_mean(self) -> tuple[float, ...]:
        """Of the encoder's own latents: raw = normalised × `latents_std` + `latents_mean`.

        One number per channel. A model that has them per latent frame too gives C × n, channel by
        channel; the last is that of every later frame.
        """

    @property
    def latents_std(self) -> tuple[float, ...]: ...
    @property
    def normalised(self) -> bool:
        """Stored latents are normalised, else raw."""

    @property
    def posterior(self) -> str:
        """What is stored: mean, sample, or moments (the C means, then the C log variances)."""

    @property
    def seconds_per_pixel(self) -> float:
        """A bound far above what it needs where it runs; beyond it, it hangs."""

    def identity(self) -> dict[str, JsonValue]:
        """Everything that changes a latent's bytes: name, version, weights digest, constants."""

    @property
    def fingerprint(self) -> str:
        """`telecine.manifests.fingerprint.fingerprint(self.identity())`"""

    def valid_frames(self, available: int) -> int:
        """The most frames, of `available`, that this encoder takes; 0 if it takes none."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T', H', W') as stored (2C of moments) of a valid frame count and size on the grid."""

    def block_sizes(self, frames: int) -> Iterator[int]:
        """How many frames each block given to `encode` must have; they add up to `frames`."""

    def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
        """float16 [C, T', H', W'] of `frames` frames arriving as `block_sizes` says.

        Holds a few blocks and the latents, never the clip. `seed` decides a sampled posterior.
        Raises ValueError if the blocks do not have the announced sizes, UsageError where the model
        cannot be loaded or is not what its config says.
        """

    def decode(self, latents: Latents) -> Iterator[Pixels]:
        """uint8 RGB blocks [t, H, W, 3], together the T frames of latents as stored."""
