"""Still images through Pillow: what a file is by its first bytes, and its pixels as displayed."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError, InvalidDataError
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS, Orientation

HEAD_BYTES = 4096
EXIF_ORIENTATION = 0x0112
ANIMATED = ("GIF", "PNG", "WEBP")  # of the others, further frames are pages or thumbnails

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
MAX_JPEG_BYTES = 1 << 26
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_SCAN, _APP2 = 0xDA, 0xE2
_DEPTHS = {"1": 1, "I": 16, "I;16": 16, "I;16B": 16, "I;16L": 16, "F": 32}


def image_format(file: BinaryIO) -> str | None:
    """Pillow's name of the still image that the file holds; None if it is something else.

    A GIF with several frames and a row of JPEGs with nothing between them (a Motion JPEG stream)
    are video.
    """
    file.seek(0)
    head = file.read(32)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    name = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if name == "BMP" and head[6:10] != b"\0\0\0\0":  # BM is two letters: reserved bytes are zero
        return None
    if name == "JPEG" and read_jpeg(file)[1]:
        return None
    return name


def open_picture(file: BinaryIO, format_name: str, max_pixels: int) -> Picture | None:
    """The picture in the file; None for a GIF with several frames, which is a video.

    Raises MediaError: CORRUPT (truncated too), TOO_LARGE, UNSUPPORTED (animated WebP or PNG).
    """
    if format_name == "WEBP":  # its plugin makes two canvases on opening: bound them before
        _bound(*_webp_size(file), max_pixels)
    file.seek(0)
    try:
        with _pillow_as_we_need_it():
            picture = _open(file, format_name, max_pixels)
    except UnidentifiedImageError as error:
        raise MediaError(Reason.CORRUPT, f"{format_name} header cannot be read") from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, KeyError,
            TypeError, ZeroDivisionError, OverflowError, AttributeError) as error:  # fmt: skip
        # What Pillow's readers raise on broken files. The store's own errors are none of these.
        raise MediaError(Reason.CORRUPT, f"{format_name}: {error}") from error
    if format_name == "JPEG":
        check_jpeg(read_jpeg(file)[0])
    return picture


_PILLOW = threading.Lock()


@contextlib.contextmanager
def _pillow_as_we_need_it() -> Iterator[None]:
    """Without its bounds, as of size and damage we judge ourselves. Its settings are those of the
    whole process: one picture is read at a time, and then they are as they were.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damage that Pillow reads past
        theirs = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = theirs


def _open(file: BinaryIO, format_name: str, max_pixels: int) -> Picture | None:
    with Image.open(file, formats=[format_name]) as image:
        _bound(image.width, image.height, max_pixels)
        animated = getattr(image, "is_animated", False) and format_name in ANIMATED
        if animated and format_name == "GIF":
            return None
        if animated:
            raise MediaError(Reason.UNSUPPORTED, f"an animated {format_name}; make it a video")
        return _read(image)


def _bound(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise MediaError(Reason.CORRUPT, f"{width} x {height} px is no picture")
    if width * height > max_pixels:
        raise MediaError(Reason.TOO_LARGE, f"{width} x {height} px; at most {max_pixels} px")


def _webp_size(file: BinaryIO) -> tuple[int, int]:
    """Canvas size from the container's first chunk (RFC 9649)."""
    file.seek(12)
    head = file.read(18)
    chunk, body = head[:4], head[8:]
    if chunk == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise MediaError(Reason.CORRUPT, f"WebP that begins with a chunk {chunk!r}")


def _read(image: Image.Image) -> Picture:
    mode, stored = image.mode, _orientation(image)
    profile = image.info.get("icc_profile")
    name = image.format or ""
    image.load()
    pixels = np.asarray(_flatten(_to_srgb(_eight_bits(image), profile)))
    rgb = orient(pixels, _orientation(image))  # Pillow turns a TIFF on loading: nothing is left
    height, width = rgb.shape[:2]
    lies = stored.rotation in (90, 270)
    facts = MediaFacts(
        container=name,
        codec=name,
        pixel_format=mode,
        bit_depth=_DEPTHS.get(mode, 8),
        coded_width=height if lies else width,
        coded_height=width if lies else height,
        rotation_degrees=stored.rotation,
        mirrored=stored.mirrored,
        header_num_frames=1,
        width=width,
        height=height,
    )
    return Picture(facts, rgb)


def _orientation(image: Image.Image) -> Orientation:
    """What the picture in memory still needs; before `load`, what the stored one does."""
    return EXIF_ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1), Orientation())


def orient(pixels: npt.NDArray[np.uint8], orientation: Orientation) -> npt.NDArray[np.uint8]:
    """[H, W, C] as displayed, contiguous."""
    flipped = pixels[:, ::-1] if orientation.mirrored else pixels
    return np.ascontiguousarray(np.rot90(flipped, orientation.quarter_turns))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen-bit grey to eight; Pillow itself would clip instead of scaling."""
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise MediaError(Reason.UNSUPPORTED, "floating-point pixels; save it with integer pixels")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if _has_transparency(image) else "RGB")
    if image.mode in ("1", "La", "RGBa"):
        return image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _has_transparency(image: Image.Image) -> bool:
    return image.mode == "PA" or "transparency" in image.info


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Through the ICC profile to sRGB, perceptual intent; one that does not fit is ignored."""
    if not profile:
        return image
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    base = image.convert({"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            base, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if converted is None:
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, with what is transparent shown over white."""
    if image.mode in ("RGBA", "LA"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


# ── JPEG streams ─────────────────────────────────────────────────────────────────────────────────

# libjpeg, and so Pillow, fills what is missing with grey and calls it a warning. FFmpeg's decoder
# can be asked to refuse instead: it is the second opinion on every JPEG.


def read_jpeg(file: BinaryIO) -> tuple[bytes, bool]:
    """The first JPEG's own bytes, and whether another one follows at once (Motion JPEG).

    What follows otherwise (the film of a motion photo) is left out. The second picture of a
    Multi-Picture JPEG (CIPA DC-007) is no film.
    """
    file.seek(0)
    data = file.read(MAX_JPEG_BYTES)
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
