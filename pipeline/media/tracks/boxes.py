"""What an MP4 or Matroska file says of a video track and FFmpeg keeps to itself.

Clean aperture (ISO 14496-12, 12.1.4), cropping (RFC 9559, 5.1.4.1.28), Dolby Vision's profile
(Dolby Vision Streams within the ISO base media file format, 2.3). Only integers are read; what
contradicts itself counts as not there.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from telecine.infra.errors import MediaError
from telecine.pipeline.media.filters import Margins
from telecine.pipeline.media.tracks.iso import NO_MARGINS, boxes, clean_aperture, file_boxes

MOST_BYTES = 1 << 22  # of a track's description
MOST_ELEMENTS = 1 << 12
_ENTRY_HEADER = 78  # bytes of a visual sample entry before its boxes
_DOLBY_BOXES = (b"dvcC", b"dvvC", b"dvwC")
# EBML element identifiers
_SEGMENT, _CLUSTER, _TRACKS, _ENTRY = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_TYPE, _VIDEO, _MAPPING, _MAPPED_TYPE, _MAPPED_DATA = 0x83, 0xE0, 0x41E4, 0x41E7, 0x41ED
_WIDTH, _HEIGHT, _DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0xB0, 0xBA, 0x54B0, 0x54BA, 0x54B2
_CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom
_VIDEO_TRACK, _UNKNOWN_UNIT = 1, 4


@dataclass(frozen=True)
class TrackNotes:
    """Margins are those of pictures of `size`, and `display` is the shape written beside them."""

    size: tuple[int, int] = (0, 0)  # stored px
    margins: Margins = NO_MARGINS
    display: Fraction | None = None  # width / height of the displayed picture
    dolby: tuple[int, int] | None = None  # Dolby Vision's profile, and what its base layer is

    @property
    def clean(self) -> tuple[int, int]:
        """Stored px within the margins."""
        left, top, right, bottom = self.margins
        return self.size[0] - left - right, self.size[1] - top - bottom

    @property
    def lacks_base_layer(self) -> bool:
        """Whether what lies in the stream is IPT, of which only Dolby's metadata makes colours."""
        profile, compatible = self.dolby or (0, 0)
        return profile == 5 or (profile in (10, 20) and not compatible)

    def aspect(self, own: Fraction | None, named: Fraction) -> Fraction:
        """Of the pixels, where margins are cut; `own` is the stream's, `named` the container's.

        The display size of Matroska is that of the cropped picture; many writers mean the whole.
        """
        if self.display is None or self.margins == NO_MARGINS:
            return named
        clean, whole = (self.display * Fraction(h, w) for w, h in (self.clean, self.size))
        return whole if whole == (own or 1) and clean != (own or 1) else clean


def track_notes(file: BinaryIO, format_name: str, track_id: int, ordinal: int) -> TrackNotes:
    """Of the MP4 track with that identifier, or of Matroska's video track number `ordinal`."""
    try:
        if format_name.startswith("mov"):
            notes = _movie_notes(file, track_id)
        elif format_name.startswith("matroska"):
            notes = _matroska_notes(file, ordinal)
        else:
            return TrackNotes()
    except (MediaError, struct.error, ZeroDivisionError, IndexError):
        return TrackNotes()
    sound = min(notes.margins) >= 0 and min(notes.clean) > 0
    return notes if sound else dataclasses.replace(notes, margins=NO_MARGINS)


# ── MP4 ──────────────────────────────────────────────────────────────────────────────────────────


def _movie_notes(file: BinaryIO, track_id: int) -> TrackNotes:
    for moov in _within(file, (0, None), b"moov"):
        for trak in _within(file, moov, b"trak"):
            data = _read(file, next(_within(file, trak, b"tkhd"), (0, 0)))
            at = 20 if data[:1] == b"\1" else 12
            # FFmpeg shows identifiers of 32 bits as signed
            if data[at : at + 4] != (track_id & 0xFFFFFFFF).to_bytes(4, "big"):
                continue
            place = trak
            for name in (b"mdia", b"minf", b"stbl", b"stsd"):
                place = next(_within(file, place, name), (0, 0))
            return _entry_notes(_read(file, place)[8:])
    return TrackNotes()


Place = tuple[int, int | None]  # of a payload: where it begins and ends


def _within(file: BinaryIO, place: Place, name: bytes) -> Iterator[Place]:
    for kind, start, length in file_boxes(file, *place):
        if kind == name:
            yield start, start + length


def _read(file: BinaryIO, place: Place) -> bytes:
    start, end = place
    file.seek(start)
    return file.read(min((end or start) - start, MOST_BYTES))


def _entry_notes(entries: bytes) -> TrackNotes:
    entry = next((data for _, data in boxes(entries)), b"")
    width, height = struct.unpack(">HH", entry[24:28])
    notes = TrackNotes(size=(width, height))
    for kind, body in boxes(entry[_ENTRY_HEADER:]):
        if kind == b"clap":
            margins = clean_aperture(width, height, body) or NO_MARGINS
            notes = dataclasses.replace(notes, margins=margins)
        elif kind in _DOLBY_BOXES:
            notes = dataclasses.replace(notes, dolby=_dolby(body))
    return notes


def _dolby(body: bytes) -> tuple[int, int]:
    return body[2] >> 1, body[4] >> 4


# ── Matroska ─────────────────────────────────────────────────────────────────────────────────────


def _matroska_notes(file: BinaryIO, ordinal: int) -> TrackNotes:
    for kind, body in _elements(_tracks(file)):
        entry = list(_elements(body)) if kind == _ENTRY else []
        found = dict(entry)
        if _number(found.get(_TYPE)) == _VIDEO_TRACK:
            if ordinal == 0:
                return _track_notes(found.get(_VIDEO, b""), [b for k, b in entry if k == _MAPPING])
            ordinal -= 1
    return TrackNotes()


def _track_notes(video: bytes, mappings: list[bytes]) -> TrackNotes:
    said = {kind: _number(body) for kind, body in _elements(video)}
    width, height = said.get(_WIDTH, 0), said.get(_HEIGHT, 0)
    left, top, right, bottom = (said.get(kind, 0) for kind in _CROPS)
    shown = said.get(_DISPLAY_WIDTH, 0), said.get(_DISPLAY_HEIGHT, 0)
    measured = said.get(_DISPLAY_UNIT, 0) != _UNKNOWN_UNIT
    dolby = None
    for mapping in mappings:
        mapped = dict(_elements(mapping))
        if _number(mapped.get(_MAPPED_TYPE)).to_bytes(8, "big")[4:] in _DOLBY_BOXES:
            dolby = _dolby(mapped.get(_MAPPED_DATA, b""))
    display = Fraction(*shown) if all(shown) and measured else None
    return TrackNotes((width, height), (left, top, right, bottom), display, dolby)


def _tracks(file: BinaryIO) -> bytes:
    """The payload of the first Tracks element, which comes before the first cluster."""
    size, at = file.seek(0, os.SEEK_END), 0
    for _ in range(MOST_ELEMENTS):
        file.seek(at)
        kind, length, header = _element(file.read(12))
        if kind == _TRACKS:
            file.seek(at + header)
            return file.read(min(length, MOST_BYTES))
        inside = kind == _SEGMENT
        at += header if inside else header + length
        if kind == _CLUSTER or at >= size:
            break
    return b""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(identifier, payload) of the elements in a payload."""
    at = 0
    while at < len(data):
        kind, length, header = _element(data[at : at + 12])
        yield kind, data[at + header : at + header + length]
        at += header + length


def _element(head: bytes) -> tuple[int, int, int]:
    """An element's identifier, the bytes of its payload, and those before it."""
    first = 9 - head[0].bit_length()
    second = 9 - head[first].bit_length()
    if first > 4 or second > 8:
        raise IndexError("no element begins here")
    mask = (1 << 7 * second) - 1
    length = int.from_bytes(head[first : first + second], "big") & mask
    return int.from_bytes(head[:first], "big"), length, first + second


def _number(body: bytes | None) -> int:
    return int.from_bytes((body or b"")[:8], "big")
