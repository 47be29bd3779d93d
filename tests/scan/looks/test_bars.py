"""Bars of known depth around bright, dark and fading pictures, and dark scenery that has none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from telecine.pipeline.scan.looks.bars import common_bars, lines
from tests.support.pictures import gaussian, leaves, levels

HEIGHT, WIDTH = 96, 160
GEOMETRIES = {
    "letterbox": (0, 0, 12, 12),
    "pillarbox": (21, 21, 0, 0),
    "windowbox": (14, 14, 10, 10),
    "thin": (3, 3, 0, 0),
    "uneven": (0, 0, 12, 11),
    "a phone film": (53, 53, 0, 0),
    "one": (0, 0, 0, 9),
}
SCENERY = [leaves(HEIGHT, WIDTH, seed) for seed in range(4)]


def boxed(picture: np.ndarray, bars: tuple[int, int, int, int], black: float = 0) -> np.ndarray:
    left, right, top, bottom = bars
    made = np.full(picture.shape, black)
    inner = slice(top, HEIGHT - bottom), slice(left, WIDTH - right)
    made[inner] = picture[inner]
    return made


def found(pictures: list[np.ndarray]) -> tuple[int, int, int, int]:
    return common_bars([lines(levels(picture)) for picture in pictures])


@pytest.mark.parametrize("bars", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("black", [0, 3, 16])
@pytest.mark.parametrize("light", [1.0, 0.25])
def test_bars_are_found_to_the_pixel(
    bars: tuple[int, int, int, int], black: int, light: float
) -> None:
    rng = np.random.default_rng(5)
    noise = [rng.integers(-1, 2, (HEIGHT, WIDTH)) for _ in SCENERY]
    pictures = [boxed(black + light * p, bars, black) for p in SCENERY]
    assert found([p + n for p, n in zip(pictures, noise, strict=True)]) == bars
    assert found(pictures[:1]) == bars  # one image


@pytest.mark.parametrize("bars", [GEOMETRIES["letterbox"], GEOMETRIES["windowbox"]])
def test_bars_through_a_fade_and_a_black_frame(bars: tuple[int, int, int, int]) -> None:
    boxes = [boxed(p, bars) for p in SCENERY]
    assert found([0 * boxes[0], 0.02 * boxes[1], 0.3 * boxes[2], boxes[3]]) == bars


def test_a_logo_or_subtitles_within_a_bar_leave_it_one() -> None:
    bars = GEOMETRIES["letterbox"]
    boxes = [boxed(p, bars) for p in SCENERY]
    for box in boxes:
        box[2:8, 130:150] = 200  # a logo
    boxes[2][-10:-4, 30:130:4] = 235  # strokes of a line of text
    assert found(boxes) == bars


def test_a_picture_that_reaches_the_edge_once_has_no_bar_there() -> None:
    bars = GEOMETRIES["letterbox"]
    boxes = [boxed(p, bars) for p in SCENERY[:3]]
    assert found([*boxes, SCENERY[3]]) == (0, 0, 0, 0)


def skyline(seed: int) -> np.ndarray:
    """A black sky over roofs of many heights."""
    rng = np.random.default_rng(seed)
    roofs = np.repeat(rng.integers(30, 70, WIDTH // 8), 8)
    return np.where(np.arange(HEIGHT)[:, None] > roofs, SCENERY[0], 0.0)


def spotlight(seed: int) -> np.ndarray:
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(down - 50, across - 60 - 10 * seed)
    return SCENERY[1] * np.clip(1.4 - far / 35, 0, 1)


def vignette(seed: int) -> np.ndarray:
    down, across = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return SCENERY[seed % 4] * np.clip(1.25 - down**2 - across**2, 0, 1)


def curtain(seed: int) -> np.ndarray:
    """Black behind soft folds: a stage's side."""
    across = np.arange(WIDTH)
    light = np.clip((across - 40 - 3 * np.sin(np.arange(HEIGHT) / 9)[:, None]) / 12, 0, 1)
    return SCENERY[2] * light


def title(seed: int) -> np.ndarray:
    card = np.zeros((HEIGHT, WIDTH))
    card[40:56, 50:110:3] = 220
    return card


def card(seed: int) -> np.ndarray:
    """A logo on black, straight on all sides."""
    made = np.zeros((HEIGHT, WIDTH))
    made[36:60, 50:110] = SCENERY[3][36:60, 50:110]
    return made


def horizon(seed: int) -> np.ndarray:
    """A black sea under a bright sky; both reach over half of the height."""
    made = SCENERY[seed % 4].copy()
    made[50:] = 2
    return made


def night(seed: int) -> np.ndarray:
    """All but black, soft, with a few lights."""
    made = 6 + 5 * gaussian(SCENERY[seed % 4], 6) / 128
    made[40:44, 30:34] = made[60:62, 100:106] = 240
    return made


@pytest.mark.parametrize(
    "scene", [skyline, spotlight, vignette, curtain, title, card, horizon, night]
)
@pytest.mark.parametrize("turned", [False, True])
def test_dark_scenery_is_no_bar(scene: Callable[[int], np.ndarray], turned: bool) -> None:
    still, moving = [scene(1)] * 3, [scene(seed) for seed in range(3)]
    for pictures in (still, moving):
        turn = [np.rot90(p) if turned else p for p in pictures]
        assert found(turn) == (0, 0, 0, 0)
