"""Opacity of one decoder joined to the frames of another, and sequences that have it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.codec import CodecContext
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from PIL import Image

from telecine.infra.errors import MediaError
from telecine.pipeline.media.alpha import MOST_WAITING, Opacities, with_opacity
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.media.pixels import frame_rgb
from telecine.pipeline.media.resize import plane_view
from telecine.pipeline.media.tracks.streams import side_data, tags_of
from tests.support.cases import case
from tests.support.movies import (
    PIXELS,
    SCAN,
    frame_of,
    open_video,
    random_planes,
    set_display_matrix,
    write_movie,
)

Pixels = npt.NDArray[np.uint8]
TICK = Fraction(1, 25)


def picture(layout: str = "yuv420p", pts: int = 0, size: int = 16) -> VideoFrame:
    depth = 8 if not layout.endswith("le") else int(layout[-4:-2])
    dtype, down = (np.uint8 if depth == 8 else np.uint16), (2 if "420" in layout else 1)
    random = np.random.default_rng(pts)
    shapes = [(size, size), (size // down, size // down), (size // down, size // down)]
    frame = frame_of(
        tuple(random.integers(0, 1 << depth, shape).astype(dtype) for shape in shapes), layout
    )
    frame.pts = pts
    return frame


def opacity(value: int, layout: str = "gray", size: tuple[int, int] = (16, 16)) -> VideoFrame:
    dtype = np.uint8 if layout == "gray" else np.uint16
    return frame_of((np.full(size, value, dtype),), layout)


@pytest.mark.parametrize(
    "layout",
    ["yuv420p", "yuvj420p", "yuv444p10le", "yuv444p12le", "yuv420p10le", "yuv420p12le", "gbrp"],
)
def test_colours_stay_and_opacity_is_rescaled(layout: str) -> None:
    frame = picture(layout)
    frame.duration = 7
    joined = with_opacity(frame, opacity(128))
    most = (1 << frame.format.components[0].bits) - 1
    assert (plane_view(joined, 3) == round(128 / 255 * most)).all()
    assert np.array_equal(plane_view(joined, 0), plane_view(frame, 0))
    chroma, stored = plane_view(joined, 1), plane_view(frame, 1)
    step = chroma.shape[0] // stored.shape[0]
    assert np.array_equal(chroma[::step, ::step], stored)
    assert (joined.pts, joined.duration) == (frame.pts, 7)
    deep = with_opacity(frame, opacity(1023, "gray10le"))
    assert (plane_view(deep, 3) == most).all()


def test_opacity_of_limited_range_is_spread() -> None:
    for value, expected in ((16, 0), (235, 255), (126, 128)):
        beside = opacity(value)
        beside.color_range = ColorRange.MPEG
        seen = plane_view(with_opacity(picture(), beside), 3)
        assert np.abs(seen.astype(int) - expected).max() <= 1


def test_opacity_of_another_size_is_refused() -> None:
    with pytest.raises(MediaError, match="8 x 8 px"):
        with_opacity(picture(), opacity(0, size=(8, 8)))


def decoded_by_hand(path: Path, spoil: set[int]) -> Iterator[VideoFrame]:
    """Frames of a movie some of whose packets have zeros in their middle."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        context.thread_count = 1
        for number, packet in enumerate(container.demux(video=0)):
            data = bytearray(bytes(packet))
            if number in spoil:
                data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
            copy: Packet[Any] = Packet(bytes(data))
            copy.pts, copy.dts = packet.pts, packet.dts
            yield from context.decode(copy if data else None)


def test_what_frames_say_and_their_damage_stay(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [random_planes(k, 64, 96) for k in range(4)])
    set_display_matrix(path, 0, 1, -1, 0)
    frames = [*decoded_by_hand(path, {2})]
    assert [frame.is_corrupt for frame in frames] == [False, False, True, False]
    for frame in frames:
        joined = with_opacity(frame, None)
        assert (joined.is_corrupt, joined.key_frame) == (frame.is_corrupt, frame.key_frame)
        assert tags_of(joined) == tags_of(frame) == (1, 1, 1, 1)
    with open_video(path) as video:
        for frame in video.frames():
            joined = with_opacity(frame, opacity(0, size=(64, 96)))
            assert side_data(joined) == side_data(frame) != {}
            assert video.facts_of(joined).rotation_degrees == 270


@pytest.mark.parametrize("late", [-3, 0, 5])
def test_frames_are_joined_by_their_time(late: int) -> None:
    """Either decoder may be ahead; the opacity stream counts other ticks, and misses one."""
    opacities = Opacities()

    def decoded() -> Iterator[VideoFrame]:
        for k in range(20 + max(late, 0)):
            if 0 <= k - late < 20 and k - late != 7:
                opacities.add(Fraction(40 * (k - late), 1000), opacity(k - late))
            if k < 20:
                yield picture(pts=k)

    if late < 0:
        for k in range(-late):
            opacities.add(Fraction(40 * k, 1000), opacity(k))
    seen = [*opacities.joined(decoded(), TICK)]
    assert [frame.pts for frame in seen] == [*range(20)]
    for k, frame in enumerate(seen):
        assert (plane_view(frame, 3) == (255 if k == 7 else k)).all()


def test_frames_without_opacity_are_not_held_for_ever() -> None:
    held = 0

    def decoded() -> Iterator[VideoFrame]:
        nonlocal held
        for k in range(3 * MOST_WAITING):
            held += 1
            yield picture(pts=k)

    for _ in Opacities().joined(decoded(), TICK):
        held -= 1
        assert held <= MOST_WAITING + 1


def keyed(value: int, key: bool) -> VideoFrame:
    """An opacity frame that is a key frame, or is none: as decoders mark them."""
    options = {"g": "1" if key else "100", "qp": "0", "preset": "ultrafast"}
    context: Any = CodecContext.create("libx264", "w")
    context.width = context.height = 16
    context.pix_fmt, context.time_base, context.options = "gray", TICK, options
    packets = [*context.encode(opacity(value)), *context.encode(opacity(value)), *context.encode()]
    decoder: Any = CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    assert frames[1].key_frame is key
    return frames[1]


def test_lost_opacity_is_damage_until_its_next_key_frame() -> None:
    opacities = Opacities(in_blocks=True)

    def decoded() -> Iterator[VideoFrame]:
        for k in range(12):
            if k == 4:
                opacities.lose(k * TICK)
            elif k != 1:  # a block without opacity is meant to have none
                opacities.add(k * TICK, keyed(k, k in (0, 8)))
            yield picture(pts=k)

    seen = [(f.pts, opacities.is_damaged(f)) for f in opacities.joined(decoded(), TICK)]
    assert seen == [(k, 4 <= k < 8) for k in range(12)]


def test_a_stream_of_opacity_that_ends_early_is_damage() -> None:
    opacities = Opacities()
    for k in range(3):
        opacities.add(k * TICK, keyed(k, k == 0))
    frames = opacities.joined((picture(pts=k) for k in range(5)), TICK)
    assert [opacities.is_damaged(frame) for frame in frames] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("in_blocks", [False, True])
def test_after_a_seek_frames_begin_where_opacity_is_whole(in_blocks: bool) -> None:
    opacities = Opacities(in_blocks=in_blocks)
    opacities.add(0 * TICK, keyed(0, True))
    opacities.clear()

    def decoded() -> Iterator[VideoFrame]:
        for k in range(4, 12):
            if k < 6:
                opacities.lose(k * TICK)
            else:
                opacities.add(k * TICK, keyed(k, k == 8))
            yield picture(pts=k)

    seen = [*opacities.joined(decoded(), TICK)]
    assert [frame.pts for frame in seen] == [8, 9, 10, 11]
    assert not any(opacities.is_damaged(frame) for frame in seen)


# --- sequences -----------------------------------------------------------------------------------


def frames_of(data: bytes) -> list[Pixels]:
    video = open_media(io.BytesIO(data), SCAN, PIXELS)
    assert isinstance(video, Video)
    with video:
        return [frame_rgb(frame, video.facts_of(frame)) for frame in video.frames()]


def libavif_frames(file: io.BytesIO) -> list[npt.NDArray[np.float64]]:
    """What libavif makes of them, over white."""
    frames = []
    with Image.open(file) as image:
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            rgba = np.asarray(image.convert("RGBA")).astype(float)
            frames.append(255 + (rgba[..., :3] - 255) * rgba[..., 3:] / 255)
    return frames


def moving_square(opaque_after: int) -> list[Image.Image]:
    """A square that moves over clear ground, which is opaque in the last frames."""
    pictures = []
    for k in range(8):
        rgba = np.zeros((64, 64, 4), np.uint8)
        rgba[..., :3] = 40
        rgba[16:48, 4 * k : 4 * k + 24] = (200, 60, 30, 128 if k % 2 else 255)
        rgba[..., 3] |= 255 * (k >= opaque_after)
        pictures.append(Image.fromarray(rgba))
    return pictures


@pytest.mark.parametrize("opaque_after", [4, 99])
def test_a_sequence_is_shown_over_white(opaque_after: int) -> None:
    buffer = io.BytesIO()
    first, *rest = moving_square(opaque_after)
    first.save(buffer, "AVIF", save_all=True, append_images=rest, duration=40, quality=90)
    seen, expected = frames_of(buffer.getvalue()), libavif_frames(buffer)
    assert len(seen) == len(expected) == 8
    for ours, right in zip(seen, expected, strict=True):
        assert np.abs(ours - right).mean() < 2


def test_a_sequence_with_alpha_is_shown_over_white_after_a_seek() -> None:
    data = case("anim_alpha.avif").read_bytes()
    seen, expected = frames_of(data), libavif_frames(io.BytesIO(data))
    assert len(seen) == len(expected) == 30
    assert max(np.abs(a - b).mean() for a, b in zip(seen, expected, strict=True)) < 2
    with open_media(io.BytesIO(data), SCAN, PIXELS) as video:
        assert isinstance(video, Video)
        assert video.seek(0)
        again = frame_rgb(next(iter(video.frames())), video.facts)
    assert np.array_equal(again, seen[0])
