"""JPEG streams: where one ends, and whether all of its picture is there.

libjpeg, and so Pillow, fills what is missing with grey and calls it a warning. FFmpeg's decoder can
be asked to refuse instead: it is the second opinion on every JPEG.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import av
from av.error import FFmpegError, InvalidDataError

from telecine.infra.errors import MediaError, Reason

MAX_BYTES = 1 << 26
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_SCAN, _APP2 = 0xDA, 0xE2


def read_jpeg(file: BinaryIO) -> tuple[bytes, bool]:
    """The first JPEG's own bytes, and whether another one follows at once (Motion JPEG).

    What follows otherwise (the film of a motion photo) is left out. The second picture of a
    Multi-Picture JPEG (CIPA DC-007) is no film.
    """
    file.seek(0)
    data = file.read(MAX_BYTES)
    position, several = 2, False
    while len(data) >= position + 4 and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        several = several or (marker == _APP2 and data[position + 4 : position + 8] == b"MPF\0")
        position += 2 + length
        if marker == _SCAN:  # from here on 0xFF is stuffed, so FF D9 is the end
            break
    end = data.find(_END, position)
    if end < 0:
        return data, False
    film = not several and data[end + 2 : end + 5] == _START
    return data[: end + 2], film


def check_jpeg(data: bytes) -> None:
    """Raises MediaError CORRUPT if part of the picture is missing or damaged."""
    strict = {"err_detect": "explode"}
    try:
        with av.open(io.BytesIO(data), "r", format="jpeg_pipe") as container:
            (stream,) = container.streams.video
            stream.codec_context.options = strict
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass
    except InvalidDataError as error:
        raise MediaError(Reason.CORRUPT, "JPEG: part of the picture is missing") from error
    except FFmpegError:
        pass  # a kind of JPEG that FFmpeg does not know (arithmetic coding): Pillow's word stands
