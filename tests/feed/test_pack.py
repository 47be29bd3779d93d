"""Pieces into packs, and what a pack costs."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from telecine.pipeline.feed.plan.cost import cost
from telecine.pipeline.feed.plan.pack import batched, packed


@given(st.lists(st.integers(1, 50), max_size=200))
def test_each_piece_is_in_one_pack_and_none_is_too_full(sizes: list[int]) -> None:
    packs = packed(np.array(sizes, np.int64), 50)
    assert sorted(chain.from_iterable(packs)) == list(range(len(sizes)))
    loads = sorted(sum(sizes[piece] for piece in pack) for pack in packs)
    assert all(0 < load <= 50 for load in loads)
    assert len(loads) < 2 or loads[0] + loads[1] > 50  # no two could have been one


def test_it_goes_where_it_leaves_least_room() -> None:
    assert packed(np.array([6, 7, 3, 4]), 10) == [[1, 2], [0, 3]]


def test_half_of_the_work_is_attention_at_six_widths() -> None:
    short, long = cost(np.array([6 * 512]), 512), cost(np.array([12 * 512]), 512)
    assert short == 2 * (6 * 512) ** 2
    assert long == 3 * short


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=60))
def test_a_batch_has_one_shape_and_only_the_last_of_it_is_short(
    shapes: list[tuple[int, int]],
) -> None:
    batches = batched(np.array(shapes), 4)
    assert sorted(chain.from_iterable(batches)) == list(range(len(shapes)))
    assert batched(np.empty((0, 4), np.int64), 4) == []
    assert all(len({shapes[piece] for piece in batch}) == 1 for batch in batches)
    short = [shapes[batch[0]] for batch in batches if len(batch) < 4]
    assert max(map(len, batches)) <= 4
    assert len(short) == len(set(short))
