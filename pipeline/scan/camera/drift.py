"""Drift: how the whole picture moves from one frame to another, and whether that can be told.

A drift is unknown, not 0, where the picture has no texture (or texture of one direction alone), is
too thin, or where no shift brings the two frames together: after a whip pan, in smoke.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.void]

PAIR = np.dtype(
    [
        ("first", "i8"),  # ordinals of the two frames
        ("last", "i8"),
        ("known", "?"),  # the drift could be told
        ("x", "f4"),  # drift of the picture from one to the other, widths as coded
        ("y", "f4"),  # heights as coded
        ("raw", "f4"),  # mean absolute difference
        ("left", "f4"),  # what is left of it after the drift is taken out
    ]
)
LEAST_SAMPLES = 8  # across and down: a thinner picture shows no drift
LEAST_TEXTURE = 1.0  # squared levels per sample, of the direction that has the least
LEAST_PEAK = 6.0  # standard deviations of the correlation, for a drift
LEAST_PEAK_AT_REST = 10.0  # ... for none
MOST_LEFT = 0.9  # of the difference, once a drift is taken out
LEAST_KNOWN = 0.5  # of a clip's pairs


@dataclass(frozen=True, eq=False)
class Anchor:
    """The luma samples of a frame that is compared with others, [h, w]."""

    picture: Floats

    @cached_property
    def spectrum(self) -> npt.NDArray[np.complex128]:
        height, width = self.picture.shape
        return np.fft.rfft2((self.picture - self.picture.mean()) * _window(height, width))

    @cached_property
    def texture(self) -> float:
        """Smaller eigenvalue of the mean structure tensor (Shi and Tomasi, 1994), levels².

        Along its direction the picture changes least: below the noise, a drift that way leaves
        no trace. Over gradients of the samples smoothed by 1-2-1.
        """
        if min(self.picture.shape) < LEAST_SAMPLES:
            return 0.0
        smooth = self.picture[:-2] + 2 * self.picture[1:-1] + self.picture[2:]
        smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 16
        across = (smooth[1:-1, 2:] - smooth[1:-1, :-2]).ravel() / 2
        down = (smooth[2:, 1:-1] - smooth[:-2, 1:-1]).ravel() / 2
        xx, yy, xy = (
            float(np.vecdot(*two)) for two in ((across,) * 2, (down,) * 2, (across, down))
        )
        return ((xx + yy) / 2 - math.hypot((xx - yy) / 2, xy)) / len(across)


@cache
def _window(height: int, width: int) -> Floats:
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)


@dataclass(frozen=True)
class Drift:
    known: bool
    x: float  # widths
    y: float  # heights
    raw: float  # mean absolute difference, levels
    left: float  # what is left of it

    def row(self, first: int, last: int) -> tuple[Any, ...]:
        """Of PAIR."""
        return first, last, self.known, self.x, self.y, self.raw, self.left


def drift(first: Anchor, last: Anchor) -> Drift:
    """Phase correlation (Kuglin and Hines, 1975) with a parabola through the peak."""
    a, b = first.picture, last.picture
    raw = float(np.abs(b - a).mean())
    unknown = Drift(False, 0.0, 0.0, raw, raw)
    if min(first.texture, last.texture) < LEAST_TEXTURE:
        return unknown
    if raw == 0:
        return Drift(True, 0.0, 0.0, 0.0, 0.0)
    height, width = a.shape
    cross = first.spectrum.conj() * last.spectrum
    size = np.abs(cross)
    surface = np.fft.irfft2(cross / (size + 1e-3 * size.max() + 1e-9), (height, width))
    y, x = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
    height_of_peak = float(surface[y, x]) / float(surface.std())
    exact_y, exact_x = _peak(surface[:, x], y), _peak(surface[y], x)
    left = float(np.abs(_shifted_difference(a, b, exact_x, exact_y)).mean())
    if left <= MOST_LEFT * raw and height_of_peak >= LEAST_PEAK:
        return Drift(True, exact_x / width, exact_y / height, raw, left)
    if max(abs(exact_x), abs(exact_y)) < 1 and height_of_peak >= LEAST_PEAK_AT_REST:
        return Drift(True, 0.0, 0.0, raw, raw)
    return unknown


def _peak(line: npt.NDArray[np.float64], place: int) -> float:
    """Signed place of a circular line's maximum, to a fraction of a sample."""
    count = len(line)
    before, top, after = line[place - 1], line[place], line[(place + 1) % count]
    curve = before - 2 * top + after
    exact = place + (0.5 * (before - after) / curve if curve < 0 else 0.0)
    return float(exact - count if exact > count / 2 else exact)


def _shifted_difference(a: Floats, b: Floats, x: float, y: float) -> Floats:
    """B - (a moved by x, y), where they overlap; linear between samples."""
    whole_x, whole_y = math.floor(x), math.floor(y)
    part_x, part_y = np.float32(x - whole_x), np.float32(y - whole_y)
    a = a[1:] * (1 - part_y) + a[:-1] * part_y  # row i is row i + 1 moved on by part_y
    a = a[:, 1:] * (1 - part_x) + a[:, :-1] * part_x
    b = b[1:, 1:]
    height, width = b.shape
    old_y, new_y = _overlap(whole_y, height)
    old_x, new_x = _overlap(whole_x, width)
    return b[new_y, new_x] - a[old_y, old_x]


def _overlap(shift: int, count: int) -> tuple[slice, slice]:
    """Where a line lies that was moved, before and after."""
    return slice(max(0, -shift), count - max(0, shift)), slice(
        max(0, shift), count - max(0, -shift)
    )


@dataclass(frozen=True)
class Path:
    """What the pairs of a clip tell together, as coded; None where they do not."""

    x: float | None = None  # widths per second
    y: float | None = None  # heights per second
    unexplained: float | None = None  # share of the change that the drift leaves


def summarise_pairs(pairs: Rows, seconds: npt.NDArray[np.float64]) -> Path:
    """Median drift per second over PAIR rows, where it could be told of at least half of them.

    `seconds` between the two frames of each.
    """
    known = pairs["known"]
    if not len(pairs) or known.mean() < LEAST_KNOWN:
        return Path()
    told, seconds = pairs[known], seconds[known]
    raw = float(told["raw"].sum(dtype=np.float64))
    return Path(
        x=float(np.median(told["x"] / seconds)),
        y=float(np.median(told["y"] / seconds)),
        unexplained=float(told["left"].sum(dtype=np.float64)) / raw if raw else 1.0,
    )
