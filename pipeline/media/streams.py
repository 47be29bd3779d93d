"""Which stream of a container is the footage, and what it and its frames say of themselves."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.facts import MediaFacts, read_colors
from telecine.pipeline.media.geometry import Orientation, display_size, matrix_orientation

NOT_FOOTAGE = Disposition.attached_pic | Disposition.timed_thumbnails


def candidates(container: InputContainer) -> list[VideoStream]:
    def rank(stream: VideoStream) -> tuple[int, int, int]:
        context = stream.codec_context
        return -context.width * context.height, -stream.frames, stream.index

    streams = [s for s in container.streams.video if not s.disposition & NOT_FOOTAGE]
    known = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise MediaError(Reason.NO_VIDEO, "no video stream but, at most, cover art")
    if not known:
        raise MediaError(Reason.UNSUPPORTED, "no decoder for its video codec")
    return sorted(known, key=rank)


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise MediaError(Reason.TOO_LARGE, f"{width} x {height} px; at most {max_pixels} px")


def read_facts(
    container: InputContainer, stream: VideoStream, frames: list[VideoFrame], max_pixels: int
) -> MediaFacts:
    frame, context = frames[0], stream.codec_context
    sar = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
    orientation = display_orientation(frame)
    width, height = display_size(frame.width, frame.height, sar, orientation.rotation)
    check_size(width, height, max_pixels)
    layout = frame.format
    depth = max((component.bits for component in layout.components), default=8)
    colors = read_colors(
        is_rgb=layout.is_rgb or layout.name == "pal8",
        is_gray=len(layout.components) < 3 and layout.name != "pal8",
        is_full=layout.name.startswith("yuvj"),
        coded_height=frame.height,
        tags=(frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries),
    )
    if colors is None:
        raise MediaError(Reason.UNSUPPORTED, f"colour matrix {frame.colorspace} of ITU-T H.273")
    rate = stream.average_rate or Fraction(0)
    return MediaFacts(
        container=container.format.name,
        codec=context.codec.canonical_name,
        profile=context.profile or "",
        pixel_format=layout.name,
        bit_depth=depth,
        coded_width=frame.width,
        coded_height=frame.height,
        rotation_degrees=orientation.rotation,
        mirrored=orientation.mirrored,
        sample_aspect_num=sar.numerator,
        sample_aspect_den=sar.denominator,
        color_matrix=colors.matrix,
        color_range=colors.range,
        color_transfer=colors.transfer,
        color_primaries=colors.primaries,
        interlaced=context.field_order > 1 or any(f.interlaced_frame for f in frames),
        header_fps_num=rate.numerator,
        header_fps_den=rate.denominator,
        header_num_frames=stream.frames,
        header_duration_seconds=_header_seconds(container, stream),
        num_video_streams=len(container.streams.video),
        stream_index=stream.index,
        width=width,
        height=height,
    )


def _header_seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    return max(0.0, (container.duration or 0) / av.time_base)


def display_orientation(frame: VideoFrame) -> Orientation:
    """From the display matrix, which `frame.rotation` gives only half of (no mirroring)."""
    side_data: Any = frame.side_data  # a container of entries, not the mapping its stub says
    for data in side_data:
        if data.type == SideDataType.DISPLAYMATRIX:
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
            return matrix_orientation(a, b, c, d)
    return Orientation()
