"""Drift of pictures whose camera is known, and of those that show none."""

from __future__ import annotations

import numpy as np
import pytest

from telecine.pipeline.media.geometry import Orientation
from telecine.pipeline.scan.camera.drift import Path, summarise_pairs
from telecine.pipeline.scan.clips import displayed_direction
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.measure import Meter
from tests.support.camerawork import Luma, Pose, shot

APART = 5  # frames of a pair; ten frames a second
STILL = Pose()


def path(lumas: list[Luma]) -> Path:
    """Given to the meter in uneven chunks."""
    luma = np.stack(lumas).round().clip(0, 255).astype(np.uint8)
    chroma = np.full((len(luma), 1, 1), 128, np.uint8)
    grid, meter = Grid(luma, chroma, chroma), Meter(False, APART)
    pairs = np.concatenate([meter.push(grid[i : i + 7])[1] for i in range(0, len(grid), 7)])
    return summarise_pairs(pairs, (pairs["last"] - pairs["first"]) / 10)


@pytest.mark.parametrize("size", [(64, 36), (36, 64), (64, 64)])
@pytest.mark.parametrize(
    ("x", "y"), [(0.16, 0.0), (-0.25, 0.0), (0.0, 0.14), (0.12, -0.07), (0.0, 0.0)]
)
def test_a_pan_is_camera_drift_and_little_else(x: float, y: float, size: tuple[int, int]) -> None:
    """Widths and heights per second."""
    found = path(shot([Pose(x * i / 10, y * i / 10) for i in range(16)], size))
    assert found.x == pytest.approx(x, abs=0.01)
    assert found.y == pytest.approx(y, abs=0.01)
    assert found.unexplained is not None
    assert found.unexplained < 0.5 or x == y == 0


def test_a_moving_subject_is_no_camera_drift() -> None:
    lumas = [luma.copy() for luma in shot([STILL] * 31)]
    for i, luma in enumerate(lumas):
        luma[12:22, 2 * i % 50 : 2 * i % 50 + 12] = 235
    assert path(lumas) == Path(0.0, 0.0, 1.0)


def noise(sigma: float, seed: int = 0, frames: int = 16) -> Luma:
    return np.random.default_rng(seed).normal(0, sigma, (frames, 36, 64))


def stripes() -> Luma:
    return np.broadcast_to(128 + 90 * np.sin(np.arange(64) * 0.7), (36, 64))


@pytest.mark.parametrize(
    "lumas",
    [
        [np.full((36, 64), 90.0)] * 16,
        list(90 + noise(2.0)),
        [np.full((36, 64), 16.0 + 12 * i) for i in range(16)],
        [np.full((36, 64), 90.0) + np.linspace(0, 12, 64)] * 16,
        list(100 + noise(60.0)),
        [np.roll(stripes(), i, axis=1) for i in range(16)],
        [stripes()] * 16,
        [luma[:6] for luma in shot([Pose(0.01 * i) for i in range(16)])],
        [shot([STILL])[0]] * 5,
    ],
    ids=["flat", "noise", "a fade of nothing", "a gradient", "pictures without a common part",
         "stripes", "stripes at rest", "too thin", "too short for a pair"],
)  # fmt: skip
def test_what_shows_no_drift_has_none_that_is_known(lumas: list[Luma]) -> None:
    assert path(lumas) == Path()


def test_half_of_the_pairs_must_be_known() -> None:
    seen, flat = shot([STILL])[0], np.full((36, 64), 90.0)
    assert path([seen] * 16 + [flat] * 15) == Path(0.0, 0.0, 1.0)
    assert path([seen] * 11 + [flat] * 20) == Path()


def test_directions_are_those_of_the_displayed_picture() -> None:
    assert displayed_direction(1, 2, Orientation()) == (1, 2)
    assert displayed_direction(1, 2, Orientation(0, True)) == (-1, 2)
    assert displayed_direction(1, 2, Orientation(90)) == (2, -1)
    assert displayed_direction(1, 2, Orientation(180)) == (-1, -2)
    assert displayed_direction(1, 2, Orientation(270, True)) == (-2, -1)
