"""What a sample's row says of its latents: statistics, and a canary's round trip."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from encoders.frames import FrameBlock, Latents, Pixels
from encoders.video import VideoEncoder
from infra.errors import MediaError, Reason

CANARY_FRAMES = 17  # at most; 1 + 4k, 1 + 8k
MOST_DB = 100.0  # as if equal
LEAST_DB = 0.001  # 0 stands for: not measured


def latent_statistics(latents: Latents) -> dict[str, Any]:
    """Mean, standard deviation and largest magnitude, of all values and of each stored channel.

    Columns of schemas.Sample, with six significant digits; float64 sums, a latent frame at a time.
    Raises MediaError (NOT_FINITE) where a value is NaN or infinite.
    """
    channels = len(latents)
    total, squares = np.zeros(channels), np.zeros(channels)
    largest = 0.0
    for frame in latents.swapaxes(0, 1):
        values = frame.astype(np.float32).reshape(channels, -1)
        most = float(np.abs(values).max())
        if not math.isfinite(most):
            raise MediaError(Reason.NOT_FINITE, "the encoder returned NaN or infinity")
        largest = max(largest, most)
        total += values.sum(axis=1, dtype=np.float64)
        squares += np.square(values).sum(axis=1, dtype=np.float64)
    count = latents.size // channels
    means, second = total / count, squares / count
    mean = float(means.mean())  # channels are of one size
    return {
        "latent_mean": _rounded(mean),
        "latent_std": _rounded(max(float(second.mean()) - mean * mean, 0.0) ** 0.5),
        "latent_absmax": _rounded(largest),
        "channel_means": tuple(map(_rounded, means)),
        "channel_stds": tuple(map(_rounded, np.sqrt(np.maximum(second - means * means, 0.0)))),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


class Canary:
    """The first frames of a clip, kept on their way into an encoder to compare with what it stores.

    Of a causal encoder they are decoded from the first latents alone; any other gets all of them,
    for as long as it takes to give the first frames.
    """

    def __init__(self, encoder: VideoEncoder, frames: int) -> None:
        self._encoder = encoder
        most = min(CANARY_FRAMES, frames)
        self._frames = encoder.valid_frames(most) or most
        self._kept: list[Pixels] = []

    def watch(self, blocks: Iterable[FrameBlock]) -> Generator[FrameBlock, None, None]:
        """The same blocks."""
        left = self._frames
        for block in blocks:
            if left > 0:
                y, cb, cr = (plane[:left] for plane in block.planes)
                self._kept.append(FrameBlock((y, cb, cr), block.colors).rgb())
                left -= len(y)
            yield block

    def psnr_db(self, latents: Latents) -> float:
        """Of the stored latents decoded against the frames that went in, over RGB; to 0.001 dB.

        0 where the latents are not finite.
        """
        given = np.concatenate(self._kept)
        if self._encoder.causal:
            height, width = given.shape[1:3]
            latents = latents[:, : self._encoder.latent_shape(len(given), height, width)[1]]
        if not np.isfinite(latents).all():
            return 0.0
        decoded = _first_frames(self._encoder.decode(latents), len(given))
        return psnr_db(given, decoded)


def _first_frames(blocks: Iterator[Pixels], count: int) -> Pixels:
    frames = (frame for block in blocks for frame in block)
    return np.stack(list(islice(frames, count)))


def psnr_db(given: Pixels, decoded: Pixels) -> float:
    """Peak signal-to-noise ratio of uint8 pictures, in dB, from 0.001 to 100."""
    error = np.subtract(given, decoded, dtype=np.float32)
    mean_square = float(np.mean(np.square(error), dtype=np.float64))
    if mean_square == 0:
        return MOST_DB
    db = 10 * math.log10(255**2 / mean_square)
    return round(min(max(db, LEAST_DB), MOST_DB), 3)
