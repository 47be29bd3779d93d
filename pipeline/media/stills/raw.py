"""Camera raw: what a sensor saw, no picture yet. The small one beside it is not the photograph.

Every maker's files are TIFFs, or nearly, whose first directory is often a thumbnail. A TIFF is raw
where any of its directories holds a mosaic of the sensor, or says that it is a digital negative.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Literal

from telecine.infra.errors import MediaError, Reason

_MAGIC = (
    (b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (b"FOVb", "Sigma X3F"),
    (b"\0MRM", "Minolta MRW"),
    (b"IIU\0", "Panasonic RW2"),
    (b"IIRO", "Olympus ORF"),
    (b"IIRS", "Olympus ORF"),
    (b"MMOR", "Olympus ORF"),
    (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW"),
)
_Order = Literal["little", "big"]
_TIFF: dict[bytes, tuple[_Order, int]] = {  # byte order, bytes of an offset (8: BigTIFF)
    b"II*\0": ("little", 4), b"MM\0*": ("big", 4), b"II+\0": ("little", 8), b"MM\0+": ("big", 8),
}  # fmt: skip
_NEXT = 0  # no tag: stands for where the next directory lies
_MOST_DIRECTORIES, _MOST_ENTRIES = 32, 512
_FARTHEST = 1 << 62  # what a file can seek to
_COMPRESSION, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 0x0103, 0x0106, 0x014A, 0xC612
_MOSAIC = {32803: "a mosaic", 34892: "linear raw"}  # TIFF/EP: CFA; DNG: LinearRaw
# of Sony, Nikon, Pentax, Samsung and Kodak: nothing but raw is packed so
_PACKINGS = {32767, 34713, 65535, 32769, 32770, 65000}


def refuse_raw(file: BinaryIO) -> None:
    """Raises MediaError UNSUPPORTED where the file is camera raw."""
    file.seek(0)
    head = file.read(16)
    kind = next((name for magic, name in _MAGIC if head.startswith(magic)), "")
    if head[4:12] == b"ftypcrx ":
        kind = "Canon CR3"
    elif head[:4] in _TIFF:
        by_head = {b"CR": "Canon CR2", b"II": "Phase One IIQ", b"MM": "Phase One IIQ"}
        kind = by_head.get(head[8:10]) or _raw_tiff(file, head)
    if kind:
        raise MediaError(
            Reason.UNSUPPORTED, f"camera raw ({kind}); develop it and save a TIFF, PNG or JPEG"
        )


def _raw_tiff(file: BinaryIO, head: bytes) -> str:
    order, wide = _TIFF[head[:4]]
    size = file.seek(0, os.SEEK_END)
    waiting, seen = [int.from_bytes(head[wide : 2 * wide], order)], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop(0)
        if at in seen or not 8 <= at < size:
            continue
        seen.add(at)
        for tag, values in _directory(file, at, order, wide):
            if tag in (_NEXT, _SUB_IFDS):
                waiting += values
            elif tag == _DNG_VERSION:
                return "DNG"
            elif tag == _PHOTOMETRIC and values and values[0] in _MOSAIC:
                return f"{_MOSAIC[values[0]]} of the sensor"
            elif tag == _COMPRESSION and values and values[0] in _PACKINGS:
                return f"its packing, {values[0]}"
    return ""


def _directory(
    file: BinaryIO, at: int, order: _Order, wide: int
) -> Iterator[tuple[int, list[int]]]:
    """(tag, integers) of one directory (TIFF 6.0, section 2), with _NEXT at the end."""

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)

    sizes, entry_bytes = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}, 4 + 2 * wide
    file.seek(at)
    count = min(number(file.read(2 if wide == 4 else 8)), _MOST_ENTRIES)
    table = file.read(entry_bytes * count + wide)
    for start in range(0, entry_bytes * count, entry_bytes):
        entry = table[start : start + entry_bytes]
        size = sizes.get(number(entry[2:4]), 0)
        values = min(number(entry[4 : 4 + wide]), _MOST_DIRECTORIES)
        if len(entry) < entry_bytes or not size:
            continue
        data = entry[4 + wide :]
        if size * values > wide:
            file.seek(min(number(data), _FARTHEST))
            data = file.read(size * values)
        yield number(entry[:2]), [number(data[k * size :][:size]) for k in range(values)]
    yield _NEXT, [number(table[entry_bytes * count :])]
