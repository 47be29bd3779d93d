"""Still images of every make: their pixels, whatever else the file holds and however broken."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from telecine.infra.errors import MediaError, Reason
from telecine.manifests.specs import PixelSpec
from telecine.pipeline.media.facts import Picture
from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.media.pixels import frame_rgb
from telecine.pipeline.media.stills.images import open_picture, orient
from telecine.pipeline.media.stills.jpeg import read_jpeg
from tests.support.cases import case
from tests.support.gifs import COLORS, GifFrame, gif
from tests.support.gifs import shown as browser_shows
from tests.support.movies import PIXELS, SCAN

Pixels = npt.NDArray[np.uint8]


def shown(data: bytes, pixels: PixelSpec = PIXELS) -> Pixels:
    picture = open_media(io.BytesIO(data), SCAN, pixels)
    assert isinstance(picture, Picture)
    return picture.rgb


def refused(data: bytes, pixels: PixelSpec = PIXELS) -> tuple[Reason, str]:
    with pytest.raises(MediaError) as caught:
        open_media(io.BytesIO(data), SCAN, pixels)
    return caught.value.reason, caught.value.detail


def file_of(pixels: npt.NDArray[np.generic], format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name, **options)
    return buffer.getvalue()


def noise(height: int = 16, width: int = 24, channels: int = 3) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)


# --- damage and mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize("format_name", ["JPEG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000"])
def test_a_mistake_of_ours_is_not_called_damage(format_name: str) -> None:
    """Of the exceptions that Pillow's readers raise on broken files some are raised by bugs too."""
    data = file_of(noise(), format_name)
    assert open_picture(io.BytesIO(data), format_name, 1 << 20) is not None
    with pytest.raises(TypeError):
        open_picture(io.BytesIO(data), format_name, "no number")  # type: ignore[arg-type]


@pytest.mark.parametrize("format_name", ["BMP", "TIFF", "GIF", "WEBP", "JPEG2000", "PNG", "JPEG"])
@given(draw=st.data())
def test_damaged_pictures_are_read_or_corrupt(format_name: str, draw: st.DataObject) -> None:
    damaged = bytearray(file_of(noise(), format_name))
    for _ in range(draw.draw(st.integers(0, 3))):
        damaged[draw.draw(st.integers(4, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    file = io.BytesIO(bytes(damaged[: draw.draw(st.integers(4, len(damaged)))]))
    with contextlib.suppress(MediaError):  # and nothing else is raised
        open_picture(file, format_name, 1 << 20)


# --- EXIF --------------------------------------------------------------------------------------

UPRIGHT = noise()
PLAIN = {
    "JPEG": file_of(UPRIGHT, "JPEG"),
    "PNG": file_of(UPRIGHT, "PNG"),
    "WEBP": file_of(UPRIGHT, "WEBP", lossless=True),
}


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def with_exif(format_name: str, exif: bytes) -> bytes:
    plain = PLAIN[format_name]
    if format_name == "JPEG":
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    if format_name == "PNG":
        return plain[:33] + chunk(b"eXIf", exif) + plain[33:]
    canvas = struct.pack("<I", 8) + (23).to_bytes(3, "little") + (15).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + plain[12:]
    body += b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def orientation(value: int, kind: int = 3, count: int = 1, order: str = "<") -> bytes:
    entry = struct.pack(order + "HHIHH", 0x0112, kind, count, value, 0)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format_name", PLAIN)
def test_an_orientation_in_either_byte_order_turns(format_name: str, order: str) -> None:
    turned = orient(shown(PLAIN[format_name]), EXIF_ORIENTATIONS[6])
    assert np.array_equal(shown(with_exif(format_name, orientation(6, order=order))), turned)


broken_exif = st.one_of(
    st.binary(max_size=64),
    st.binary(max_size=64).map(lambda tail: b"Exif\0\0" + tail),
    st.builds(
        lambda exif, at, byte: exif[:at] + bytes([byte]) + exif[at + 1 :],
        st.builds(orientation, st.integers(0, 65535), st.integers(0, 20), st.integers(0, 9)),
        st.integers(0, 37),
        st.integers(0, 255),
    ),
    st.builds(lambda exif, end: exif[:end], st.just(orientation(6)), st.integers(0, 38)),
)


@pytest.mark.parametrize("format_name", PLAIN)
@given(exif=broken_exif)
def test_no_exif_costs_a_picture(format_name: str, exif: bytes) -> None:
    seen, plain = shown(with_exif(format_name, exif)), shown(PLAIN[format_name])
    assert any(np.array_equal(seen, orient(plain, turn)) for turn in EXIF_ORIENTATIONS.values())


@pytest.mark.parametrize(
    "name",
    [*(f"{broken}.jpg" for broken in (
        "ascii_orientation", "bad_endian", "bad_header", "bad_type", "cut_exif", "double_exif",
        "empty_exif", "far_ifd", "orientation_0", "two_values", "xmp_only_6")),
     "empty_exif.png", "exif_prefix.png", "no_tiff.png"],
)  # fmt: skip
def test_files_of_broken_exif_are_as_without(name: str) -> None:
    plain = case("plain" + Path(name).suffix)
    assert np.array_equal(shown(case(name).read_bytes()), shown(plain.read_bytes()))


def tiff(entries: list[tuple[int, int, int, bytes]], data: bytes, sub: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; `sub` lies behind the pixels, from byte 8 on."""
    at = 8 + len(data) + len(sub)
    table = b"".join(struct.pack("<HHI", *e[:3]) + e[3].ljust(4, b"\0") for e in sorted(entries))
    head = b"II*\0" + struct.pack("<I", at)
    return head + data + sub + struct.pack("<H", len(entries)) + table + bytes(4)


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def gray(size: int = 16, *more: tuple[int, int, int, bytes], photometric: int = 1) -> bytes:
    """A TIFF of size × size grey pixels with more tags."""
    pixels = noise(size, size, 1).tobytes()
    entries = [
        (0x0100, 3, 1, short(size)), (0x0101, 3, 1, short(size)), (0x0102, 3, 1, short(8)),
        (0x0103, 3, 1, short(1)), (0x0106, 3, 1, short(photometric)),
        (0x0111, 4, 1, struct.pack("<I", 8)), (0x0115, 3, 1, short(1)),
        (0x0116, 3, 1, short(size)), (0x0117, 4, 1, struct.pack("<I", len(pixels))),
    ]  # fmt: skip
    return tiff([*entries, *more], pixels)


@pytest.mark.parametrize(
    "entry",
    [(0x0112, 2, 2, b"6\0"), (0x0112, 3, 1, short(0)), (0x0112, 3, 1, short(77)),
     (0x8769, 4, 1, b"\xff\xff\xff\0"), (0x8769, 2, 1, b"\x08"),
     (0x8825, 4, 1, struct.pack("<I", 8)), (0x02BC, 1, 4, b"<x:x")],
)  # fmt: skip
def test_no_tag_costs_a_tiff(entry: tuple[int, int, int, bytes]) -> None:
    assert np.array_equal(shown(gray(16, entry)), shown(gray(16)))


def test_no_note_costs_a_png() -> None:
    plain = PLAIN["PNG"]
    junk = (
        chunk(b"iCCP", b"name\0\0no deflate") + chunk(b"zTXt", b"t\0\0\x78\x9cno")
        + chunk(b"gAMA", b"") + chunk(b"tEXt", b"Comment\0" + bytes(99), crc=1)
        + chunk(b"cICP", b"\x09")
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(1 << 22)))
    )  # fmt: skip
    assert np.array_equal(shown(plain[:33] + junk + plain[33:]), UPRIGHT)


# --- what is a picture, and what is not -----------------------------------------------------------


def jpeg(level: int, size: int = 32) -> bytes:
    return file_of(np.full((size, size, 3), level, np.uint8), "JPEG", progressive=level % 2 == 1)


@pytest.mark.parametrize("more", [[61], [61, 120, 180], [60, 60], [61, 120, 60]])
def test_a_picture_with_others_behind_it_is_that_picture(more: list[int]) -> None:
    """Copies, previews and the other eye: no three of one size lie in a row."""
    others = [jpeg(level, 32 if k != 1 else 16) for k, level in enumerate(more)]
    assert abs(int(shown(jpeg(200) + b"".join(others)).mean()) - 200) <= 1


def test_equal_pictures_in_a_row_are_a_film() -> None:
    film = open_media(io.BytesIO(b"".join(map(jpeg, (10, 50, 90, 130)))), SCAN, PIXELS)
    assert isinstance(film, Video)
    with film:
        assert len(list(film.frames())) == 4


def test_two_jpegs_are_the_first() -> None:
    data = case("two_jpegs.jpg").read_bytes()
    assert np.array_equal(shown(data), shown(data[: data.index(b"\xff\xd9") + 2]))


def test_a_jpeg_filled_up_with_ones_is_read_in_a_moment() -> None:
    """As a card is whose blocks were erased. From each 0xFF a marker may begin: that took hours."""
    data = jpeg(10)
    end = data.rindex(b"\xff\xd9")
    filled = data[:end] + b"\xff" * 2_000_000 + b"\0"
    picture, is_film = read_jpeg(io.BytesIO(filled))
    assert (picture.end, is_film) == (len(filled), False)


def test_filling_before_a_marker_is_no_part_of_it() -> None:
    start, rest = PLAIN["JPEG"][:2], PLAIN["JPEG"][2:]
    note = b"\xff\xfe\0\4hi"
    assert np.array_equal(
        shown(start + b"\xff" * 3 + note + b"\xff" * 3 + rest), shown(start + rest)
    )


CFA, LINEAR_RAW = 32803, 34892


@pytest.mark.parametrize(
    "data",
    [
        gray(16, photometric=CFA), gray(16, photometric=LINEAR_RAW),
        gray(16, (0xC612, 1, 4, b"\1\4\0\0")),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(64), b"FUJIFILMCCD-RAW 0201" + bytes(64),
        b"IIU\0\x18\0\0\0" + bytes(64), b"IIRO\x08\0\0\0" + bytes(64), b"FOVb" + bytes(64),
        struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom" + bytes(64),
    ],
)  # fmt: skip
def test_camera_raw_is_unsupported_and_said(data: bytes) -> None:
    reason, detail = refused(data)
    assert reason is Reason.UNSUPPORTED
    assert "camera raw" in detail


def test_a_raw_file_is_not_its_thumbnail() -> None:
    """The mosaic lies in a directory below, or in the next one."""
    thumbnail, mosaic = gray(16), gray(32, photometric=CFA)
    start = len(thumbnail)
    moved = int.from_bytes(mosaic[4:8], "little") + start
    next_one = thumbnail[:-4] + struct.pack("<I", moved) + mosaic
    below = gray(16, (0x014A, 4, 1, struct.pack("<I", moved + 12))) + mosaic
    for data in (next_one, below, case("photo.dng").read_bytes()):
        assert refused(data)[0] is Reason.UNSUPPORTED


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_large_raw_file_is_raw_too(order: str) -> None:
    """BigTIFF: offsets of eight bytes."""
    mark = b"II+\0" if order == "<" else b"MM\0+"
    entry = struct.pack(order + "HHQHHI", 0x0106, 3, 1, CFA, 0, 0)
    data = mark + struct.pack(order + "HHQQ", 8, 0, 16, 1) + entry + bytes(8)
    assert refused(data)[0] is Reason.UNSUPPORTED


def test_a_tiff_with_a_preview_is_a_tiff() -> None:
    picture, preview = gray(32), gray(16, (0x00FE, 4, 1, b"\1"))
    moved = int.from_bytes(preview[4:8], "little")
    below = gray(32, (0x014A, 4, 1, struct.pack("<I", len(picture) + 12 + moved))) + preview
    assert np.array_equal(shown(below), shown(picture))


def test_a_page_that_is_a_smaller_version_gives_way() -> None:
    buffer = io.BytesIO()
    big, small = Image.fromarray(noise(32, 32)), Image.fromarray(noise(16, 16))
    small.save(buffer, "TIFF", save_all=True, append_images=[big], tiffinfo={0x00FE: 1})
    data = bytearray(buffer.getvalue())
    last = data.rindex(struct.pack("<HHI", 0x00FE, 4, 1)) + 8  # Pillow tags every page alike
    data[last : last + 4] = bytes(4)
    assert np.array_equal(shown(bytes(data)), noise(32, 32))


# --- alpha ---------------------------------------------------------------------------------------


def bitmap(fourth: int, *, fields: bool) -> bytes:
    """A bitmap of 32 bits, BI_RGB or (with `fields`) with masks that name its alpha."""
    rows = np.dstack([UPRIGHT[::-1, :, ::-1], np.full(UPRIGHT.shape[:2], fourth, np.uint8)])
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    size = 108 if fields else 40
    height, width = UPRIGHT.shape[:2]
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3 * fields, 0, 0, 0, 0, 0)
    info += masks if fields else b""
    head = b"BM" + struct.pack("<IHHI", 14 + len(info) + rows.nbytes, 0, 0, 14 + len(info))
    return head + info + rows.tobytes()


@pytest.mark.parametrize("fourth", [0, 128, 255])
def test_a_fourth_byte_without_a_name_is_no_transparency(fourth: int) -> None:
    assert np.array_equal(shown(bitmap(fourth, fields=False)), UPRIGHT)


def test_an_alpha_that_is_filled_in_is_transparency() -> None:
    assert np.array_equal(shown(bitmap(0, fields=True)), UPRIGHT)  # nobody filled it in
    half = np.abs(shown(bitmap(128, fields=True)).astype(int) - (UPRIGHT.astype(int) + 255) / 2)
    assert half.max() <= 2


@pytest.mark.parametrize("samples", [None, 0, 2])
def test_a_tiff_says_what_its_fourth_sample_is(samples: int | None) -> None:
    rgba = np.dstack([UPRIGHT, np.zeros(UPRIGHT.shape[:2], np.uint8)])
    data = bytearray(file_of(rgba, "TIFF"))
    at = data.index(struct.pack("<HHI", 0x0152, 3, 1))
    if samples is None:
        data[at : at + 2] = short(0x0151)  # another tag, which says nothing
    else:
        data[at + 8 : at + 10] = short(samples)
    assert np.array_equal(shown(bytes(data)), np.full_like(UPRIGHT, 255) if samples else UPRIGHT)


# --- colour --------------------------------------------------------------------------------------


def exchanged_primaries() -> bytes:
    """sRGB with red and green exchanged: what is stored as red is seen green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_means_the_same_in_every_format(format_name: str) -> None:
    red = np.full((16, 16, 3), (255, 0, 0), np.uint8)
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = file_of(
        red, format_name, icc_profile=exchanged_primaries(), **options.get(format_name, {})
    )
    assert np.abs(shown(data).astype(int) - (0, 255, 0)).max() <= 6


def png(rows: npt.NDArray[np.uint16] | Pixels, *chunks: bytes) -> bytes:
    """An RGB or RGBA PNG of 8 or 16 bits, with more chunks before its pixels."""
    height, width, channels = rows.shape
    kind = {3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * rows.itemsize, kind, 0, 0, 0)
    order = rows.astype(rows.dtype.newbyteorder(">"))
    lines = b"".join(b"\0" + row.tobytes() for row in order)
    body = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(lines)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


PQ_SIGNALS = (0.2997, 0.4403, 0.5081, 0.5807)  # 10, 50, 100 and 203 nit (SMPTE ST 2084)
SDR_GREYS = (73, 142, 189, 230)  # what BT.2390 and BT.1886 make of them


def grey_row(signals: tuple[float, ...], dtype: type[np.unsignedinteger]) -> npt.NDArray[np.uint16]:
    codes = np.rint(np.array(signals) * np.iinfo(dtype).max).astype(dtype)
    return np.asarray(codes.repeat(4)[None, :, None].repeat(40, 0).repeat(3, 2))


def cicp(primaries: int, transfer: int, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, 0, full]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_in_pq_is_tone_mapped(dtype: type[np.unsignedinteger]) -> None:
    rows = grey_row(PQ_SIGNALS, dtype)
    data = png(rows, cicp(9, 16))
    assert np.abs(shown(data)[20, ::4, 0].astype(int) - SDR_GREYS).max() <= 2
    assert refused(data, PixelSpec(hdr="reject"))[0] is Reason.HDR
    half = np.full((*rows.shape[:2], 1), np.iinfo(dtype).max // 2 + 1, dtype)
    over = shown(png(np.concatenate([rows, half], axis=2), cicp(9, 16)))[20, ::4, 0].astype(int)
    assert np.abs(over - (np.array(SDR_GREYS) + 255) / 2).max() <= 2
    narrow = tuple((signal * 219 + 16) / 255 for signal in PQ_SIGNALS)
    seen = shown(png(grey_row(narrow, dtype), cicp(9, 16, full=0)))[20, ::4, 0]
    assert np.abs(seen.astype(int) - SDR_GREYS).max() <= 2


def test_the_same_light_is_the_same_pixel_in_hlg() -> None:
    seen = shown(png(grey_row((0.75,), np.uint16), cicp(9, 18)))
    assert np.abs(seen.astype(int) - SDR_GREYS[-1]).max() <= 1


def test_a_png_of_wide_primaries_is_brought_to_bt709() -> None:
    """Display P3's own red lies outside; a grey lies in both."""
    red = np.full((8, 8, 3), (200, 30, 30), np.uint8)
    seen = shown(png(red, cicp(12, 13)))[0, 0].astype(int)
    assert seen[0] > 210
    assert (seen[1:] < 30).all()
    grey = np.full((8, 8, 3), 130, np.uint8)
    assert np.abs(shown(png(grey, cicp(12, 13))).astype(int) - 130).max() <= 1


def test_cicp_goes_before_a_profile() -> None:
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    profile = chunk(b"iCCP", b"exchanged\0\0" + zlib.compress(exchanged_primaries()))
    assert shown(png(red, profile))[0, 0].argmax() == 1
    assert shown(png(red, cicp(1, 13), profile))[0, 0].tolist() == [255, 0, 0]
    assert shown(png(red, cicp(2, 2), profile))[0, 0].argmax() == 1  # it does not say


def test_a_png_of_sixteen_bits_is_rounded() -> None:
    deep = np.random.default_rng(5).integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    assert np.array_equal(shown(png(deep)), np.rint(deep / 257).astype(np.uint8))
    opaque = np.concatenate([deep, np.full((16, 16, 1), 65535, np.uint16)], axis=2)
    assert np.array_equal(shown(png(opaque)), np.rint(deep / 257).astype(np.uint8))
    assert refused(png(deep)[:-600])[0] is Reason.CORRUPT


def test_the_hdr_png_has_its_greys() -> None:
    seen = shown(case("hdr.png").read_bytes())[80, 32::64, 0].astype(int)
    assert np.abs(seen - SDR_GREYS).max() <= 3


# --- GIF -----------------------------------------------------------------------------------------


def palettes() -> st.SearchStrategy[npt.NDArray[np.uint8]]:
    return st.integers(0, 99).map(
        lambda seed: np.random.default_rng(seed).integers(0, 256, (COLORS, 3), np.uint8)
    )


@st.composite
def gif_frames(draw: st.DrawFn) -> GifFrame:
    wide, high = draw(st.integers(1, 12)), draw(st.integers(1, 10))
    seed = draw(st.integers(0, 999))
    return GifFrame(
        np.random.default_rng(seed).integers(0, COLORS, (high, wide), np.uint8),
        x=draw(st.integers(0, 12 - wide)),
        y=draw(st.integers(0, 10 - high)),
        disposal=draw(st.integers(0, 3)),
        transparent=draw(st.none() | st.integers(0, COLORS - 1)),
        palette=draw(st.none() | palettes()),
        delay=draw(st.sampled_from([0, 1, 2, 3, 10, 250])),
    )


@given(
    frames=st.lists(gif_frames(), min_size=1, max_size=5),
    palette=palettes(),
    background=st.integers(0, COLORS - 1),
)
def test_a_gif_is_shown_as_browsers_show_it(
    frames: list[GifFrame], palette: npt.NDArray[np.uint8], background: int
) -> None:
    data = gif(12, 10, frames, palette, background)
    expected = [*browser_shows(12, 10, frames, palette)]
    media = open_media(io.BytesIO(data), SCAN, PIXELS)
    if isinstance(media, Picture):
        assert len(frames) == 1
        assert np.array_equal(media.rgb, expected[0])
        return
    with media:
        seen = [(frame_rgb(frame, media.facts), frame.pts) for frame in media.frames()]
        seconds = [float(pts * media.time_base) for _, pts in seen if pts is not None]
    assert len(seen) == len(expected)
    for (rgb, _), right in zip(seen, expected, strict=True):
        assert np.array_equal(rgb, right)
    delays = [frame.delay or 10 for frame in frames]  # none at all means a tenth of a second
    assert seconds == pytest.approx([sum(delays[:k]) / 100 for k in range(len(frames))])


def test_the_gif_that_clears_is_clear_behind() -> None:
    """A square moves over a coloured ground; where it was, the page is seen."""
    with case("dispose.gif").open("rb") as file:
        media = open_media(file, SCAN, PIXELS)
        assert isinstance(media, Video)
        with media:
            seen = [frame_rgb(frame, media.facts) for frame in media.frames()]
    assert (seen[2][40:80, 10:25] == 255).all()
    assert (seen[7][40:80, 10:100] == 255).all()
    assert not (seen[2][40:80, 26:64] == 255).all(axis=2).any()
