"""The interface that every video encoder stands behind, the DCT and learned VAEs alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from encoders.frames import FrameBlock, Latents, Pixels
from manifests.fingerprint import JsonValue


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
        """Per channel, subtracted before `latents_std` divides: raw = stored × std + mean."""

    @property
    def latents_std(self) -> tuple[float, ...]: ...

    def identity(self) -> dict[str, JsonValue]:
        """Everything that changes a latent's bytes: name, version, weights digest, constants."""

    @property
    def fingerprint(self) -> str:
        """`manifests.fingerprint.fingerprint(self.identity())`"""

    def valid_frames(self, available: int) -> int:
        """The most frames, of `available`, that this encoder takes; 0 if it takes none."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T', H', W') for a valid frame count and a size on the grid."""

    def block_sizes(self, frames: int) -> Iterator[int]:
        """How many frames each block given to `encode` must have; they add up to `frames`."""

    def encode(self, blocks: Iterable[FrameBlock], frames: int) -> Latents:
        """Normalised float16 [C, T', H', W'] of `frames` frames arriving as `block_sizes` says.

        Holds one block and the latents, never the clip. Raises ValueError if the blocks do not
        have the announced sizes.
        """

    def decode(self, latents: Latents) -> Iterator[Pixels]:
        """uint8 RGB blocks [t, H, W, 3], together the T frames of the latents."""
