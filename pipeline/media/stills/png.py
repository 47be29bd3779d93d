"""PNG (third edition): its chunks sorted into pixels and what is said about them.

Pillow is given the chunks that make the picture alone, so that no broken text, profile or EXIF can
cost it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.facts import PRIMARIES, TRANSFERS
from telecine.pipeline.media.faults.sizes import check_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_NOTE_BYTES = 1 << 24  # of a chunk that is no pixels
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_NOTES = (b"eXIf", b"iCCP", b"cICP", b"acTL")
_MOST_BYTES_PER_PIXEL = 9  # four channels of 16 bits that deflate could not shrink
_SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Png:
    pixels: bytes  # the file without its metadata
    bit_depth: int
    exif: bytes = b""
    icc: bytes = b""
    transfer: str = "sdr"
    primaries: str = ""
    full_range: bool = True
    animated: bool = False


def read_png(file: BinaryIO, max_pixels: int) -> Png:
    """Raises MediaError: TOO_LARGE; CORRUPT where there is no header."""
    file.seek(len(SIGNATURE))
    kept, left = bytearray(SIGNATURE), 64
    notes: dict[bytes, bytes] = {}
    for kind, size in _chunks(file):
        if kind in _PIXELS:
            left -= size
            if left < 0:
                raise MediaError(Reason.TOO_LARGE, "PNG: more data than its size can need")
            body = file.read(size + 4)
            kept += struct.pack(">I", size) + kind + body
            if kind == b"IHDR":
                width, height = struct.unpack(">II", body[:8].ljust(8, b"\0"))
                check_size(width, height, max_pixels)
                left = width * height * _MOST_BYTES_PER_PIXEL + _SLACK_BYTES
        elif kind in _NOTES and size <= MAX_NOTE_BYTES:
            notes.setdefault(kind, file.read(size + 4)[:size])
        else:
            file.seek(size + 4, io.SEEK_CUR)
    cicp = notes.get(b"cICP", b"")
    known = len(cicp) == 4 and cicp[2] == 0 and cicp[0] != 2  # the matrix of RGB, and not untold
    return Png(
        pixels=bytes(kept),
        bit_depth=kept[24] if len(kept) > 24 else 0,
        exif=notes.get(b"eXIf", b""),
        icc=b"" if known else _profile(notes.get(b"iCCP", b"")),  # CICP goes before it
        transfer=TRANSFERS.get(cicp[1], "sdr") if known else "sdr",
        primaries=PRIMARIES.get(cicp[0], "") if known else "",
        full_range=not known or cicp[3] != 0,
        animated=int.from_bytes(notes.get(b"acTL", b"")[:4], "big") > 1,
    )


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    while len(head := file.read(8)) == 8:
        kind = head[4:]
        yield kind, int.from_bytes(head[:4], "big")
        if kind == b"IEND":
            return


def _profile(chunk: bytes) -> bytes:
    """The ICC profile after its name and compression method; none if it cannot be unpacked."""
    _, _, packed = chunk.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_NOTE_BYTES)
    except zlib.error:
        return b""


def deep_pixels(png: Png) -> npt.NDArray[np.uint16] | None:
    """uint16 [H, W, 3 or 4] of a PNG of 16 bits in colour, which Pillow would cut to 8.

    None for the other kinds. Raises MediaError CORRUPT.
    """
    if png.bit_depth != 16:
        return None
    try:
        with av.open(io.BytesIO(png.pixels), "r", format="png_pipe") as container:
            container.streams.video[0].codec_context.thread_count = 1
            frame = next(container.decode(video=0))
    except (FFmpegError, StopIteration) as error:
        raise MediaError(Reason.CORRUPT, f"PNG: {error}") from error
    if frame.format.name not in ("rgb48be", "rgba64be"):
        return None
    return np.asarray(frame.to_ndarray()).astype(np.uint16)
