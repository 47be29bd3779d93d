"""Which stream of a container is the footage, and what it and its frames say of themselves."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, TypeAlias

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.facts import LIMITED_RANGE, Colors, MediaFacts, read_colors
from telecine.pipeline.media.filters import nameable, shape_of
from telecine.pipeline.media.geometry import Orientation, display_size, matrix_orientation
from telecine.pipeline.media.tracks.audio import audio_facts
from telecine.pipeline.media.tracks.boxes import TrackNotes

NOT_FOOTAGE = Disposition.attached_pic | Disposition.timed_thumbnails
SECONDARY = (
    Disposition.dependent
    | Disposition.still_image
    | Disposition.comment
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
)
NO_BASE_LAYER = (
    "Dolby Vision without a base layer that others can show (profile 5, IPT colours); "
    "use a version of profile 7 or 8"
)
FEW = 2  # a stream of less than one frame for so many of another is not the film
ENOUGH_COUNTED, MOST_COUNTED = 64, 2000  # packets of each stream, and of all


def footage(container: InputContainer) -> list[VideoStream]:
    """The streams that can be decoded and are more than cover art."""
    streams = [s for s in container.streams.video if not s.disposition & NOT_FOOTAGE]
    known = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise MediaError(Reason.NO_VIDEO, "no video stream but, at most, cover art")
    if not known:
        raise MediaError(Reason.UNSUPPORTED, "no decoder for its video codec")
    return known


def best_first(streams: Sequence[VideoStream], frames: Mapping[int, int]) -> list[int]:
    """Indices of streams, the footage first; `frames` counts those of each, or of a part alike.

    A stream of few pictures beside a film is a cover or a slide, however large it is. Then what the
    container says counts (dependent streams last, its default first), then size.
    """
    most = max(frames.values())

    def rank(stream: VideoStream) -> tuple[bool, bool, bool, int, int, int]:
        context, count = stream.codec_context, frames[stream.index]
        return (
            count * FEW < most or count == 1 < most,
            bool(stream.disposition & SECONDARY),
            not stream.disposition & Disposition.default,
            -context.width * context.height,
            -count,
            stream.index,
        )

    return [stream.index for stream in sorted(streams, key=rank)]


def header_frames(streams: Sequence[VideoStream]) -> dict[int, int] | None:
    """Frames of each stream by its index; None where the header does not say."""
    counts = {stream.index: stream.frames for stream in streams}
    return counts if all(counts.values()) or len(counts) == 1 else None


def counted_frames(container: InputContainer, streams: Sequence[VideoStream]) -> dict[int, int]:
    """Packets of each stream by its index, in the file's first part. Reads on in the container."""
    counts = {stream.index: 0 for stream in streams}
    try:
        for packet in islice(container.demux(streams), MOST_COUNTED):
            counts[packet.stream_index] += 1 if packet.size else 0
            if min(counts.values()) >= ENOUGH_COUNTED:
                break
    except FFmpegError:  # whoever decodes will meet it
        pass
    return counts


def opacity_beside(container: InputContainer, stream: VideoStream) -> VideoStream | None:
    """The grey stream of as many frames of the same size, where the file says that it has one."""

    def kind(other: VideoStream) -> tuple[int, int, int]:
        return other.codec_context.width, other.codec_context.height, other.frames

    others = [s for s in footage(container) if s.index != stream.index and kind(s) == kind(stream)]
    return next((s for s in others if (s.codec_context.pix_fmt or "").startswith("gray")), None)


Tags: TypeAlias = tuple[int, int, int, int]  # matrix, range, transfer, primaries (ITU-T H.273)
NO_TAGS: Tags = (2, 0, 2, 2)
WITHOUT_COLORS = (
    "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "vvc", "av1", "obu", "ivf", "avi", "asf",
    "ogg", "rm", "gif", "dv",
)  # fmt: skip
SILENT = ((0, 2, 3), (0,), (0, 2), (0, 2))  # values of each that say nothing, on YUV


def take_named_colors(container: InputContainer, stream: VideoStream) -> Tags:
    """What the container says, taken from the decoder, whose frames then say only what they say.

    Of a container without a word for it FFmpeg gives what it met while it looked for streams.
    """
    context = stream.codec_context
    said = context.colorspace, context.color_range, context.color_trc, context.color_primaries
    context.colorspace, context.color_range, context.color_trc, context.color_primaries = NO_TAGS
    return NO_TAGS if container.format.name in WITHOUT_COLORS else said


class FactsReader:
    """The facts of each frame of a stream, which may change in mid-stream.

    Where a frame is silent the container's word counts, or what is usual.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        named: Tags,
        notes: TrackNotes,
        frames: Sequence[VideoFrame],
    ) -> None:
        """`frames` are the stream's first."""
        context, first = stream.codec_context, frames[0]
        own = context.sample_aspect_ratio
        self._notes = notes
        self._aspect = notes.aspect(own, stream.sample_aspect_ratio or own or Fraction(1))
        self._keeps_aspect = own not in (None, stream.sample_aspect_ratio)  # the container's counts
        # What frames say first is in both: the container is believed only where they are silent.
        self._named = _second(tags_of(first), named)
        fields = 2 if first.height == 2 * context.height else 1  # a frame is put together from two
        rate = (stream.average_rate or Fraction(0)) / fields
        self._base = MediaFacts(
            container=container.format.name,
            codec=context.codec.canonical_name,
            profile=context.profile or "",
            pixel_format=first.format.name,
            bit_depth=8,
            coded_width=first.width,
            coded_height=first.height,
            interlaced=context.field_order > 1 or any(f.interlaced_frame for f in frames),
            header_fps_num=rate.numerator,
            header_fps_den=rate.denominator,
            header_num_frames=stream.frames // fields,
            header_duration_seconds=_header_seconds(container, stream),
            num_video_streams=len(container.streams.video),
            stream_index=stream.index,
            **audio_facts(container),
            width=first.width,
            height=first.height,
        )
        self._said: tuple[object, ...] = ()
        self._facts = self._base

    def of(self, frame: VideoFrame) -> MediaFacts:
        """Equal facts are one object: frames of one kind in a row are known by `is`.

        Of a frame whose margins are still to be cut they are those that it will have.
        Raises MediaError: UNSUPPORTED, colours that are not ours to read.
        """
        said = (*tags_of(frame), *shape_of(frame), frame.rotation, frame.opaque)
        if said != self._said:
            facts = self._read(frame)
            self._said = said
            self._facts = self._facts if facts == self._facts else facts
        return self._facts

    def _read(self, frame: VideoFrame) -> MediaFacts:
        layout = frame.format
        changed = frame.opaque if isinstance(frame.opaque, Fraction) else None
        sar = changed if changed and not self._keeps_aspect else self._aspect
        beside = side_data(frame)
        if self._notes.lacks_base_layer or _is_ipt(beside.get(SideDataType.DOVI_METADATA)):
            raise MediaError(Reason.UNSUPPORTED, NO_BASE_LAYER)
        orientation = _orientation(beside.get(SideDataType.DISPLAYMATRIX))
        coded = clean = (frame.width, frame.height)
        if coded in (self._notes.size, self._notes.clean):
            coded, clean = self._notes.size, self._notes.clean
        width, height = display_size(*clean, sar, orientation.rotation)
        colors = self._colors(frame, coded[1])
        return dataclasses.replace(
            self._base,
            pixel_format=layout.name,
            bit_depth=max((component.bits for component in layout.components), default=8),
            coded_width=coded[0],
            coded_height=coded[1],
            rotation_degrees=orientation.rotation,
            mirrored=orientation.mirrored,
            sample_aspect_num=sar.numerator,
            sample_aspect_den=sar.denominator,
            color_matrix=colors.matrix,
            color_range=colors.range,
            color_transfer=colors.transfer,
            color_primaries=colors.primaries,
            width=width,
            height=height,
        )

    def _colors(self, frame: VideoFrame, coded_height: int) -> Colors:
        layout, told = frame.format, tags_of(frame)
        is_rgb = layout.is_rgb or layout.name == "pal8"
        heard = _heard(told, self._named)
        colors = read_colors(
            is_rgb=is_rgb,
            is_gray=len(layout.components) < 3 and layout.name != "pal8",
            is_full=layout.name.startswith("yuvj"),
            coded_height=coded_height,
            tags=heard,
        )
        if colors is None:
            raise MediaError(Reason.UNSUPPORTED, f"colour matrix {heard[0]} of ITU-T H.273")
        return colors


def tags_of(frame: VideoFrame) -> Tags:
    return frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries


def _second(told: Tags, named: Tags) -> Tags:
    """What `named` adds to `told`."""
    silent = [tag in says_nothing for tag, says_nothing in zip(told, SILENT, strict=True)]
    # Without a colour description the limited range of HEVC is the decoder's guess.
    silent[1] = silent[1] or (told[1] == LIMITED_RANGE and silent[0] and silent[2] and silent[3])
    matrix, span, transfer, primaries = (
        tag if unsaid else 0 for tag, unsaid in zip(named, silent, strict=True)
    )
    return matrix, span, transfer, primaries


def _heard(told: Tags, named: Tags) -> Tags:
    """What is told, and where that is nothing what is named."""
    added = _second(told, named)
    matrix, span, transfer, primaries = (
        new if new not in says_nothing else old
        for old, new, says_nothing in zip(told, added, SILENT, strict=True)
    )
    return matrix, span, transfer, primaries


def _header_seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    return max(0.0, (container.duration or 0) / av.time_base)


def _orientation(matrix: bytes | None) -> Orientation:
    """From the display matrix, which `frame.rotation` gives only half of (no mirroring)."""
    if matrix is None or len(matrix) < 36:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    return matrix_orientation(a, b, c, d)


def _is_ipt(metadata: bytes | None) -> bool:
    """Of Dolby Vision's metadata in a frame, as FFmpeg lays it out (`AVDOVIMetadata`).

    A base layer of RPU profile 0 and full range is that of profile 5.
    """
    if metadata is None or len(metadata) < 8:
        return False
    (header,) = struct.unpack("=Q", metadata[:8])
    fields = metadata[header : header + 11]
    return len(fields) == 11 and fields[4] == 0 and fields[10] == 1


def side_data(frame: VideoFrame) -> dict[SideDataType, bytes]:
    """What the frame carries beside its pixels, of the types that PyAV knows."""
    try:
        entries: Any = frame.side_data  # a container of entries, not the mapping its stub says
    except ValueError:  # one type that it does not know hides all others
        known: list[Any] = [kind.value for kind in SideDataType]  # numbers, whatever its stub says
        entries = nameable(frame, set(known)).side_data
    return {data.type: bytes(data) for data in entries}
