"""Sizes and layouts of pictures through swscale: exact, and the same bytes on every machine.

    video    stored planes, at their own depth ─▶ square pixels, smaller ─▶ the pixel contract
    images, RGB, transparency             RGB of the pixel contract ─▶ smaller

Bicubic (B = 0, C = 0.6), its kernel as much wider as the picture gets smaller: so it averages all
that it leaves out, and nothing aliases. Centres of pixels are kept, so nothing shifts.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.facts import MediaFacts

Size: TypeAlias = tuple[int, int]  # width, height
Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# Exact and the same on every machine: no shortcuts in assembly, no rounding that depends on them.
EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
RESAMPLE = Interpolation.BICUBIC | EXACT
CONVERT = RESAMPLE | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
SHRINK = Interpolation.AREA | EXACT
PICK = Interpolation.POINT | EXACT  # single pixels, not averages

_SWSCALE_MATRICES = {
    "bt709": Colorspace.ITU709,
    "bt601": Colorspace.ITU601,
    "bt2020": Colorspace.BT2020,
    "smpte240m": Colorspace.SMPTE240M,
    "fcc": Colorspace.FCC,
}
MATRICES = frozenset(_SWSCALE_MATRICES)  # that swscale knows


class Scaler:
    """swscale, set up once for frames of one kind. Names its failures."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(
        self,
        frame: VideoFrame,
        facts: MediaFacts,
        size: Size,
        format_name: str,
        flags: Interpolation,
    ) -> VideoFrame:
        """The frame at another size or layout; matrix and range stay unless RGB is asked for."""
        rgb = format_name.startswith("gbr")
        full = facts.color_range == "full" or facts.color_matrix == "rgb"  # RGB stays as it is
        source = ColorRange.JPEG if full else ColorRange.MPEG
        matrix = _SWSCALE_MATRICES.get(facts.color_matrix, Colorspace.ITU709)
        try:
            return self._reformatter.reformat(
                frame,
                *size,
                format_name,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                interpolation=flags,
                src_color_range=source,
                dst_color_range=ColorRange.JPEG if rgb else source,
                threads=1,
            )
        except (FFmpegError, ValueError) as error:
            raise MediaError(
                Reason.UNSUPPORTED, f"pixels of {frame.format.name} cannot be converted: {error}"
            ) from error


def smaller_plane(plane: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """uint8 [H, W] at another size, with `RESAMPLE`. Raises MediaError where swscale refuses it.

    Of R, G and B each on its own: swscale would make RGB of another size by way of YUV.
    """
    height, width = plane.shape
    frame = VideoFrame(width, height, "gray")
    plane_view(frame, 0)[...] = plane
    try:
        smaller = frame.reformat(*size, "gray", interpolation=RESAMPLE, threads=1)
    except (FFmpegError, ValueError) as error:
        raise MediaError(
            Reason.UNSUPPORTED, f"{width} x {height} px cannot be made {size}: {error}"
        ) from error
    return np.array(plane_view(smaller, 0), np.uint8)


def plane_view(frame: VideoFrame, index: int) -> Plane:
    """A plane of the decoder's memory, [rows, columns], copied nowhere."""
    plane = frame.planes[index]
    wide = frame.format.components[0].bits > 8
    dtype = np.dtype(np.uint8 if not wide else ">u2" if frame.format.is_big_endian else "<u2")
    step = abs(plane.line_size)
    start = step * (plane.height - 1) if plane.line_size < 0 else 0
    strides = (plane.line_size, dtype.itemsize)
    return np.ndarray((plane.height, plane.width), dtype, memoryview(plane), start, strides)
