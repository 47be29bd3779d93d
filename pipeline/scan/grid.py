"""A sparse grid of every frame: what shots are found in and frames are measured on.

Looking at every pixel would cost more than decoding them. Some 2,000 pixels per frame, a fixed
distance apart, are an unbiased sample of the picture: means, standard deviations and differences
over them estimate those of the whole frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

LONG_SIDE = 64  # samples along a frame's longer side, at most
CELL = 2  # samples across and down that make one cell of a thumbnail


@dataclass(frozen=True)
class Grid:
    """n frames of one size: luma uint8 [n, h, w], chroma uint8 [n, h', w'] at about half of that.

    The values are the coded ones, 8 bits of them, in the stream's own range and matrix.
    """

    luma: Plane
    cb: Plane
    cr: Plane

    def __len__(self) -> int:
        return len(self.luma)

    def __getitem__(self, part: slice) -> Grid:
        return Grid(self.luma[part], self.cb[part], self.cr[part])

    def copy(self) -> Grid:
        return Grid(self.luma.copy(), self.cb.copy(), self.cr.copy())

    def then(self, other: Grid) -> Grid:
        """A copy of both, in a row."""
        return Grid(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )


def stride(width: int, height: int) -> int:
    """Pixels between two luma samples, the same across and down."""
    return -(-max(width, height) // LONG_SIDE)


def middle(length: int, step: int) -> slice:
    """Every `step`th of `length` places, from half a step on; one where there are fewer."""
    return slice(min(step // 2, (length - 1) // 2), length, step)


def thumbnails(grid: Grid) -> npt.NDArray[np.int16]:
    """[n, 3, h // CELL, w // CELL]: mean luma of each cell, and the chroma samples nearest to it.

    Small pictures (fewer than 8 cells a side) keep every sample.
    """
    count, height, width = grid.luma.shape
    cell = CELL if min(height, width) >= 8 * CELL else 1
    rows, columns = height // cell, width // cell
    total = np.zeros((count, rows, columns), np.int16)
    inner = grid.luma[:, : rows * cell, : columns * cell]
    for y in range(cell):
        for x in range(cell):
            total += inner[:, y::cell, x::cell]
    made = np.empty((count, 3, rows, columns), np.int16)
    np.floor_divide(total, cell * cell, out=made[:, 0])
    for channel, plane in ((1, grid.cb), (2, grid.cr)):
        down = np.arange(rows) * plane.shape[1] // rows
        across = np.arange(columns) * plane.shape[2] // columns
        made[:, channel] = plane[:, down[:, None], across]
    return made
