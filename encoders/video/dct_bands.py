"""The arithmetic of the `dct` encoder: bands of pixel rows through small matrix products.

    Forward   pixels [columns, planes × frames × rows] ─▶ [columns, vertical] ─▶ [blocks, channels]
    Inverse   [blocks, channels] ─▶ RGB [frames × rows, columns × 3]

A *band* is one row of 8 × 8 blocks through the frames of one group. Bands are computed some at a
time, in reused buffers that stay in cache: fresh memory costs more than the arithmetic. Each is
cut into tiles of at most 256 columns, because OpenBLAS computes a product of fewer than 2^18
multiplications on one thread: on machines of one CPU kind (OpenBLAS has kernels for each) results
then depend neither on its thread count nor on anything but the picture's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from telecine.encoders.frames import ColorMap, FrameBlock, Latents, Pixels

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

SIDE = 8  # pixels of a block, across and down
TILE_BLOCKS = 32  # at most 256 columns × 96 plane rows × 9 outputs in one product
BUFFER_BYTES = 2**21  # float32 pixels at a time: about what a core's own cache holds
HALF_RANGE = 127.5  # of a pixel value: [0, 255] is [-1, 1]

# Rows: Y, C1, C2. Columns: R, G, B. Orthonormal.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])


class Coefficient(NamedTuple):
    """One basis function of a block: an opponent colour and three frequencies."""

    color: int
    kt: int
    ky: int
    kx: int


@dataclass(frozen=True)
class Basis:
    """The kept coefficients of a group of `frames` frames, and their normalisation."""

    frames: int
    gain: float
    coefficients: tuple[Coefficient, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def factors(self) -> tuple[Doubles, Doubles]:
        """([rgb, frame, y, v], [x, v, channel]): what a pixel weighs is their product over v.

        v runs over the distinct (color, kt, ky): the coefficients but for their horizontal part.
        """
        keys = sorted({(c.color, c.kt, c.ky) for c in self.coefficients})
        time, space = cosines(self.frames), cosines(SIDE)
        color, kt, ky = (list(k) for k in zip(*keys, strict=True))
        down = np.einsum("vc,vt,vy->ctyv", OPPONENT[color], time[kt], space[ky])
        across = np.zeros((SIDE, len(keys), len(self.coefficients)))
        for channel, c in enumerate(self.coefficients):
            across[:, keys.index((c.color, c.kt, c.ky)), channel] = space[c.kx]
        return down, across

    def offset(self, colors: ColorMap) -> Floats:
        """[channel]: what the map's constants and the mean add to a normalised latent."""
        constant = OPPONENT @ (np.array(colors.offset) / HALF_RANGE - 1)
        flat = self.gain * np.sqrt(self.frames * SIDE * SIDE)  # DC of a block of ones
        raw = [constant[c.color] * flat * (c.kt == c.ky == c.kx == 0) for c in self.coefficients]
        return ((np.array(raw) - self.mean) / self.std).astype(np.float32)


def cosines(count: int) -> Doubles:
    """Orthonormal DCT-II, [frequency, sample] (Ahmed, Natarajan and Rao, 1974)."""
    k, n = np.mgrid[:count, :count]
    scale = np.where(k == 0, np.sqrt(1 / count), np.sqrt(2 / count))
    return np.asarray(scale * np.cos(np.pi * (2 * n + 1) * k / (2 * count)))


@dataclass(frozen=True)
class Tiling:
    """How a picture's bands are cut: `tiles` of `blocks` blocks, the last one padded."""

    bands: int
    width_blocks: int
    tiles: int
    blocks: int

    @classmethod
    def of(cls, height: int, width: int) -> Tiling:
        width_blocks = width // SIDE
        tiles = -(-width_blocks // TILE_BLOCKS)
        return cls(height // SIDE, width_blocks, tiles, -(-width_blocks // tiles))

    def at_once(self, bytes_per_block: int) -> int:
        return max(1, min(self.bands, BUFFER_BYTES // (bytes_per_block * self.tiles * self.blocks)))

    def chunks(self, size: int) -> Iterator[slice]:
        return (slice(top, min(top + size, self.bands)) for top in range(0, self.bands, size))


class Sheet:
    """Planes of one size, their buffer and the two matrices that take them to channels."""

    def __init__(
        self, planes: Sequence[int], step: tuple[int, int], basis: Basis, colors: ColorMap
    ) -> None:
        self.planes, (self.sx, self.sy) = planes, step
        down, across = basis.factors()
        matrix = np.array(colors.matrix).reshape(3, 3)[:, planes]
        # A subsampled sample stands for sy × sx pixels: sum the basis over them.
        down = np.einsum("cp,ctyv->ptyv", matrix, down) * (basis.gain / HALF_RANGE)
        down = down.reshape(len(planes), basis.frames, SIDE // self.sy, self.sy, -1).sum(axis=3)
        across = (across / basis.std).reshape(SIDE // self.sx, self.sx, *across.shape[1:]).sum(1)
        used = np.abs(down).max(axis=(0, 1, 2)) > 1e-12  # luma has no part in opponent colours
        self.rows = down.shape[:3]  # planes, frames, rows of a band
        self.down = down[..., used].reshape(-1, used.sum()).astype(np.float32)
        self.across = across[:, used].reshape(-1, across.shape[-1]).astype(np.float32)

    def bytes_per_block(self) -> int:
        return 4 * len(self.down) * SIDE // self.sx

    def allocate(self, bands: int, tiling: Tiling) -> None:
        tile = tiling.blocks * SIDE // self.sx
        # Zeros, since the padding beyond the picture is never written.
        self.pixels = np.zeros((bands, *self.rows, tiling.tiles * tile), np.float32)
        self.columns = self.pixels.reshape(bands, -1, tiling.tiles, tile).transpose(0, 2, 3, 1)
        self.partial = np.empty((bands, tiling.tiles, tile, self.down.shape[1]), np.float32)
        self.blocks = self.partial.reshape(bands, tiling.tiles, tiling.blocks, -1)

    def load(self, planes: tuple[Pixels, Pixels, Pixels], chunk: slice) -> None:
        for index, plane in enumerate(self.planes):
            frames, height, width = planes[plane].shape
            rows = self.rows[2]
            banded = planes[plane].reshape(frames, height // rows, rows, width)
            np.copyto(
                self.pixels[: chunk.stop - chunk.start, index, ..., :width],
                banded[:, chunk].swapaxes(0, 1),
            )

    def project(self, out: Floats) -> None:
        """Writes the channels of the loaded bands: [bands, tiles, blocks, channels]."""
        bands = len(out)
        np.matmul(self.columns[:bands], self.down, out=self.partial[:bands])
        np.matmul(self.blocks[:bands], self.across, out=out)


class Forward:
    """Groups of frames of one geometry and colour map to normalised latents."""

    def __init__(self, basis: Basis, like: FrameBlock) -> None:
        _, height, width = like.shape
        step = like.subsampling
        self.tiling = Tiling.of(height, width)
        if step == (1, 1):
            self.sheets = [Sheet([0, 1, 2], step, basis, like.colors)]
        else:
            self.sheets = [
                Sheet([0], (1, 1), basis, like.colors),
                Sheet([1, 2], step, basis, like.colors),
            ]
        self.size = self.tiling.at_once(sum(sheet.bytes_per_block() for sheet in self.sheets))
        for sheet in self.sheets:
            sheet.allocate(self.size, self.tiling)
        shape = (self.size, self.tiling.tiles, self.tiling.blocks, len(basis.coefficients))
        self.offset = basis.offset(like.colors)
        self.sum, self.term = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def __call__(self, planes: tuple[Pixels, Pixels, Pixels], out: Latents) -> None:
        """Planes of one group to `out` [channels, H / 8, W / 8]."""
        for chunk in self.tiling.chunks(self.size):
            bands = chunk.stop - chunk.start
            total, term = self.sum[:bands], self.term[:bands]
            total[:] = self.offset
            for sheet in self.sheets:
                sheet.load(planes, chunk)
                sheet.project(term)
                np.add(total, term, out=total)
            flat = total.reshape(bands, -1, total.shape[-1])[:, : self.tiling.width_blocks]
            out[:, chunk] = flat.transpose(2, 0, 1)


class Inverse:
    """Normalised latents to RGB: the transpose of the transform, since it is orthonormal.

    One product for each frame and row of a band, whose output is a row of the picture:
    [blocks, channels] @ [channels, x × rgb].
    """

    def __init__(self, basis: Basis, height: int, width: int) -> None:
        down, across = basis.factors()
        weights = np.einsum("ctyv,xvk->tykxc", down, across) * (HALF_RANGE / basis.gain)
        self.weights = weights.reshape(-1, across.shape[-1], SIDE * 3).astype(np.float32)
        self.frames, self.tiling = basis.frames, Tiling.of(height, width)
        self.mean, self.std = np.array(basis.mean, np.float32), np.array(basis.std, np.float32)
        self.size = self.tiling.at_once(self.weights[:, 0].nbytes)
        shape = (self.size, len(self.weights), width // SIDE, SIDE * 3)
        self.rgb = np.empty(shape, np.float32)

    def __call__(self, latents: Latents) -> Pixels:
        """[channels, H / 8, W / 8] to uint8 [frames, H, W, 3]."""
        _, bands, blocks = latents.shape
        out = np.empty((self.frames, bands, SIDE, blocks * SIDE, 3), np.uint8)
        for chunk in self.tiling.chunks(self.size):
            raw = latents[:, chunk].transpose(1, 2, 0) * self.std + self.mean
            rgb = self.rgb[: len(raw)]
            np.matmul(raw[:, None], self.weights, out=rgb)
            np.add(rgb, HALF_RANGE + 0.5, out=rgb)  # the cast below truncates: this rounds
            np.clip(rgb, 0, 255, out=rgb)
            rows = rgb.reshape(len(raw), self.frames, SIDE, blocks * SIDE, 3)
            np.copyto(out[:, chunk], rows.swapaxes(0, 1), casting="unsafe")
        return out.reshape(self.frames, bands * SIDE, blocks * SIDE, 3)
