"""Edge widths of pictures whose blur is known: whatever they show, and however faintly."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from telecine.pipeline.scan.looks.detail import examine, summarise_details
from telecine.pipeline.scan.looks.tiles import SIDE, busiest
from tests.support.pictures import gaussian, leaves, levels

SIGMAS = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
PICTURES = {
    f"leaves from {least} px": leaves(192, 192, seed, least=least)
    for seed, least in enumerate((2.0, 4.0, 8.0))
}
BLURRED = {
    name: [gaussian(picture, sigma) for sigma in SIGMAS] for name, picture in PICTURES.items()
}


def width(picture: np.ndarray) -> float:
    found = examine(levels(picture)).edge_width
    assert found is not None
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_edges_are_as_wide_as_the_blur_whatever_is_shown(name: str) -> None:
    widths = [width(picture) for picture in BLURRED[name]]
    assert widths == sorted(widths)
    for sigma, found in zip(SIGMAS, widths, strict=True):
        assert found == pytest.approx(np.hypot(sigma, 1), rel=0.35 if sigma < 1 else 0.25)


@pytest.mark.parametrize("contrast", [0.2, 0.5])
@pytest.mark.parametrize("name", PICTURES)
def test_contrast_does_not_matter(name: str, contrast: float) -> None:
    for picture in BLURRED[name]:
        faint = width(100 + contrast * (picture - 128))
        assert faint == pytest.approx(width(picture), rel=0.08)


def test_noise_and_compression_matter_little() -> None:
    rng = np.random.default_rng(2)
    for sigma, picture in zip(SIGMAS, BLURRED["leaves from 4.0 px"], strict=True):
        plain, near = width(picture), 0.1 if sigma <= 2 else 0.3
        assert width(picture + rng.normal(0, 3, picture.shape)) == pytest.approx(plain, rel=near)
        assert width(compressed(picture)) == pytest.approx(plain, rel=near)


def compressed(picture: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(levels(picture)).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file)).astype(float)


def test_a_sharp_small_picture_is_sharper_than_a_large_one_out_of_focus() -> None:
    small, large = leaves(128, 128, 4), np.tile(BLURRED["leaves from 2.0 px"][5], (3, 3))
    assert width(small) < 1.1 < 2 < width(large)


def test_depth_does_not_matter() -> None:
    picture = levels(BLURRED["leaves from 4.0 px"][2])
    deep = picture.astype(np.uint16) << 2
    assert examine(deep, 2) == examine(picture)


def test_bars_and_their_edges_are_no_part_of_the_picture() -> None:
    picture = levels(BLURRED["leaves from 4.0 px"][5])
    boxed = np.pad(picture, ((40, 40), (60, 60)))
    assert examine(boxed).edge_width == pytest.approx(width(picture), rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (40, 400), (SIDE, SIDE), (SIDE + 1, 200)])
def test_what_has_no_edges_has_no_width(size: tuple[int, int]) -> None:
    flat = np.full(size, 90, np.uint8)
    assert examine(flat).edge_width is None
    assert len(busiest(np.zeros(size, np.uint8), 0)) == 0


def test_a_clip_is_as_blurred_as_most_of_its_stills() -> None:
    sharp, soft = (examine(levels(BLURRED["leaves from 4.0 px"][i])) for i in (0, 5))
    flat = examine(np.full((90, 160), 50, np.uint8))
    assert summarise_details([flat, soft, flat, soft, sharp])["blur"] == pytest.approx(
        soft.edge_width, rel=1e-5
    )
    assert summarise_details([flat])["blur"] is None
