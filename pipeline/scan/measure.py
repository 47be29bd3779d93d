"""Measure: what frames and stills look like, as plain numbers. Pure NumPy.

    every frame   FRAME   on the sparse grid: light, change, black, equal to the one before
    every still   Look    on the small picture itself: edges, colours, bars

`spatial_information` and `temporal_information` follow ITU-T P.910 (SI and TI). TI is the standard
deviation of a frame's difference from the one before; the grid's samples give an unbiased estimate
of its square. SI is measured on stills, so at their size. Both are in levels of full-range luma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.looks.bars import Lines, common_bars, lines

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.void]

FRAME = np.dtype(
    [
        ("luma", "f4"),  # mean, 8-bit levels as coded
        ("square", "f4"),  # mean of squared luma
        ("change", "f4"),  # mean absolute difference from the frame before
        ("ti", "f4"),  # standard deviation of that difference, 8-bit levels as coded
        ("black", "?"),
        ("step", "f4"),  # difference from the frame before beyond noise (repeats.Steps)
        ("equal", "?"),  # no sample differs from the frame before, of grid or whole lines
    ]
)
CACHED_FRAMES = 8  # measured at a time: their samples as floats stay in the processor's cache
BAND_ROWS = 48  # of a still, likewise
BLACK_SHARE = 0.98  # of a frame's samples, at least
BLACK_LEVEL = 0.06  # of the luma range, at most
MIN_COLOR_SHARE = 0.1  # of the pixels, for a colour to be named
NUM_COLORS = 3
PALETTE: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((10, 10, 10), (30, 30, 30)),
    "white": ((245, 245, 245), (225, 225, 225)),
    "gray": ((75, 75, 75), (128, 128, 128), (175, 175, 175)),
    "red": ((200, 30, 30), (130, 15, 20)),
    "orange": ((240, 140, 40), (205, 95, 30)),
    "yellow": ((240, 220, 60), (190, 170, 40)),
    "green": ((60, 160, 60), (30, 80, 35), (120, 190, 90), (95, 110, 45)),
    "cyan": ((60, 190, 190), (20, 110, 115), (140, 220, 225)),
    "blue": ((40, 80, 190), (20, 30, 100), (110, 160, 220), (60, 90, 130)),
    "purple": ((130, 60, 160), (70, 30, 90), (175, 140, 205)),
    "pink": ((235, 130, 175), (240, 185, 200), (200, 60, 120)),
    "brown": ((120, 75, 45), (70, 45, 30), (165, 120, 80)),
    "beige": ((225, 205, 175), (195, 175, 145)),
}


class Meter:
    """Measures frames of one size that arrive in chunks. Ordinals count from the first frame."""

    def __init__(self, is_full_range: bool) -> None:
        black, white = (0, 255) if is_full_range else (16, 235)
        self._black_level = round(black + BLACK_LEVEL * (white - black))
        self._last: Grid | None = None

    def push(self, grid: Grid) -> Rows:
        """FRAME rows, one per frame."""
        before = grid[:1] if self._last is None else self._last
        rows = []
        for start in range(0, len(grid), CACHED_FRAMES):
            part = grid[start : start + CACHED_FRAMES]
            rows.append(measure_frames(before, part, self._black_level))
            before = part[-1:]
        self._last = before.copy()
        return np.concatenate(rows)


def measure_frames(before: Grid, grid: Grid, black_level: int) -> Rows:
    """FRAME rows of `grid`, whose first frame follows the one in `before`."""
    count = len(grid)
    rows = np.zeros(count, FRAME)
    coded = grid.luma.reshape(count, -1)
    luma = np.empty((count + 1, coded.shape[1]), np.float32)
    luma[0], luma[1:] = before.luma.reshape(-1), coded
    mean = np.full(coded.shape[1], 1 / coded.shape[1], np.float32)
    rows["luma"] = luma[1:] @ mean
    rows["black"] = (coded <= black_level).astype(np.float32) @ mean >= BLACK_SHARE
    rows["square"] = _mean_square(luma[1:])
    np.subtract(luma[1:], luma[:-1], out=luma[1:])  # from here on the differences
    change = luma[1:]
    square = _mean_square(change)
    rows["ti"] = np.sqrt(np.maximum(square - np.square(change @ mean), 0))
    rows["change"] = np.abs(change, out=change) @ mean
    still = np.flatnonzero(square == 0)
    rows["equal"][still] = _same_chroma(before, grid)[still] if len(still) else False
    return rows


def _mean_square(values: Floats) -> Floats:
    return np.asarray(np.vecdot(values, values) / np.float32(values.shape[1]))


def _same_chroma(before: Grid, grid: Grid) -> npt.NDArray[np.bool_]:
    same = np.ones(len(grid), np.bool_)
    for old, new in ((before.cb, grid.cb), (before.cr, grid.cr)):
        whole = np.concatenate([old, new]).reshape(len(grid) + 1, -1)
        same &= (whole[1:] == whole[:-1]).all(axis=1)
    return same


@dataclass(frozen=True)
class Look:
    """What one still looks like."""

    spatial_information: float  # SI of P.910, 8-bit levels
    laplacian_variance: float
    saturation: float  # mean of HSV, 0..1
    colors: npt.NDArray[np.float64]  # share of each colour of the palette
    lines: Lines | None  # what of each is not black; None: no bars
    size: tuple[int, int]  # width, height of the still
    thumb: Floats  # luma, [16, 16]


def look(rgb: Pixels, luma: Pixels) -> Look:
    """Measures a still: full-range RGB [H, W, 3] and its luma [H, W]."""
    height, width = luma.shape
    spatial, laplacian = _edges(luma)
    few = rgb[::8, ::8] if min(height, width) >= 64 else rgb
    red, green, blue = (few[..., i].astype(np.int16) for i in range(3))
    high = np.maximum(np.maximum(red, green), blue).astype(np.float32)
    low = np.minimum(np.minimum(red, green), blue)
    names = _color_table()[red >> 3, green >> 3, blue >> 3].ravel()
    return Look(
        spatial_information=spatial,
        laplacian_variance=laplacian,
        saturation=float(((high - low) / np.maximum(high, 1)).mean()),
        colors=np.bincount(names, minlength=len(PALETTE)) / len(names),
        lines=lines(luma),
        size=(width, height),
        thumb=_thumb(luma),
    )


def _edges(luma: Pixels) -> tuple[float, float]:
    """SI of P.910 (standard deviation of the Sobel magnitude); variance of the Laplacian.

    Over every second row of a picture that has many: over stills of real footage SI then differs
    from that of every row by 1.4 % in the mean, and every eighth row by 10 % (at most 58 %).
    """
    height, width = luma.shape
    if height < 3 or width < 3:
        return 0.0, 0.0
    apart = 2 if height >= 64 else 1
    total, band = np.zeros(4), BAND_ROWS * apart
    for top in range(0, height - 2, band):
        bottom = min(top + band, height - 2)
        total += _edge_sums(luma[top : bottom + 2], apart)
    spatial, spatial_square, laplacian, laplacian_square = total / (
        len(range(0, height - 2, apart)) * (width - 2)
    )
    variance = max(0.0, spatial_square - spatial**2)
    return math.sqrt(variance), max(0.0, float(laplacian_square - laplacian**2))


def _edge_sums(luma: Pixels, apart: int) -> tuple[float, float, float, float]:
    """Sums of the Sobel magnitude, its square, the Laplacian and its square over a few rows."""
    above, here, below = (luma[i : len(luma) - 2 + i : apart].astype(np.int16) for i in range(3))
    ends = above + below
    laplacian = ends[:, 1:-1] + here[:, :-2]
    laplacian += here[:, 2:]
    here *= 2
    laplacian -= 2 * here[:, 1:-1]
    ends += here
    below -= above
    steep = below[:, :-2] + below[:, 2:] + 2 * below[:, 1:-1]
    square = np.square(np.subtract(ends[:, 2:], ends[:, :-2], dtype=np.float32))
    square += np.square(steep, dtype=np.float32)
    flat = laplacian.astype(np.float32).ravel()
    sums = square.sum(), np.sqrt(square, out=square).sum(), flat.sum(), np.vecdot(flat, flat)
    return float(sums[1]), float(sums[0]), float(sums[2]), float(sums[3])


def _thumb(luma: Pixels) -> Floats:
    """At most 16 × 16 means over parts of the picture, from every fourth pixel across and down."""
    few = luma[::4, ::4] if min(luma.shape) >= 64 else luma
    rows, columns, areas = _parts(few.shape)
    sums = np.add.reduceat(few, rows, axis=0, dtype=np.float32)
    return np.asarray(np.add.reduceat(sums, columns, axis=1) / areas, np.float32)


@lru_cache(maxsize=16)
def _parts(shape: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """First rows and columns of at most 16 × 16 parts of a picture, and their areas."""
    rows, columns = (np.unique(np.arange(16) * side // 16) for side in shape)
    areas = np.outer(np.diff(rows, append=shape[0]), np.diff(columns, append=shape[1]))
    return rows, columns, areas.astype(np.float32)


@cache
def _color_table() -> npt.NDArray[np.int64]:
    """[32, 32, 32]: for the upper five bits of R, G, B, the palette's nearest colour in CIELAB."""
    axis = np.arange(32) * 8 + 4
    every = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    anchors = [(i, rgb) for i, shades in enumerate(PALETTE.values()) for rgb in shades]
    owner = np.array([i for i, _ in anchors])
    there = _lab(np.array([rgb for _, rgb in anchors]))
    gaps = np.square(_lab(every)[:, None] - there[None]).sum(-1)
    return np.asarray(owner[gaps.argmin(axis=1)].reshape(32, 32, 32))


def _lab(rgb: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """CIELAB (D65) of sRGB 0..255, after IEC 61966-2-1 and CIE 15."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def summarise_looks(looks: Sequence[Look], width: int, height: int) -> dict[str, Any]:
    """The measurements of a clip that come from its stills; `width` × `height` px displayed."""
    shares = np.mean([one.colors for one in looks], axis=0)
    names = list(PALETTE)
    common = [int(i) for i in np.argsort(-shares, kind="stable")[:NUM_COLORS]]
    bars = _bars(looks, width, height)
    return {
        "spatial_information": tidy(max(one.spatial_information for one in looks)),
        "sharpness": tidy(
            math.log10(1 + float(np.median([one.laplacian_variance for one in looks])))
        ),
        "saturation": tidy(float(np.mean([one.saturation for one in looks]))),
        "change": tidy(float(np.abs(looks[-1].thumb - looks[0].thumb).mean()) / 255),
        "letterbox_left": bars[0],
        "letterbox_right": bars[1],
        "letterbox_top": bars[2],
        "letterbox_bottom": bars[3],
        "dominant_colors": tuple(names[i] for i in common if shares[i] >= MIN_COLOR_SHARE),
    }


def _bars(looks: Sequence[Look], width: int, height: int) -> list[int]:
    """Left, right, top, bottom px of the displayed picture, to one pixel of the stills."""
    across, down = looks[0].size
    depths = common_bars([one.lines for one in looks])
    sides = zip(depths, (width, width, height, height), (across, across, down, down), strict=True)
    return [round(depth * full / of) for depth, full, of in sides]


def spreads(frames: Rows) -> Floats:
    """Standard deviation of each frame's luma, from FRAME rows: 8-bit levels as coded."""
    return np.asarray(np.sqrt(np.maximum(frames["square"] - np.square(frames["luma"]), 0)))


def summarise_frames(frames: Rows, is_full_range: bool) -> dict[str, Any]:
    """The measurements of a clip that come from its FRAME rows. Its first frame follows none."""
    black, reach = (0.0, 255.0) if is_full_range else (16.0, 219.0)
    pairs = frames[1:]
    brightness = (float(frames["luma"].mean(dtype=np.float64)) - black) / reach
    return {
        "motion": tidy(_mean(pairs["change"]) / reach),
        "temporal_information": tidy(float(pairs["ti"].max()) * 255 / reach if len(pairs) else 0.0),
        "brightness": tidy(min(1.0, max(0.0, brightness))),
        "contrast": tidy(_mean(spreads(frames)) / reach),
        "black_share": tidy(_mean(frames["black"])),
    }


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else 0.0


def tidy(value: float) -> float:
    """Six significant digits, and no negative zero."""
    return float(f"{value:.6g}") + 0.0
