"""What rate stamps mean: families of clocks, cadences, drops and jitter, all found again."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.pipeline.media.rates import STANDARD_RATES, is_variable, nominal_rate
from telecine.pipeline.media.timing import at_rate

MILLISECOND = Fraction(1, 1000)
TIME_BASES = (Fraction(1, 90_000), MILLISECOND, Fraction(1, 15_360), Fraction(1, 10**9))
FILM, PAL, VIDEO = Fraction(24_000, 1001), Fraction(25), Fraction(30_000, 1001)


def ticks(seconds: Fraction, time_base: Fraction) -> int:
    return math.floor(seconds / time_base + Fraction(1, 2))


def on_clock(
    film: Fraction, clock: Fraction, frames: int, time_base: Fraction, phase: Fraction
) -> list[int]:
    """Stamps of a film whose frames are shown from the next tick of another display's clock on."""
    at = [math.ceil(k * clock / film + phase) / clock for k in range(frames)]
    return [ticks(seconds, time_base) for seconds in at]


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(st.sampled_from(STANDARD_RATES), st.integers(40, 400), st.booleans())
def test_a_standard_rate_is_found_again_from_stamps_rounded_to_milliseconds(
    rate: Fraction, count: int, told: bool
) -> None:
    stamps = [round(k / rate * 1000) for k in range(count)]
    found = nominal_rate(stamps, MILLISECOND, rate if told else None)
    # Without the header, 29.97 and 30 can be told apart only where a whole tick lies between them.
    closest = min(abs(1 / r - 1 / rate) for r in STANDARD_RATES if r != rate)
    if told or closest * (count - 1) > 3 * MILLISECOND:
        assert found == rate
    assert not is_variable(stamps, MILLISECOND, found)


@pytest.mark.parametrize("delta", [1001, 1000, 1250, 512, 3003])
def test_stamps_that_are_exact_give_an_exact_rate(delta: int) -> None:
    rate = nominal_rate([k * delta for k in range(9)], Fraction(1, 30000), None)
    assert rate == Fraction(30000, delta)


def test_a_header_that_lies_is_not_believed() -> None:
    stamps = [k * 40 for k in range(50)]
    assert nominal_rate(stamps, MILLISECOND, Fraction(1000)) == 25


def test_a_dropped_frame_makes_a_span_variable_but_not_its_rate() -> None:
    stamps = [k * 40 for k in range(50) if k != 20]
    assert nominal_rate(stamps, MILLISECOND, Fraction(49, 2)) == 25
    assert is_variable(stamps, MILLISECOND, Fraction(25))
    assert not is_variable(stamps[:20], MILLISECOND, Fraction(25))


def test_jitter_below_a_tenth_of_a_frame_is_constant() -> None:
    stamps = [k * 1500 + (-1) ** k * 60 for k in range(40)]
    assert not is_variable(stamps, Fraction(1, 90000), Fraction(60))
    assert is_variable([0, 1500, 3200], Fraction(1, 90000), Fraction(60))


def test_a_rate_needs_two_frames() -> None:
    with pytest.raises(ValueError, match="two rising stamps"):
        nominal_rate([5], MILLISECOND, None)


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    st.sampled_from([10, 12, 15, 20, FILM, 24, 25, VIDEO, 30, 48, 50]),
    st.sampled_from([50, Fraction(60_000, 1001), 60, 72, 75, 90, 100, 120, 144]),
    st.integers(25, 300),
    st.sampled_from(TIME_BASES),
    st.fractions(0, 1, max_denominator=12),
)
def test_a_film_on_another_clock_is_constant_at_its_own_rate(
    film: Fraction, clock: Fraction, frames: int, time_base: Fraction, phase: Fraction
) -> None:
    """24 on 60, 30 on 75, 25 on 60, 24 on 144: each coded frame once, none half a frame off."""
    if film >= clock:
        return
    stamps = on_clock(Fraction(film), Fraction(clock), frames, time_base, phase)
    rate = nominal_rate(stamps, time_base, None, evenly=True)
    assert abs(rate / film - 1) <= Fraction(5, 4) * film / clock / frames + Fraction(1, 1000)
    if is_variable([*stamps, 2 * stamps[-1] - stamps[-2]], time_base, rate):
        # A slip that is there but once or twice in the span is as good as a drop.
        slips = len({b - a for a, b in pairwise(stamps)})
        assert slips > 1
        assert abs(clock / film - round(clock / film)) < Fraction(4, frames) or frames < 60
        return
    period = 1 / (rate * time_base)
    offsets = [stamp - k * period for k, stamp in enumerate(stamps)]
    assert (max(offsets) - min(offsets)) / 2 < period / 2


@pytest.mark.parametrize("turn", [(2, 3), (2, 3, 3, 2), (2, 3, 4), (1, 2, 2), (4, 5, 5), (2, 2, 3)])
@pytest.mark.parametrize("time_base", [*TIME_BASES, Fraction(1, 60)])
@pytest.mark.parametrize("last", [1, 3])
def test_distances_in_turn_are_constant_at_their_mean(
    turn: tuple[int, ...], time_base: Fraction, last: int
) -> None:
    places = [0]
    for k in range(60):
        places.append(places[-1] + turn[k % len(turn)])
    stamps = [ticks(Fraction(place, 60), time_base) for place in places]
    rate = nominal_rate(stamps, time_base, Fraction(60))
    assert abs(rate * sum(turn) / (60 * len(turn)) - 1) < Fraction(1, 1000)
    end = stamps[-1] + last * ticks(Fraction(1, 60), time_base)
    assert is_variable([*stamps, end], time_base, rate) == (last > max(turn))


def test_film_in_a_video_stream_is_film() -> None:
    stamps = [0, *(3003 * k + 3003 * ((k + 1) // 2) // 2 for k in range(1, 97))]
    rate = nominal_rate(stamps, Fraction(1, 90_000), VIDEO)
    assert rate == FILM
    assert not is_variable([*stamps, stamps[-1] + 3003], Fraction(1, 90_000), rate)


def test_a_break_in_a_turn_leaves_its_rate_and_makes_it_variable() -> None:
    steps = [(3003, 4504)[k % 2] + (7507 if k == 40 else 0) for k in range(100)]
    stamps = [sum(steps[:k]) for k in range(101)]
    assert nominal_rate(stamps, Fraction(1, 90_000), VIDEO) == FILM
    assert is_variable(stamps, Fraction(1, 90_000), FILM)


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    st.sampled_from([15, 24, FILM, 25, VIDEO, 30, 50, 60]),
    st.booleans(),
    st.one_of(st.integers(3, 12), st.sets(st.integers(1, 118), min_size=1, max_size=20)),
    st.booleans(),
)
def test_empty_ticks_are_variable_at_the_rate_of_the_clock(
    rate: Fraction, tick_is_frame: bool, empty: int | set[int], told: bool
) -> None:
    """Every nth or any few: each frame there is shown, and never half a frame off."""
    rate = Fraction(rate)
    time_base = 1 / rate if tick_is_frame else Fraction(1, 90_000)
    gone = set(range(empty - 1, 120, empty)) if isinstance(empty, int) else empty
    there = [k for k in range(120) if k not in gone]
    stamps = [ticks(k / rate, time_base) for k in there]
    hint = len(there) / (there[-1] / rate) if told else None
    assert nominal_rate(stamps, time_base, hint) == rate
    end = ticks(120 / rate, time_base)
    if there[-1] == 119:
        assert is_variable([*stamps, end], time_base, rate)
    step = 1 / (rate * time_base)
    shown = list(at_rate(((s, s) for s in stamps), stamps[0], step, 120))
    assert set(shown) == set(stamps)
    for k, stamp in enumerate(shown):
        if k in there:
            assert abs(stamp - k * step) <= step / 2


def test_the_same_stamps_are_drops_or_a_cadence_as_the_pictures_tell() -> None:
    stamps = [k for k in range(120) if k % 6 != 5]
    for time_base in (Fraction(1, 30), Fraction(1, 60)):
        clock = 1 / time_base
        assert nominal_rate(stamps, time_base, None) == clock
        rate = nominal_rate(stamps, time_base, None, evenly=True)
        assert rate == clock * Fraction(5, 6)
        assert is_variable(stamps, time_base, clock)
        assert not is_variable(stamps, time_base, rate)


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(st.sampled_from([24, 25, 30, 60]), st.floats(0.11, 0.3), st.integers(0, 999))
def test_stamps_that_merely_jitter_keep_their_rate(rate: int, jitter: float, seed: int) -> None:
    chance = random.Random(seed)
    stamps = [round((k + chance.uniform(-jitter, jitter)) / rate * 90_000) for k in range(120)]
    found = nominal_rate(sorted(stamps), Fraction(1, 90_000), None)
    assert abs(found / rate - 1) < Fraction(1, 100)
    assert is_variable(stamps, Fraction(1, 90_000), found) or jitter < 0.2
