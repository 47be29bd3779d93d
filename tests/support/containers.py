"""Boxes and elements put into files that FFmpeg wrote, for what its muxers do not write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

SAMPLE_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"")
VIDEO_ELEMENT = (0x18538067, 0x1654AE6B, 0xAE, 0xE0)
TRACK_ELEMENT = VIDEO_ELEMENT[:-1]
_PAYLOAD_OFFSETS = {b"stsd": 16}


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def clap(across: int, down: int, x: int = 0, y: int = 0) -> bytes:
    """A clean aperture in px; x and y move its centre."""
    return box(b"clap", struct.pack(">IIIIiIiI", across, 1, down, 1, x, 1, y, 1))


def dolby_box(profile: int, compatible: int, kind: bytes = b"dvcC") -> bytes:
    return box(kind, dolby_configuration(profile, compatible))


def dolby_configuration(profile: int, compatible: int) -> bytes:
    return bytes([1, 0, profile << 1, 1 << 3 | 5, compatible << 4]) + bytes(19)


def put_box(path: Path, new: bytes, within: Sequence[bytes] = SAMPLE_ENTRY) -> Path:
    """At the end of the named box, from which each name leads to the next; b"" is the first one.

    The boxes of the movie must lie behind its data, as FFmpeg writes them.
    """
    data, at, end = path.read_bytes(), 0, 0
    sizes: list[int] = []
    for name in within:
        while name and data[at + 4 : at + 8] != name:
            at += int.from_bytes(data[at : at + 4], "big")
        sizes.append(at)
        end = at + int.from_bytes(data[at : at + 4], "big")
        at += _PAYLOAD_OFFSETS.get(name, 8)
    grown = bytearray(data)
    for place in sizes:
        size = int.from_bytes(data[place : place + 4], "big") + len(new)
        grown[place : place + 4] = size.to_bytes(4, "big")
    path.write_bytes(bytes(grown[:end]) + new + bytes(grown[end:]))
    return path


def element(kind: int, payload: bytes | int) -> bytes:
    """An EBML element; numbers take four bytes."""
    body = payload.to_bytes(4, "big") if isinstance(payload, int) else payload
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + _vint(len(body), 4) + body


def put_elements(path: Path, new: bytes, within: Sequence[int] = VIDEO_ELEMENT) -> Path:
    """At the end of the named element, from which each identifier leads to the next."""
    data, at, end = path.read_bytes(), 0, 0
    grown = bytearray(data)
    for name in within:
        kind, size_at, width, size = _head(data, at)
        while kind != name:
            at = size_at + width + size
            kind, size_at, width, size = _head(data, at)
        end = size_at + width + size
        grown[size_at : size_at + width] = _vint(size + len(new), width)
        at = size_at + width
    path.write_bytes(bytes(grown[:end]) + new + bytes(grown[end:]))
    return path


def _head(data: bytes, at: int) -> tuple[int, int, int, int]:
    size_at = at + 9 - data[at].bit_length()
    width = 9 - data[size_at].bit_length()
    size = int.from_bytes(data[size_at : size_at + width], "big") & ((1 << 7 * width) - 1)
    return int.from_bytes(data[at:size_at], "big"), size_at, width, size


def _vint(value: int, width: int) -> bytes:
    assert value < (1 << 7 * width) - 1
    return (value | 1 << 7 * width).to_bytes(width, "big")
