"""Transparency is shown over white wherever it lies, and an unused byte is none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from telecine.pipeline.media.geometry import Crop
from telecine.pipeline.media.pixels import PictureReader, still
from telecine.pipeline.media.resize import Scaler
from tests.support.cases import case
from tests.support.movies import frame_of, open_video
from tests.support.scans import clip_pixels, scan_file, still_pixels

HALF = slice(0, 32), slice(32, 64)


def transparent(k: int, opaque: int, hidden: int) -> VideoFrame:
    """64 px square, of a colour per frame; the right half has the opacity `hidden`."""
    planes = [np.full((64, 64), 90 + 10 * k, np.uint8)]
    planes += [np.full((32, 32), value, np.uint8) for value in (100, 150)]
    planes.append(np.full((64, 64), opaque, np.uint8))
    planes[3][:, 32:] = hidden
    return frame_of(tuple(planes), "yuva420p")


def write_webm(path: Path, codec: str, frames: list[VideoFrame]) -> Path:
    options = {"lossless": "1"} if codec == "libvpx-vp9" else {"b": "4M", "qmin": "0", "qmax": "4"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options | {"auto-alt-ref": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for k, frame in enumerate(frames):
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path: Path) -> list[np.ndarray]:
    """Every frame as an encoder sees it, and once more as a still."""
    with open_video(path) as video:
        frames = list(video.frames())
        made = []
        for frame in frames:
            facts = video.facts_of(frame)
            block = PictureReader(facts, Crop(0, 0, facts.width, facts.height)).block([frame], 1)
            made.append(block.rgb()[0])
            small = still(frame, facts, 64, Scaler())[..., :3]
            assert np.abs(small.astype(int) - made[-1]).max() <= 4
    return made


@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_opacity_beside_the_blocks_is_shown_over_white(
    tmp_path: Path, codec: str, name: str
) -> None:
    path = write_webm(tmp_path / name, codec, [transparent(k, 255, 0) for k in range(5)])
    pictures = shown(path)
    assert len(pictures) == 5
    for k, rgb in enumerate(pictures):
        assert (rgb[:, 36:] >= 250).all()
        assert abs(rgb[:, :28, 1].mean() - (1.164 * (74 + 10 * k) - 0.813 * 22 + 0.392 * 28)) < 8
    half = shown(write_webm(tmp_path / f"half-{name}", codec, [transparent(0, 255, 128)]))[0]
    middle = (half[:, :28].mean(axis=(0, 1)) + 255) / 2
    np.testing.assert_allclose(half[:, 36:].mean(axis=(0, 1)), middle, atol=4)


def test_a_seek_finds_the_opacity_of_its_frames(tmp_path: Path) -> None:
    frames = [transparent(k % 8, 255, 8 * k) for k in range(24)]
    path = write_webm(tmp_path / "a.mkv", "libvpx-vp9", frames)
    whole = shown(path)
    with open_video(path) as video:
        assert video.seek(int(Fraction(1, 2) / video.time_base))
        for frame in video.frames():
            number = round(frame.pts * video.time_base * 25)
            facts = video.facts_of(frame)
            block = PictureReader(facts, Crop(0, 0, 64, 64)).block([frame], 1)
            np.testing.assert_array_equal(block.rgb()[0], whole[number])


def test_opacity_that_its_decoder_refuses_is_damage(tmp_path: Path) -> None:
    frames = [transparent(k % 8, 255, 8 * k) for k in range(24)]
    path = write_webm(tmp_path / "a.webm", "libvpx-vp9", frames)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        beside = bytes(packets[10].get_sidedata("matroska_block_additional"))[8:]
    data = path.read_bytes()
    assert data.count(beside) == 1
    path.write_bytes(data.replace(beside, b"\xff" * len(beside)))
    with open_video(path) as video:
        assert [video.is_damaged(frame) for frame in video.frames()] == [k >= 10 for k in range(24)]
        assert video.decode_errors == 1


def write_packed(path: Path, codec: str, layout: str, fourth: int) -> Path:
    """Red in packed RGB whose fourth byte is that."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = layout
        for k in range(3):
            pixels = np.full((64, 64, 4), fourth, np.uint8)
            pixels[..., :3] = (200, 30, 30 + k)
            frame = VideoFrame.from_ndarray(pixels, "rgba").reformat(format=layout)
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["rawvideo", "huffyuv", "ffvhuff"])
@pytest.mark.parametrize("fourth", [0, 255])
def test_an_unused_fourth_byte_is_no_transparency(tmp_path: Path, codec: str, fourth: int) -> None:
    path = write_packed(tmp_path / "a.avi", codec, "bgra", fourth)
    np.testing.assert_allclose(shown(path)[0].mean(axis=(0, 1)), (200, 30, 30), atol=1)


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [("a.mov", "qtrle", "argb"), ("a.mov", "png", "rgba"), ("a.avi", "rawvideo", "bgra")],
)
def test_transparency_in_the_pixels_stays_transparency(
    tmp_path: Path, name: str, codec: str, layout: str
) -> None:
    half = shown(write_packed(tmp_path / name, codec, layout, 128))[0]
    np.testing.assert_allclose(half.mean(axis=(0, 1)), (227, 142, 142), atol=2)
    if codec != "rawvideo":
        assert shown(write_packed(tmp_path / f"0{name}", codec, layout, 0))[0].min() >= 254


# --- files that failed once ------------------------------------------------------------------


def test_case_vp9_with_alpha() -> None:
    path = case("alpha_vp9.webm")
    scanned = scan_file(path)
    assert [clip.num_frames for clip in scanned.clips] == [30]
    for rgb in (clip_pixels(path, scanned)[0], still_pixels(scanned)):
        assert (rgb[8:-8, 140:] >= 250).all()
        np.testing.assert_allclose(rgb[8, 8], (200, 41, 41), atol=4)


def test_case_an_unused_fourth_byte() -> None:
    path = case("avi32.avi")
    shown = clip_pixels(path, scan_file(path))[0]
    np.testing.assert_array_equal(shown[72, [18, 126]], [(0, 0, 255), (40, 80, 120)])
