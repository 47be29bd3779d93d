"""Measurements of generated frames and stills whose truth is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.measure import (
    PALETTE,
    Look,
    Meter,
    look,
    summarise_frames,
    summarise_looks,
    tidy,
)

HEIGHT, WIDTH = 36, 64
GRAY = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)


def landscape(width: int = 3 * WIDTH, height: int = 2 * HEIGHT) -> np.ndarray:
    """A smooth random picture with detail at several sizes, limited range."""
    rng = np.random.default_rng(7)
    total = np.zeros((height, width))
    for cell in (4, 8, 16, 32):
        coarse = rng.normal(size=(height // cell + 2, width // cell + 2))
        rows, columns = np.arange(height) / cell, np.arange(width) / cell
        fine = np.array([np.interp(columns, np.arange(coarse.shape[1]), row) for row in coarse])
        total += (
            cell
            * np.array([np.interp(rows, np.arange(coarse.shape[0]), column) for column in fine.T]).T
        )
    spread = (total - total.min()) / np.ptp(total)
    return 16 + spread * 219


def grid(lumas: list[np.ndarray]) -> Grid:
    luma = np.stack(lumas).round().astype(np.uint8)
    chroma = np.repeat(GRAY[None], len(luma), axis=0)
    return Grid(luma, chroma, chroma)


def measure(lumas: list[np.ndarray], full: bool = False) -> dict[str, float]:
    """Given to the meter in uneven chunks."""
    meter, frames = Meter(full), []
    whole = grid(lumas)
    for start in range(0, len(whole), 7):
        frames.append(meter.push(whole[start : start + 7]))
    return summarise_frames(np.concatenate(frames), full)


def test_a_picture_that_stands_still() -> None:
    values = measure([landscape()[:HEIGHT, :WIDTH]] * 20)
    assert values["motion"] == values["temporal_information"] == 0
    assert values["black_share"] == 0


def test_a_change_of_chroma_alone_is_not_frozen() -> None:
    still = grid([landscape()[:HEIGHT, :WIDTH]] * 2)
    other = Grid(still.luma, np.stack([GRAY, GRAY + 1]), still.cr)
    rows = Meter(False).push(other)
    assert list(rows["equal"]) == [True, False]


@pytest.mark.parametrize(("full", "black", "white"), [(False, 16, 235), (True, 0, 255)])
def test_light(full: bool, black: int, white: int) -> None:
    flat = np.full((HEIGHT, WIDTH), float(black))
    values = measure([flat] * 4, full=full)
    assert (values["brightness"], values["black_share"]) == (0, 1)
    assert values["contrast"] == pytest.approx(0, abs=1e-3)
    halves = flat.copy()
    halves[: HEIGHT // 2] = white
    values = measure([halves] * 4, full=full)
    assert values["brightness"] == pytest.approx(0.5, abs=1e-4)
    assert values["contrast"] == pytest.approx(0.5, abs=1e-4)
    assert values["black_share"] == 0
    values = measure([flat, flat, halves, halves], full=full)
    assert values["black_share"] == 0.5
    assert values["motion"] == pytest.approx(0.5 / 3, abs=1e-4)


@pytest.mark.parametrize(("full", "scale"), [(False, 255 / 219), (True, 1)])
def test_temporal_information_is_the_deviation_of_the_full_range_difference(
    full: bool, scale: float
) -> None:
    rng = np.random.default_rng(1)
    lumas = [rng.integers(16, 236, (HEIGHT, WIDTH)).astype(float) for _ in range(12)]
    truth = scale * max((b - a).std() for a, b in pairwise(lumas))
    assert measure(lumas, full=full)["temporal_information"] == pytest.approx(truth, rel=1e-4)


def test_one_frame_has_no_motion() -> None:
    values = measure([landscape()[:HEIGHT, :WIDTH]])
    assert values["motion"] == values["temporal_information"] == 0


# Stills


def still(rgb: np.ndarray) -> Look:
    luma = (rgb @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    return look(rgb.astype(np.uint8), luma)


def painted(color: tuple[int, int, int], height: int = 90, width: int = 160) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()


@pytest.mark.parametrize(
    ("color", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "gray"),
        ((220, 20, 30), "red"),
        ((255, 150, 30), "orange"),
        ((250, 230, 50), "yellow"),
        ((40, 150, 50), "green"),
        ((50, 190, 190), "cyan"),
        ((30, 70, 200), "blue"),
        ((120, 50, 150), "purple"),
        ((240, 130, 180), "pink"),
        ((110, 70, 40), "brown"),
        ((225, 205, 175), "beige"),
    ],
)
def test_colours_have_plain_names(color: tuple[int, int, int], name: str) -> None:
    assert name in PALETTE
    assert summarise_looks([still(painted(color))], 160, 90)["dominant_colors"] == (name,)


def test_dominant_colours_are_ordered_by_share() -> None:
    rgb = painted((30, 70, 200))
    rgb[:30] = (220, 20, 30)
    rgb[:3] = (255, 255, 255)
    values = summarise_looks([still(rgb)], 160, 90)
    assert values["dominant_colors"] == ("blue", "red")


def test_letterbox_bars_are_given_in_displayed_pixels() -> None:
    rgb = painted((90, 140, 60))
    rgb[:12], rgb[-9:], rgb[:, :5] = 0, 2, 4
    night = rgb.copy()
    night[:60] = 0  # a dark scene above: what only one still shows is no bar
    black = painted((0, 0, 0))
    values = summarise_looks([still(night), still(rgb), still(black)], 1600, 900)
    sides = [values[f"letterbox_{side}"] for side in ("left", "right", "top", "bottom")]
    assert sides == [50, 0, 120, 90]
    assert summarise_looks([still(black)], 160, 90)["letterbox_top"] == 0


def test_spatial_information_of_an_edge() -> None:
    rgb = painted((0, 0, 0), 96, 160)
    rgb[:, 80:] = 200
    # Sobel: 4 × 200 in two of 158 columns, else 0; its standard deviation by hand.
    share = 2 / 158
    truth = 800 * (share * (1 - share)) ** 0.5
    values = summarise_looks([still(rgb), still(painted((50, 50, 50), 96, 160))], 160, 96)
    assert values["spatial_information"] == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("size", [(63, 90), (64, 90), (65, 91), (200, 300), (384, 683)])
def test_edges_are_those_of_all_rows_but_for_a_few_percent(size: tuple[int, int]) -> None:
    """Fine stripes: lines of detail, two of every eight."""
    rng = np.random.default_rng(4)
    luma = np.full(size, 110)
    for row in (4, 5):
        luma[row::8] = rng.integers(80, 140, luma[row::8].shape)
    values = summarise_looks([still(np.dstack([luma] * 3))], size[1], size[0])
    spatial, laplacian = edges_of_every_row(luma)
    near = 1e-4 if size[0] < 64 else 0.06
    assert values["spatial_information"] == pytest.approx(spatial, rel=near)
    assert values["sharpness"] == pytest.approx(np.log10(1 + laplacian), rel=near)


def edges_of_every_row(luma: np.ndarray) -> tuple[float, float]:
    """Of P.910 7.7 as it is written: two filters of three by three."""
    parts = {
        (y, x): luma[1 + y : luma.shape[0] - 1 + y, 1 + x : luma.shape[1] - 1 + x].astype(float)
        for y in (-1, 0, 1) for x in (-1, 0, 1)
    }  # fmt: skip
    weights = {-1: 1, 0: 2, 1: 1}
    across = sum(weights[y] * x * part for (y, x), part in parts.items())
    down = sum(weights[x] * y * part for (y, x), part in parts.items())
    near = parts[-1, 0] + parts[1, 0] + parts[0, -1] + parts[0, 1]
    return float(np.hypot(across, down).std()), float((near - 4 * parts[0, 0]).var())


def test_sharpness_falls_with_blur() -> None:
    rng = np.random.default_rng(3)
    sharp = rng.integers(0, 256, (90, 160, 1)).repeat(3, axis=2)
    soft = (
        sharp + np.roll(sharp, 1, 0) + np.roll(sharp, 1, 1) + np.roll(sharp, (1, 1), (0, 1))
    ) / 4
    values = [summarise_looks([still(rgb)], 160, 90)["sharpness"] for rgb in (sharp, soft)]
    assert values[0] > values[1] > 0
    assert summarise_looks([still(painted((9, 9, 9)))], 160, 90)["sharpness"] == 0


def test_saturation_and_change() -> None:
    red, gray = still(painted((200, 0, 0))), still(painted((100, 100, 100)))
    values = summarise_looks([red, gray], 160, 90)
    assert values["saturation"] == pytest.approx(0.5)
    assert values["change"] == pytest.approx((100 - 60) / 255, abs=0.005)
    assert summarise_looks([gray], 160, 90)["change"] == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (17, 400)])
def test_tiny_stills_are_measured(size: tuple[int, int]) -> None:
    values = summarise_looks([still(painted((90, 20, 20), *size))], size[1], size[0])
    assert all(np.isfinite(v) for v in values.values() if isinstance(v, float))


def test_tidy() -> None:
    assert tidy(0.123456789) == 0.123457
    assert str(tidy(-0.0)) == "0.0"
