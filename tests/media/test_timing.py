"""Rates and the choice of frames: exact, streaming, nothing lost to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.manifests.specs import VaeSpec
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.media.timing import (
    at_rate,
    encoded_frames,
    encoded_rate,
    is_resampled,
)
from tests.support.movies import clip_of

FACTS = MediaFacts(
    container="c", codec="c", pixel_format="yuv420p", bit_depth=8, coded_width=64, coded_height=64,
    width=64, height=64,
)  # fmt: skip
steps = st.lists(st.integers(1, 60), min_size=1, max_size=40)
rates = st.fractions(Fraction(1, 2), 60, max_denominator=1001)
MILLISECOND = Fraction(1, 1000)


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
