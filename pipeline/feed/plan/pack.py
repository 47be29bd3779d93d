"""Pieces → packs: best-fit decreasing, or batches of one shape."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

_PACKS = 2**32  # more than there are


def packed(sizes: npt.NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Numbers of the pieces in each pack; no size is above the capacity.

    Each piece, the largest first, goes where it leaves least room (Johnson 1974; needs at most
    11/9 of the fewest packs there could be, plus 4). Of equal sizes the first comes first.
    """
    packs: list[list[int]] = []
    if not len(sizes):
        return packs
    room: list[int] = []  # free × _PACKS + number of the pack, sorted; without those that are full
    smallest = int(sizes.min())
    order = np.argsort(-sizes, kind="stable")
    for piece, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        at = bisect_left(room, size * _PACKS)
        if at < len(room):
            free, number = divmod(room.pop(at), _PACKS)
            packs[number].append(piece)
        else:
            free, number = capacity, len(packs)
            packs.append([piece])
        if free - size >= smallest:
            insort(room, (free - size) * _PACKS + number)
    return packs


def batched(shapes: npt.NDArray[np.int64], size: int) -> list[list[int]]:
    """Numbers of the pieces in each batch: of one shape ([n, …]), `size` of them or the rest."""
    if not len(shapes):
        return []
    _, kinds = np.unique(shapes, axis=0, return_inverse=True)
    order = np.argsort(kinds.ravel(), kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(kinds.ravel()[order])) + 1)
    return [group[i : i + size].tolist() for group in groups for i in range(0, len(group), size)]
