"""Camera raw: what a sensor saw, no picture yet. The small one beside it is not the photograph.

Every maker's files are TIFFs, or nearly, whose first directory is often a thumbnail. A TIFF is raw
where any of its directories holds a mosaic of the sensor, or says that it is a digital negative.
"""

from __future__ import annotations

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
_TIFF: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_NEXT = 0  # no tag: stands for where the next directory lies
_MOST_DIRECTORIES, _MOST_ENTRIES = 32, 512
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
    order = _TIFF[head[:4]]
    waiting, seen = [int.from_bytes(head[4:8], order)], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop(0)
        if at in seen or at < 8:
            continue
        seen.add(at)
        for tag, values in _directory(file, at, order):
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
    file: BinaryIO, at: int, order: Literal["little", "big"]
) -> Iterator[tuple[int, list[int]]]:
    """(tag, integers) of one directory (TIFF 6.0, section 2), with _NEXT at the end."""

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)

    file.seek(at)
    count = min(number(file.read(2)), _MOST_ENTRIES)
    table = file.read(12 * count + 4)
    for start in range(0, 12 * count, 12):
        entry = table[start : start + 12]
        size = {1: 1, 3: 2, 4: 4, 13: 4}.get(number(entry[2:4]), 0)
        values = min(number(entry[4:8]), _MOST_DIRECTORIES)
        if len(entry) < 12 or not size:
            continue
        data = entry[8:12]
        if size * values > 4:
            file.seek(number(data))
            data = file.read(size * values)
        yield number(entry[:2]), [number(data[k * size :][:size]) for k in range(values)]
    yield _NEXT, [number(table[12 * count :])]
