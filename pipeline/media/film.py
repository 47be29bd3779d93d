"""film: pictures into a file that people can open, as they come. Colours as the pixel contract."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import IO

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    VideoReformatter,
)
from PIL import Image

from telecine.encoders.frames import Pixels
from telecine.pipeline.media.resize import SHRINK

# So near to its input that an eye sees the VAE's faults and not H.264's.
X264 = {"crf": "10", "preset": "veryfast"}


def write_png(file: IO[bytes], picture: Pixels) -> None:
    """uint8 RGB [H, W, 3]"""
    Image.fromarray(picture).save(file, "PNG")


def write_mp4(file: IO[bytes], frames: Iterator[Pixels], rate: Fraction) -> None:
    """H.264 of uint8 RGB frames [H, W, 3], H and W even, at a constant rate.

    4:2:0, BT.709 in limited range and tagged so. Holds the frames that the codec looks ahead.
    """
    first, target = next(frames), _Target(file)
    try:
        _write_mp4(target, first, chain([first], frames), rate)
    except av.FFmpegError:
        if target.error is not None:
            raise target.error from None
        raise


class _Target:
    """A file that keeps its first error, of which libav says no more than that there was one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise


def _write_mp4(file: _Target, first: Pixels, frames: Iterator[Pixels], rate: Fraction) -> None:
    convert = VideoReformatter()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=X264)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        for index, pixels in enumerate(frames):
            picture = convert.reformat(
                VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=SHRINK,  # chroma samples stand for the pixels they cover
            )
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
