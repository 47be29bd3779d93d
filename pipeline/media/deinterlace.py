"""Interlaced frames to progressive ones: bwdif, one frame per frame, with its own stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
from av.filter import Graph
from av.video.frame import VideoFrame


def deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """One frame per frame through bwdif, which touches only frames that are flagged interlaced.

    It looks one frame ahead and back. Stamps are ours to keep: the filter doubles its time base,
    and invents stamps where there are none.
    """
    graph, shape = None, None
    stamps: deque[tuple[int | None, Fraction | None]] = deque()
    for frame in frames:
        current = (frame.width, frame.height, frame.format.name)
        if graph is None or current != shape:
            if graph is not None:
                yield from _drain(graph, stamps)
            graph, shape = _bwdif(frame), current
        stamps.append((frame.pts, frame.time_base))
        graph.vpush(frame)
        yield from _ready(graph, stamps)
    if graph is not None:
        yield from _drain(graph, stamps)


def _bwdif(frame: VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    graph.link_nodes(
        source,
        graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _ready(graph: Graph, stamps: deque[tuple[int | None, Fraction | None]]) -> Iterator[VideoFrame]:
    while stamps:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        frame.pts, frame.time_base = stamps.popleft()
        yield frame


def _drain(graph: Graph, stamps: deque[tuple[int | None, Fraction | None]]) -> Iterator[VideoFrame]:
    graph.vpush(None)
    yield from _ready(graph, stamps)
    stamps.clear()
