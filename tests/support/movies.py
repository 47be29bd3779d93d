"""Video files with known pixels, for tests: lossless streams, colour tags, display matrices."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from telecine.encoders.frames import FrameBlock
from telecine.manifests.schemas import Clip, Source
from telecine.manifests.specs import PixelSpec, ScanSpec
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.media.geometry import Crop
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.media.pixels import PictureReader

Planes = tuple[np.ndarray, ...]
SCAN, PIXELS = ScanSpec(), PixelSpec()

# Colour tags of ITU-T H.273: matrix, range, transfer, primaries
UNTAGGED = (2, 0, 2, 2)
BT709 = (1, 1, 1, 1)


@dataclass(frozen=True)
class Movie:
    """How a generated file is written. Lossless by default."""

    format: str = "yuv420p"
    tags: tuple[int, int, int, int] = BT709
    codec: str = "libx264"
    rate: int = 25
    sar: Fraction = Fraction(1)
    options: tuple[tuple[str, str], ...] = (("qp", "0"), ("preset", "ultrafast"))
    time_base: Fraction = Fraction(1, 12800)


def frame_of(planes: Planes, format_name: str) -> VideoFrame:
    height, width = planes[0].shape
    frame = VideoFrame(width, height, format_name)
    for target, plane in zip(frame.planes, planes, strict=True):
        rows = np.zeros((target.height, target.line_size), np.uint8)
        data = np.ascontiguousarray(plane).view(np.uint8).reshape(plane.shape[0], -1)
        rows[:, : data.shape[1]] = data
        target.update(rows.tobytes())
    return frame


def write_movie(
    path: Path,
    pictures: Sequence[Planes],
    movie: Movie = Movie(),
    stamps: Sequence[int] | None = None,
) -> Path:
    """`stamps` in ticks of `movie.time_base`; evenly spaced at its rate if not given."""
    height, width = pictures[0][0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(movie.codec, rate=movie.rate, options=dict(movie.options))
        stream.width, stream.height, stream.pix_fmt = width, height, movie.format
        stream.time_base = stream.codec_context.time_base = movie.time_base
        context = stream.codec_context
        context.colorspace, context.color_range = movie.tags[:2]
        context.color_trc, context.color_primaries = movie.tags[2:]
        context.sample_aspect_ratio = movie.sar
        step = int(1 / (movie.rate * movie.time_base))
        for k, planes in enumerate(pictures):
            frame = frame_of(planes, movie.format)
            frame.pts = k * step if stamps is None else stamps[k]
            frame.time_base = movie.time_base
            frame.colorspace, frame.color_range = movie.tags[:2]
            frame.color_trc, frame.color_primaries = movie.tags[2:]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Writes the 3×3 matrix of the first track's header (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix begins 40 bytes into the payload
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@contextmanager
def open_video(path: Path, pixels: PixelSpec = PIXELS) -> Iterator[Video]:
    with path.open("rb") as file:
        media = open_media(file, SCAN, pixels)
        assert isinstance(media, Video)
        with media:
            yield media


def read_blocks(path: Path, count: int = 1, crop: Crop | None = None) -> FrameBlock:
    """The file's first frames, whole unless a crop is given."""
    with open_video(path) as video:
        facts = video.facts
        crop = crop or Crop(0, 0, facts.width, facts.height)
        return PictureReader(facts, crop).block(video.frames(), count)


def read_facts(path: Path) -> MediaFacts:
    with open_video(path) as video:
        return video.facts


def source_of(facts: MediaFacts) -> Source:
    return Source(
        uri="file", revision=0, source_id="s", version="v", size_bytes=1, kind="video",
        status="scanned", scan_fingerprint="f", coded_width=facts.coded_width,
        coded_height=facts.coded_height, width=facts.width, height=facts.height,
    )  # fmt: skip


def clip_of(
    facts: MediaFacts, time_base: Fraction, stamps: Sequence[int], first: int, count: int,
    rate: Fraction, *, variable: bool = False, timing: str = "pts",
) -> Clip:  # fmt: skip
    """The clip of `count` frames from the `first`; `stamps` of all frames and of the end."""
    numbers = dict.fromkeys(
        ("motion", "temporal_information", "spatial_information", "camera_x", "camera_y",
         "subject_motion", "change", "brightness", "contrast", "saturation", "sharpness",
         "black_share", "frozen_share"), 0.0,
    )  # fmt: skip
    bars = dict.fromkeys(
        ("letterbox_left", "letterbox_right", "letterbox_top", "letterbox_bottom"), 0
    )
    start, end = stamps[first], stamps[first + count]
    return Clip(
        clip_id="c", source_id="s", scan_fingerprint="f", kind="video", shot=0, start_frame=first,
        num_frames=count, start_pts=start, end_pts=end, time_base_num=time_base.numerator,
        time_base_den=time_base.denominator, timing=timing, fps_num=rate.numerator,
        fps_den=rate.denominator, variable_rate=variable,
        duration_seconds=float((end - start) * time_base), width=facts.width, height=facts.height,
        num_stills=0, stills_digest="", dominant_colors=(), **numbers, **bars,
    )  # fmt: skip


def numbered(number: int, width: int = 64, height: int = 64) -> Planes:
    """A 4:2:0 picture that says its number: eight vertical bars, white for each set bit."""
    luma = np.full((height, width), 16, np.uint8)
    step = width // 8
    for bit in range(8):
        if number >> bit & 1:
            luma[:, bit * step : (bit + 1) * step] = 235
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return luma, chroma, chroma


def number_of(rgb: np.ndarray) -> int:
    """What `numbered` wrote, read from uint8 [H, W, 3]."""
    step = rgb.shape[1] // 8
    bars = [rgb[:, bit * step : (bit + 1) * step].mean() for bit in range(8)]
    assert all(value < 64 or value > 192 for value in bars)
    return sum(1 << bit for bit, value in enumerate(bars) if value > 128)


def random_planes(
    seed: int,
    height: int,
    width: int,
    sub: tuple[int, int] = (2, 2),
    low: int = 16,
    high: int = 235,
) -> Planes:
    random = np.random.default_rng(seed)
    small = (-(-height // sub[1]), -(-width // sub[0]))
    return tuple(
        random.integers(low, high, shape, dtype=np.uint8)
        for shape in ((height, width), small, small)
    )


def picture(moved: int) -> tuple[np.ndarray, ...]:
    """Of a camera that pans."""
    shade = np.random.default_rng(1).integers(40, 200, (12, 16), np.uint8)
    luma = np.roll(np.kron(shade, np.ones((15, 15), np.uint8)), moved, axis=1)
    return luma, np.full((90, 120), 120, np.uint8), np.full((90, 120), 130, np.uint8)
