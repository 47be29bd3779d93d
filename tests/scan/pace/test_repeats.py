"""Repeated frames: told by their company, not by a level, and from a local window alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.pipeline.scan.pace.cadence import Cadence, effective_rate
from telecine.pipeline.scan.pace.repeats import (
    REACH,
    Steps,
    frozen_share,
    moves_evenly,
    repeated,
)
from tests.support.cases import case
from tests.support.scans import scan_file

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


# ── how far frames are apart ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("down", "across"), [(0, 2), (2, 0), (1, 1)])
@pytest.mark.parametrize("chunk", [1, 5, 32])
def test_an_edge_that_moves_slowly_differs_in_every_frame(
    down: int, across: int, chunk: int
) -> None:
    """By a sparse grid it would pass a sample every third frame."""
    frames = np.full((40, 180, 320), 40, np.uint8)
    for k, frame in enumerate(frames):
        y, x = 20 + down * k, 30 + across * k
        frame[y : y + 60, x : x + 80] = 200
    steps = Steps(180, 320, 0)
    lines = steps.empty(len(frames))
    for frame, target in zip(frames, lines, strict=True):
        steps.copy(frame, target)
    parts = [steps.measure(lines[start : start + chunk]) for start in range(0, 40, chunk)]
    far = np.concatenate([part[0] for part in parts])
    same = np.concatenate([part[1] for part in parts])
    assert far[0] == 0
    assert not same.any()
    assert far[1:].min() > 0
    assert not repeated(far, same).any()


@pytest.mark.parametrize("shift", [0, 2, 8])
def test_noise_is_no_difference_and_no_difference_is_the_same(shift: int) -> None:
    picture = np.random.default_rng(1).integers(20, 200, (90, 160)).astype(np.uint16) << shift
    noisy = picture + (np.random.default_rng(2).integers(0, 3, picture.shape) << shift)
    steps = Steps(90, 160, shift)
    lines = steps.empty(4)
    for frame, target in zip([picture, picture, noisy, picture + (9 << shift)], lines, strict=True):
        steps.copy(frame.astype(np.uint16 if shift else np.uint8), target)
    far, same = steps.measure(lines)
    assert same.tolist() == [False, True, False, False]
    assert far[:3].tolist() == [0, 0, 0]
    assert 5 < far[3] < 9


# ── rates ────────────────────────────────────────────────────────────────────────────────────────

FILMS = {"2": 30, "4": 15, "3": 20, "2 3": 24, "2 2 3 2 3": 25}


@settings(deadline=None, max_examples=40)  # a busy machine is no failure
@given(
    st.sampled_from(list(FILMS)),
    st.sampled_from([Fraction(60), Fraction(60_000, 1001), Fraction(50)]),
    st.integers(0, 11),
    st.integers(60, 200),
    st.integers(0, 99),
)
def test_the_rate_of_a_film_on_another_clock_is_found(
    turn: str, coded: Fraction, start: int, frames: int, seed: int
) -> None:
    coded = Fraction(60) if " " in turn else coded
    cadence = tuple(map(int, turn.split()))
    truth = shown(cadence, frames + start)[start:]
    values = measured(truth, 10, 0.1, seed)
    chance = np.random.default_rng(seed)
    wrong = chance.random(frames) < 0.03
    values[wrong] = 10.0  # an intra picture that differs from the inter picture that it repeats
    seconds = np.arange(frames) / float(coded)
    rate = effective_rate(values, none_equal(values), seconds, coded)
    assert rate is not None
    wanted = FILMS[turn] * coded / 60
    assert float(rate.rate / wanted) == pytest.approx(1, abs=0.002)


def test_frames_that_are_all_new_come_at_the_coded_rate() -> None:
    values = measured(np.zeros(90, bool), 8, 0, 1)
    seconds = np.arange(90) / 25
    assert effective_rate(values, none_equal(values), seconds, Fraction(25)) == Cadence(
        Fraction(25)
    )


def test_the_rate_of_a_scene_that_stands_still_is_not_known() -> None:
    values = np.full(90, 0.01)
    seconds = np.arange(90) / 25
    assert effective_rate(values, none_equal(values), seconds, Fraction(25)) is None
    still = np.zeros(90)
    assert effective_rate(still, still == 0, seconds, Fraction(25)) is None


def test_rest_between_motion_does_not_lower_the_rate() -> None:
    truth = shown((2, 3), 300)
    values = measured(truth, 10, 0.05, 3)
    values[100:200] = 0
    seconds = np.arange(300) / 60
    rate = effective_rate(values, values == 0, seconds, Fraction(60))
    assert rate is not None
    assert rate.rate == 24


def test_an_irregular_mix_is_counted() -> None:
    chance = np.random.default_rng(5)
    truth = np.concatenate([shown((k,), k) for k in chance.choice([1, 2, 4], 100)])
    values = measured(truth, 10, 0.05, 3)
    seconds = np.arange(len(truth)) / 24
    rate = effective_rate(values, none_equal(values), seconds, Fraction(24))
    assert rate is not None
    assert float(rate.rate) == pytest.approx(24 * 100 / len(truth), rel=0.05)


def test_what_stands_still_is_a_share_of_the_time() -> None:
    equal = np.array([False, False, True, False])
    assert frozen_share(equal, np.array([0, 1, 2, 3, 4]), 1.0) == pytest.approx(1 / 3)
    held = np.array([0, 1, 2, 152, 153])  # a picture for 150 periods, none of them a frame
    assert frozen_share(np.zeros(4, bool), held, 1.0) == pytest.approx(149 / 152)
    turns = np.array([0, 2, 5, 7, 10])
    assert frozen_share(np.zeros(4, bool), turns, 2.5) == 0
    assert frozen_share(np.arange(4) > 0, np.array([0, 1, 2, 3, 4]), 1.0) == 1


@pytest.mark.parametrize("evenly", [False, True])
def test_the_pictures_tell_a_cadence_from_drops(evenly: bool) -> None:
    deltas = np.array([1, 1, 1, 1, 2] * 12)
    steps = measured(np.zeros(60, bool), 3, 0, 1) + 1
    steps = steps if evenly else steps * deltas
    assert moves_evenly(steps, deltas, 50.0) == evenly
    assert not moves_evenly(steps, deltas, 5.0)  # so different that it says nothing
    assert not moves_evenly(steps[:9], deltas[:9], 50.0)


# ── files ────────────────────────────────────────────────────────────────────────────────────────

RIGHT = {  # clips: frames of each, rate, variable; the rate of different pictures
    "doubled_24.mp4": ([96], Fraction(24), False, 24),
    "doubled_24_in_60.mp4": ([240], Fraction(60), False, 24),
    "doubled_15_in_60.mp4": ([240], Fraction(60), False, 15),
    "soft_telecine.mpg": ([96], Fraction(24_000, 1001), False, 23.976),
    "soft_telecine.ts": ([96], Fraction(24_000, 1001), False, 23.976),
    "cadence_24_on_60.mp4": ([96], Fraction(24), False, 24),
    "cadence_30_on_75.mp4": ([120], Fraction(30), False, 30),
    "dropped.mp4": ([61], Fraction(30), True, 30),
    "hole.mp4": ([60, 60], Fraction(25), False, 25),
}


@pytest.mark.parametrize("name", RIGHT)
def test_files_that_were_taken_at_a_wrong_rate(name: str) -> None:
    scanned = scan_file(case(name))
    assert not scanned.source.dropped
    frames, rate, variable, effective = RIGHT[name]
    assert [clip.num_frames for clip in scanned.clips] == frames
    for clip in scanned.clips:
        assert Fraction(clip.fps_num, clip.fps_den) == rate
        assert clip.variable_rate == variable
        assert clip.effective_fps == effective
        assert clip.frozen_share < 0.2
