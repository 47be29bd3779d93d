"""What a file says of the protection of its samples (DRM), container by container.

`refuse_protected` knows it from the header, where the decoder would make garbage of what it cannot
read; `names_protection` is asked where nothing could be decoded, and looks at more than that.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.tracks.iso import file_boxes, spans

HEADER_BYTES = 1 << 20
MOST_BOX_BYTES = 1 << 26  # of a `moov`

# The header object GUIDs of Microsoft's ASF specification, sections 3.14, 3.15 and 4.14.
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_ASF_PROTECTED = (
    b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e",  # Content Encryption
    b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",  # Extended
    b"\x33\x85\x05\x43\x81\x69\xe6\x49\x9b\x74\xad\x12\xcb\x86\xd5\x8c",  # Advanced
)
# SMPTE 429-6: the cryptographic context, and the key of an encrypted triplet up to its version.
_MXF = b"\x06\x0e\x2b\x34"
_MXF_PROTECTED = (
    b"\x06\x0e\x2b\x34\x02\x53\x01\x01\x0d\x01\x04\x01\x02\x02\x00\x00",
    b"\x06\x0e\x2b\x34\x02\x04\x01\x07\x0d\x01\x03\x01\x02\x7e\x01\x00",
    b"\x06\x0e\x2b\x34\x02\x04\x01\x01\x0d\x01\x03\x01\x02\x7e\x01\x00",
)
_EBML = b"\x1aE\xdf\xa3"
_CONTENT_ENCODINGS, _CONTENT_ENCRYPTION = re.compile(b"\x6d\x80"), b"\x50\x35"
# ISO/IEC 23001-7 (common encryption), its forerunner PIFF, and Apple's FairPlay
_NAMES = (b"encv", b"drmi", b"sinf", b"pssh", b"tenc", b"senc", bytes.fromhex("a2394f525a9b4f14"))
_SAMPLE_ENTRY_BYTES = 78  # of a video's, before the boxes within
_SYNC, _SAMPLE_AES_H264 = (
    0x47,
    0xDB,
)  # Apple, MPEG-2 Stream Encryption Format for HTTP Live Streaming

Box: TypeAlias = tuple[bytes, int, int]  # its name, where its body begins, where it ends


def refuse_protected(file: BinaryIO) -> None:
    """Raises MediaError: ENCRYPTED, where the header says that the video can only be garbage."""
    head = _head(file, 32)
    if head.startswith(_ASF):
        header = _head(file, min(HEADER_BYTES, int.from_bytes(head[16:24], "little")))
        protected = any(guid in header for guid in _ASF_PROTECTED)
    elif _is_iso(head):
        protected = _has_protected_video(_box(file, b"moov"))
    else:
        packets = list(_ts_packets(_head(file, HEADER_BYTES))) if _SYNC in head else []
        protected = any(_names_sample_aes(packet) for packet in packets)
    if protected:
        raise MediaError(Reason.ENCRYPTED, "protected samples, as the header says")


def names_protection(file: BinaryIO) -> bool:
    """Whether anything in the file speaks of protected samples."""
    head = _head(file, HEADER_BYTES)
    if head.startswith(_EBML):
        encodings = (head[m.start() : m.start() + 64] for m in _CONTENT_ENCODINGS.finditer(head))
        return any(_CONTENT_ENCRYPTION in encoding for encoding in encodings)
    if head.startswith(_MXF):
        return any(key in head for key in _MXF_PROTECTED)
    if _is_iso(head):
        parts = (head, _box(file, b"moov"), _box(file, b"moof"))
        return any(name in part for part in parts for name in _NAMES)
    return _is_scrambled(list(_ts_packets(head)))


def _head(file: BinaryIO, size: int) -> bytes:
    file.seek(0)
    return file.read(size)


# ── ISO media (MP4, QuickTime) ───────────────────────────────────────────────────────────────────


def _is_iso(head: bytes) -> bool:
    return head[4:8] in (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip",
                         b"pnot", b"sidx")  # fmt: skip


def _box(file: BinaryIO, name: bytes) -> bytes:
    """The body of the first box of that name at the top of the file; empty without one."""
    with contextlib.suppress(MediaError):  # whoever opens the file says that it is broken
        for kind, start, length in file_boxes(file):
            if kind == name:
                file.seek(start)
                return file.read(min(length, MOST_BOX_BYTES))
    return b""


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    with contextlib.suppress(MediaError):
        yield from spans(data, start, end)


def _within(data: bytes, start: int, end: int, *path: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of the bodies that lie at the path of names."""
    for name, begin, stop in _boxes(data, start, end):
        if name == path[0]:
            if len(path) == 1:
                yield begin, stop
            else:
                yield from _within(data, begin, stop, *path[1:])


def _has_protected_video(moov: bytes) -> bool:
    """There is video, and none of its tracks is without protection."""
    tracks = [
        any(_is_protected(moov, *entries) for entries in _within(
            moov, *track, b"mdia", b"minf", b"stbl", b"stsd"))
        for track in _within(moov, 0, len(moov), b"trak")
        if any(moov[a + 8 : a + 12] == b"vide" for a, _ in _within(moov, *track, b"mdia", b"hdlr"))
    ]  # fmt: skip
    return bool(tracks) and all(tracks)


def _is_protected(moov: bytes, start: int, end: int) -> bool:
    """Whether one of the sample entries is; a `tenc` may say that samples are not, by default."""
    for name, begin, stop in _boxes(moov, start + 8, end):
        if name == b"drmi":
            return True
        if name == b"encv":
            inner = begin + _SAMPLE_ENTRY_BYTES
            schemes = _within(moov, inner, stop, b"sinf", b"schi", b"tenc")
            if all(moov[tenc + 6] for tenc, tail in schemes if tail > tenc + 6):
                return True
    return False


# ── MPEG transport streams (ISO/IEC 13818-1) ─────────────────────────────────────────────────────


def _ts_packets(head: bytes) -> Iterator[bytes]:
    """188 bytes each, whatever stands between them; none where it is no transport stream."""
    for size in (188, 192, 204):
        for first in range(size):
            if all(head[first + n * size : first + n * size + 1] == b"G" for n in range(5)):
                for at in range(first, len(head) - 187, size):
                    yield head[at : at + 188]
                return


def _payload(packet: bytes) -> bytes:
    has_field, has_payload = packet[3] & 0x20, packet[3] & 0x10
    return packet[5 + packet[4] if has_field else 4 :] if has_payload else b""


def _is_scrambled(packets: list[bytes]) -> bool:
    """Transport or PES scrambling control is set in a tenth of what may be media."""
    media = [p for p in packets if 0x20 <= int.from_bytes(p[1:3], "big") & 0x1FFF < 0x1FFF]
    scrambled = sum(bool(packet[3] & 0xC0) or _is_scrambled_pes(packet) for packet in media)
    begun = sum(bool(packet[1] & 0x40) for packet in media)  # a PES packet lies in many of these
    return scrambled > 0 and 10 * scrambled >= min(len(media), begun)


def _is_scrambled_pes(packet: bytes) -> bool:
    body = _payload(packet)
    starts = packet[1] & 0x40 and body[:3] == b"\0\0\1" and len(body) > 6
    return bool(starts) and body[6] & 0xC0 == 0x80 and bool(body[6] & 0x30)


def _names_sample_aes(packet: bytes) -> bool:
    """Whether a program map gives its video as encrypted sample by sample."""
    body = _payload(packet) if packet[1] & 0x40 and not packet[3] & 0xC0 else b""
    table = body[1 + body[0] :] if body else b""
    if len(table) < 12 or table[0] != 2 or table[1] & 0xB0 != 0xB0:
        return False
    end = 3 + (int.from_bytes(table[1:3], "big") & 0xFFF) - 4
    at = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    while at + 5 <= min(end, len(table)):
        if table[at] == _SAMPLE_AES_H264:
            return True
        at += 5 + (int.from_bytes(table[at + 3 : at + 5], "big") & 0xFFF)
    return False
