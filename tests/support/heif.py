"""Writes HEIF and AVIF files item by item, as ISO 23008-12 has them."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from telecine.pipeline.media.stills.items import read_items
from tests.support.movies import Planes, frame_of

ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"


@dataclass
class Item:
    """Numbered from 1 in the order given; properties are boxes, references name other items."""

    kind: bytes
    data: bytes
    properties: list[bytes] = field(default_factory=list)
    references: dict[bytes, list[int]] = field(default_factory=dict)
    essential: tuple[bytes, ...] = (b"clap", b"irot", b"imir", b"av1C", b"hvcC")


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def nclx(primaries: int, transfer: int, matrix: int, whole: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 128 * whole))


def clap(width: int, height: int, right: tuple[int, int], down: tuple[int, int]) -> bytes:
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, *right, *down))


def hevc(planes: Planes, format_name: str) -> Item:
    """One lossless picture, whose stream says nothing of its colours."""
    height, width = planes[0].shape
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, format_name
    context.time_base, context.thread_count = Fraction(1, 25), 1
    context.options = {"preset": "ultrafast", "x265-params": "lossless=1:log-level=none"}
    frame = frame_of(planes, format_name)
    stream = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
    units = [unit for unit in re.split(rb"\x00?\x00\x00\x01", stream) if unit]
    data = b"".join(struct.pack(">I", len(unit)) + unit for unit in units)
    four_byte_lengths = b"\1" + bytes(20) + b"\xff\0"  # and the parameter sets are in the data
    return Item(b"hvc1", data, [ispe(width, height), box(b"hvcC", four_byte_lengths)])


def av1(pixels: npt.NDArray[np.uint8]) -> Item:
    """One picture, [H, W, 3]; or the auxiliary one of its alpha alone, [H, W]."""
    alone = pixels.ndim == 2
    black = np.zeros((*pixels.shape[:2], 3), np.uint8)
    buffer = io.BytesIO()
    seen = Image.fromarray(np.dstack([black, pixels]) if alone else pixels)
    seen.save(buffer, "AVIF", quality=90)
    items = read_items(buffer)
    assert items is not None
    item = items.by_id[2 if alone else 1]
    kept = [box(p.kind, p.body) for p in item.properties if p.kind in (b"ispe", b"av1C", b"auxC")]
    return Item(b"av01", items.data(item), kept)


def grid(
    rows: int, columns: int, width: int, height: int, tiles: list[int], wide: bool = False
) -> Item:
    size = struct.pack(">II" if wide else ">HH", width, height)
    data = bytes([0, int(wide), rows - 1, columns - 1]) + size
    return Item(b"grid", data, [ispe(width, height)], {b"dimg": tiles})


def heif(
    items: Sequence[Item], primary: int = 1, brand: bytes = b"mif1", before: int = 0,
    inside: bool = False,
) -> bytes:  # fmt: skip
    """`before` bytes lie before the table; derived items keep their data in it where `inside`."""
    stored = [inside and item.kind == b"grid" for item in items]
    idat = b"".join(item.data for item, here in zip(items, stored, strict=True) if here)
    head = box(b"ftyp", brand, bytes(4), b"mif1") + (box(b"free", bytes(before)) if before else b"")
    length = len(_meta(items, primary, stored, idat, 0))
    meta = _meta(items, primary, stored, idat, len(head) + length + 8)
    payload = b"".join(item.data for item, here in zip(items, stored, strict=True) if not here)
    return head + meta + box(b"mdat", payload)


def _meta(items: Sequence[Item], primary: int, stored: list[bool], idat: bytes, at: int) -> bytes:
    infos, places, references, associations = b"", b"", b"", b""
    properties: list[bytes] = []
    offsets = {True: 0, False: at}
    for number, item in enumerate(items, start=1):
        infos += full(b"infe", struct.pack(">HH4s", number, 0, item.kind), b"\0", version=2)
        here = stored[number - 1]
        places += struct.pack(">HHHHII", number, int(here), 0, 1, offsets[here], len(item.data))
        offsets[here] += len(item.data)
        indices = b""
        for part in item.properties:
            properties.append(part)
            marked = part[4:8] in item.essential
            indices += struct.pack(">H", len(properties) | marked << 15)
        associations += struct.pack(">HB", number, len(item.properties)) + indices
        for kind, others in item.references.items():
            listed = struct.pack(f">{len(others)}H", *others)
            references += box(kind, struct.pack(">HH", number, len(others)), listed)
    wide_indices = bytes([0, 0, 0, 1])
    return full(
        b"meta",
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", primary)),
        full(b"iloc", b"\x44\0", struct.pack(">H", len(items)), places, version=1),
        full(b"iinf", struct.pack(">H", len(items)), infos),
        full(b"iref", references),
        box(
            b"iprp",
            box(b"ipco", *properties),
            box(b"ipma", wide_indices, struct.pack(">I", len(items)), associations),
        ),
        box(b"idat", idat),
    )
