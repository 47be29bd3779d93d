"""Transitions: generated dissolves, fades and wipes are found, and motion and light are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from telecine.pipeline.scan.transitions import Transition, TransitionDetector, examine, merge

Pictures = list[np.ndarray]
ROWS, COLUMNS = 18, 32


def scene(seed: int, low: float = 20, high: float = 220) -> np.ndarray:
    """A wide picture of blurred noise [ROWS, 4 × COLUMNS], as natural ones fall off in detail."""
    rng = np.random.default_rng(seed)
    total = np.zeros((ROWS, 4 * COLUMNS))
    for cell in (1, 2, 4, 8):
        noise = rng.normal(0, cell, (ROWS // cell + 2, 4 * COLUMNS // cell + 2))
        total += noise.repeat(cell, 0).repeat(cell, 1)[:ROWS, : 4 * COLUMNS]
    total -= total.min()
    return low + (high - low) * total / total.max()


def shot(seed: int, count: int, speed: float = 0.1, low: float = 20, high: float = 220) -> Pictures:
    """A slow pan, between cells too."""
    wide, made = scene(seed, low, high), []
    for place in np.arange(count) * speed:
        left, part = int(place), place % 1
        made.append(wide[:, left : left + COLUMNS] * (1 - part))
        made[-1] = made[-1] + wide[:, left + 1 : left + 1 + COLUMNS] * part
    return made


def dissolve(first: Pictures, last: Pictures, length: int) -> Pictures:
    shares = (np.arange(length) + 1) / (length + 1)
    both = zip(first[-length:], last[:length], shares, strict=True)
    return [*first[:-length], *(a * (1 - s) + b * s for a, b, s in both), *last[length:]]


def flat(level: float, count: int) -> Pictures:
    return [np.full((ROWS, COLUMNS), level)] * count


def wipe(first: Pictures, last: Pictures, length: int) -> Pictures:
    made = []
    for i, (a, b) in enumerate(zip(first[-length:], last[:length], strict=True)):
        edge = (i + 1) * COLUMNS // (length + 1)
        made.append(np.concatenate([b[:, :edge], a[:, edge:]], axis=1))
    return [*first[:-length], *made, *last[length:]]


def transitions_of(pictures: Pictures, chunk: int = 32) -> list[Transition]:
    detector = TransitionDetector()
    luma = np.clip(np.stack(pictures), 16, 235).astype(np.int16)
    for start in range(0, len(luma), chunk):
        part = luma[start : start + chunk]
        detector.push(part, [], start + len(part))
    detector.finish([], len(luma))
    return detector.settled


@pytest.mark.parametrize("length", [8, 12, 24, 40])
@pytest.mark.parametrize("seed", range(4))
def test_a_dissolve_is_left_out(seed: int, length: int) -> None:
    pictures = dissolve(shot(seed, 60, 0.02), shot(seed + 50, 60, 0.02), length)
    (found,) = (one for one in transitions_of(pictures) if one.is_sure)
    start, end = 60 - length, 60
    assert start - 1 - length // 4 <= found.start < found.end <= end + 1 + length // 4
    assert found.end - found.start >= 0.7 * length


@pytest.mark.parametrize("level", [16, 235])
@pytest.mark.parametrize("length", [10, 24, 40])
def test_fades_through_black_and_white_are_left_out(level: float, length: int) -> None:
    out = dissolve(shot(1, 60), flat(level, length + 10), length)
    back = dissolve(flat(level, length + 10), shot(2, 60), length)
    found = transitions_of(out + back)
    assert [one.is_sure for one in found] == [True, True]
    assert found[0].start < 60 - length // 2 < 58 <= found[0].end <= 61
    assert len(out) + 9 <= found[1].start < len(out) + 15


def test_a_wipe_is_suspected() -> None:
    found = transitions_of(wipe(shot(1, 60, 0.02), shot(2, 60, 0.02), 24))
    assert [one.is_sure for one in found] == [False]
    assert 26 <= found[0].start < 44 < 52 < found[0].end <= 70


def brightening(pictures: Pictures) -> Pictures:
    gains = np.linspace(0.3, 1, len(pictures))
    return [16 + (picture - 16) * gain for picture, gain in zip(pictures, gains, strict=True)]


def flickering(pictures: Pictures) -> Pictures:
    gains = 1 + np.random.default_rng(3).normal(0, 0.05, len(pictures))
    return [16 + (picture - 16) * gain for picture, gain in zip(pictures, gains, strict=True)]


def zooming(pictures: Pictures) -> Pictures:
    made = []
    for i, picture in enumerate(pictures):
        scale = 1 + i / len(pictures)
        rows = (ROWS / 2 + (np.arange(ROWS) - ROWS / 2) / scale).astype(int)
        columns = (COLUMNS / 2 + (np.arange(COLUMNS) - COLUMNS / 2) / scale).astype(int)
        made.append(picture[rows[:, None], columns])
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("speed", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("change", [brightening, flickering, zooming])
def test_motion_and_light_are_no_transition(
    change: Callable[[Pictures], Pictures], speed: float, seed: int
) -> None:
    assert not [one for one in transitions_of(change(shot(seed, 90, speed))) if one.is_sure]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    pictures = dissolve(shot(1, 60), shot(2, 90), 24)
    pictures = dissolve(pictures, shot(3, 60), 12)
    assert transitions_of(pictures, chunk) == transitions_of(pictures) != []


def test_what_overlaps_is_one_and_what_is_sure_stands() -> None:
    found = [Transition(10, 20, False), Transition(15, 30, True), Transition(28, 40, True)]
    assert merge([*found, Transition(50, 60, False)]) == [
        Transition(15, 40, True),
        Transition(50, 60, False),
    ]


def test_short_and_single_pictures() -> None:
    for count in range(1, 12):
        assert transitions_of(shot(1, count)) == []


def test_a_fall_of_three_frames_after_a_flicker_is_a_cut() -> None:
    """Frames that flicker long before it do not make it longer."""
    first, last = (scene(seed)[:, :COLUMNS].astype(np.float32) for seed in (1, 2))
    flicker, steady = [0.93] * 4, [0.96] * 2
    for fall, is_cut in (([0.73, 0.34], True), ([0.8, 0.6, 0.4, 0.2], False)):
        blend = np.float32([1, *flicker, *steady, *fall, 0, 0, 0])[:, None, None]
        found = examine(blend * first + (1 - blend) * last)
        assert (found is None) is is_cut
