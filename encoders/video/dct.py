"""The embedded video encoder: a fixed transform, without weights.

A causal orthonormal 3-D DCT that keeps 16 of the 768 numbers in a block of 4 × 8 × 8 RGB pixels.
It stands in for a learned VAE and has the latent shape of one (4 × 8 × 8, 16 channels, as Wan
2.1), so that all around the encoder is real on a machine without weights, GPU or network. Its
latents are transform coefficients; nothing about them is learned or perceptual.

    pixels    RGB in [-1, 1]: `FrameBlock.rgb()` / 127.5 - 1 without its rounding and clipping, so
              that plane values outside the RGB gamut keep their excess
    colour    orthonormal opponents: Y = (R+G+B)/√3, C1 = (R-B)/√2, C2 = (2G-R-B)/√6
    blocks    frame 0 alone in 1 × 8 × 8, its coefficients × 2 (a static scene then has the same
              value in every latent frame); the others in 4 × 8 × 8
    channels  0-8    Y at kt = 0, (ky, kx) = 00 01 10 11 02 20 12 21 03
              9-13   Y of later frames, (kt, ky, kx) = 100 101 110 200 300;
                     of the first frame, (ky, kx) = 30 40 31 22 13
              14 15  DC of C1, DC of C2
    stored    (coefficient - mean) / std as float16, one mean and std per channel; over 48 real
              clips the stored channels of later frames had means within 0.11 of 0 and stds of
              0.56 to 1.41

Why these 16: PSNR over RGB on 20 windows, up to 61 frames each, of 11 real clips was 31.8 dB, and
36.4 dB on images. The best (irregular) set for those very windows reached 31.9, spatial
frequencies alone 28.8, and a fitted linear map (PCA) did 0.35 dB worse than a DCT on clips it had
not been fitted to.

All of it is linear, so the colour matrix is folded into the transform and RGB is never built;
`dct_bands` says how. The same frames give the same bytes on machines of one CPU kind: on others
float32 products round differently, and the last bit of a value may differ.
benchmarks/dct.py measures it: about twice as fast as decoding H.264.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from telecine.encoders.frames import FrameBlock, Latents, Pixels, checked
from telecine.encoders.video.dct_bands import SIDE, Basis, Coefficient, Forward, Inverse
from telecine.manifests.fingerprint import JsonValue, fingerprint

GROUP = 4  # frames of a block, but for the first


def _luma(codes: str) -> tuple[Coefficient, ...]:
    return tuple(Coefficient(0, *map(int, code)) for code in codes.split())


_SPATIAL = _luma("000 001 010 011 002 020 012 021 003")
_CHROMA = (Coefficient(1, 0, 0, 0), Coefficient(2, 0, 0, 0))
FIRST = _SPATIAL + _luma("030 040 031 022 013") + _CHROMA
LATER = _SPATIAL + _luma("100 101 110 200 300") + _CHROMA
CHANNELS = len(LATER)

# Of the later frames of the 20 windows above.
MEAN = (-6.07, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.99, 0.0)
STD = (
    *(14.331, 1.694, 1.795, 0.750, 1.020, 1.055, 0.495, 0.425, 0.517),
    *(2.239, 0.485, 0.473, 1.259, 0.912),
    *(3.986, 3.335),
)


@dataclass(frozen=True)
class DctEncoder:
    """`VideoEncoder` over the transform above. Keeps no state: threads may share it."""

    latents_mean: tuple[float, ...] = MEAN
    latents_std: tuple[float, ...] = STD
    groups_per_block: int = 1  # how many frames arrive at a time; changes no byte

    normalised = True
    posterior = "mean"  # there is no other
    seconds_per_pixel = 1e-6
    temporal_stride = GROUP
    spatial_stride = SIDE
    channels = CHANNELS
    causal = True

    def identity(self) -> dict[str, JsonValue]:
        return {
            "name": "dct",
            "version": 1,
            "kind": "fixed transform",
            "weights": None,
            "pixels": "BT.709 RGB in [-1, 1], not clipped",
            "colors": ["(R+G+B)/sqrt(3)", "(R-B)/sqrt(2)", "(2G-R-B)/sqrt(6)"],
            "block": [GROUP, SIDE, SIDE],
            "first_frame": {"gain": 2, "color_kt_ky_kx": [list(c) for c in FIRST]},
            "later_frames": {"gain": 1, "color_kt_ky_kx": [list(c) for c in LATER]},
            "latents_mean": list(self.latents_mean),
            "latents_std": list(self.latents_std),
            "dtype": "float16",
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    def valid_frames(self, available: int) -> int:
        return 1 + (available - 1) // GROUP * GROUP if available > 0 else 0

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        self._check_frames(frames)
        if height < SIDE or width < SIDE or height % SIDE or width % SIDE:
            raise ValueError(f"a {width}×{height} picture: both must be multiples of {SIDE}")
        return CHANNELS, 1 + frames // GROUP, height // SIDE, width // SIDE

    def block_sizes(self, frames: int) -> Iterator[int]:
        self._check_frames(frames)
        step = GROUP * self.groups_per_block
        sizes = [min(step, frames - done) for done in range(1, frames, step)]
        return iter([1, *sizes])

    def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
        arriving = checked(blocks, self.block_sizes(frames))
        first = next(arriving)
        latents = np.empty(self.latent_shape(frames, *first.shape[1:]), np.float16)
        Forward(self._first, first)(first.planes, latents[:, 0])
        later, done = Forward(self._later, first), 1
        for block in arriving:
            y, cb, cr = block.planes
            for group in range(0, len(y), GROUP):
                span = slice(group, group + GROUP)
                later((y[span], cb[span], cr[span]), latents[:, done])
                done += 1
        return latents

    def decode(self, latents: Latents) -> Iterator[Pixels]:
        """Rounded and clipped. Raises ValueError unless `latents` is [16, T', H', W']."""
        if latents.ndim != 4 or latents.shape[0] != CHANNELS or 0 in latents.shape:
            raise ValueError(f"latents {latents.shape}: expected ({CHANNELS}, T', H', W')")
        height, width = (SIDE * size for size in latents.shape[2:])
        return self._decoded(latents, height, width)

    def _decoded(self, latents: Latents, height: int, width: int) -> Iterator[Pixels]:
        yield Inverse(self._first, height, width)(latents[:, 0])
        later = Inverse(self._later, height, width)
        for index in range(1, latents.shape[1]):
            yield later(latents[:, index])

    @property
    def _first(self) -> Basis:
        return Basis(1, 2.0, FIRST, self.latents_mean, self.latents_std)

    @property
    def _later(self) -> Basis:
        return Basis(GROUP, 1.0, LATER, self.latents_mean, self.latents_std)

    def _check_frames(self, frames: int) -> None:
        if frames < 1 or self.valid_frames(frames) != frames:
            raise ValueError(f"{frames} frames: the dct encoder takes 1 + {GROUP}k, as 1, 5, 9")
