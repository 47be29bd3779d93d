"""Hostile and odd files: each becomes a picture, a video or a reason, and reads only itself."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from PIL import Image, ImageCms

from telecine.infra.errors import MediaError, Reason
from telecine.manifests.specs import ScanSpec
from telecine.pipeline.media.facts import Picture
from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS
from telecine.pipeline.media.open import Video, open_media
from tests.support.movies import (
    PIXELS,
    SCAN,
    Movie,
    Planes,
    frame_of,
    numbered,
    open_video,
    random_planes,
    write_movie,
)

Pixels = npt.NDArray[np.uint8]


def reason_of(data: bytes, scan: ScanSpec = SCAN) -> Reason:
    with pytest.raises(MediaError) as caught:
        open_media(io.BytesIO(data), scan, PIXELS)
    assert caught.value.detail
    return caught.value.reason


def picture_of(image: Image.Image, format_name: str, **options: object) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    picture = open_media(buffer, SCAN, PIXELS)
    assert isinstance(picture, Picture)
    return picture


def blocks(height: int = 64, width: int = 96) -> Pixels:
    """A picture of 16 px squares of different colours, which survives JPEG."""
    small = np.random.default_rng(7).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return small.repeat(16, 0).repeat(16, 1)


def flat(level: int) -> Planes:
    return (
        np.full((64, 64), level, np.uint8),
        np.full((32, 32), 128, np.uint8),
        np.full((32, 32), 128, np.uint8),
    )


def brightness_of(frames: Iterable[VideoFrame]) -> float:
    return float(np.mean([frame.to_ndarray(format="gray").mean() for frame in frames]))


# --- still images ----------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_orientation_is_applied(tag: int, format_name: str) -> None:
    upright = blocks()
    undone = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright, 1), 7: np.rot90(upright.swapaxes(0, 1), 2),
        8: np.rot90(upright, -1),
    }[tag]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = Image.fromarray(np.ascontiguousarray(undone))
    options = {
        "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},  # Pillow writes it as irot and imir
    }  # fmt: skip
    picture = picture_of(stored, format_name, exif=exif, **options.get(format_name, {}))
    facts = picture.facts
    assert (facts.width, facts.height) == (96, 64)
    assert (facts.coded_width, facts.coded_height) == stored.size
    assert facts.orientation == EXIF_ORIENTATIONS[tag]
    inner = np.abs(picture.rgb.astype(int) - upright).reshape(4, 16, 6, 16, 3)[:, 4:12, :, 4:12]
    assert inner.max() <= 6


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000"])
def test_every_lossless_format_gives_its_pixels(format_name: str) -> None:
    pixels = blocks()
    options = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(format_name, {})
    picture = picture_of(Image.fromarray(pixels), format_name, **options)
    assert np.array_equal(picture.rgb, pixels)
    assert (picture.facts.width, picture.facts.height) == (96, 64)


def test_transparency_is_shown_over_white() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 0], rgba[:8, :, 3], rgba[8:, :, 3] = 200, 0, 128
    rgb = picture_of(Image.fromarray(rgba), "PNG").rgb
    assert (rgb[:8] == 255).all()
    assert np.abs(rgb[8:].astype(int) - (228, 127, 127)).max() <= 1
    palette = Image.fromarray(rgba[..., 0], "L").convert("P")
    seen = picture_of(palette, "PNG", transparency=int(np.asarray(palette)[0, 0])).rgb
    assert (seen == 255).all()


def test_cmyk_becomes_rgb() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 0] = 255  # cyan ink alone
    rgb = picture_of(Image.fromarray(pixels, "CMYK"), "JPEG", quality=95).rgb
    assert np.abs(rgb.astype(int) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(format_name: str) -> None:
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (16, 1))
    picture = picture_of(Image.fromarray(ramp), format_name)
    assert picture.facts.bit_depth == 16
    expected = np.rint(ramp / 257).astype(int)
    assert np.abs(picture.rgb[..., 1].astype(int) - expected).max() <= 1


def test_an_icc_profile_is_honoured() -> None:
    """sRGB with the red and green primaries exchanged: what is stored as red is seen green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0] = 255
    rgb = picture_of(Image.fromarray(pixels), "PNG", icc_profile=bytes(profile)).rgb
    assert np.abs(rgb.astype(int) - (0, 255, 0)).max() <= 6


def test_an_animated_gif_is_a_video_and_a_static_one_a_picture() -> None:
    frames = [Image.fromarray(np.full((32, 32), level, np.uint8)) for level in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    with open_media(buffer, SCAN, PIXELS) as video:
        assert isinstance(video, Video)
        assert len(list(video.frames())) == 3
    assert picture_of(frames[1], "GIF").rgb.mean() == 100


@pytest.mark.parametrize("format_name", ["WEBP", "PNG"])
def test_other_animations_are_unsupported(format_name: str) -> None:
    frames = [Image.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format_name, save_all=True, append_images=frames[1:], duration=100)
    assert reason_of(buffer.getvalue()) is Reason.UNSUPPORTED


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_image_is_corrupt(format_name: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_name)
    assert reason_of(buffer.getvalue()[: len(buffer.getvalue()) // 2]) is Reason.CORRUPT


def test_a_jpeg_with_a_part_missing_is_corrupt() -> None:
    """libjpeg would fill the rest with grey and not say so."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    data = whole.getvalue()
    motion_photo = open_media(io.BytesIO(data + b"a film behind the photo"), SCAN, PIXELS)
    assert isinstance(motion_photo, Picture)
    assert reason_of(data[: len(data) // 2] + b"\xff\xd9") is Reason.CORRUPT


def test_a_row_of_jpegs_is_a_video(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    for level in (10, 120, 240):
        Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(buffer, "JPEG")
    with open_media(buffer, SCAN, PIXELS) as video:
        assert isinstance(video, Video)
        assert len(list(video.frames())) == 3


def test_an_avif_is_a_picture_over_white_in_its_colours() -> None:
    pixels = blocks()
    plain = picture_of(Image.fromarray(pixels), "AVIF", quality=100, subsampling="4:4:4")
    assert np.abs(plain.rgb.astype(int) - pixels).max() <= 4
    alpha = np.full((64, 96, 1), 255, np.uint8)
    alpha[:32] = 0
    seen = picture_of(
        Image.fromarray(np.dstack([pixels, alpha])), "AVIF", quality=100, subsampling="4:4:4"
    )
    assert (seen.rgb[:32] >= 254).all()
    assert np.abs(seen.rgb[32:].astype(int) - pixels[32:]).max() <= 4


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_large_image_is_refused_by_its_header(format_name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 96), np.uint8)).convert("RGB").save(buffer, format_name)
    assert reason_of(buffer.getvalue(), ScanSpec(max_pixels=64 * 96 - 1)) is Reason.TOO_LARGE
    open_media(buffer, ScanSpec(max_pixels=64 * 96), PIXELS)


def test_a_large_video_is_refused_by_its_header(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [flat(100)] * 3)
    assert reason_of(path.read_bytes(), ScanSpec(max_pixels=64 * 64 - 1)) is Reason.TOO_LARGE


def test_a_video_that_is_too_long_is_refused_when_its_frames_say_so(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [flat(100)] * 60)
    with path.open("rb") as file:
        video = open_media(file, ScanSpec(max_source_seconds=1), PIXELS)
        assert isinstance(video, Video)
        with video, pytest.raises(MediaError) as caught:
            list(video.frames())
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("place", [8, 30])
def test_a_lone_far_stamp_makes_no_video_too_long(tmp_path: Path, place: int) -> None:
    whole = write_movie(
        tmp_path / "a.mp4",
        [flat(100 + k) for k in range(60)],
        Movie(codec="mjpeg", format="yuvj420p"),
    )
    path = tmp_path / "a.nut"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream = stream
            packet.pts = packet.dts + (number == place) * int(25_000 / packet.time_base)
            target.mux(packet)
    with path.open("rb") as file:
        video = open_media(file, ScanSpec(), PIXELS)
        assert isinstance(video, Video)
        with video:
            stamps = [frame.pts for frame in video.frames()]
    assert len(stamps) == 60
    assert stamps == sorted(stamps)
    assert stamps[-1] * video.time_base < 3


# --- damage ----------------------------------------------------------------------------------


def test_no_bytes_are_empty() -> None:
    assert reason_of(b"") is Reason.EMPTY


@pytest.mark.parametrize("data", [b"\x00\x01\x02" * 999, b"\x9d\x1f" * 3000, b"MZ\x90\x00" * 50])
def test_bytes_of_no_format_are_unrecognised(data: bytes) -> None:
    assert reason_of(data) is Reason.UNRECOGNISED


def test_sound_alone_has_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason_of(path.read_bytes()) is Reason.NO_VIDEO


def test_a_refused_packet_costs_its_frames_and_is_counted(tmp_path: Path) -> None:
    options = (("qp", "0"), ("preset", "ultrafast"), ("g", "1"))
    pictures = [random_planes(k, 64, 64) for k in range(20)]
    path = write_movie(tmp_path / "a.mp4", pictures, Movie(options=options))
    with av.open(str(path)) as container:
        spans = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    start, size = spans[10]
    data[start + 4 : start + size] = b"\xff" * (size - 4)
    path.write_bytes(data)
    with open_video(path) as video:
        frames = list(video.frames())
        assert video.decode_errors == 1
    assert len(frames) == 19


def test_a_file_cut_short_gives_the_frames_that_are_there(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mkv", [random_planes(k, 64, 64) for k in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(path) as video:
        assert 5 < len(list(video.frames())) < 15


def test_errors_of_the_file_itself_pass_through(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mkv", [random_planes(k, 64, 64) for k in range(40)])

    class Vanishing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100_000:
                raise ConnectionResetError("the store went away")
            return super().read(size)

    def read_all() -> None:
        with open_media(Vanishing(path.read_bytes()), SCAN, PIXELS) as video:
            assert isinstance(video, Video)
            assert list(video.frames())

    with pytest.raises(ConnectionResetError):
        read_all()


def outcome_of(path: Path) -> tuple[str, str]:
    """("ok", "") for a picture, or for a video with at least one frame; else reason and detail."""
    with path.open("rb") as file:
        try:
            media = open_media(file, SCAN, PIXELS)
            if isinstance(media, Video):
                with media:
                    return "ok" if list(media.frames()) else "nothing", ""
        except MediaError as error:
            return error.reason, error.detail
    return "ok", ""


def test_every_broken_file_gives_frames_or_a_reason(footage: Path) -> None:
    reasons: Counter[str] = Counter()
    for path in sorted((footage / "bad").iterdir()):
        if path.suffix == ".csv":
            continue
        reason, detail = outcome_of(path)
        assert (reason == "ok") == (not detail), path.name
        assert str(path.parent) not in detail
        reasons[reason] += 1
    assert sum(reasons.values()) >= 90
    assert reasons["ok"] >= 30
    assert reasons[Reason.ENCRYPTED] >= 8
    assert {Reason.EMPTY, Reason.NO_VIDEO, Reason.NO_FRAMES, Reason.TOO_LARGE} <= set(reasons)


# --- files that name other files -------------------------------------------------------------

SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "concat": "file '{name}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{name}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
    "<AdaptationSet><Representation><BaseURL>{name}</BaseURL></Representation></AdaptationSet>"
    "</Period></MPD>\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:{name}\n",
    "asx": '<asx version="3.0"><entry><ref href="{name}"/></entry></asx>\n',
    "ram": "[Reference]\nRef1={name}\n",
    "image2": "{name}\n",
    "smil": '<smil><body><video src="{name}"/></body></smil>\n',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_opens_nothing(tmp_path: Path, script: str, encoding: str) -> None:
    canary = write_movie(tmp_path / "canary.mp4", [flat(235)] * 10)
    for name in (canary.name, str(canary), canary.as_uri()):
        path = tmp_path / "innocent.mp4"
        path.write_bytes(SCRIPTS[script].format(name=name).encode(encoding))
        with path.open("rb") as file, pytest.raises(MediaError) as caught:
            open_media(file, SCAN, PIXELS)
        assert caught.value.reason is Reason.UNRECOGNISED


def test_a_script_behind_binary_bytes_opens_nothing(tmp_path: Path) -> None:
    """Not text by its first bytes, and still no demuxer of ours."""
    canary = write_movie(tmp_path / "canary.mp4", [flat(235)] * 10)
    data = b"ffconcat version 1.0\nfile " + canary.name.encode() + b"\n\0\0\0"
    assert reason_of(data) is Reason.UNRECOGNISED


def alias(volume: bytes, path: bytes) -> bytes:
    """A `dref` box whose one entry is a Macintosh alias: the media lies in another file."""
    name = path.rpartition(b"/")[2]
    record = bytes(10) + bytes([len(volume)]) + volume.ljust(27, b"\0") + bytes(12)
    record += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    record += struct.pack(">hh", 1, 1) + bytes(16)
    record += struct.pack(">hH", 2, len(path)) + path + b"\0" * (len(path) % 2)
    record += struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    return struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry


def refer_elsewhere(movie: bytes, path: bytes) -> bytes:
    """The movie with its data reference replaced; every box around it grows. moov is the last."""
    start = movie.index(b"dref") - 4
    size = int.from_bytes(movie[start : start + 4], "big")
    fresh = alias(b"disk", path)
    grown = bytearray(movie[:start] + fresh + movie[start + size :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = movie.index(kind) - 4
        old = int.from_bytes(movie[at : at + 4], "big")
        grown[at : at + 4] = struct.pack(">I", old + len(fresh) - size)
    return bytes(grown)


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_movie_whose_data_lies_elsewhere_reads_only_itself(
    tmp_path: Path, absolute: bool
) -> None:
    canary = write_movie(tmp_path / "canary.mov", [flat(235)] * 10)
    own = write_movie(tmp_path / "own.mov", [flat(16)] * 10)
    name = str(canary) if absolute else f"/{tmp_path.name}/{canary.name}"
    own.write_bytes(refer_elsewhere(own.read_bytes(), name.encode()))

    # The file is a working trap: FFmpeg told to follow references shows the other file's frames.
    bait = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(own), options=bait) as container:
        assert brightness_of(container.decode(video=0)) > 200

    with own.open("rb") as file:
        try:
            with open_media(file, SCAN, PIXELS) as video:
                assert isinstance(video, Video)
                assert brightness_of(video.frames()) < 30
        except MediaError as error:
            assert error.reason in (Reason.CORRUPT, Reason.NO_FRAMES)  # noqa: PT017


def test_the_largest_of_several_streams_is_used(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        for size in (64, 128):
            stream = container.add_stream("ffv1", rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
        for stream in container.streams.video:
            planes = numbered(stream.width, stream.width, stream.width)
            frame = frame_of(planes, "yuv420p")
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with open_video(path) as video:
        assert (video.facts.width, video.facts.num_video_streams) == (128, 2)
        assert video.facts.stream_index == 1
