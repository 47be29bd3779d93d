"""Long clips in windows: every still in one, spans without gaps, and texts joined as sentences."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.caption.interface import Window
from telecine.encoders.caption.windows import View, joined, merge_prompt, views

times = st.lists(st.floats(0, 59.9), min_size=1, max_size=80, unique=True).map(sorted)


def stills(seconds: list[float]) -> tuple[tuple[float, bytes], ...]:
    return tuple((s, f"{s}".encode()) for s in seconds)


@given(seconds=times, window=st.floats(0.5, 70), frames=st.integers(1, 90))
def test_windows_cover_the_clip_without_gaps(
    seconds: list[float], window: float, frames: int
) -> None:
    found = views(stills(seconds), 60.0, prompt="p", frames=frames, window_seconds=window)
    assert found[0].start_seconds == 0.0
    assert found[-1].end_seconds == 60.0
    for before, after in pairwise(found):
        assert before.end_seconds == after.start_seconds
    for view in found:
        assert 1 <= len(view.stills) <= frames
        assert list(view.stills) == sorted(view.stills)
        # A still on the border may go either way by rounding.
        assert all(
            view.start_seconds - 1e-9 <= s <= view.end_seconds + 1e-9 for s, _ in view.stills
        )
    if frames >= len(seconds):
        assert [s for view in found for s in view.stills] == list(stills(seconds))


def test_windows_are_equal_and_no_longer_than_asked() -> None:
    found = views(stills([0.5, 9.0, 14.0, 24.0]), 25.0, prompt="p", frames=9, window_seconds=10)
    assert [(v.start_seconds, v.end_seconds) for v in found] == [
        (0.0, 25 / 3), (25 / 3, 50 / 3), (50 / 3, 25.0),
    ]  # fmt: skip
    assert [[s for s, _ in v.stills] for v in found] == [[0.5], [9.0, 14.0], [24.0]]


def test_a_clip_of_just_a_window_is_one_view() -> None:
    (view,) = views(stills([0.0, 5.0]), 10.0, prompt="p", frames=2, window_seconds=10)
    assert view == View("p", stills([0.0, 5.0]), 0.0, 10.0)


def test_a_window_without_stills_belongs_to_its_neighbour() -> None:
    found = views(stills([12.0, 31.0]), 40.0, prompt="p", frames=4, window_seconds=10)
    assert [(v.start_seconds, v.end_seconds) for v in found] == [(0.0, 30.0), (30.0, 40.0)]


def test_an_image_is_one_view_at_a_point_in_time() -> None:
    assert views(stills([0.0]), 0.0, prompt="p", frames=4, window_seconds=10) == [
        View("p", stills([0.0]), 0.0, 0.0)
    ]


def test_without_stills_there_is_nothing_to_show() -> None:
    assert views((), 25.0, prompt="p", frames=4, window_seconds=10) == []


def test_few_frames_are_spread_over_the_window() -> None:
    seconds = [float(s) for s in range(10)]
    (view,) = views(stills(seconds), 10.0, prompt="p", frames=3, window_seconds=10)
    assert [s for s, _ in view.stills] == [1.0, 5.0, 8.0]


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (["A dog runs.", "It stops"], "A dog runs. It stops."),
        (["A dog runs.", "A dog runs.", "It stops."], "A dog runs. It stops."),
        (["A dog runs", "A dog runs."], "A dog runs."),
        (["A dog.", "", "A cat."], "A dog. A cat."),
        (["犬が走る。", "止まる"], "犬が走る。 止まる."),
        ([], ""),
    ],
)
def test_texts_are_joined_as_sentences(texts: list[str], text: str) -> None:
    assert joined(texts) == text


def test_a_merge_says_what_is_when() -> None:
    windows = [Window(0.0, 8.25, "A dog."), Window(8.25, 16.5, "A cat.")]
    assert merge_prompt("Tell it as one.", windows) == (
        "Tell it as one.\n\n[0.0 s to 8.2 s] A dog.\n[8.2 s to 16.5 s] A cat."
    )
