"""Writes GIFs frame by frame, and shows them as browsers do: a reference of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

COLORS = 8  # of every palette here


@dataclass(frozen=True)
class GifFrame:
    """Indices [h, w] of a palette [COLORS, 3], its own or (None) that of the file."""

    indices: npt.NDArray[np.uint8]
    x: int = 0
    y: int = 0
    disposal: int = 0
    transparent: int | None = None
    palette: npt.NDArray[np.uint8] | None = None
    delay: int = 10  # hundredths of a second


def gif(
    width: int, height: int, frames: Sequence[GifFrame],
    palette: npt.NDArray[np.uint8] | None, background: int = 0,
) -> bytes:  # fmt: skip
    """`palette` is the file's; None where each frame has its own."""
    flags = 0x80 | 2 if palette is not None else 0
    out = b"GIF89a" + struct.pack("<HHBBB", width, height, flags, background, 0)
    out += palette.tobytes() if palette is not None else b""
    out += b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    for frame in frames:
        control = frame.disposal << 2 | (frame.transparent is not None)
        out += b"\x21\xf9\x04" + struct.pack(
            "<BHBB", control, frame.delay, frame.transparent or 0, 0
        )
        high, wide = frame.indices.shape
        own = frame.palette is not None
        out += struct.pack("<BHHHHB", 0x2C, frame.x, frame.y, wide, high, (0x80 | 2) * own)
        out += frame.palette.tobytes() if frame.palette is not None else b""
        out += _packed(frame.indices.ravel())
    return out + b"\x3b"


def _packed(indices: npt.NDArray[np.uint8]) -> bytes:
    """LZW that learns nothing: a clear code before the codes would grow (GIF89a, appendix F)."""
    clear, end, bits = 8, 9, 4
    codes: list[int] = []
    for start in range(0, len(indices), 4):
        codes += [clear, *indices[start : start + 4].tolist()]
    number = 0
    for k, code in enumerate([*codes, end]):
        number |= code << (bits * k)
    data = number.to_bytes((bits * (len(codes) + 1) + 7) // 8, "little")
    blocks = [data[k : k + 255] for k in range(0, len(data), 255)]
    return b"\x03" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def shown(
    width: int, height: int, frames: Sequence[GifFrame], palette: npt.NDArray[np.uint8] | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """What a browser shows on a white page after each frame."""
    canvas = np.zeros((height, width, 4), np.uint8)
    for frame in frames:
        before = canvas.copy()
        high, wide = frame.indices.shape
        area = canvas[frame.y : frame.y + high, frame.x : frame.x + wide]
        colors = frame.palette if frame.palette is not None else palette
        assert colors is not None
        drawn = frame.indices != (-1 if frame.transparent is None else frame.transparent)
        area[drawn, :3] = colors[frame.indices[drawn]]
        area[drawn, 3] = 255
        seen = canvas[..., :3].copy()
        seen[canvas[..., 3] == 0] = 255
        yield seen
        if frame.disposal == 2:
            area[...] = 0
        elif frame.disposal == 3:
            canvas = before
