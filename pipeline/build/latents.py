"""What a sample's row says of its latents: statistics, and a canary's round trip."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from telecine.encoders.frames import FrameBlock, Latents, Pixels
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import MediaError, OutOfDeviceMemory, Reason

CANARY_FRAMES = 17  # at most; 1 + 4k, 1 + 8k
MARGIN = 2  # what a decoder that looks ahead is given, in first frames
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

    Of a causal encoder they are decoded from the first latents alone, of any other from those of
    about twice as many frames. There later latents would change them a little: near enough for a
    check, and a long clip takes no more memory than a short one.
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

        0, not measured, where the latents are not finite, or decoding takes more memory than there
        is: the clip itself is good.
        """
        given = np.concatenate(self._kept)
        frames, height, width = given.shape[:3]
        if not self._encoder.causal:
            frames = self._encoder.valid_frames(MARGIN * frames) or frames
        latents = latents[:, : self._encoder.latent_shape(frames, height, width)[1]]
        if not np.isfinite(latents).all():
            return 0.0
        try:
            decoded = _first_frames(self._encoder.decode(latents), len(given))
        except (OutOfDeviceMemory, MemoryError):
            return 0.0
        return psnr_db(given, decoded)


def _first_frames(blocks: Iterator[Pixels], count: int) -> Pixels:
    frames = (frame for block in blocks for frame in block)
    return np.stack(list(islice(frames, count)))


def psnr_db(given: Pixels, decoded: Pixels) -> float:
    """Peak signal-to-noise ratio of uint8 pictures, in dB, from 0.001 to 100."""
    squares = 0
    for one, other in zip(given, decoded, strict=True):
        error = np.subtract(one, other, dtype=np.int32)
        squares += int(np.square(error, out=error).sum(dtype=np.int64))
    if squares == 0:
        return MOST_DB
    mean_square = squares / given.size
    db = 10 * math.log10(255**2 / mean_square)
    return round(min(max(db, LEAST_DB), MOST_DB), 3)
