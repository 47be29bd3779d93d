"""Frames on their way into an encoder: planes as the decoder left them, and the colour map.

Keeping the planes (4:2:0 is half the bytes of RGB) lets an encoder convert where it computes: a
GPU on the device, the DCT by folding the matrix into its transform. What RGB means is fixed here
and nowhere else, so every encoder sees the same colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Latents: TypeAlias = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ColorMap:
    """Affine map from a pixel's three plane values (0..255) to full-range BT.709 RGB in 0..255.

    `rgb = clip(round(matrix @ planes + offset), 0, 255)`; `matrix` is row-major 3×3. The planes are
    Y, Cb, Cr or, with the identity, R, G, B.
    """

    matrix: tuple[float, ...]
    offset: tuple[float, float, float]


@dataclass(frozen=True)
class FrameBlock:
    """T consecutive frames of one clip, after the whole pixel contract but the colour matrix.

        planes[0]     uint8 [T, H, W]
        planes[1, 2]  uint8 [T, H / sy, W / sx]   (sx, sy) in {1, 2, 4}: 4:4:4, 4:2:2, 4:2:0, ...

    H and W are multiples of the crop grid (so of sx and sy). A chroma sample stands for the
    sy × sx pixels it covers (it is replicated, not interpolated).
    """

    planes: tuple[Pixels, Pixels, Pixels]
    colors: ColorMap

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W)"""
        frames, height, width = self.planes[0].shape
        return frames, height, width

    @property
    def subsampling(self) -> tuple[int, int]:
        """(sx, sy): how many pixels one chroma sample covers, across and down."""
        _, height, width = self.planes[0].shape
        _, chroma_height, chroma_width = self.planes[1].shape
        return width // chroma_width, height // chroma_height

    def rgb(self) -> Pixels:
        """uint8 [T, H, W, 3]: the reference conversion, that every encoder must agree with."""
        sx, sy = self.subsampling
        full = [self.planes[0]] + [p.repeat(sy, axis=1).repeat(sx, axis=2) for p in self.planes[1:]]
        y, cb, cr = (plane.astype(np.float32) for plane in full)
        matrix = np.array(self.colors.matrix, np.float32).reshape(3, 3)
        rgb = np.empty((*y.shape, 3), np.uint8)
        # One product and one sum at a time, so that the rounding is the same on every machine.
        for channel, ((a, b, c), d) in enumerate(zip(matrix, self.colors.offset, strict=True)):
            mapped = ((y * a + cb * b) + cr * c) + np.float32(d)
            rgb[..., channel] = np.clip(np.rint(mapped), 0, 255)
        return rgb


def checked(blocks: Iterable[FrameBlock], sizes: Iterable[int]) -> Iterator[FrameBlock]:
    """The blocks, if they have these sizes and one geometry; else ValueError."""
    arriving, geometry = iter(blocks), None
    for index, size in enumerate(sizes):
        block = next(arriving, None)
        if block is None:
            raise ValueError(f"the clip ended before block {index}, of {size} frames")
        if block.shape[0] != size:
            raise ValueError(f"block {index} has {block.shape[0]} frames: {size} were announced")
        geometry = geometry or _geometry(block)
        if _geometry(block) != geometry:
            raise ValueError(f"block {index} is {_geometry(block)}, block 0 {geometry}")
        yield block
    if next(arriving, None) is not None:
        raise ValueError("more blocks arrived than were announced")


def _geometry(block: FrameBlock) -> tuple[object, ...]:
    return *(plane.shape[1:] for plane in block.planes), block.colors
