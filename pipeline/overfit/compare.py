"""A sample's pictures against the footage's own: how near they are, and to which clip nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telecine.encoders.frames import Pixels
from telecine.pipeline.build.latents import psnr_db

SMALL = 24  # px: rows and columns of the pictures by which clips are told apart


@dataclass(frozen=True)
class Compared:
    """One clip: the sample made from its caption against the footage."""

    clip_id: str
    psnr_db: float  # of the sample against its footage; -inf where its frames have another size
    flat_db: float  # of the footage's mean colour against its footage
    round_trip_db: float  # of what was fed, decoded
    nearest: str  # the clip_id whose footage the sample is nearest to
    fed_nearest: str  # likewise of what was fed

    def __str__(self) -> str:
        near = "its own clip" if self.nearest == self.clip_id else f"clip {self.nearest}"
        return (
            f"{self.clip_id}: {self.psnr_db:.1f} dB against its footage (round trip "
            f"{self.round_trip_db:.1f}, flat colour {self.flat_db:.1f}), nearest to {near}"
        )

    @property
    def over_flat_db(self) -> float:
        """How far the sample is above the mean colour"""
        return self.psnr_db - self.flat_db

    @property
    def round_trip_over_flat_db(self) -> float:
        """How far what was fed is above the mean colour"""
        return self.round_trip_db - self.flat_db


def compared(
    clip_id: str, sample: Pixels, round_trip: Pixels, footage: Mapping[str, Pixels]
) -> Compared:
    """uint8 RGB [T, H, W, 3] of a clip's sample and round trip; the footage of every clip."""
    own = footage[clip_id]
    return Compared(
        clip_id,
        _psnr(sample, own),
        flat_db(own),
        _psnr(round_trip, own),
        nearest(sample, footage),
        nearest(round_trip, footage),
    )


def flat_db(frames: Pixels) -> float:
    """PSNR of their mean colour against frames [T, H, W, 3]: high where little is to be seen."""
    colour = frames.reshape(-1, 3).mean(0).round().astype(np.uint8)
    return psnr_db(frames, np.broadcast_to(colour, frames.shape))


def nearest(sample: Pixels, footage: Mapping[str, Pixels]) -> str:
    """The clip from which the sample is least distant."""
    return min(footage, key=lambda clip_id: small_distance(sample, footage[clip_id]))


def small_distance(one: Pixels, other: Pixels) -> float:
    """Mean square difference of small pictures of two films [T, H, W, 3] of any sizes."""
    return float(np.square(_small(one) - _small(other)).mean())


def _psnr(ours: Pixels, theirs: Pixels) -> float:
    return psnr_db(theirs, ours) if ours.shape == theirs.shape else float("-inf")


def _small(frames: Pixels) -> npt.NDArray[np.float32]:
    """[2, SMALL, SMALL, 3]: the first and the last frame, by means over their cells."""
    return np.stack([shrunk(frames[at], SMALL, SMALL) for at in (0, -1)])


def shrunk(frame: Pixels, height: int, width: int) -> npt.NDArray[np.float32]:
    """[height, width, 3] by the mean over each cell; a smaller picture has its pixels repeated."""
    rows, columns = _cells(frame.shape[0], height), _cells(frame.shape[1], width)
    # Sums up to each pixel, so that a cell's is a difference.
    sums = np.zeros((frame.shape[0] + 1, frame.shape[1] + 1, 3), np.float64)
    sums[1:, 1:] = frame.astype(np.float64).cumsum(0).cumsum(1)
    (top, bottom), (left, right) = rows, columns
    cells = (
        sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    )
    areas = (bottom - top)[:, None] * (right - left)[None]
    mean: npt.NDArray[np.float32] = (cells / areas[..., None]).astype(np.float32)
    return mean


def _cells(size: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each of `count` cells of `size` pixels begins and ends; none is empty."""
    starts = np.arange(count) * size // count
    ends = np.maximum((np.arange(count) + 1) * size // count, starts + 1)
    return starts, ends


def side_by_side(rows: Sequence[Sequence[Pixels]], height: int, gap: int = 6) -> Pixels:
    """A picture of pictures uint8 RGB [H, W, 3]: each made `height` px high, rows and columns."""
    sized = [[_sized(picture, height) for picture in row] for row in rows]
    wide = [max(row[at].shape[1] for row in sized) for at in range(len(sized[0]))]
    canvas = np.full(
        (len(rows) * (height + gap) + gap, sum(wide) + gap * (len(wide) + 1), 3), 255, np.uint8
    )
    for y, row in enumerate(sized):
        x = gap
        for picture, width in zip(row, wide, strict=True):
            top = gap + y * (height + gap)
            canvas[top : top + height, x : x + picture.shape[1]] = picture
            x += width + gap
    return canvas


def _sized(picture: Pixels, height: int) -> Pixels:
    width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
    sized: Pixels = shrunk(picture, height, width).round().astype(np.uint8)
    return sized
