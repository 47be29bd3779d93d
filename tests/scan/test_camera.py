"""Camera measurements of shots whose camera is known, and of those that show none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from telecine.pipeline.media.geometry import Orientation
from telecine.pipeline.scan.camera.pairs import CameraMeter
from telecine.pipeline.scan.camera.path import (
    Path,
    displayed,
    displayed_direction,
    summarise_pairs,
)
from telecine.pipeline.scan.grid import Grid
from tests.support.camerawork import Luma, Pose, shot

RATE = 30
FRAMES = 49
TIMES = [i / RATE for i in range(FRAMES)]
STILL = Pose()


def path(lumas: list[Luma], rate: float = RATE) -> Path:
    """Given to the meter in uneven chunks."""
    luma = np.stack(lumas).round().clip(0, 255).astype(np.uint8)
    chroma = np.full((len(luma), 1, 1), 128, np.uint8)
    grid, meter = Grid(luma, chroma, chroma), CameraMeter(rate)
    for start in range(0, len(grid), 7):
        meter.push(grid[start : start + 7])
    return summarise_pairs(meter.finish(), np.arange(len(grid)) / rate)


def moving(
    x: float = 0, y: float = 0, zoom: float = 0, roll: float = 0, size: tuple[int, int] = (64, 36)
) -> list[Luma]:
    """By so much per second, evenly, with the scene's own point in the middle half-way."""
    middle = TIMES[-1] / 2
    return shot([Pose(*(v * (t - middle) for v in (x, y, zoom, roll))) for t in TIMES], size)


def check(found: Path, x: float = 0, y: float = 0, zoom: float = 0, roll: float = 0) -> None:
    """To a tenth of a grid's sample between two frames of a pair, and a tenth of what it is."""
    assert None not in dataclasses.astuple(found), found
    truth = {
        "x": (x, 0.004),
        "y": (y, 0.007),
        "zoom": (zoom, 0.008),
        "roll": (roll, 0.5 + 2 * abs(x) + 2 * abs(y)),
    }
    for name, (value, nearly) in truth.items():
        near = nearly + 0.1 * abs(value)
        assert getattr(found, name) == pytest.approx(value, abs=near), (name, found)
    assert found.shake is not None
    assert found.shake < 1.5e-3


MOVES = [
    {"x": 0.05},
    {"x": -0.4},
    {"y": 0.3},
    {"x": 0.12, "y": -0.07},
    {"zoom": 0.05},
    {"zoom": -0.2},
    {"roll": 3.0},
    {"roll": -10.0},
    {"x": 0.1, "y": 0.05, "zoom": 0.1, "roll": -4.0},
]


@pytest.mark.parametrize("size", [(64, 36), (36, 64), (64, 27), (64, 64)])
def test_even_moves(size: tuple[int, int]) -> None:
    for move in MOVES:
        check(path(moving(**move, size=size)), **move)


def test_a_camera_that_stands_has_exactly_none() -> None:
    assert path(moving()) == Path(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("move", [{}, *MOVES[3::2]])
def test_noise_flicker_and_a_subject_in_front_change_little(move: dict[str, float]) -> None:
    lumas = moving(**move)
    rng = np.random.default_rng(1)
    noisy = [luma + rng.normal(0, 3, luma.shape) for luma in lumas]
    check(path(noisy), **move)
    flickering = [128 + (luma - 128) * (0.9 + 0.1 * (i % 7) / 6) for i, luma in enumerate(lumas)]
    check(path(flickering), **move)
    walker = rng.uniform(40, 220, (16, 10))
    walked = [luma.copy() for luma in lumas]
    for i, luma in enumerate(walked):
        luma[12:28, i : i + 10] = walker
    found = path(walked)
    check(found, **move)
    assert (found.unexplained or 0) > (path(lumas).unexplained or 0) or not move


def test_bars_and_a_logo_do_not_hold_the_picture() -> None:
    for move in MOVES[:4]:
        lumas = [luma.copy() for luma in moving(**move)]
        for luma in lumas:
            luma[:4] = luma[-4:] = 16
            luma[6:9, 50:60] = 235
        check(path(lumas), **move)


@pytest.mark.parametrize("rate", [10, 24, 30, 60])
def test_shake_is_the_size_of_independent_jolts(rate: int) -> None:
    """Four seconds of a pan by hand: each picture is off by as much as the last, any way."""
    rng = np.random.default_rng(rate)
    for sigma in (0.003, 0.01):
        jolts = rng.normal(0, sigma / np.sqrt(2), (4 * rate, 2)) * (1, 64 / 36)
        even = 0.1 * np.arange(4 * rate) / rate
        found = path(shot([Pose(e + x, y) for e, (x, y) in zip(even, jolts, strict=True)]), rate)
        assert found.shake == pytest.approx(sigma, rel=0.5)
        assert found.x == pytest.approx(0.1, abs=0.03)


def test_frames_far_apart_tell_no_shake() -> None:
    found = path(moving(x=0.02), rate=4)
    assert found.shake is None
    assert found.x == pytest.approx(0.02 * 4 / RATE, abs=0.004)


def noise(sigma: float, seed: int = 0, frames: int = FRAMES) -> Luma:
    return np.random.default_rng(seed).normal(0, sigma, (frames, 36, 64))


def stripes() -> Luma:
    return np.broadcast_to(128 + 90 * np.sin(np.arange(64) * 0.4), (36, 64))


def writing(number: int) -> Luma:
    """A counter that runs."""
    luma = np.full((36, 64), 90.0)
    luma[26:34, 40:60] = np.random.default_rng(number).choice([90, 235], (8, 20))
    return luma


@pytest.mark.parametrize(
    "lumas",
    [
        [np.full((36, 64), 90.0)] * FRAMES,
        list(90 + noise(2.0)),
        [np.full((36, 64), 16.0 + 4 * i) for i in range(FRAMES)],
        [np.full((36, 64), 90.0) + np.linspace(0, 12, 64)] * FRAMES,
        list(128 + noise(60.0)),
        [np.roll(stripes(), i, axis=1) for i in range(FRAMES)],
        [stripes()] * FRAMES,
        [luma[:10] for luma in moving(x=0.05)],
        [writing(i) for i in range(FRAMES)],
        moving()[:17],
    ],
    ids=["flat", "noise", "a fade of nothing", "a gradient", "pictures without a common part",
         "stripes", "stripes at rest", "too thin", "writing", "too short for a pair"],
)  # fmt: skip
def test_what_shows_no_movement_has_none_that_is_known(lumas: list[Luma]) -> None:
    assert path(lumas) == Path()


def test_half_of_the_pairs_must_be_known() -> None:
    seen, flat = shot([STILL])[0], np.full((36, 64), 90.0)
    assert path([seen] * 49 + [flat] * 30).x == 0
    assert path([seen] * 30 + [flat] * 49) == Path()


def test_chunks_are_no_matter() -> None:
    lumas = moving(**MOVES[-1])
    luma = np.stack(lumas).round().astype(np.uint8)
    chroma = np.full((len(luma), 1, 1), 128, np.uint8)
    grid, whole = Grid(luma, chroma, chroma), CameraMeter(RATE)
    whole.push(grid)
    together = summarise_pairs(whole.finish(), np.arange(len(grid)) / RATE)
    for name, value in dataclasses.asdict(path(lumas)).items():
        assert getattr(together, name) == pytest.approx(value, rel=0.05, abs=1e-3)


# ── as it is displayed ───────────────────────────────────────────────────────────────────────────


def test_directions_are_those_of_the_displayed_picture() -> None:
    assert displayed_direction(1, 2, Orientation()) == (1, 2)
    assert displayed_direction(1, 2, Orientation(0, True)) == (-1, 2)
    assert displayed_direction(1, 2, Orientation(90)) == (2, -1)
    assert displayed_direction(1, 2, Orientation(180)) == (-1, -2)
    assert displayed_direction(1, 2, Orientation(270, True)) == (-2, -1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_picture_that_is_turned_to_be_shown(degrees: int, mirrored: bool) -> None:
    """Stored so that turning it shows the shot: what is measured is what is seen."""
    move = MOVES[-1]
    stored = [np.rot90(luma, -degrees // 90) for luma in moving(**move)]
    stored = [luma[:, ::-1] for luma in stored] if mirrored else stored
    seen = displayed(path(stored), Orientation(degrees, mirrored), motion=0.5)
    assert seen["camera_x"] == pytest.approx(move["x"], abs=0.015)
    assert seen["camera_y"] == pytest.approx(move["y"], abs=0.015)
    assert seen["zoom"] == pytest.approx(move["zoom"], abs=0.02)
    assert seen["roll"] == pytest.approx(move["roll"], abs=0.8)


def test_of_an_unknown_movement_all_is_unknown_but_that_nothing_moves() -> None:
    assert displayed(Path(), Orientation(), motion=0.0) == {"subject_motion": 0.0}
    assert displayed(Path(), Orientation(), motion=0.1) == {"subject_motion": None}
    known = Path(0.0, 0.0, 0.0, 0.0, None, 0.25)
    assert displayed(known, Orientation(), motion=0.1)["subject_motion"] == 0.025
    assert displayed(known, Orientation(), motion=0.1)["shake"] is None
