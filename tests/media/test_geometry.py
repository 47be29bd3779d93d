"""Sizes, orientations and crops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.pipeline.media.geometry import (
    EXIF_ORIENTATIONS,
    Orientation,
    crop_to_grid,
    display_size,
    fit_short_side,
    matrix_orientation,
    square_width,
    to_square,
)
from telecine.pipeline.media.pixels import turn

sides = st.integers(1, 5000)
orientations = st.builds(Orientation, st.sampled_from((0, 90, 180, 270)), st.booleans())


@settings(deadline=None)  # a busy machine is no failure
@given(sides, sides, st.sampled_from([8, 16, 32]))
def test_a_crop_is_the_largest_on_the_grid_and_loses_less_than_a_step(
    width: int, height: int, grid: int
) -> None:
    crop = crop_to_grid(width, height, grid)
    if crop is None:
        assert width < grid or height < grid
        return
    for size, start, kept in ((width, crop.x, crop.width), (height, crop.y, crop.height)):
        assert kept % grid == 0
        assert 0 <= size - kept < grid
        assert start % 2 == 0
        assert abs((size - kept) - 2 * start) <= 3  # centred, but for even offsets
        assert start + kept <= size


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(4, 40), st.integers(4, 40), orientations, st.data())
def test_a_crop_cut_before_the_turn_is_the_crop_cut_after_it(
    width: int, height: int, orientation: Orientation, data: st.DataObject
) -> None:
    stored = np.arange(width * height, dtype=np.int64).reshape(height, width)
    shown = turn(stored, orientation)
    grid = data.draw(st.integers(1, 4))
    crop = crop_to_grid(shown.shape[1], shown.shape[0], grid)
    assert crop is not None
    inside = to_square(crop, shown.shape[1], shown.shape[0], orientation)
    cut = stored[inside.y : inside.y + inside.height, inside.x : inside.x + inside.width]
    expected = shown[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    assert np.array_equal(turn(cut, orientation), expected)


@settings(deadline=None)  # a busy machine is no failure
@given(orientations, st.integers(1, 3))
def test_a_display_matrix_says_where_a_point_goes(orientation: Orientation, scale: int) -> None:
    """Moving every pixel of a picture as the matrix says gives the picture that `turn` shows."""
    stored = np.arange(12).reshape(3, 4)
    shown = turn(stored, orientation)
    ((y0, x0),) = np.argwhere(shown == stored[0, 0])
    ((y1, x1),) = np.argwhere(shown == stored[0, 1])
    ((y2, x2),) = np.argwhere(shown == stored[1, 0])
    a, b, c, d = (int(v) * scale << 16 for v in (x1 - x0, y1 - y0, x2 - x0, y2 - y0))
    assert matrix_orientation(a, b, c, d) == orientation


def test_the_matrix_that_phones_write_for_upright_footage_turns_clockwise() -> None:
    assert matrix_orientation(0, 1 << 16, -(1 << 16), 0) == Orientation(270, False)


def test_a_singular_matrix_is_no_orientation() -> None:
    assert matrix_orientation(0, 0, 0, 0) == Orientation()


def test_exif_orientations_are_the_eight_different_ones() -> None:
    stored = np.arange(6).reshape(2, 3)
    assert len({turn(stored, o).tobytes() for o in EXIF_ORIENTATIONS.values()}) == 8
    assert np.array_equal(turn(stored, EXIF_ORIENTATIONS[5]), stored.T)
    assert np.array_equal(turn(stored, EXIF_ORIENTATIONS[6]), np.rot90(stored, -1))
    assert np.array_equal(turn(stored, EXIF_ORIENTATIONS[4]), stored[::-1])


@pytest.mark.parametrize(
    ("width", "sar", "expected"),
    [
        (161, Fraction(1), 161),
        (1280, Fraction(3, 2), 1920),
        (720, Fraction(64, 45), 1024),
        (720, Fraction(11, 12), 660),
        (800, Fraction(399, 400), 798),
        (854, Fraction(1280, 1281), 854),
        (640, Fraction(0), 640),
        (3, Fraction(1, 100), 2),
    ],
)
def test_square_pixels_keep_the_height_and_give_an_even_width(
    width: int, sar: Fraction, expected: int
) -> None:
    assert square_width(width, sar) == expected


def test_a_turned_picture_swaps_its_sides_after_its_pixels_are_square() -> None:
    assert display_size(720, 576, Fraction(16, 15), 90) == (576, 768)
    assert display_size(720, 576, Fraction(16, 15), 180) == (768, 576)


@settings(deadline=None)  # a busy machine is no failure
@given(sides, sides, st.integers(16, 2000))
def test_a_still_is_never_larger_and_keeps_its_shape(width: int, height: int, short: int) -> None:
    w, h = fit_short_side(width, height, short)
    assert (w <= width, h <= height) == (True, True)
    assert min(w, h) <= short
    assert max(w, h) <= 16 * short
    if min(width, height) > short and max(width, height) <= 16 * min(width, height):
        assert min(w, h) == short
    if (w, h) != (width, height):
        assert abs(w * height - h * width) <= max(width, height) or min(w, h) == 1
