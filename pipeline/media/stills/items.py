"""The items of a HEIF or AVIF file: its `meta` box (ISO 14496-12, 8.11; ISO 23008-12, 9.3).

Only integers are read here, and no more bytes than the file has. Pictures are made in `heif`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import BinaryIO

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.tracks.iso import boxes, file_boxes

MAX_META_BYTES = 1 << 24
MAX_ITEM_BYTES = 1 << 28
MAX_TABLE_BYTES = 1 << 20  # of who has or refers to what; its rows take a hundred times that
_IN_FILE, _IN_IDAT = 0, 1  # construction methods


@dataclass(frozen=True)
class Property:
    kind: bytes
    body: bytes
    essential: bool


@dataclass
class Item:
    """One coded, derived or described thing; `parts` are (offset, length), 0 for all the rest."""

    id: int
    kind: bytes = b""
    method: int = _IN_FILE
    elsewhere: bool = False  # in another file
    parts: list[tuple[int, int]] = field(default_factory=list)
    properties: list[Property] = field(default_factory=list)
    references: dict[bytes, list[int]] = field(default_factory=dict)

    def body(self, kind: bytes) -> bytes | None:
        """Of its first property of that kind."""
        return next((p.body for p in self.properties if p.kind == kind), None)


@dataclass
class Items:
    file: BinaryIO
    primary: int = 0
    by_id: dict[int, Item] = field(default_factory=dict)
    idat: bytes = b""
    referring: dict[tuple[bytes, int], list[Item]] = field(default_factory=dict)  # (how, to whom)

    def data(self, item: Item) -> bytes:
        """Raises MediaError: UNSUPPORTED where it does not lie in this file, CORRUPT, TOO_LARGE."""
        if item.elsewhere or item.method not in (_IN_FILE, _IN_IDAT):
            raise MediaError(Reason.UNSUPPORTED, "a picture whose data lies elsewhere")
        data = bytearray()
        for offset, length in item.parts:  # each may be all the rest of the file
            room = MAX_ITEM_BYTES - len(data)
            if length > room or not room:
                raise MediaError(Reason.TOO_LARGE, f"an item of more than {MAX_ITEM_BYTES} bytes")
            data += self._part(item.method, offset, length, room)
        if not data:
            raise MediaError(Reason.CORRUPT, f"item {item.id} has no data")
        return bytes(data)

    def _part(self, method: int, offset: int, length: int, room: int) -> bytes:
        if method == _IN_IDAT:
            part = self.idat[offset : offset + (length or room)]
        else:
            size = self.file.seek(0, os.SEEK_END)
            self.file.seek(min(offset, size))  # offsets of 64 bits are more than a file can have
            part = self.file.read(length or room)
        if len(part) < length:
            raise MediaError(Reason.CORRUPT, "the file ends within the picture")
        return part


def read_items(file: BinaryIO) -> Items | None:
    """What the file's own `meta` box says, wherever it lies; None without one or a primary item.

    Raises MediaError CORRUPT where a box contradicts itself, TOO_LARGE.
    """
    for kind, start, length in file_boxes(file):
        if kind == b"meta":
            if length > MAX_META_BYTES:
                raise MediaError(Reason.TOO_LARGE, f"a meta box of {length} bytes")
            file.seek(start)
            items = _read_meta(file, file.read(length))
            return items if items.primary in items.by_id else None
    return None


class _Reader:
    """Big-endian integers, one after another. Past the end they are zero, and `spent` says so."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self._at = data, at

    def __call__(self, size: int) -> int:
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "big")

    @property
    def spent(self) -> bool:
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        return self._data[self._at :]


def _read_meta(file: BinaryIO, meta: bytes) -> Items:
    items = Items(file)
    parts = dict(reversed([*boxes(meta[4:])]))  # the first of a kind counts
    if b"pitm" in parts:
        body = parts[b"pitm"]
        items.primary = int.from_bytes(body[4:8] if body[:1] != b"\0" else body[4:6], "big")
    items.idat = parts.get(b"idat", b"")
    for kind in (b"iloc", b"iref"):
        _bound(kind, parts.get(kind, b""))
    _read_infos(items, parts.get(b"iinf", b""))
    _read_places(items, parts.get(b"iloc", b""))
    _read_properties(items, parts.get(b"iprp", b""))
    _read_references(items, parts.get(b"iref", b""))
    return items


def _bound(kind: bytes, body: bytes) -> None:
    if len(body) > MAX_TABLE_BYTES:
        raise MediaError(Reason.TOO_LARGE, f"a box {kind!r} of {len(body)} bytes")


def _read_infos(items: Items, body: bytes) -> None:
    for kind, entry in boxes(body[6 if body[:1] == b"\0" else 8 :]):
        if kind == b"infe" and entry[:1] in (b"\2", b"\3"):
            read = _Reader(entry, 4)
            item = Item(read(2 if entry[0] == 2 else 4))
            read(2)  # protection
            item.kind = read.rest()[:4]
            items.by_id.setdefault(item.id, item)


def _read_places(items: Items, body: bytes) -> None:
    read, version = _Reader(body, 4), body[:1]
    sizes, more = read(1), read(1)
    wide = 4 if version == b"\2" else 2
    count = read(wide)
    for _ in range(count):
        if read.spent:
            return
        item = items.by_id.get(read(wide)) or Item(0)
        item.method = read(2) & 15 if version != b"\0" else _IN_FILE
        item.elsewhere = read(2) != 0
        base, extents = read(more >> 4), read(2)
        for _ in range(extents if sizes else min(extents, 1)):
            if read.spent and sizes:
                return
            read(more & 15 if version != b"\0" else 0)
            item.parts.append((base + read(sizes >> 4), read(sizes & 15)))


def _read_properties(items: Items, body: bytes) -> None:
    kinds: list[tuple[bytes, bytes]] = []
    for kind, part in boxes(body):
        if kind == b"ipco":
            kinds = [*boxes(part)]
    for kind, part in boxes(body):
        if kind != b"ipma":
            continue
        _bound(kind, part)
        read, wide = _Reader(part, 4), 2 if part[3:4] and part[3] & 1 else 1
        for _ in range(read(4)):
            if read.spent:
                return
            item = items.by_id.get(read(4 if part[0] else 2)) or Item(0)
            for _ in range(read(1)):
                entry = read(wide)
                index = entry & (0x7F if wide == 1 else 0x7FFF)
                if 0 < index <= len(kinds):
                    essential = entry != index
                    item.properties.append(Property(*kinds[index - 1], essential))


def _read_references(items: Items, body: bytes) -> None:
    wide = 4 if body[:1] == b"\1" else 2
    for kind, part in boxes(body[4:]):
        read = _Reader(part)
        item = items.by_id.get(read(wide)) or Item(0)
        for _ in range(read(2)):
            if read.spent:
                break
            to = read(wide)
            item.references.setdefault(kind, []).append(to)
            referring = items.referring.setdefault((kind, to), [])
            if not referring or referring[-1] is not item:  # a grid may name one tile many times
                referring.append(item)
