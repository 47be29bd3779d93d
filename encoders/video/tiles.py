"""Pictures in overlapping squares, around any streaming.

    ▏  ·  ·  ·  ·  ·  ·  ▕      tiles lie as evenly as the latents' grid allows, all within the
     ▔▔▔▔▔▔▔▔▔                  picture, and share at least `overlap` pixels; there the
           ▔▔▔▔▔▔▔▔▔            posterior's parameters go over linearly from one to the next
                 ▔▔▔▔▔▔▔▔▔

Every tile is a stream of its own, so what a model keeps of earlier frames is kept for the whole
picture; what shrinks is the work on one chunk. Tiles are never exact: convolutions see an edge, and
attention a part. A picture no larger than one tile is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch

from telecine.encoders.video.families.base import Stream, Streaming
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import JsonValue


def tiled(streaming: Streaming, tile: int, overlap: int, spatial_stride: int) -> Streaming:
    """`streaming` in squares of `tile` px that share at least `overlap` px.

    Raises UsageError unless both are multiples of the spatial stride and the overlap the smaller.
    """
    if tile % spatial_stride or overlap % spatial_stride or not 0 < overlap < tile:
        raise UsageError(
            f"[vae] tile = {tile}, tile_overlap = {overlap}: both must be multiples of this "
            f"model's {spatial_stride} px, and the overlap less than the tile"
        )
    return _Tiled(streaming, tile, overlap, spatial_stride)


@dataclass(frozen=True)
class _Tiled:
    inner: Streaming
    tile: int  # px, as are the others
    overlap: int
    stride: int

    def chunks(self, frames: int) -> Iterator[int]:
        return self.inner.chunks(frames)

    def open(self, vae: torch.nn.Module, frames: int) -> Stream:
        return _TiledStream(self, vae, frames)

    def identity(self) -> JsonValue:
        within = self.inner.identity()
        return {"tile": self.tile, "tile_overlap": self.overlap, "within": within}

    def spans(self, side: int) -> list[tuple[int, int]]:
        """Where tiles lie along a side of `side` latent pixels, half open, in latent pixels."""
        tile = self.tile // self.stride
        room = side - tile
        if room <= 0:
            return [(0, side)]
        steps = -(-room // (tile - self.overlap // self.stride))
        return [(start, start + tile) for start in (i * room // steps for i in range(steps + 1))]


class _TiledStream:
    def __init__(self, tiling: _Tiled, vae: torch.nn.Module, frames: int) -> None:
        self._tiling, self._vae, self._frames = tiling, vae, frames
        self._streams: dict[tuple[int, int], Stream] = {}
        self._weights: dict[tuple[int, int], torch.Tensor] = {}  # of tiles, on the device

    def push(self, pixels: torch.Tensor) -> torch.Tensor:
        stride = self._tiling.stride
        height, width = pixels.shape[3] // stride, pixels.shape[4] // stride
        rows, columns = self._tiling.spans(height), self._tiling.spans(width)
        if len(rows) == len(columns) == 1:
            return self._stream(0, 0).push(pixels)
        if not self._weights:
            # Once for a clip: each copy to a GPU would wait for all that it has still to do.
            down, across = weights(rows, height), weights(columns, width)
            self._weights = {
                (i, j): (down[i][:, None] * across[j]).to(pixels.device)
                for i, j in product(range(len(rows)), range(len(columns)))
            }
        blended = torch.empty(0)
        for i, j in product(range(len(rows)), range(len(columns))):
            (top, bottom), (left, right) = rows[i], columns[j]
            y, x = slice(top * stride, bottom * stride), slice(left * stride, right * stride)
            parameters = self._stream(i, j).push(pixels[..., y, x].contiguous())
            if not blended.numel():
                blended = parameters.new_zeros(
                    (*parameters.shape[:3], height, width), dtype=torch.float32
                )
            blended[..., top:bottom, left:right] += parameters * self._weights[i, j]
        return blended.to(parameters.dtype)

    def _stream(self, row: int, column: int) -> Stream:
        if (row, column) not in self._streams:
            opened = self._tiling.inner.open(self._vae, self._frames)
            self._streams[row, column] = opened
        return self._streams[row, column]


def weights(spans: list[tuple[int, int]], side: int) -> list[torch.Tensor]:
    """What each span counts for at each of its places, float32: together one everywhere.

    A ramp over what it shares with a neighbour, flat elsewhere and at the picture's edge.
    """
    places = torch.arange(side, dtype=torch.float32)
    ramps = []
    for i, (start, end) in enumerate(spans):
        rise = torch.ones(side)
        if i:
            rise = (places - start + 1) / (spans[i - 1][1] - start + 1)
        fall = torch.ones(side)
        if i + 1 < len(spans):
            fall = (end - places) / (end - spans[i + 1][0] + 1)
        ramps.append(torch.minimum(rise, fall).clamp(0, 1))
    total = torch.stack(ramps).sum(dim=0)
    return [(ramp / total)[start:end] for ramp, (start, end) in zip(ramps, spans, strict=True)]
