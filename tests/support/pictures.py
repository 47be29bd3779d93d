"""Pictures with known truth: what stands for real scenery in tests of what pictures look like."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.float64]


def leaves(
    height: int, width: int, seed: int = 0, contrast: float = 1.0, least: float = 3.0
) -> Luma:
    """Dead leaves, 0..255: discs that hide each other, with radii r of density 1 / r³ from `least`.

    Their edges and spectrum are those of photographs (Cao, Guichard and Hornung, Dead leaves model
    for measuring texture quality, 2009). Drawn at twice the size, so that edges are as sharp as a
    sensor without a filter has them.
    """
    rng = np.random.default_rng(seed)
    picture = np.full((2 * height, 2 * width), np.nan)
    largest = min(height, width) / 4
    count = 0
    while np.isnan(picture).any() and count < 4000:  # those in front first
        share = rng.random()
        radius = 2 / np.sqrt(share / largest**2 + (1 - share) / least**2)
        y, x = rng.random() * 2 * height, rng.random() * 2 * width
        rows = slice(max(0, int(y - radius)), int(y + radius) + 2)
        columns = slice(max(0, int(x - radius)), int(x + radius) + 2)
        part = picture[rows, columns]
        down, across = np.ogrid[rows.start : rows.start + part.shape[0],
                                columns.start : columns.start + part.shape[1]]  # fmt: skip
        inside = (down - y) ** 2 + (across - x) ** 2 < radius**2
        part[inside & np.isnan(part)] = rng.uniform(20, 235)
        count += 1
    picture = np.nan_to_num(picture, nan=128.0)
    small = picture.reshape(height, 2, width, 2).mean((1, 3))
    return 128 + contrast * (small - 128)


def gaussian(picture: Luma, sigma: float) -> Luma:
    """Blurred with a Gaussian of that standard deviation, px; edges mirrored."""
    if sigma == 0:
        return picture
    reach = int(4 * sigma) + 1
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(picture, padding, "reflect")
        picture = np.apply_along_axis(np.convolve, axis, padded, taps, "valid")
    return picture


def levels(picture: Luma) -> npt.NDArray[np.uint8]:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
