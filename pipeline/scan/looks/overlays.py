"""Overlays: what stays where it is while the picture moves behind it, as logos and time codes do.

    stills      ╱╲ ▣   ──╲ ▣   ╲╱─ ▣
    slopes that never change      ▣      in cells where the rest of the picture does

A slope (of luma, from one side of a pixel to the other) is static if it has one sign and about one
size in every still. A cell of the picture is covered where slopes across and slopes down are
static, in a neighbour too, while most of what lies around changes: a horizon under a pan has one of
the two alone. Where many cells with edges are static, or many of them lie apart from what moves,
the camera stands, and nothing tells an overlay from a wall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

MIN_STILLS, MAX_STILLS = 3, 4  # of a clip, that are compared
CELL = 8  # px of a still at half its size
MIN_SIDE = 4 * CELL
SLOPE = 8  # levels from one side of a pixel to the other
SPREAD = 0.7  # of a slope's least size over the stills, the most that it changes; at least 4 levels
EDGES = 5  # px of a cell with such slopes, across and down each
CHANGE = 16  # levels between a pixel's darkest and lightest still
NEAR = 5  # cells: how far what lies around a cell reaches
MOVED = 0.5  # of the picture that changes so much, at least; and of a covered cell's surroundings
STANDS = 0.15  # of the cells with edges that are static: beyond that the camera stands
AMONG = 0.7  # of the static cells that are covered: below that too


def logo_share(stills: Sequence[Pixels]) -> float | None:
    """Share of the picture that an overlay covers, 0..1, from luma at half the stills' size [h, w].

    None where it cannot be told: fewer than three stills, too little that moves, a camera that
    stands.
    """
    if len(stills) < MIN_STILLS or min(stills[0].shape) < MIN_SIDE:
        return None
    luma = np.stack(stills).astype(np.int16)
    changed = np.ptp(luma, axis=0) >= CHANGE
    if changed.mean() < MOVED:
        return None
    across = luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]
    down = luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]
    static = _both(_static(across), _static(down))
    if not static.any():
        return 0.0
    edges = np.mean([_both(abs(across[i]) >= SLOPE, abs(down[i]) >= SLOPE).mean() for i in (0, -1)])
    beside = _around(~static * _per_cell(changed[1:-1, 1:-1]), NEAR)
    moving = beside >= np.maximum(MOVED * CELL**2 * _around(~static * 1, NEAR), 1)
    covered = static & moving
    covered &= _around(covered * 1, 1) > 1
    if static.mean() > STANDS * edges or covered.sum() < AMONG * static.sum():
        return None
    return float(covered.mean())


def _static(slopes: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """[n, h, w] of all stills → where they have one sign and about one size."""
    low, high = slopes.min(axis=0), slopes.max(axis=0)
    least = np.maximum(low, -high)  # above 0 where no sign changes
    return np.asarray((least >= SLOPE) & (high - low <= np.maximum(SPREAD * least, 4)))


def _both(across: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.asarray((_per_cell(across) >= EDGES) & (_per_cell(down) >= EDGES))


def _per_cell(mask: npt.NDArray[np.bool_]) -> Counts:
    rows, columns = (side // CELL for side in mask.shape)
    packed = np.bitwise_count(np.packbits(mask[: rows * CELL, : columns * CELL], axis=1))
    return np.asarray(packed.reshape(rows, CELL, columns).sum(axis=1, dtype=np.int64))


def _around(cells: Counts, reach: int) -> Counts:
    """Sums over squares of 2 × `reach` + 1 cells."""
    padded = np.pad(cells, reach)
    rows, columns = cells.shape
    side = range(2 * reach + 1)
    down = np.add.reduce([padded[y : y + rows] for y in side])
    return np.asarray(np.add.reduce([down[:, x : x + columns] for x in side]))
