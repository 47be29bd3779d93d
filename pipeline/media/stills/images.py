"""Still images through Pillow: what a file is by its first bytes, and its pixels as displayed."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.color import CHROMATICITIES, to_sdr
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.faults.sizes import check_picture_size
from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS, Orientation
from telecine.pipeline.media.stills.exif import exif_orientation
from telecine.pipeline.media.stills.icc import flatten, to_srgb
from telecine.pipeline.media.stills.jpeg import check_jpeg, read_jpeg
from telecine.pipeline.media.stills.png import Png, deep_pixels, read_png

HEAD_BYTES = 4096
ANIMATED = ("GIF", "WEBP")  # of the others, further frames are pages or thumbnails
_ROUNDED = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
BAND_ROWS = 32  # of one pass through the light of an HDR picture
_ORIENTATION, _SUBFILE, _EXTRA_SAMPLES = 0x0112, 0x00FE, 0x0152  # tags of TIFF 6.0
_REDUCED = 1  # of _SUBFILE: a smaller version of another page
_MOST_PAGES = 8

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
_DEPTHS = {"1": 1, "I": 16, "I;16": 16, "I;16B": 16, "I;16L": 16, "F": 32}


def image_format(file: BinaryIO) -> str | None:
    """Pillow's name of the still image that the file holds; None if it is something else.

    A GIF with several frames and a Motion JPEG stream are video.
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


@dataclass(frozen=True)
class _Still:
    """One picture in a format that Pillow reads, and what lies beside its pixels."""

    file: BinaryIO
    format_name: str
    exif: bytes | None = None  # None where Pillow is asked
    icc: bytes | None = None
    png: Png | None = None


def open_picture(file: BinaryIO, format_name: str, max_pixels: int) -> Picture | None:
    """The picture in the file; None for a GIF with several frames, which is a video.

    Raises MediaError: CORRUPT (truncated too), TOO_LARGE, UNSUPPORTED (animated WebP or PNG).
    """
    still = _still(file, format_name, max_pixels)
    still.file.seek(0)
    with _pillow_as_we_need_it():
        picture = _open(still, max_pixels)
    if isinstance(still.file, io.BytesIO) and format_name == "JPEG":
        check_jpeg(still.file.getvalue())
    return picture


def _still(file: BinaryIO, format_name: str, max_pixels: int) -> _Still:
    """Broken metadata never costs a picture: Pillow is not shown any where we can part the two."""
    if format_name == "JPEG":
        jpeg, _ = read_jpeg(file)
        return _Still(io.BytesIO(jpeg.pixels), format_name, jpeg.exif, jpeg.icc)
    if format_name == "PNG":
        png = read_png(file, max_pixels)
        if png.animated:
            raise MediaError(Reason.UNSUPPORTED, "an animated PNG; make it a video")
        return _Still(io.BytesIO(png.pixels), format_name, png.exif, png.icc, png)
    if format_name == "WEBP":  # its plugin makes two canvases on opening: bound them before
        check_picture_size(*_webp_size(file), max_pixels)
    return _Still(file, format_name)


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


@contextlib.contextmanager
def _by_pillow(format_name: str | None) -> Iterator[None]:
    """Round calls of Pillow that read the file, and round nothing else: what its readers raise on
    broken ones is CORRUPT, and the same from our own code is a mistake of ours. The store's own
    errors are none of these.
    """
    try:
        yield
    except UnidentifiedImageError as error:
        raise MediaError(Reason.CORRUPT, f"{format_name} header cannot be read") from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, KeyError,
            TypeError, ZeroDivisionError, OverflowError, AttributeError) as error:  # fmt: skip
        raise MediaError(Reason.CORRUPT, f"{format_name}: {error}") from error


def _open(still: _Still, max_pixels: int) -> Picture | None:
    with _by_pillow(still.format_name):
        opened = Image.open(still.file, formats=[still.format_name])
    with opened as image:
        check_picture_size(image.width, image.height, max_pixels)
        with _by_pillow(still.format_name):
            animated = still.format_name in ANIMATED and getattr(image, "is_animated", False)
        if animated and still.format_name == "GIF":
            return None
        if animated:
            raise MediaError(Reason.UNSUPPORTED, "an animated WebP; make it a video")
        if still.format_name == "TIFF":
            _to_full_page(image)
            check_picture_size(image.width, image.height, max_pixels)
        return _read(image, still)


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


def _read(image: Image.Image, still: _Still) -> Picture:
    mode, orientation = image.mode, _orientation(image, still)
    icc = image.info.get("icc_profile") if still.icc is None else still.icc
    name = image.format or ""
    facts = MediaFacts(
        container=name,
        codec=name,
        pixel_format=mode,
        bit_depth=16 if still.png and still.png.bit_depth == 16 else _DEPTHS.get(mode, 8),
        coded_width=image.width,
        coded_height=image.height,
        rotation_degrees=orientation.rotation,
        mirrored=orientation.mirrored,
        color_transfer=still.png.transfer if still.png else "sdr",
        color_primaries=still.png.primaries if still.png else "",
        header_num_frames=1,
        width=image.width,
        height=image.height,
    )
    if name == "TIFF":  # Pillow turns it on loading, and gives its size as displayed
        rgb, lies = _pixels(image, still, icc), orientation.rotation in (90, 270)
        coded = rgb.shape[1::-1] if lies else rgb.shape[:2]
        facts = replace(facts, coded_height=coded[0], coded_width=coded[1])
    else:
        rgb = orient(_pixels(image, still, icc), orientation)
    height, width = rgb.shape[:2]
    return Picture(replace(facts, width=width, height=height), rgb)


def _pixels(image: Image.Image, still: _Still, icc: bytes | None) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: sRGB over white, not yet turned. CICP goes before ICC, as PNG says."""
    png, covered = still.png, _covered(image)
    with _by_pillow(still.format_name):
        image.load()  # also where another decoder gives the pixels: it says what is missing
    deep = deep_pixels(png) if png else None
    if png and (png.transfer != "sdr" or png.primaries in CHROMATICITIES):
        stored = np.asarray(_with_channels(_eight_bits(image))) if deep is None else deep
        return np.asarray(flatten(Image.fromarray(_to_sdr(stored, png))))
    image = _without_unused(image) if deep is None else Image.fromarray(_ROUNDED.take(deep))
    eight = _eight_bits(image)
    if covered is not None:
        page = Image.new("RGBA", eight.size)
        page.paste(eight.crop(covered), covered)
        eight = page
    return np.asarray(flatten(to_srgb(eight, icc)))


def _covered(image: Any) -> tuple[int, int, int, int] | None:
    """The part of a GIF's canvas that its frame covers, if not all: the rest is clear."""
    whole = (0, 0, image.width, image.height)
    if image.format != "GIF" or not image.tile or image.tile[0][1] in (None, whole):
        return None
    left, top, right, bottom = image.tile[0][1]
    return left, top, min(right, image.width), min(bottom, image.height)


def _with_channels(image: Image.Image) -> Image.Image:
    return _converted(image, "RGBA" if image.mode in ("LA", "RGBA") else "RGB")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """What Pillow read of palettes and transparency is looked at only here."""
    with _by_pillow(image.format):
        return image.convert(mode)


def _to_sdr(
    stored: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], png: Png
) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, C] of BT.709, the fourth channel as it was; in bands, so as to hold no light."""
    most = np.float32(np.iinfo(stored.dtype).max)
    out = np.empty(stored.shape, np.uint8)
    if stored.shape[2] == 4:
        out[..., 3] = np.rint(stored[..., 3] * (255 / most))
    primaries = png.primaries if png.primaries in CHROMATICITIES else "bt709"
    for top in range(0, len(stored), BAND_ROWS):
        band = stored[top : top + BAND_ROWS, :, :3]
        signal = band.reshape(-1, 3).T.astype(np.float32) / most
        if not png.full_range:
            signal = (signal * np.float32(255) - 16) / np.float32(219)
        sdr = to_sdr(signal, png.transfer, primaries)
        out[top : top + BAND_ROWS, :, :3] = sdr.T.reshape(band.shape)
    return out


def _orientation(image: Image.Image, still: _Still) -> Orientation:
    if still.exif is not None:
        return exif_orientation(still.exif)
    if still.format_name == "TIFF":
        return _tiff_orientation(image)
    exif = image.info.get("exif", b"")
    return exif_orientation(exif) if isinstance(exif, bytes) else Orientation()


def _tiff_orientation(image: Any) -> Orientation:
    """A TIFF's own tag. All else that Pillow would look at on loading is taken away from it."""
    with _by_pillow("TIFF"):
        tag, exif = image.tag_v2.get(_ORIENTATION), image.getexif()
        for key in list(exif):
            del exif[key]
    orientation = EXIF_ORIENTATIONS.get(tag) if isinstance(tag, int) else None
    if orientation is not None:
        exif[_ORIENTATION] = tag
    image.info.pop("exif", None)
    return orientation or Orientation()


def _to_full_page(image: Any) -> None:
    """The first page that is no smaller version of another; the first one where none is."""
    for page in range(_MOST_PAGES):
        with _by_pillow("TIFF"):
            try:
                image.seek(page)
            except EOFError:
                break
            subfile = image.tag_v2.get(_SUBFILE, 0)
        if not (isinstance(subfile, int) and subfile & _REDUCED):
            return
    with _by_pillow("TIFF"):
        image.seek(0)


def _without_unused(image: Image.Image) -> Image.Image:
    """A fourth byte that nobody filled in, or that does not say what it is, is not transparency.

    A bitmap's where all are zero, as browsers take it; a TIFF's where no ExtraSamples name it.
    """
    if image.mode != "RGBA":
        return image
    unused = image.format in ("BMP", "DIB") and image.getchannel("A").getextrema() == (0, 0)
    unnamed = _EXTRA_SAMPLES not in getattr(image, "tag_v2", (_EXTRA_SAMPLES,))
    return image.convert("RGB") if unused or unnamed else image


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
        return _converted(image, "RGBA" if _has_transparency(image) else "RGB")
    if image.mode in ("1", "La", "RGBa"):
        return _converted(image, {"1": "L", "La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return _converted(image, "RGBA")
    return image


def _has_transparency(image: Image.Image) -> bool:
    return image.mode == "PA" or "transparency" in image.info
