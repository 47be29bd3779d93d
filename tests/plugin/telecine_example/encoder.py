"""mosaic: the mean colour of every square of 16 px, of every frame. `[vae] encoder = "mosaic"`."""

from collections.abc import Iterable, Iterator

import numpy as np

from telecine.encoders.frames import FrameBlock, Latents, Pixels, checked
from telecine.encoders.kinds import EncoderKind, RunsOn
from telecine.manifests.fingerprint import JsonValue, fingerprint

SIDE = 16  # px


class Mosaic:
    """A `telecine.encoders.video.interface.VideoEncoder`. Each frame by itself: T' = T."""

    temporal_stride = 1
    spatial_stride = SIDE
    channels = 3
    causal = True
    latents_mean = (127.5, 127.5, 127.5)  # raw = normalised × std + mean
    latents_std = (64.0, 64.0, 64.0)
    normalised = True
    posterior = "mean"
    seconds_per_pixel = 1e-6

    def identity(self) -> dict[str, JsonValue]:
        return {"name": "mosaic", "side": SIDE, "mean": 127.5, "std": 64.0}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    def valid_frames(self, available: int) -> int:
        return max(available, 0)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        if frames < 1:
            raise ValueError(f"{frames} frames: expected one at least")
        if height < SIDE or width < SIDE or height % SIDE or width % SIDE:
            raise ValueError(f"a {width}×{height} picture: both must be multiples of {SIDE}")
        return 3, frames, height // SIDE, width // SIDE

    def block_sizes(self, frames: int) -> Iterator[int]:
        """Frame by frame: no more than one is held."""
        if frames < 1:
            raise ValueError(f"{frames} frames: expected one at least")
        return iter([1] * frames)

    def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
        made = []
        for block in checked(blocks, self.block_sizes(frames)):
            _, _, rows, columns = self.latent_shape(1, *block.shape[1:])
            squares = block.rgb().reshape(rows, SIDE, columns, SIDE, 3)
            made.append(squares.astype(np.float32).mean(axis=(1, 3)))
        raw = np.stack(made).transpose(3, 0, 1, 2)
        return ((raw - 127.5) / 64).astype(np.float16)

    def decode(self, latents: Latents) -> Iterator[Pixels]:
        for frame in latents.transpose(1, 2, 3, 0).astype(np.float32) * 64 + 127.5:
            colors = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
            yield colors.repeat(SIDE, axis=0).repeat(SIDE, axis=1)[None]


ENCODER = EncoderKind(make=lambda spec, device: Mosaic(), runs_on=RunsOn.CPU)
