"""Near-duplicates among vectors: which row stands for which. Arrays in, arrays out; no tables.

    order of preference   0   1   2   3   4   5   6   7 ...
                          ●       │   ●       │   │          ● kept: no kept one before is near it
                          └───────┘   └───────┘   │          │ takes its leader's group
                          └───────────────────────┘

Rows come in the order of preference, a block at a time. A row that is near one that is already kept
joins the most wanted such one; of the others, each that is still free is kept and takes those after
it. Only kept rows are searched. So nothing is ever taken back:

- a row joins a group once, after its cosine with the very row that is kept was computed; there are
  no chains;
- a thousand copies are one kept row among those searched, and never crowd a list of neighbours;
- it ends after one pass.

Near is a cosine of at least the threshold. Up to EXACT_ROWS rows all pairs are looked at, and the
outcome is a function of vectors and preference alone. Beyond, a kept row may be overlooked where an
index fails to propose it (benchmarks/duplicates.py has the share); then two rows that are near are
both kept, but none is dropped for one that it is not near.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from telecine.infra.errors import UsageError
from telecine.infra.store.disk import explained
from telecine.pipeline.score.neighbours import Cells, Flat, Half, Neighbours, Places, needed_bytes

EXACT_ROWS = 50_000  # more are searched through an index
FEWEST = 128  # an index learns nothing from fewer
BLOCK = 4_096  # rows at a time; part of the outcome, where that is not exact
LISTS = (16, 256)  # neighbours asked for; the longer list where all of the shorter are none
PAIRS = 2_048  # verified at a time
MEMORY = 16 << 30


@dataclass(frozen=True, slots=True)
class Grouped:
    """Where each of n rows stands among its near-duplicates."""

    group: NDArray[np.int64]  # [n] the row that is kept of each row's group
    rank: NDArray[np.int32]  # [n] 0: kept, or alone; 1, 2, ...: the others, most wanted first


class Vectors:
    """Vectors of length 1 on disk, float16 [n, dimensions]: appended in blocks, then read as one.

    Use as a context manager. The file has no name: it is gone at the end, or with the process.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder, self._dimensions, self._rows = folder, dimensions, 0

    def __enter__(self) -> Vectors:
        with explained(str(self._folder)):
            self._file = tempfile.TemporaryFile(dir=self._folder)
        return self

    def append(self, block: NDArray[np.float16] | NDArray[np.float32]) -> None:
        """Rows of any length, brought to length 1; one that is not finite becomes all zero."""
        if block.ndim != 2 or block.shape[1] != self._dimensions:
            raise ValueError(f"a block of shape {block.shape} where [n, {self._dimensions}] is due")
        exact = block.astype(np.float64)
        exact[~np.isfinite(exact).all(axis=1)] = 0
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        unit = np.divide(exact, lengths, out=exact, where=lengths > 0)
        with explained(str(self._folder)):
            self._file.write(unit.astype(np.float16).tobytes())
        self._rows += len(block)

    @property
    def array(self) -> Half:
        """All rows so far, as a memory map."""
        shape = (self._rows, self._dimensions)
        if not self._rows:
            return np.empty(shape, np.float16)
        with explained(str(self._folder)):
            self._file.flush()
            return np.memmap(self._file, np.float16, "r", shape=shape)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def group_duplicates(
    vectors: Half,
    preference: NDArray[np.int64],
    threshold: float,
    *,
    progress: Callable[[int], None] = lambda rows: None,
    memory_bytes: int = MEMORY,
    exact_rows: int = EXACT_ROWS,
) -> Grouped:
    """Group rows [n, d]; `preference[i]` is the place of row i among the n, 0 the most wanted.

    Rows that are all zero or not finite have no duplicates. `progress` is told of rows as they are
    grouped, n in all. `memory_bytes` only refuses: how much there is changes no outcome. Raises
    UsageError where more would be taken, or where an index is needed and faiss is missing.
    """
    order = _in_order(preference, len(vectors))
    rows = order[_usable(vectors)[order]]
    progress(len(order) - len(rows))
    exact = len(rows) <= max(exact_rows, FEWEST)
    if not exact:
        _refuse_too_many(len(rows), vectors.shape[1], memory_bytes)
    near = _Verified(vectors, rows, threshold)
    leader = _leaders((Flat if exact else Cells)(vectors, rows, threshold), near, progress)
    return _grouped(rows, leader, len(vectors))


def cosines(a: Half, b: Half) -> NDArray[np.float64]:
    """Of the rows of a [n, d] with those of b.

    In float64 products of float16 and their sums are exact (for lengths near 1), so that a pair has
    one cosine whatever the order of summation, and equal rows have 1. NaN where a row is all zero.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    products, first, second = (np.einsum("ij,ij->i", *pair) for pair in ((x, y), (x, x), (y, y)))
    with np.errstate(invalid="ignore"):
        return np.asarray(products / np.sqrt(first * second))


def _in_order(preference: NDArray[np.int64], count: int) -> Places:
    """The rows, most wanted first."""
    order = np.full(count, -1, np.int64)
    if preference.shape == order.shape:
        order[preference] = np.arange(count)
    if (order < 0).any():
        raise ValueError(f"preference is no permutation of {count} rows")
    return order


def _usable(vectors: Half) -> NDArray[np.bool_]:
    usable = np.empty(len(vectors), np.bool_)
    for start in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[start : start + BLOCK])
        usable[start : start + BLOCK] = np.isfinite(block).all(axis=1) & block.any(axis=1)
    return usable


def _refuse_too_many(rows: int, dimensions: int, memory_bytes: int) -> None:
    needed = needed_bytes(rows, dimensions)
    if needed > memory_bytes:
        raise UsageError(
            f"finding near-duplicates among {rows:,} clips needs {needed / 2**30:.1f} GiB of "
            f"memory, and {memory_bytes / 2**30:.1f} GiB may be taken: run it where there is more"
        )


class _Verified:
    """Which pairs are near: the only judge, on the vectors themselves."""

    def __init__(self, vectors: Half, rows: Places, threshold: float) -> None:
        self._vectors, self._rows, self._threshold = vectors, rows, threshold

    def __call__(self, a: Places, b: Places) -> NDArray[np.bool_]:
        """Of places a[i] and b[i]."""
        near = np.empty(len(a), np.bool_)
        for start in range(0, len(a), PAIRS):
            x, y = (self._vectors[self._rows[each[start : start + PAIRS]]] for each in (a, b))
            near[start : start + PAIRS] = cosines(x, y) >= self._threshold
        return near


def _leaders(found: Neighbours, near: _Verified, progress: Callable[[int], None]) -> Places:
    """[len(found)] of each place the one that is kept for it, itself where it is kept."""
    leader = np.arange(len(found))
    for start in range(0, len(found), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(found)))
        _join_kept(leader, places, found, near)
        free = places[leader[places] == places]
        _join_each_other(leader, free, found.among(free), near)
        found.add(free[leader[free] == free])
        progress(len(places))
    return leader


def _join_kept(leader: Places, places: Places, found: Neighbours, near: _Verified) -> None:
    """Those that are near a kept one of an earlier block join the most wanted one found."""
    asked = places
    for most in LISTS:
        index, kept, cut = found.near(asked, most)
        same = near(asked[index], kept)
        np.minimum.at(leader, asked[index[same]], kept[same])
        asked = asked[cut & (leader[asked] == asked)]
        if not len(asked):
            return


def _join_each_other(
    leader: Places, places: Places, maybe: NDArray[np.bool_], near: _Verified
) -> None:
    """In order: each that is still free takes those free ones after it that are near it."""
    free = np.ones(len(places), np.bool_)
    maybe = np.triu(maybe, 1)
    for index in np.flatnonzero(maybe.any(axis=1)):
        if free[index]:
            others = np.flatnonzero(maybe[index] & free)
            same = others[near(np.full(len(others), places[index]), places[others])]
            leader[places[same]] = places[index]
            free[same] = False


def _grouped(rows: Places, leader: Places, count: int) -> Grouped:
    """From places to rows. Places rise within a group, so that their order is that of ranks."""
    group, rank = np.arange(count), np.zeros(count, np.int32)
    group[rows] = rows[leader]
    by_group = np.argsort(leader, kind="stable")
    starts = np.searchsorted(leader[by_group], leader[by_group])
    rank[rows[by_group]] = np.arange(len(rows)) - starts
    return Grouped(group, rank)
