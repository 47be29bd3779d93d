"""Bandwidth of pictures that were made larger by known factors, and coded after that."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from telecine.pipeline.scan.looks.detail import Detail, examine, summarise_details
from tests.support.pictures import gaussian, leaves, levels

SIDE = 192
NATIVE = [leaves(SIDE, SIDE, seed, least=2) for seed in (0, 1)]
KERNELS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def coded(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(levels(picture)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(float)


def larger(picture: np.ndarray, factor: float, kernel: Image.Resampling) -> np.ndarray:
    part = Image.fromarray(levels(picture[: round(SIDE / factor), : round(SIDE / factor)]))
    return np.asarray(part.resize((SIDE, SIDE), kernel)).astype(float)


def upscaled(picture: np.ndarray) -> float | None:
    found: float | None = summarise_details([examine(levels(picture))])["upscaled"]
    return found


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("picture", NATIVE)
def test_a_picture_in_its_own_size_is_full(picture: np.ndarray, quality: int) -> None:
    assert upscaled(picture) == 1
    assert upscaled(coded(picture, quality)) == 1
    assert upscaled(coded(128 + 0.4 * (picture - 128), quality)) == 1


@pytest.mark.parametrize("quality", [None, 90, 75])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("picture", NATIVE)
def test_factors_are_told_by_a_third(
    picture: np.ndarray, factor: float, kernel: Image.Resampling, quality: int | None
) -> None:
    big = larger(picture, factor, kernel)
    found = upscaled(big if quality is None else coded(big, quality))
    assert found == pytest.approx(factor, rel=0.35)


def test_more_is_more() -> None:
    lanczos = KERNELS["lanczos"]
    found = [upscaled(larger(NATIVE[0], factor, lanczos)) or 0 for factor in (1.5, 2, 3, 4)]
    assert found == sorted(found)
    assert found[0] > 1.1


def test_blur_that_leaves_as_little_counts_as_much() -> None:
    blurred = [upscaled(gaussian(NATIVE[0], sigma)) or 0 for sigma in (0.7, 1, 1.5, 2, 3)]
    assert blurred == sorted(blurred)
    assert blurred[1] == pytest.approx(2, rel=0.35)


def test_what_shows_nothing_tells_nothing() -> None:
    assert upscaled(np.full((90, 160), 50.0)) is None
    assert upscaled(np.full((8, 8), 50.0)) is None
    stills = [Detail(None, band, None) for band in (0.5, None, 0.5, 1.0)]
    assert summarise_details(stills)["upscaled"] == 2
