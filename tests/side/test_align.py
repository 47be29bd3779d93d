"""Alignment: every row in one frame, signals exact, ties and holes as they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.manifests.index.tracks import group
from telecine.manifests.specs import TrackSpec
from telecine.pipeline.side.align import Rows, align


def spec(rule: str, **keys: object) -> TrackSpec:
    return TrackSpec.model_validate({"columns": ["x"], "rule": rule, **keys})


def rows(times: list[float] | np.ndarray, values: object = None, unit: float = 1.0) -> Rows:
    given_values = np.arange(len(times)) if values is None else values
    columns = np.asarray(given_values, dtype=np.float64).reshape(len(times), -1)
    return Rows(np.asarray(times, dtype=np.float64), columns, unit)


def frames(count: int, rate: float = 25.0, first: float = 0.0) -> np.ndarray:
    return first + np.arange(count + 1) / rate


steps = st.lists(st.floats(0.001, 0.2), min_size=2, max_size=60)


@settings(max_examples=60, deadline=None)
@given(steps, steps, st.integers(1, 20), st.randoms(use_true_random=False))
def test_sums_are_neither_lost_nor_doubled_over_adjacent_clips(
    of_rows: list[float], of_frames: list[float], cut: int, random: object
) -> None:
    stamps = np.cumsum([0.0, *of_frames])
    times = np.cumsum(of_rows)
    inside = (times >= -1e-9) & (times < stamps[-1] - 1e-3)
    track = rows(times, np.random.default_rng(len(times)).integers(-5, 6, len(times)))
    cut = min(cut, len(stamps) - 2)
    summed = spec("sum", tolerance=1e6)
    whole = align(track, stamps, summed).values.sum()
    if cut >= 1:
        parts = [align(track, stamps[: cut + 1], summed), align(track, stamps[cut:], summed)]
        # How early a row may be hangs on the clip's usual frame; away from the cut it is one sum.
        if not (np.abs(times - stamps[cut]) <= 1e-3).any():
            early = [(np.abs(times - s) > 1e-3).all() for s in (stamps[0], stamps[-1])]
            if all(early):
                assert sum(p.values.sum() for p in parts) == whole
    if (np.abs(times - stamps[-1]) > 1e-3).all():
        assert whole == track.values[inside].sum()


@settings(max_examples=60, deadline=None)
@given(steps, steps, st.floats(-5, 5), st.floats(-5, 5))
def test_a_linear_signal_is_interpolated_exactly(
    of_rows: list[float], of_frames: list[float], slope: float, offset: float
) -> None:
    times = np.cumsum([-0.1, *of_rows])
    stamps = np.cumsum([0.0, *of_frames])
    found = align(rows(times, slope * times + offset), stamps, spec("linear"))
    there = (stamps[:-1] >= times[0]) & (stamps[:-1] <= times[-1])
    expected = slope * stamps[:-1][there] + offset
    assert found.valid[there].all()
    assert np.allclose(found.values[there, 0], expected, atol=1e-5)


def test_a_turn_at_constant_speed_stays_one_and_of_length_1() -> None:
    def turn(degrees: np.ndarray) -> np.ndarray:
        half = np.radians(degrees) / 2
        zero = np.zeros_like(half)
        return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)

    times = np.arange(0, 1.01, 0.1)
    recorded = turn(90 * times)
    recorded[3] *= -1  # the same rotation
    found = align(rows(times, 2 * recorded), frames(20), spec("slerp")).values
    expected = turn(90 * frames(20)[:-1])
    assert np.allclose(np.abs((found * expected).sum(axis=1)), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_quaternion_without_a_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        align(rows([0, 1], np.zeros((2, 4))), frames(2), spec("slerp"))


def test_numbers_that_are_no_quaternions_are_refused() -> None:
    with pytest.raises(ValueError, match="four numbers each; the columns have 3"):
        align(
            Rows(np.array([0.0, 1.0]), np.ones((2, 3))),
            np.array([0.0, 0.5]),
            TrackSpec(columns=("q",), rule="slerp"),
        )


def test_ties() -> None:
    edges = np.array([0.0, 0.5, 1.0, 1.5])
    assert align(rows([0, 1, 2]), edges, spec("nearest")).values[:, 0].tolist() == [0, 0, 1]
    assert align(rows([0, 1, 2]), edges, spec("hold")).values[:, 0].tolist() == [0, 0, 1]
    # A row at a frame's own time is that frame's.
    assert align(rows([0, 0.5, 1]), edges, spec("sum")).values[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("rule", ["hold", "sum", "last", "mean"])
@pytest.mark.parametrize("rate", [24.0, 30.0, 60.0, 30000 / 1001])
@pytest.mark.parametrize("digits", ["milliseconds", "float32"])
def test_stamps_that_were_rounded_are_of_their_frames(rule: str, rate: float, digits: str) -> None:
    edges = frames(200, rate, first=0.0 if digits == "milliseconds" else 600.0)
    written = np.round(edges, 3) if digits == "milliseconds" else edges.astype(np.float32)
    found = align(rows(written[:-1].astype(np.float64)), edges, spec(rule))
    assert found.values[:, 0].tolist() == list(range(200))


def test_rules_for_what_happened() -> None:
    track = rows([0.00, 0.01, 0.05, 0.09], [2, 4, 0, 6])
    edges = np.array([0.0, 0.04, 0.06, 0.08, 0.12])
    assert align(track, edges, spec("sum")).values[:, 0].tolist() == [6, 0, 0, 6]
    assert align(track, edges, spec("any")).values[:, 0].tolist() == [1, 0, 0, 1]
    assert align(track, edges, spec("last")).values[:, 0].tolist() == [4, 0, 0, 6]
    assert align(track, edges, spec("mean")).values[:, 0].tolist() == [3, 0, 0, 6]


def test_a_frame_that_is_shown_again_has_nothing_of_its_own() -> None:
    edges = np.array([0.0, 0.04, 0.04, 0.08])
    found = align(rows([0, 0.04]), edges, spec("sum", tolerance=1))
    assert found.values[:, 0].tolist() == [0, 0, 1]


def test_rows_counted_by_frame() -> None:
    found = align(rows([3, 4, 5, 6], unit=0.04), np.array([4.0, 5, 6]), spec("linear"))
    assert found.values[:, 0].tolist() == [1, 2]
    assert found.gap_seconds == pytest.approx(0.04)


def test_a_hole_is_seen_and_its_frames_are_not_valid() -> None:
    times = [t for t in np.arange(0, 4, 0.05).round(9) if not 1 < t < 2]
    found = align(rows(times), frames(100), spec("linear", max_gap=0.1))
    assert found.gap_seconds == pytest.approx(1.0)
    hole = np.flatnonzero(~found.valid)
    assert (hole[0], hole[-1]) == (26, 49)  # 1.04 … 1.96: more than half a frame from a row
    assert np.isnan(found.values[hole]).all()
    assert np.isfinite(found.values[found.valid]).all()
    assert found.coverage == 0.76
    assert align(rows(times), frames(100), spec("linear")).coverage == 1


def test_beyond_the_ends_nothing_is_known() -> None:
    track = rows(np.arange(0, 1, 0.04))
    for rule in ("hold", "linear", "nearest", "sum", "last"):
        found = align(track, frames(50), spec(rule))
        assert found.valid.tolist() == [True] * 25 + [False] * 25, rule
        assert found.gap_seconds == pytest.approx(1.0, abs=0.05)


def test_a_longer_tolerance_reaches_further() -> None:
    found = align(rows([0.0, 0.04]), frames(50), spec("hold", tolerance=0.4))
    assert found.valid.sum() == 12


def test_an_image_has_the_rows_of_its_moment() -> None:
    found = align(rows([0.0, 1.0], [5, 6]), np.array([0.0, 0.0]), spec("hold"))
    assert found.values.tolist() == [[5.0]]
    assert found.coverage == 1


# ── latent frames ────────────────────────────────────────────────────────────────────────────────


def test_groups_of_a_causal_encoder() -> None:
    values = np.arange(9, dtype=np.float32)[:, None]
    at = group(values, 4, True, "hold")[:, :, 0]
    assert at.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    during = group(values, 4, True, "sum")[:, :, 0]
    assert during.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]]


def test_groups_of_an_encoder_that_looks_ahead() -> None:
    values = np.arange(8, dtype=np.float32)[:, None]
    for rule in ("linear", "any"):
        assert group(values, 4, False, rule)[:, :, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_group_is_of_whole_latent_frames() -> None:
    with pytest.raises(ValueError, match="no whole number"):
        group(np.zeros((8, 1), np.float32), 4, True, "sum")
    with pytest.raises(ValueError, match="no rule"):
        group(np.zeros((9, 1), np.float32), 4, True, "median")
    assert group(np.ones((1, 2), np.float32), 4, True, "hold").shape == (1, 4, 2)
