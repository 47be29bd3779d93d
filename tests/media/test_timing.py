"""Rates and the choice of frames: exact, streaming, nothing lost to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.manifests.specs import VaeSpec
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.media.timing import (
    Shown,
    at_rate,
    encoded_frames,
    encoded_rate,
    first_output,
    is_resampled,
    rising,
)
from telecine.pipeline.scan.pace.cadence import effective_rate
from tests.support.movies import clip_of

FACTS = MediaFacts(
    container="c", codec="c", pixel_format="yuv420p", bit_depth=8, coded_width=64, coded_height=64,
    width=64, height=64,
)  # fmt: skip
steps = st.lists(st.integers(1, 60), min_size=1, max_size=40)
rates = st.fractions(Fraction(1, 2), 60, max_denominator=1001)
MILLISECOND = Fraction(1, 1000)
TICK = Fraction(1, 15_360)


@settings(deadline=None)  # a busy machine is no failure
@given(steps, rates, st.integers(-1000, 1000))
def test_each_output_is_the_native_frame_nearest_in_time(
    gaps: list[int], rate: Fraction, start: int
) -> None:
    stamps = list(accumulate(gaps, initial=start))
    step = 1 / (rate * Fraction(1, 50))
    count = max(1, int((stamps[-1] - start) / step))
    chosen = list(at_rate(((s, s) for s in stamps), start, step, count))
    nearest = [min(stamps, key=lambda s, k=k: abs(s - (start + k * step))) for k in range(count)]
    assert chosen == nearest  # min takes the first of equals: the earlier frame


def test_a_tie_goes_to_the_earlier_frame() -> None:
    assert list(at_rate([(0, "a"), (2, "b")], 0, Fraction(1), 3)) == ["a", "a", "b"]


@settings(deadline=None)  # a busy machine is no failure
@given(steps, st.integers(1, 30))
def test_selection_looks_one_frame_ahead_and_no_further(gaps: list[int], count: int) -> None:
    taken: list[int] = []

    def native() -> Iterator[tuple[int, int]]:
        for index, stamp in enumerate(accumulate(gaps, initial=0)):
            taken.append(index)
            yield stamp, index

    for shown in at_rate(native(), 0, Fraction(10), count):
        assert taken[-1] <= shown + 1


def test_a_clip_at_its_own_constant_rate_is_taken_frame_by_frame() -> None:
    stamps = list(range(0, 1001, 33))
    clip = clip_of(FACTS, MILLISECOND, stamps, 0, 30, Fraction(30))
    assert encoded_rate(clip, VaeSpec()) == 30
    assert not is_resampled(clip, Fraction(30))
    assert encoded_frames(clip, Fraction(30)) == 30  # 990 ms × 30 would round to it as well
    shorter = clip_of(FACTS, MILLISECOND, stamps, 3, 7, Fraction(30))
    assert encoded_frames(shorter, Fraction(30)) == 7


@pytest.mark.parametrize(
    ("duration", "rate", "expected"), [(1000, "24", 24), (1020, "24", 24), (1021, "24", 25),
                                       (1, "24", 1), (4004, "30000/1001", 120), (125, "4", 1)],
)  # fmt: skip
def test_another_rate_gives_duration_times_rate_rounded_half_up(
    duration: int, rate: str, expected: int
) -> None:
    clip = clip_of(FACTS, MILLISECOND, [0, duration], 0, 1, Fraction(25))
    wanted = encoded_rate(clip, VaeSpec(fps=rate))
    assert is_resampled(clip, wanted)
    assert encoded_frames(clip, wanted) == expected


def test_a_variable_clip_is_resampled_at_its_own_rate() -> None:
    clip = clip_of(FACTS, MILLISECOND, [0, 40, 200], 0, 2, Fraction(25), variable=True)
    assert is_resampled(clip, Fraction(25))
    assert encoded_frames(clip, Fraction(25)) == 5


@dataclasses.dataclass
class Frame:
    pts: int | None
    number: int


def mended(stamps: Sequence[int | None]) -> list[int | None]:
    frames = [Frame(pts, number) for number, pts in enumerate(stamps)]
    out = list(rising(frames))
    assert [frame.number for frame in out] == list(range(len(frames)))
    return [frame.pts for frame in out]


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    st.lists(st.integers(2, 60), min_size=8, max_size=40),
    st.data(),
)
def test_one_stamp_that_breaks_the_order_is_mended(steps: list[int], data: st.DataObject) -> None:
    stamps: list[int | None] = list(accumulate(steps, initial=0))
    assert mended(stamps) == stamps
    place = data.draw(st.integers(2, len(stamps) - 2))
    broken = [*stamps]
    broken[place] = data.draw(st.integers(-9, 3000))
    once = mended(broken)
    others = [k for k in range(len(stamps)) if k not in (place, place - 1)]
    assert [once[k] for k in others] == [stamps[k] for k in others]
    assert all(b > a for a, b in pairwise(once))  # type: ignore[operator]


@pytest.mark.parametrize(
    "stamps", [[], [5], [5, 3], [None] * 4, [0, 1, None, 3], [0, 5, 1, 2, 3, 9], [4, 4, 4, 4]]
)
def test_an_order_that_is_broken_for_longer_stays(stamps: list[int | None]) -> None:
    assert mended(stamps) == stamps


# ── the effective rate ───────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    st.sampled_from([(2, 3), (2, 2, 3, 2, 3), (2,), (4,), (3,), (6,)]),
    st.integers(0, 5),
    st.integers(60, 240),
)
def test_at_the_effective_rate_each_picture_comes_once(
    turn: tuple[int, ...], start: int, count: int
) -> None:
    """Wherever in its turn the clip begins; but that it may begin or end within a picture."""
    pictures = [p for p, held in enumerate(turn * count) for _ in range(held)][start:][:count]
    new = np.diff(pictures, prepend=-1) > 0
    found = effective_rate(new * 9.0, ~new, np.arange(count) / 60, Fraction(60))
    assert found is not None
    assert found.rate == Fraction(60 * len(turn), sum(turn))
    stamps = [256 * k for k in range(count + 1)]
    clip = clip_of(FACTS, TICK, stamps, 0, count, Fraction(60))
    clip = dataclasses.replace(
        clip, effective_fps=float(f"{float(found.rate):.6g}"), effective_start=found.first
    )
    rate = encoded_rate(clip, VaeSpec(rate="effective"))
    assert rate == found.rate
    assert encoded_rate(clip, VaeSpec()) == 60
    made = encoded_frames(clip, rate)
    tally = Shown()
    native = zip(stamps[:-1], pictures, strict=True)
    shown = list(at_rate(native, first_output(clip, rate), 1 / (rate * TICK), made, tally))
    assert len(shown) == made == tally.outputs
    assert shown[0] - pictures[0] <= 1
    assert pictures[-1] - shown[-1] <= 1
    steps = np.diff(shown)
    assert (steps[:-1] == 1).all()
    assert steps[-1] in (0, 1)


def test_a_rate_that_is_not_known_or_not_lower_is_the_coded_one() -> None:
    clip = clip_of(FACTS, MILLISECOND, [0, 40, 80], 0, 2, Fraction(25))
    for known in (None, 25.0, 24.9, 60.0):
        same = dataclasses.replace(clip, effective_fps=known)
        assert encoded_rate(same, VaeSpec(rate="effective")) == 25
    asked = VaeSpec(rate="effective", fps="10")
    assert encoded_rate(dataclasses.replace(clip, effective_fps=12.5), asked) == 10


@settings(deadline=None)  # a busy machine is no failure
@given(steps, rates, st.integers(1, 60))
def test_what_is_shown_and_what_is_not_adds_up(gaps: list[int], rate: Fraction, most: int) -> None:
    stamps = list(accumulate(gaps, initial=0))
    tally = Shown()
    shown = list(at_rate(((s, s) for s in stamps), 0, 1 / (rate * Fraction(1, 50)), most, tally))
    assert tally.outputs == len(shown)
    assert tally.native == len(set(shown))
    assert tally.repeated == len(shown) - len(set(shown))
