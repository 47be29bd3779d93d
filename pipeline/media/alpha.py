"""Transparency that is coded beside the picture, by a decoder of its own, joined to its frames.

colour  ──decode──▶ yuv420p ─┐
├─ same stamp ─▶ yuva420p, which the pixel contract shows over white
opacity ──decode──▶ gray    ─┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from av.codec import CodecContext
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.resize import plane_view

# Layouts with room for a fourth plane, by those without
_WITH_ALPHA = {
    f"{name}{depth}": f"{more}{depth}"
    for name, more in (
        ("yuv420p", "yuva420p"), ("yuv422p", "yuva422p"), ("yuv444p", "yuva444p"), ("gbrp", "gbrap")
    )
    for depth in ("", "10le", "12le")
}  # fmt: skip
_WITH_ALPHA["yuv420p12le"] = "yuva444p12le"  # there is no yuva420p12
_WITH_ALPHA |= {"yuvj420p": "yuva420p", "yuvj422p": "yuva422p", "yuvj444p": "yuva444p"}
ALPHA_ADDITION = 1
_UNSPECIFIED = 2  # matrix (ITU-T H.273)
MOST_WAITING = 64  # frames held for an opacity that may still come


class Opacities:
    """Opacity frames as they are decoded, by their time, until the frames they belong to come.

    One that its decoder refused is lost, and those after it are damaged until its next key frame.
    """

    def __init__(self, *, in_blocks: bool = False) -> None:
        """`in_blocks`: they come with their frames, and a frame without one is meant to be opaque.

        From a stream of its own each frame has one, sooner or later.
        """
        self._known: dict[Fraction, tuple[VideoFrame | None, bool]] = {}  # is it damaged?
        self._in_blocks, self._most_waiting = in_blocks, 0 if in_blocks else MOST_WAITING
        self._any = self._refers_to_lost = self._sought = False
        self._damaged: deque[int] = deque(maxlen=2 * MOST_WAITING)  # stamps of joined frames

    def add(self, seconds: Fraction, frame: VideoFrame) -> None:
        self._any = True
        self._refers_to_lost = self._refers_to_lost and not frame.key_frame
        self._know(seconds, frame, self._refers_to_lost or frame.is_corrupt)

    def lose(self, seconds: Fraction) -> None:
        """The one of that time could not be decoded."""
        self._refers_to_lost = True
        self._know(seconds, None, True)

    def _know(self, seconds: Fraction, frame: VideoFrame | None, is_damaged: bool) -> None:
        if len(self._known) >= 2 * MOST_WAITING:
            self._known.pop(next(iter(self._known)))  # its frame never came
        self._known[seconds] = frame, is_damaged

    def clear(self) -> None:
        """After a seek: what is added now may refer to what was not read."""
        self._known.clear()
        self._damaged.clear()
        self._sought = self._refers_to_lost = True

    def is_damaged(self, frame: VideoFrame) -> bool:
        """Of a joined frame: whether its opacity was lost, or what that refers to."""
        return frame.pts in self._damaged

    def joined(self, frames: Iterator[VideoFrame], time_base: Fraction) -> Iterator[VideoFrame]:
        """Each frame with the opacity of its time; opaque where it has none and others had.

        After a seek they begin where both are whole, as they did when all was read: at a key frame
        of the opacity too.
        Raises MediaError: UNSUPPORTED, pixels that have no layout with alpha.
        """
        begins, self._sought = self._sought, False
        for frame, opacity, is_damaged in self._pairs(frames, time_base):
            if begins and is_damaged:
                continue
            begins = begins and opacity is None
            if is_damaged and frame.pts is not None:
                self._damaged.append(frame.pts)
            yield with_opacity(frame, opacity) if self._any and frame.pts is not None else frame

    def _pairs(
        self, frames: Iterator[VideoFrame], time_base: Fraction
    ) -> Iterator[tuple[VideoFrame, VideoFrame | None, bool]]:
        """Each frame, its opacity, and whether that is damaged."""
        waiting: deque[VideoFrame] = deque()
        for frame in frames:
            waiting.append(frame)
            while waiting and (
                self._has(waiting[0], time_base) or len(waiting) > self._most_waiting
            ):
                yield self._pair(waiting.popleft(), time_base)
        while waiting:
            yield self._pair(waiting.popleft(), time_base)

    def _has(self, frame: VideoFrame, time_base: Fraction) -> bool:
        return frame.pts is None or frame.pts * time_base in self._known

    def _pair(
        self, frame: VideoFrame, time_base: Fraction
    ) -> tuple[VideoFrame, VideoFrame | None, bool]:
        if frame.pts is None:
            return frame, None, False
        return frame, *self._known.pop(frame.pts * time_base, (None, not self._in_blocks))


class BesideBlocks:
    """Opacity of VP8 and VP9 in Matroska: coded alike, in the additions of each block (id 1).

    Its luma is the opacity, of full range whatever its header says.
    """

    def __init__(self, stream: VideoStream, max_pixels: int) -> None:
        self._context: Any = CodecContext.create(stream.codec_context.name, "r")
        self._context.thread_count = 1
        self._context.options = {"max_pixels": str(max_pixels)}

    def frames(self, packet: Packet[Any]) -> list[VideoFrame] | None:
        """None where the block has no opacity. Raises FFmpegError where the decoder refuses it."""
        if not packet.has_sidedata("matroska_block_additional"):
            return None
        data = bytes(packet.get_sidedata("matroska_block_additional"))
        if int.from_bytes(data[:8], "big") != ALPHA_ADDITION:
            return None
        beside: Packet[Any] = Packet(data[8:])
        beside.pts, beside.dts, beside.time_base = packet.pts, packet.dts, packet.time_base
        frames: list[VideoFrame] = self._context.decode(beside)
        for frame in frames:
            frame.color_range = ColorRange.JPEG
        return frames

    def flush(self) -> None:
        self._context.flush_buffers()


def has_beside_blocks(stream: VideoStream) -> bool:
    """As the track's `AlphaMode` says, or a tag of that name."""
    said = {name.lower(): value for name, value in stream.metadata.items()}
    return said.get("alpha_mode") == "1" and stream.codec_context.name in ("vp8", "vp9")


def with_opacity(frame: VideoFrame, opacity: VideoFrame | None) -> VideoFrame:
    """The frame, stamp, tags, side data and damage, with the other one's luma as fourth plane.

    Opacity of limited range is spread to full, and of another depth is rescaled. Without one the
    frame is opaque.
    """
    if opacity is not None and (frame.width, frame.height) != (opacity.width, opacity.height):
        raise MediaError(
            Reason.UNSUPPORTED,
            f"transparency of {opacity.width} x {opacity.height} px beside a picture of "
            f"{frame.width} x {frame.height} px",
        )
    layout = _WITH_ALPHA.get(frame.format.name)
    if layout is None:
        raise MediaError(Reason.UNSUPPORTED, f"transparency beside pixels of {frame.format.name}")
    out = _empty_like(frame, layout)
    for index in range(3):
        target, plane = plane_view(out, index), plane_view(frame, index)
        if target.shape != plane.shape:
            plane = plane.repeat(2, axis=0).repeat(2, axis=1)[: target.shape[0], : target.shape[1]]
        target[...] = plane
    _fill(out, opacity)
    return out


def _empty_like(frame: VideoFrame, layout: str) -> VideoFrame:
    """Of that layout, with all that the frame says of itself: stamp, tags, damage, side data.

    PyAV hands these on only where it converts. The pixels that come of it are written over, so the
    conversion is told nothing of colours, which it could refuse.
    """
    tags = frame.colorspace, frame.color_range
    frame.colorspace, frame.color_range = _UNSPECIFIED, ColorRange.UNSPECIFIED
    out = frame.reformat(format=layout, threads=1)
    for one in (frame, out):
        one.colorspace, one.color_range = tags
    return out


def _fill(out: VideoFrame, opacity: VideoFrame | None) -> None:
    most = (1 << out.format.components[0].bits) - 1
    if opacity is None:
        plane_view(out, 3)[...] = most
        return
    stored = (1 << opacity.format.components[0].bits) - 1
    limited = opacity.color_range == ColorRange.MPEG
    black, white = (stored * 16 / 255, stored * 235 / 255) if limited else (0.0, float(stored))
    table = np.clip((np.arange(stored + 1) - black) / (white - black), 0, 1) * most
    plane = plane_view(out, 3)
    plane[...] = np.rint(table).astype(plane.dtype).take(plane_view(opacity, 0), mode="clip")
