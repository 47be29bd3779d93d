"""Repeated frames: told by their company, not by a level, and from a local window alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.pipeline.scan.repeats import REACH, repeated

CADENCES = {
    "24 in 60": (2, 3), "25 in 60": (2, 2, 3, 2, 3), "twos": (2,), "threes": (3,), "15 in 60": (4,),
    "10 in 60": (6,), "2:3:3:2": (2, 3, 3, 2), "ones and twos": (1, 2, 2, 1, 1, 2),
}  # fmt: skip


def shown(cadence: tuple[int, ...], frames: int) -> np.ndarray:
    """Whether each frame of a film repeats, each picture shown for the next of `cadence` frames."""
    held = [place > 0 for count in cadence * frames for place in range(count)]
    return np.array(held[:frames])


def measured(truth: np.ndarray, motion: float, noise: float, seed: int) -> np.ndarray:
    """Differences: of new pictures about `motion`, of repeats up to `noise` of that."""
    random = np.random.default_rng(seed)
    new = motion * random.uniform(0.7, 1.4, len(truth))
    values = np.where(truth, noise * motion * random.uniform(0, 1, len(truth)), new)
    values[0] = 0
    return values


def none_equal(values: np.ndarray) -> np.ndarray:
    return np.zeros(len(values), bool)


@settings(deadline=None, max_examples=40)  # a busy machine is no failure
@given(
    st.sampled_from(list(CADENCES.values())),
    st.integers(20, 90),
    st.floats(0.1, 60),
    st.floats(0, 0.15),
    st.integers(0, 99),
)
def test_each_repeat_of_a_film_is_found_and_nothing_else(
    cadence: tuple[int, ...], frames: int, motion: float, noise: float, seed: int
) -> None:
    truth = shown(cadence, frames)
    values = measured(truth, motion, noise, seed)
    found = repeated(values, none_equal(values))
    assert not (found & ~truth).any()
    # At the very ends a side is short of new pictures where each is held for long.
    inside = slice(REACH, max(REACH, frames - REACH)) if max(cadence) > 4 else slice(None)
    assert (found == truth)[inside].all()


@settings(deadline=None, max_examples=40)  # a busy machine is no failure
@given(st.floats(0.001, 40), st.floats(0, 0.5), st.integers(1, 90), st.integers(0, 99))
def test_where_all_frames_differ_alike_none_repeats(
    level: float, spread: float, frames: int, seed: int
) -> None:
    """Sensor noise over a still scene, or steady motion."""
    random = np.random.default_rng(seed)
    values = level * random.uniform(1 - spread, 1 + spread, frames)
    assert not repeated(values, none_equal(values)).any()


def test_a_frame_that_is_equal_repeats_wherever_it_stands() -> None:
    values = np.zeros(10)
    equal = np.arange(10) % 2 == 0
    assert repeated(values, equal).tolist() == [False, *[False, True] * 4, False]


@pytest.mark.parametrize("place", [3, 20, 40, 57])
def test_a_cut_or_a_flash_makes_no_repeats_of_slow_motion_around_it(place: int) -> None:
    values = np.full(60, 1.0)
    values[place : place + 2] = 60.0
    assert not repeated(values, none_equal(values)).any()


def test_a_scene_that_comes_to_rest_is_not_measured_by_its_motion_before() -> None:
    values = np.append(np.full(40, 10.0), np.full(40, 0.5))
    assert not repeated(values, none_equal(values))[60:].any()


@settings(deadline=None, max_examples=40)  # a busy machine is no failure
@given(st.lists(st.floats(0, 50), min_size=1, max_size=80), st.integers(0, 79))
def test_an_answer_depends_on_a_window_alone(differences: list[float], place: int) -> None:
    values = np.array(differences)
    equal = values == 0
    place = min(place, len(values) - 1)
    low, high = max(0, place - REACH - 1), place + REACH + 1
    inside = repeated(values[low:high], equal[low:high])[place - low]
    assert inside == repeated(values, equal)[place]


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_few_frames_are_no_repeats(frames: int) -> None:
    values = np.full(frames, 5.0)
    assert repeated(values, none_equal(values)).tolist() == [False] * frames
