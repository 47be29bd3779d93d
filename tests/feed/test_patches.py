"""Patches: which number stands where, and that nothing is lost on the way there and back."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.patches import patchify, unpatchify

ORDERS = [" ".join(order) for order in permutations("cthw")]


def flat(shapes: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """Every float16 that there is, NaN among them, one after the other."""
    count = sum(int(np.prod(shape)) for shape in shapes)
    return torch.from_numpy((np.arange(count) % 2**16).astype(np.uint16).view(np.float16))


@given(
    patch=st.integers(1, 3),
    channels=st.integers(1, 5),
    grids=st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=4),
    order=st.sampled_from(ORDERS),
)
def test_every_number_is_where_its_patch_says_and_comes_back(
    patch: int, channels: int, grids: list[tuple[int, ...]], order: str
) -> None:
    shapes = [(channels, t, h * patch, w * patch) for t, h, w in grids]
    whole = flat(shapes)
    rows = patchify(whole, shapes, patch, order)

    wanted, start = [], 0
    for (t, h, w), shape in zip(grids, shapes, strict=True):
        count = int(np.prod(shape))
        bits = whole[start : start + count].numpy().view(np.uint16).reshape(shape)
        start += count
        for k, i, j in np.ndindex(t, h, w):
            part = bits[:, k : k + 1, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            wanted.append(part.transpose(["cthw".index(a) for a in order.split()]).ravel())
    assert np.array_equal(rows.numpy().view(np.uint16), np.stack(wanted))

    back = unpatchify(rows, shapes, patch, order)
    assert [tuple(one.shape) for one in back] == shapes
    again = torch.cat([one.reshape(-1) for one in back])
    assert np.array_equal(again.numpy().view(np.uint16), whole.numpy().view(np.uint16))


def test_what_a_model_gives_for_patches_comes_back_in_its_own_type() -> None:
    shapes = [(4, 2, 4, 6), (4, 1, 2, 2)]
    rows = torch.randn(13, 16)
    back = unpatchify(rows, shapes, 2, "t h w c")
    assert torch.equal(torch.cat([b.reshape(-1) for b in back]).sort()[0], rows.flatten().sort()[0])
    assert torch.equal(patchify(torch.cat([b.flatten() for b in back]), shapes, 2, "t h w c"), rows)


@pytest.mark.parametrize("order", ["c h w", "c t h x", "cthw", ""])
def test_another_word_is_refused(order: str) -> None:
    with pytest.raises(UsageError, match="write c, t, h and w"):
        patchify(flat([(1, 1, 2, 2)]), [(1, 1, 2, 2)], 2, order)
