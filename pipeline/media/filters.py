"""FFmpeg's filters over frames: fields are put together, lines made whole, clean edges cut.

decoder ─▶ woven (separated fields) ─▶ deinterlaced ─▶ cropped ─▶
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TypeAlias

import av
from av.filter import Graph
from av.video.frame import VideoFrame

Margins: TypeAlias = tuple[int, int, int, int]  # stored px: left, top, right, bottom
Shape = tuple[int, int, str]
FRAME_DATA_TYPES = 64  # more than FFmpeg has kinds of side data, twice over


def graph_of(frame: VideoFrame, *filters: tuple[str, str]) -> Graph:
    """A chain of (name, arguments) for frames like this one. Push to it, pull from it."""
    graph = Graph()
    graph.threads = 1
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
    ]
    nodes += [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def shape_of(frame: VideoFrame) -> Shape:
    return frame.width, frame.height, frame.format.name


def pull(graph: Graph) -> VideoFrame | None:
    """The next frame that is ready."""
    try:
        return graph.vpull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return None


# ── separated fields ─────────────────────────────────────────────────────────────────────────────


def woven(frames: Iterator[VideoFrame]) -> Generator[VideoFrame]:
    """Interlaced frames of HEVC, whose decoder gives each field as a frame of half the height.

    In HEVC a frame that is flagged interlaced is a field, and nothing else is (H.265, D.3.3:
    pic_struct 1, 2, 9 to 12). Two of opposite parity in a row are one frame, at the time of the
    first; a field without its other half gives all lines. Other frames pass as they are.
    """
    parity, first = _Parity(), None
    for frame in frames:
        if first is not None:
            top_first = parity.is_top(first)
            alike = frame.interlaced_frame and shape_of(first) == shape_of(frame)
            pair = alike and parity.is_top(frame) != top_first
            yield _weave(first, frame if pair else first, top_first)
            first = None
            if pair:
                continue
        if frame.interlaced_frame:
            first = frame
        else:
            yield frame
    if first is not None:
        yield _weave(first, first, parity.is_top(first))


class _Parity:
    """Which field a frame is: a filter knows, PyAV does not."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._shape: Shape | None = None

    def is_top(self, frame: VideoFrame) -> bool:
        if self._graph is None or self._shape != shape_of(frame):
            self._shape = shape_of(frame)
            self._graph = graph_of(frame, ("select", "eq(interlace_type\\,TOPFIRST)"))
        self._graph.vpush(frame)
        return pull(self._graph) is not None


def _weave(first: VideoFrame, second: VideoFrame, top_first: bool) -> VideoFrame:
    graph = graph_of(first, ("weave", f"first_field={'top' if top_first else 'bottom'}"))
    graph.vpush(first)
    graph.vpush(second)
    frame = graph.vpull()
    frame.pts, frame.time_base = first.pts, first.time_base
    frame.duration = first.duration + (second.duration if second is not first else 0)
    return frame


# ── interlaced frames ────────────────────────────────────────────────────────────────────────────


def deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """One frame per frame: as they are up to the first interlaced one, from there through bwdif.

    The filter touches only frames that are flagged interlaced, and looks one frame ahead and back:
    what came before the first of them is shown to it.
    """
    before: VideoFrame | None = None
    lines: _Deinterlacer | None = None
    for frame in frames:
        if lines is not None and lines.shape != shape_of(frame):
            yield from lines.drain()
            lines = before = None
        if lines is None and not frame.interlaced_frame:
            before = frame
            yield frame
            continue
        if lines is None:
            shown = before if before is not None and shape_of(before) == shape_of(frame) else None
            lines = _Deinterlacer(frame, shown)
        yield from lines.take(frame)
    if lines is not None:
        yield from lines.drain()


class _Deinterlacer:
    """bwdif over frames of one shape.

    Stamps and durations are ours to keep: the filter doubles its time base, and with it what frames
    last, and invents stamps where there are none.
    """

    def __init__(self, frame: VideoFrame, before: VideoFrame | None) -> None:
        self.shape = shape_of(frame)
        self._graph = graph_of(frame, ("bwdif", "mode=send_frame:parity=auto:deint=interlaced"))
        self._times: deque[tuple[int | None, int, Fraction | None]] = deque()
        self._unasked = 0  # frames that are shown to the filter and already given out
        if before is not None:
            self._push(before)
            self._unasked = 1

    def take(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        self._push(frame)
        return self._ready()

    def drain(self) -> Iterator[VideoFrame]:
        self._graph.vpush(None)
        return self._ready()

    def _push(self, frame: VideoFrame) -> None:
        self._times.append((frame.pts, frame.duration, frame.time_base))
        self._graph.vpush(frame)

    def _ready(self) -> Iterator[VideoFrame]:
        while self._times:
            frame = pull(self._graph)
            if frame is None:
                return
            frame.pts, frame.duration, frame.time_base = self._times.popleft()
            if self._unasked:
                self._unasked -= 1
            else:
                yield frame


# ── clean edges ──────────────────────────────────────────────────────────────────────────────────


def cropped(
    frames: Iterator[VideoFrame], size: tuple[int, int], margins: Margins
) -> Iterator[VideoFrame]:
    """Frames of the stored size that the margins were named for, without them; others as they are.

    No pixel is copied. A chroma sample that a margin splits stays.
    """
    left, top, right, bottom = margins
    across, down = size[0] - left - right, size[1] - top - bottom
    graph, shape = None, None
    for frame in frames:
        if (frame.width, frame.height) != size:
            yield frame
            continue
        if graph is None or shape != shape_of(frame):
            shape = shape_of(frame)
            graph = graph_of(frame, ("crop", f"{across}:{down}:{left}:{top}:exact=1"))
        times = frame.pts, frame.duration, frame.time_base
        graph.vpush(frame)
        frame = graph.vpull()
        frame.pts, frame.duration, frame.time_base = times
        yield frame


# ── side data ────────────────────────────────────────────────────────────────────────────────────


def nameable(frame: VideoFrame, known: set[int]) -> VideoFrame:
    """The frame without side data of other types than these, which PyAV cannot give by name."""
    unknown = [number for number in range(FRAME_DATA_TYPES) if number not in known]
    graph = graph_of(frame, *(("sidedata", f"mode=delete:type={number}") for number in unknown))
    graph.vpush(frame)
    return graph.vpull()
