"""JPEG streams: where a picture ends, what of it is pixels, and whether all of them are there.

Pillow is given the stream without its metadata (ITU-T T.81, markers APPn and COM), so that nothing
in EXIF, XMP, MPF or a maker's note can cost the picture.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import BinaryIO

import av
from av.error import FFmpegError, InvalidDataError

from telecine.infra.errors import MediaError, Reason

MAX_JPEG_BYTES = 1 << 26
FILM_PICTURES = 3  # two pictures in one file are a photograph and its copy, preview or other eye

# Within the entropy-coded data 0xFF is followed by a zero or is a restart marker. More of them may
# fill the place before a marker; who starts at each to look beyond all needs time in their square.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_TEM, _START, _END, _COM = 0x01, 0xD8, 0xD9, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; the three are tables
_DECIDE_COLOURS = (0xE0, 0xEE)  # JFIF and Adobe: how the components are meant
_EXIF, _ICC, _MPF = b"Exif\0", b"ICC_PROFILE\0", b"MPF\0"


@dataclass
class Jpeg:
    """One picture of a stream, bytes `start` to `end`."""

    end: int
    frame: bytes = b""  # depth, size and components, as its SOF has them
    pixels: bytearray = field(default_factory=bytearray)  # the picture without its metadata
    exif: bytes = b""
    several: bool = False  # a Multi-Picture file (CIPA DC-007)
    icc_parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def icc(self) -> bytes:
        """The profile, put together in the order of its parts (ICC.1, annex B.4)."""
        return b"".join(self.icc_parts[k] for k in sorted(self.icc_parts))


def read_jpeg(file: BinaryIO) -> tuple[Jpeg, bool]:
    """The file's first picture, and whether the file is a film: Motion JPEG.

    A film is at least FILM_PICTURES pictures of the same size and components with nothing between
    them. All else that follows (a preview, a second eye, the film of a motion photo) is left out.
    Raises MediaError TOO_LARGE.
    """
    file.seek(0)
    data = file.read(MAX_JPEG_BYTES)
    first = picture = _walk(data, 0)
    if first.end == MAX_JPEG_BYTES:
        raise MediaError(Reason.TOO_LARGE, f"a JPEG of more than {MAX_JPEG_BYTES} bytes")
    for _ in range(FILM_PICTURES - 1):
        if first.several or data[picture.end : picture.end + 3] != b"\xff\xd8\xff":
            return first, False
        picture = _walk(data, picture.end)
        if picture.frame != first.frame:
            return first, False
    return first, True


def _walk(data: bytes, start: int) -> Jpeg:
    """The picture that begins at `start`, to its end marker or to the end of the data."""
    jpeg = Jpeg(len(data))
    position = copied = start + 2
    jpeg.pixels += data[start:position]
    while found := _MARKER.search(data, position):
        marker, position = found.group(1)[0], found.end()
        if marker == _END:
            jpeg.end = position
            break
        if marker in (_TEM, _START):
            continue
        length = max(2, int.from_bytes(data[position : position + 2], "big"))
        body = data[position + 2 : position + length]
        position += length
        if marker in _FRAMES:
            jpeg.frame = bytes([marker]) + body
        elif (0xE0 <= marker < 0xF0 or marker == _COM) and marker not in _DECIDE_COLOURS:
            jpeg.pixels += data[copied : found.start()]
            copied = position
            _note(jpeg, body)
    jpeg.pixels += data[copied : jpeg.end]
    return jpeg


def _note(jpeg: Jpeg, body: bytes) -> None:
    """The first EXIF counts; a profile comes in parts of 64 KiB."""
    if body.startswith(_EXIF) and not jpeg.exif:
        jpeg.exif = body
    elif body.startswith(_ICC) and len(body) > 14:
        jpeg.icc_parts.setdefault(body[12], body[14:])
    elif body.startswith(_MPF):
        jpeg.several = True


def check_jpeg(pixels: bytes) -> None:
    """Raises MediaError CORRUPT if part of the picture is missing or damaged.

    libjpeg, and so Pillow, fills what is missing with grey and calls it a warning. FFmpeg's decoder
    can be asked to refuse instead: it is the second opinion on every JPEG.
    """
    strict = {"err_detect": "explode"}
    try:
        with av.open(io.BytesIO(pixels), "r", format="jpeg_pipe") as container:
            (stream,) = container.streams.video
            stream.codec_context.options = strict
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass
    except InvalidDataError as error:
        raise MediaError(Reason.CORRUPT, "JPEG: part of the picture is missing") from error
    except FFmpegError:
        pass  # a kind of JPEG that FFmpeg does not know (arithmetic coding): Pillow's word stands
