"""Which of the rows kept so far may be near-duplicates of others. Whoever asks verifies them.

    Flat    all vectors in memory, all products: proposes every one
    Cells   float16 [n, d] ──▶ uint8 codes [n, 128] ──▶ inverted file of the codes of kept rows, of
            whose cells the nearest 128 or more are searched: proposes nearly every one

A code is the vector (of length 1, less the middle) on the main axes of a sample, rounded. Such a
projection only brings vectors nearer to each other, so a distance between codes that is too large
rules a pair out for certain. `Cells` compares nothing but whole numbers:

    projection   float16 × multiples of 2⁻²⁰, summed in float64         exact
    distances    of codes and rounded centres, at most 128 · 255²       < 2²³, exact in float32

so that neither threads nor the order of a processor's sums change what is found.

Rows are named by their place in the order of preference: `rows[place]` is a row of `vectors`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from telecine.infra.extras import load

Half: TypeAlias = NDArray[np.float16]
Single: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.int64]

AXES = 128  # of a code, at most: beyond, float32 may round what a distance is summed from
WIDTH = 16  # codes are as wide as a multiple of this: distances are then taken on bytes
SAMPLE = 16_384  # rows that the axes are learnt from
PER_CELL = 16  # codes for each cell that the centres are learnt from
ROUNDS = 4  # of k-means
PROBES = 128  # cells that are searched, at least
READ = 4_096  # rows at a time
SEED = 20_261


class Neighbours(Protocol):
    """The places that were added are searched."""

    def __len__(self) -> int:
        """Places in all."""
        ...

    def near(self, places: Places, most: int) -> tuple[Places, Places, NDArray[np.bool_]]:
        """Pairs (index into `places`, place that was added) that may be near-duplicates.

        Of each place the nearest `most` at least; the third is true where there may be more.
        """
        ...

    def among(self, places: Places) -> NDArray[np.bool_]:
        """[m, m]: which of them may be near-duplicates of each other."""
        ...

    def add(self, places: Places) -> None:
        """Places whose neighbours were asked for."""
        ...


class Flat:
    """Every pair whose cosine is at least the threshold, and some just below it."""

    def __init__(self, vectors: Half, rows: Places, threshold: float) -> None:
        dimensions = vectors.shape[1]
        self._least = threshold - (dimensions + 8) * 2.0**-23  # float32 may be off by so much
        self._unit = np.empty((len(rows), dimensions), np.float32)
        for start in range(0, len(rows), READ):
            block = vectors[rows[start : start + READ]].astype(np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
            self._unit[start : start + READ] = block / lengths[:, None]
        self._added = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._unit)

    def near(self, places: Places, most: int) -> tuple[Places, Places, NDArray[np.bool_]]:
        block = self._unit[places].T
        indices, kept = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(self._added), READ):
            added = self._added[start : start + READ]
            which, index = np.nonzero(self._unit[added] @ block >= self._least)
            indices.append(index)
            kept.append(added[which])
        return np.concatenate(indices), np.concatenate(kept), np.zeros(len(places), np.bool_)

    def among(self, places: Places) -> NDArray[np.bool_]:
        block = self._unit[places]
        return np.asarray(block @ block.T >= self._least)

    def add(self, places: Places) -> None:
        self._added = np.concatenate([self._added, places])


class Cells:
    """Pairs whose codes are near enough, and whose added one lies in a cell near the other."""

    def __init__(self, vectors: Half, rows: Places, threshold: float) -> None:
        """Reads all vectors once, in the order they lie in."""
        faiss = load_faiss()
        coder = Coder(vectors, rows[:: -(-len(rows) // SAMPLE)])
        self._codes = coder.codes(vectors, rows)
        # Rounding moves each coordinate of a difference by 1 at most.
        radius = coder.scale * math.sqrt(2 - 2 * min(threshold, 1)) + math.sqrt(coder.width) + 0.01
        self._furthest = radius**2
        cells = num_cells(len(rows))
        sample = self._codes[:: -(-len(rows) // (cells * PER_CELL))].astype(np.float32)
        self._centres = faiss.IndexFlatL2(coder.width)
        self._centres.add(_centres(sample, cells))
        self._cell = np.full(len(rows), -1, np.int32)
        bytes_as_they_are = faiss.ScalarQuantizer.QT_8bit_direct
        self._index = faiss.IndexIVFScalarQuantizer(
            self._centres, coder.width, cells, bytes_as_they_are, faiss.METRIC_L2, False
        )
        self._index.train(sample[:1])
        # The cells around a row are more, the smaller they are.
        self._index.nprobe = min(max(PROBES, round(1.75 * math.sqrt(cells))), cells)

    def __len__(self) -> int:
        return len(self._codes)

    def near(self, places: Places, most: int) -> tuple[Places, Places, NDArray[np.bool_]]:
        codes = self._codes[places].astype(np.float32)
        away, cells = self._centres.search(codes, self._index.nprobe)
        self._cell[places] = cells[:, 0]
        distances, kept = self._index.search_preassigned(codes, most, cells, away)
        close = (distances <= self._furthest) & (kept >= 0)
        return np.nonzero(close)[0], kept[close], close[:, -1]

    def among(self, places: Places) -> NDArray[np.bool_]:
        codes = self._codes[places].astype(np.float32)
        squares = np.einsum("ij,ij->i", codes, codes)
        products = codes @ codes.T
        products -= squares[:, None] / 2
        return np.asarray(products >= (squares - self._furthest) / 2)

    def add(self, places: Places) -> None:
        codes, cells = self._codes[places].astype(np.float32), self._cell[places].astype(np.int64)
        if (cells < 0).any():
            raise ValueError("places were added before their neighbours were asked for")
        at = load_faiss().swig_ptr
        self._index.add_core(len(places), at(codes), at(places), at(cells))


class Coder:
    """The main axes of a sample, and the steps that codes count on them."""

    def __init__(self, vectors: Half, sample: Places) -> None:
        axes = min(AXES, vectors.shape[1], len(sample))
        self.width = -(-axes // WIDTH) * WIDTH
        block = np.empty((len(sample), vectors.shape[1]), np.float16)
        ascending = np.argsort(sample)  # read in the order they lie in
        block[ascending] = vectors[sample[ascending]]
        self._axes = np.zeros((vectors.shape[1], self.width))
        self._axes[:, :axes] = np.rint(_main_axes(block, axes) * 2.0**20) / 2.0**20
        projected = np.concatenate(
            [self._projected(block[start : start + READ]) for start in range(0, len(block), READ)]
        )
        self._middle = np.median(projected, axis=0)
        projected -= self._middle
        self.scale = 127 / max(float(np.quantile(np.abs(projected), 0.9999)), 1e-3)

    def codes(self, vectors: Half, rows: Places) -> NDArray[np.uint8]:
        """[len(rows), width], in the order of `rows`."""
        places = np.full(len(vectors), -1)
        places[rows] = np.arange(len(rows))
        codes = np.empty((len(rows), self.width), np.uint8)
        for start in range(0, len(vectors), READ):
            here = places[start : start + READ]
            block = vectors[start : start + READ][here >= 0]
            steps = np.rint((self._projected(block) - self._middle) * self.scale) + 128
            codes[here[here >= 0]] = np.clip(steps, 0, 255)
        return codes

    def _projected(self, block: Half) -> NDArray[np.float64]:
        exact = block.astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
        return np.asarray((exact @ self._axes) / lengths[:, None])


def num_cells(rows: int) -> int:
    """So many that finding the nearest costs about as much as searching those."""
    return min(round(12 * math.sqrt(rows)), rows // 4)


def needed_bytes(rows: int, dimensions: int) -> int:
    """What grouping takes at its peak through `Cells`, the file of vectors not counted.

    By row: its code and the code and number of the index; place, row, leader, group, preference,
    cell and rank. By cell: its centre and sample.
    """
    width = -(-min(AXES, dimensions) // WIDTH) * WIDTH
    by_row = width + (width + 8) + 5 * 8 + 2 * 4
    by_cell = 4 * width * (2 + PER_CELL)
    return rows * by_row + num_cells(rows) * by_cell + 4 * SAMPLE * dimensions + (512 << 20)


def _main_axes(sample: Half, axes: int) -> NDArray[np.float64]:
    """[d, axes] of a principal component analysis, on one thread: so they are always the same."""
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        analysis = faiss.PCAMatrix(sample.shape[1], axes)
        analysis.train(sample.astype(np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    found: Single = faiss.vector_to_array(analysis.A).reshape(axes, sample.shape[1])
    return found.T.astype(np.float64)


def _centres(sample: Single, cells: int) -> Single:
    """k-means with whole numbers as centres."""
    means = load_faiss().Kmeans(
        sample.shape[1], cells, niter=ROUNDS, seed=SEED, int_centroids=True,
        min_points_per_centroid=1, max_points_per_centroid=PER_CELL,
    )  # fmt: skip
    means.train(sample)
    return np.asarray(means.centroids)


def load_faiss() -> Any:
    """The library, which has no types. Raises UsageError where it is missing."""
    return load("faiss", "caption", "finding near-duplicates among so many clips")
