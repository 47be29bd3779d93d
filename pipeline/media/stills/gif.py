"""GIF as browsers show it: what a frame leaves behind is cleared, never painted.

FFmpeg fills what disposal method 2 clears, and what no frame has covered yet, with the background
colour of the global palette, as the standard has it (GIF89a, 18 and 23.c.iv). No browser does, and
pictures are drawn for browsers. Without a global palette FFmpeg clears too: so each frame is given
that palette as its own.
"""

from __future__ import annotations

from typing import Any

from av.packet import Packet

_HEADER_BYTES, _DESCRIPTOR_BYTES = 13, 10
_HAS_PALETTE, _PALETTE_SIZE = 0x80, 0x07
_EXTENSION, _IMAGE = 0x21, 0x2C


class LocalPalettes:
    """Rewrites the packets of one GIF in their order; times and all pixels stay."""

    def __init__(self) -> None:
        self._palette, self._size = b"", 0

    def __call__(self, packet: Any) -> Any:
        if not packet.size:
            return packet
        written = Packet(self._rewrite(bytes(packet)))
        written.stream, written.time_base = packet.stream, packet.time_base
        written.pts, written.dts, written.duration = packet.pts, packet.dts, packet.duration
        return written

    def _rewrite(self, data: bytes) -> bytes:
        out, at = bytearray(), 0
        if data.startswith((b"GIF87a", b"GIF89a")) and len(data) >= _HEADER_BYTES:
            at, flags = _HEADER_BYTES, data[10]
            self._palette, self._size = b"", flags & _PALETTE_SIZE
            if flags & _HAS_PALETTE:
                at += 3 << (self._size + 1)
                self._palette = data[_HEADER_BYTES:at]
            out += data[:10] + bytes([flags & ~_HAS_PALETTE]) + data[11:_HEADER_BYTES]
        while at + 1 < len(data) and data[at] == _EXTENSION:
            end = _after_blocks(data, at + 2)
            out += data[at:end]
            at = end
        image = data[at : at + _DESCRIPTOR_BYTES]
        if len(image) == _DESCRIPTOR_BYTES and image[0] == _IMAGE:
            at += _DESCRIPTOR_BYTES
            out += image[:9]
            if image[9] & _HAS_PALETTE or not self._palette:
                out += image[9:]
            else:
                out += bytes([image[9] & ~_PALETTE_SIZE | _HAS_PALETTE | self._size])
                out += self._palette
        return bytes(out + data[at:])


def _after_blocks(data: bytes, at: int) -> int:
    """Where the sub-blocks that begin at `at` end (GIF89a, 15 and 16)."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
