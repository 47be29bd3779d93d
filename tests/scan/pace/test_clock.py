"""Holes in the stamps: where frames came evenly before, and not where a picture is held."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.pipeline.scan.pace.clock import Clock

TICK = Fraction(1, 1000)


def holes(steps: Sequence[int]) -> list[int]:
    """The frames that stand after a hole, of stamps these milliseconds apart."""
    clock, pts, found = Clock(TICK, 0.04, 1.0, 60.0), 0, []
    clock.advance(pts)
    for place, step in enumerate(steps, 1):
        pts += step
        if clock.advance(pts):
            found.append(place)
    return found


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    st.sampled_from([(40,), (33, 33, 34), (33, 50), (16, 17), (7, 7, 14), (100,)]),
    st.integers(1001, 20_000),
    st.integers(150, 200),
)
def test_a_hole_after_even_frames_parts(turn: tuple[int, ...], hole: int, frames: int) -> None:
    steps = [turn[k % len(turn)] for k in range(frames)]
    assert holes([*steps, hole, *steps]) == [frames + 1] or 5 * max(turn) >= hole


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(st.lists(st.sampled_from([20, 40, 60, 120, 300, 900, 3000, 9000]), max_size=80))
def test_what_is_held_now_and_then_is_no_hole(steps: list[int]) -> None:
    """Of a recorder of screens, which stores what changes: no second of it is even."""
    uneven = [step for pair in zip(steps, [1000] * len(steps), strict=True) for step in pair]
    assert [k for k in holes(uneven) if uneven[k - 1] < 9000 and uneven[k - 2] < 300] == []


def test_a_few_dropped_frames_are_no_hole() -> None:
    assert holes([40] * 50 + [120] + [40] * 50 + [200] + [40] * 9) == []


@pytest.mark.parametrize(("step", "parts"), [(14_999, False), (15_001, True)])
def test_a_quarter_of_the_longest_clip_parts_in_any_case(step: int, parts: bool) -> None:
    assert bool(holes([40, 400, 90, step, 40])) == parts


def test_time_goes_on_where_stamps_are_missing_or_fall() -> None:
    clock = Clock(TICK, 0.04, 1.0, 60.0)
    seen = []
    for pts in (100, 140, None, 220, 180, 900):
        clock.advance(pts)
        seen.append(round(clock.seconds, 3))
    assert seen == [0, 0.04, 0.08, 0.12, 0.16, 0.88]
