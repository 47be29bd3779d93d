"""Another cut of a clip that is being decoded: its frames are picked, made and laid aside.

    decoded frames ─┬─▶ blocks of the first cut, as they are asked for
                    └─▶ this one's frames ─▶ memory, then disk ─▶ its blocks, afterwards

They are those that decoding for this cut alone would give, to the bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from typing import IO

import numpy as np
from av.video.frame import VideoFrame

from telecine.encoders.frames import ColorMap, FrameBlock, Pixels
from telecine.infra.errors import MediaError
from telecine.manifests.schemas import Clip
from telecine.pipeline.media.decode import Cut
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.pixels import PictureReader, picture_block
from telecine.pipeline.media.timing import Picker, Shown, first_output, is_resampled

IN_MEMORY = 32 << 20  # bytes of frames; what is more goes to disk


class Aside:
    """The frames of one cut, in the order of its blocks. Close it."""

    def __init__(self, clip: Clip, cut: Cut) -> None:
        self._clip, self._cut = clip, cut
        self._sizes = tuple(cut.block_sizes)
        self._file: IO[bytes] | None = None
        self._picture: FrameBlock | None = None
        self._forget()

    def _forget(self) -> None:
        self.close()
        self.shown = Shown()
        self.complete = False  # all its frames are here, and right
        self._failed = False
        self._reader: PictureReader | None = None
        self._picker: Picker[VideoFrame] | None = None
        self._shapes: list[tuple[int, ...]] = []
        self._colors: list[ColorMap] = []  # of each frame that is here

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._picture = None

    # ── while the clip is decoded ────────────────────────────────────────────────────────────────

    def begin(self, facts: MediaFacts) -> None:
        """The clip's first frame comes next; what came of an earlier try is forgotten."""
        self._forget()
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        clip, cut = self._clip, self._cut
        self._reader = PictureReader(facts, cut.crop, (clip.width, clip.height), cut.size)
        if is_resampled(clip, cut.rate):
            tick = Fraction(clip.time_base_num, clip.time_base_den)
            step, count = 1 / (cut.rate * tick), cut.frames + cut.left_out
            self._picker = Picker(first_output(clip, cut.rate), step, count, self.shown)

    @property
    def wants(self) -> bool:
        """It is not known yet what its last frame is."""
        if self._failed:
            return False
        if self._picker is not None:
            return not self._picker.done
        return len(self._colors) < self._cut.frames

    def take(self, stamp: int, frame: VideoFrame) -> None:
        """The clip's next native frame."""
        if not self.wants:
            return
        if self._picker is None:
            self._keep(frame, 1)
        else:
            self._keep(*self._picker.take(stamp, frame))

    def end(self) -> None:
        """There are no more frames, or none that matter, and their number was right."""
        if self._picker is not None and not self._failed:
            self._keep(*self._picker.flush())
        self.complete = not self._failed and len(self._colors) == self._cut.frames

    def picture(self, picture: Picture) -> None:
        """It is an image."""
        self._forget()
        self._picture = picture_block(picture, self._cut.crop, self._cut.size)
        self.complete = True

    def _keep(self, frame: VideoFrame | None, times: int) -> None:
        times = min(times, self._cut.frames - len(self._colors))
        if frame is None or times <= 0 or self._reader is None or self._file is None:
            return
        try:
            planes = self._reader.planes(frame)
        except MediaError:  # on its own it will meet the same, and say so
            self._failed = True
            return
        shapes = [plane.shape for plane in planes]
        self._failed = bool(self._shapes) and self._shapes != shapes
        self._shapes = shapes
        for _ in range(times):
            self._colors.append(self._reader.colors(frame))
            for plane in planes:
                self._file.write(np.ascontiguousarray(plane).data)

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────

    def blocks(self) -> Iterator[FrameBlock]:
        """Of a complete one."""
        if self._picture is not None:
            yield self._picture
            return
        assert self._file is not None
        self._file.seek(0)
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        made = 0
        for count in self._sizes:
            data = np.frombuffer(self._file.read(count * sum(sizes)), np.uint8)
            frames = np.split(data.reshape(count, sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
            planes: list[Pixels] = [
                np.ascontiguousarray(part).reshape(count, *shape)
                for part, shape in zip(frames, self._shapes, strict=True)
            ]
            yield FrameBlock((planes[0], planes[1], planes[2]), self._colors[made])
            made += count
