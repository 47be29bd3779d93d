"""Subtitles of known size over pictures, and textures with as many strokes that are no text."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from telecine.pipeline.scan.looks.text import text_lines, text_share
from tests.support.pictures import gaussian, leaves, levels

HEIGHT, WIDTH = 192, 340
SCENERY = [gaussian(leaves(HEIGHT, WIDTH, seed, contrast=0.7), 1) for seed in range(3)]
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH]


def written(still: np.ndarray, size: int, dark: bool = False) -> np.ndarray:
    """With a subtitle of that many px, outlined as subtitles are."""
    image = Image.fromarray(levels(still))
    ink, outline = (10, 245) if dark else (245, 10)
    ImageDraw.Draw(image).text(
        (WIDTH // 2, HEIGHT - 12), "What did you see there?", ink, anchor="ms",
        font=ImageFont.load_default(size), stroke_width=2, stroke_fill=outline,
    )  # fmt: skip
    return np.asarray(image)


@pytest.mark.parametrize(
    ("size", "dark"), [(16, False), (20, False), (26, False), (20, True), (26, True)]
)
def test_subtitles_are_about_as_large_as_they_are(size: int, dark: bool) -> None:
    found = text_share([written(still, size, dark) for still in SCENERY])
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox("What did you see there?")
    truth = min(right - left, WIDTH) * (bottom - top) / (HEIGHT * WIDTH)
    assert found is not None
    assert 0.4 * truth < found < 1.5 * truth


def test_subtitles_that_stand_for_a_part_of_the_clip() -> None:
    shown = [written(still, 20) for still in SCENERY[:2]]
    found = text_share([levels(SCENERY[2]), *shown, levels(SCENERY[2])])
    assert found == pytest.approx((text_share(shown) or 0) / 2)
    assert found is not None
    assert found > 0.005


def bricks() -> np.ndarray:
    course = ROW // 12
    joints = (ROW % 12 < 2) | ((COLUMN + 12 * (course % 2)) % 24 < 2)
    return np.where(joints, 200, 110 + 10 * np.sin(course * 7.0))


NO_TEXT = {
    "leaves": SCENERY[0],
    "fine leaves": leaves(HEIGHT, WIDTH, 5, least=1.5),
    "a fence": np.where((COLUMN % 9 < 4) & (ROW > 60) & (ROW < 150), 240, 60),
    "bricks": bricks(),
    "noise": 128 + np.random.default_rng(1).normal(0, 40, ROW.shape),
    "stripes": 128 + 100 * np.sin(COLUMN / 1.5),
    "a window front": np.where((COLUMN % 14 < 6) & (ROW % 20 < 12), 60, 150)
    + np.random.default_rng(2)
    .integers(-40, 40, (10, 25))
    .repeat(20, 0)
    .repeat(14, 1)[:HEIGHT, :WIDTH],
    "flat": np.full(ROW.shape, 90.0),
}


@pytest.mark.parametrize("picture", NO_TEXT.values(), ids=NO_TEXT)
def test_textures_are_no_text(picture: np.ndarray) -> None:
    assert text_share([levels(picture)] * 3) < 0.003


def test_what_stands_in_one_still_alone_is_no_text() -> None:
    once = written(SCENERY[0], 18)
    assert text_lines(once).any()
    assert text_share([once, *map(levels, SCENERY[1:])]) == 0


def test_few_or_narrow_stills_cannot_tell() -> None:
    assert text_share([written(SCENERY[0], 18)]) is None
    assert text_share([np.zeros((100, 40), np.uint8)] * 3) is None
