"""Boxes of the ISO base media file format (ISO 14496-12): MP4, QuickTime, HEIF, AVIF.

Sizes and places of hostile files are any number of 64 bits: no more is read than there is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.filters import Margins

MOST_BOXES = 1 << 12  # of a file, or of a payload in it, that are looked at
NO_MARGINS: Margins = (0, 0, 0, 0)


def file_boxes(
    file: BinaryIO, at: int = 0, end: int | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """(type, where its payload begins, how long that is) of the boxes of the file itself.

    Or of those in the payload that lies from `at` to `end`. Raises MediaError CORRUPT at a box that
    is shorter than its own header.
    """
    size = file.seek(0, os.SEEK_END) if end is None else end
    for _ in range(MOST_BOXES):
        file.seek(min(at, size))
        head = file.read(min(16, max(0, size - at)))
        if len(head) < 8:
            return
        header, whole = _extent(head, size - at)
        yield head[4:8], at + header, min(whole, size - at) - header
        at += whole


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, payload) of the boxes in a payload. Raises as `file_boxes` does."""
    for kind, start, end in spans(data, 0, len(data)):
        yield kind, data[start:end]


def spans(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, where its payload begins, where it ends) of the boxes in data[start:end].

    Raises as `file_boxes` does.
    """
    while start + 8 <= end:
        header, whole = _extent(data[start : min(start + 16, end)], end - start)
        yield data[start + 4 : start + 8], start + header, min(start + whole, end)
        start += whole


def _extent(head: bytes, rest: int) -> tuple[int, int]:
    """Bytes of a box's header, and of all of it."""
    header, whole = 8, int.from_bytes(head[:4], "big")
    if whole == 1:
        header, whole = 16, int.from_bytes(head[8:16], "big")
    elif whole == 0:
        whole = rest
    if whole < header:
        raise MediaError(Reason.CORRUPT, f"a box {head[4:8]!r} of {whole} bytes")
    return header, whole


def clean_aperture(width: int, height: int, clap: bytes) -> Margins | None:
    """What a `clap` box (12.1.4) leaves out of a picture of that size; None if that cannot be.

    It gives width, height and the offsets of its centre from the picture's, each as a fraction.
    Fractions of a pixel are cut off the corner and the size, as decoders of video and of stills do.
    """
    numbers = struct.unpack(">IIIIiIiI", clap[:32].ljust(32, b"\0"))
    if not all(numbers[1::2]):
        return None
    across, down, x, y = (Fraction(*numbers[k : k + 2]) for k in (0, 2, 4, 6))
    left, top = int((width - across) / 2 + x), int((height - down) / 2 + y)
    margins = left, top, width - left - int(across), height - top - int(down)
    return margins if min(margins) >= 0 and min(int(across), int(down)) > 0 else None
