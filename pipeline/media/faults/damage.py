"""Which frames of a stream are damaged: the decoder marks them, or what they refer to was lost.

packets   K  p  p  ╳  p  p  K  p        ╳ refused by the decoder, or lost by the demuxer
frames    ·  ·  ·     ▒  ▒  ·  ·        ▒ shown from there on, until the next key frame
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from av.video.frame import VideoFrame

LATEST = 16  # spans that are looked through: frames are asked for soon after they were decoded


class Damage:
    """Told of every packet and frame as they come, in the order of decoding."""

    def __init__(self) -> None:
        self._spans: deque[list[float]] = deque(maxlen=LATEST)  # [from, to) of stamps
        self._gap = False  # something was lost, and no stamp since says where
        self._any = False  # a frame was shown: before it nothing refers to what was lost

    def lost(self, packet: Any) -> None:
        """By the decoder, or None: by the demuxer, nobody knows what."""
        self._gap = True
        if packet is not None:
            self._begin(packet)

    def read(self, packet: Any) -> None:
        if packet.pts is None:
            return
        if packet.is_keyframe:
            self._end(packet.pts)
        elif self._gap:
            self._begin(packet)

    def shown(self, frame: VideoFrame) -> None:
        self._any = True
        if frame.key_frame and frame.pts is not None:
            self._end(frame.pts)

    def has(self, frame: VideoFrame) -> bool:
        """FFmpeg marks what it concealed, and what packets with errors in transport made."""
        if frame.is_corrupt:
            return True
        pts = frame.pts
        return pts is not None and any(begin <= pts < end for begin, end in self._spans)

    def _begin(self, packet: Any) -> None:
        is_open = bool(self._spans) and self._spans[-1][1] == math.inf
        if self._any and packet.pts is not None and not is_open:
            self._spans.append([packet.pts, math.inf])
        self._gap = self._gap and packet.pts is None

    def _end(self, pts: int) -> None:
        self._gap = False
        if self._spans and self._spans[-1][1] == math.inf:
            self._spans[-1][1] = max(self._spans[-1][0], pts)
