"""The pixel contract (docs/pixels.md): decoded frames to `FrameBlock`s and stills.

    frame ─▶ square pixels, smaller ─▶ planes, cut to the crop ─▶ 8 bits ─▶ turned ─▶ block
                                                              └▶ HDR, wide: light ─▶ BT.709

Eight-bit planar YUV, nearly all footage, is copied once: from the decoder's memory into the block.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from PIL import Image

from telecine.encoders.frames import ColorMap, FrameBlock, Pixels
from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.color import CHROMATICITIES, IDENTITY, color_map, to_sdr
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.geometry import (
    Crop,
    Orientation,
    display_size,
    fit_short_side,
    square_width,
    to_square,
)
from telecine.pipeline.media.resize import (
    CONVERT,
    MATRICES,
    RESAMPLE,
    SHRINK,
    Plane,
    Scaler,
    Size,
    plane_view,
    smaller_plane,
)

Decoded: TypeAlias = VideoFrame  # a frame as the decoder gave it
PlaneLayout: TypeAlias = VideoFormat  # of its planes
Planes = list[Plane]
Stored = tuple[str, str]  # matrix and range of the values as they lie in memory
RGB: Stored = ("rgb", "full")

_SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
# Windows bitmaps leave the fourth byte reserved, and codecs of that world keep it as it comes.
UNUSED_FOURTH = ("rawvideo", "huffyuv", "ffvhuff")
PACKED_RGB = ("bgra", "rgba", "argb", "abgr")
BAND_ROWS = 32  # of one pass through the tables: temporaries stay in the cache


def frame_size(frame: VideoFrame, facts: MediaFacts) -> tuple[int, int]:
    """Displayed (width, height) of this frame: a stream may change its size midway."""
    sar = Fraction(facts.sample_aspect_num, facts.sample_aspect_den)
    return display_size(frame.width, frame.height, sar, facts.rotation_degrees)


class PictureReader:
    """Frames of one source, cut to one crop of the displayed picture, as blocks."""

    def __init__(
        self,
        facts: MediaFacts,
        crop: Crop,
        size: Size | None = None,
        reduced: Size | None = None,
    ) -> None:
        """`size` is the displayed size that frames must have (the header's, by default), `reduced`
        the one that they are made, which the crop is of; None: they keep theirs.
        """
        self._facts, self._crop = facts, crop
        self._size = size or (facts.width, facts.height)
        self._reduced = None if reduced == self._size else reduced
        self._scaler = Scaler()

    def block(self, frames: Iterable[VideoFrame], count: int) -> FrameBlock:
        """The next `count` frames, each converted as it comes, so that no more than one is held.

        Raises MediaError: fewer frames, a size that changed, or pixels that cannot be converted.
        """
        blocks: list[Pixels] = []
        colors, filled = IDENTITY, 0
        for filled, frame in enumerate(islice(frames, count), start=1):
            planes = self.planes(frame)
            if not blocks:
                blocks = [np.empty((count, *plane.shape), np.uint8) for plane in planes]
                colors = self.colors(frame)
            for block, plane in zip(blocks, planes, strict=True):
                if block.shape[1:] != plane.shape:
                    raise MediaError(Reason.UNSUPPORTED, "chroma subsampling changes in a clip")
                block[filled - 1] = plane
        if filled < count or not blocks:
            raise MediaError(
                Reason.FRAMES_MISMATCH, f"{filled} frames where {count} more were expected"
            )
        return FrameBlock((blocks[0], blocks[1], blocks[2]), colors)

    def colors(self, frame: VideoFrame) -> ColorMap:
        """What makes RGB of the frame's planes."""
        if _has_alpha(frame.format) or converts_light(self._facts):
            return IDENTITY
        return color_map(self._facts.color_matrix, self._facts.color_range)

    def planes(self, frame: VideoFrame) -> list[Pixels]:
        """Of the crop, [rows, columns] each, as displayed. Raises MediaError as `block` does."""
        facts = self._facts
        if frame_size(frame, facts) != self._size:
            raise MediaError(
                Reason.FRAMES_MISMATCH,
                f"a frame of {frame.width} x {frame.height} px, stored; expected one displayed as "
                f"{self._size[0]} x {self._size[1]} px",
            )
        cut = to_square(self._crop, *(self._reduced or self._size), facts.orientation)
        sar = Fraction(facts.sample_aspect_num, facts.sample_aspect_den)
        size = square_width(frame.width, sar), frame.height
        if self._reduced is None:
            planes = read_planes(frame, facts, size, cut, self._scaler)
        else:
            smaller = _stored_size(self._reduced, facts.orientation)
            planes = _smaller_planes(frame, facts, size, smaller, cut, self._scaler)
        return [turn(plane, facts.orientation) for plane in planes]


def _stored_size(size: Size, orientation: Orientation) -> Size:
    """Of a picture that is displayed at `size`, before it is turned."""
    width, height = size
    return (height, width) if orientation.quarter_turns % 2 else (width, height)


def _smaller_planes(
    frame: VideoFrame, facts: MediaFacts, size: Size, smaller: Size, cut: Crop, scaler: Scaler
) -> list[Pixels]:
    """`read_planes` of the frame at another size, which the cut is of.

    YUV in one pass over the stored values, at their own depth; of RGB what would be encoded else,
    so that transparency is over white by then: colours that nobody sees must not run into others.
    """
    if not _is_rgb(frame.format) and not _has_alpha(frame.format):
        return read_planes(frame, facts, smaller, cut, scaler)
    whole = read_planes(frame, facts, size, Crop(0, 0, *size), scaler)
    return [_part(smaller_plane(plane, smaller), cut) for plane in whole]


def _part(plane: Pixels, cut: Crop) -> Pixels:
    return plane[cut.y : cut.y + cut.height, cut.x : cut.x + cut.width]


def read_planes(
    frame: VideoFrame, facts: MediaFacts, size: tuple[int, int], cut: Crop, scaler: Scaler
) -> list[Pixels]:
    """Three 8-bit planes of the cut, not yet turned: Y, Cb, Cr as stored, or R, G, B.

    `size` is the frame's with square pixels.
    """
    layout, alpha = _planar_layout(frame.format), _has_alpha(frame.format)
    if size != (frame.width, frame.height) or layout != frame.format.name:
        frame = scaler(frame, facts, size, layout, CONVERT if alpha else RESAMPLE)
    stored = _stored(frame, facts)
    planes = [plane_view(frame, index) for index in range(len(frame.format.components))]
    if frame.format.is_rgb:
        planes = [planes[2], planes[0], planes[1], *planes[3:]]  # they lie as G, B, R, A
    depth = frame.format.components[0].bits
    planes = _cut(planes, size, cut)
    if converts_light(facts):
        colors = _to_sdr(planes[:3], depth, stored, facts)
    else:
        colors = [_to_eight_bits(p, depth, stored[1] == "full") for p in planes[:3]]
    if not alpha:
        return _with_chroma(colors)
    if stored != RGB and not converts_light(facts):
        colors = _mapped(colors, *stored)
    if _fourth_may_be_unused(facts) and not planes[3].any():
        return colors
    return _over_white(colors, _to_eight_bits(planes[3], depth, full=True))


def _fourth_may_be_unused(facts: MediaFacts) -> bool:
    """Whether 32 bits a pixel need not mean transparency: a fourth byte of zero is nothing then."""
    return facts.codec in UNUSED_FOURTH and facts.pixel_format in PACKED_RGB


def _stored(frame: VideoFrame, facts: MediaFacts) -> Stored:
    """What the values are now: swscale turns everything with alpha into RGB of full range."""
    became_rgb = frame.format.is_rgb and facts.color_matrix != "rgb"
    return RGB if became_rgb else (facts.color_matrix, facts.color_range)


def converts_light(facts: MediaFacts) -> bool:
    """Whether values must become light on the way: HDR, or primaries well outside BT.709's.

    BT.601's primaries (and the other old ones) stay as they are: the error is below what cameras
    and displays of that time kept to, and untagged footage could not be told apart anyway.
    """
    return facts.color_transfer != "sdr" or _primaries(facts) != "bt709"


def _primaries(facts: MediaFacts) -> str:
    if facts.color_primaries in CHROMATICITIES:
        return facts.color_primaries
    untagged_wide = facts.color_matrix == "bt2020" or facts.color_transfer != "sdr"
    return "bt2020" if untagged_wide and not facts.color_primaries else "bt709"


def _is_rgb(layout: VideoFormat) -> bool:
    return layout.is_rgb or layout.name == "pal8"


def _has_alpha(layout: VideoFormat) -> bool:
    return layout.name == "pal8" or any(c.is_alpha for c in layout.components)


@cache
def _planar_name(name: str) -> str:
    """The planar layout, of the same depth and subsampling, that `name` is read through."""
    layout = VideoFormat(name, 16, 16)
    parts = layout.components
    bits = max(part.bits for part in parts)
    suffix = "" if bits <= 8 else f"{next(b for b in (10, 12, 14, 16) if b >= min(bits, 16))}le"
    if _has_alpha(layout):
        return "gbrap" if not suffix else "gbrap16le"
    if _is_rgb(layout):
        return f"gbrp{suffix}"
    if len(parts) == 1:
        return f"gray{suffix}"
    across, down = 16 // layout.chroma_width(16), 16 // layout.chroma_height(16)
    return f"yuv{_SUBSAMPLINGS.get((across, down), '444')}p{suffix}"


def _planar_layout(layout: VideoFormat) -> str:
    """`layout` itself where its planes can be read as they are."""
    parts = layout.components
    separate = [part.plane for part in parts] in ([0], [0, 1, 2], [2, 0, 1])
    depth = {part.bits for part in parts}
    plain = layout.name.startswith(("yuv", "gbrp", "gray")) and "msb" not in layout.name
    if plain and separate and len(depth) == 1 and 8 <= max(depth) <= 16 and not _has_alpha(layout):
        return layout.name
    return _planar_name(layout.name)


def luma_view(frame: VideoFrame, facts: MediaFacts, scaler: Scaler) -> tuple[Plane, int]:
    """Luma (green of RGB) as stored, and its bits beyond 8; copied where it lies among others."""
    layout = _planar_layout(frame.format)
    if layout != frame.format.name:
        frame = scaler(frame, facts, (frame.width, frame.height), layout, RESAMPLE)
    return plane_view(frame, 0), max(0, frame.format.components[0].bits - 8)


def _cut(planes: Planes, size: tuple[int, int], cut: Crop) -> Planes:
    """Each plane's part of the crop; chroma is spread out first where the crop splits a sample."""
    width, height = size
    sx, sy = 1, 1
    if len(planes) >= 3:
        sx, sy = (
            round(n / m) for n, m in ((width, planes[1].shape[1]), (height, planes[1].shape[0]))
        )
    if cut.x % sx or cut.width % sx or cut.y % sy or cut.height % sy:
        spread = [p.repeat(sy, axis=0).repeat(sx, axis=1) for p in planes[1:3]]
        planes, sx, sy = [planes[0], *spread], 1, 1
    steps = [(1, 1), (sx, sy), (sx, sy), (1, 1)]
    return [
        p[cut.y // y : (cut.y + cut.height) // y, cut.x // x : (cut.x + cut.width) // x]
        for p, (x, y) in zip(planes, steps, strict=False)
    ]


@cache
def _eight_bit_table(depth: int, full: bool) -> Pixels:
    """Limited range scales by a power of two, full range from its own white to 255 (H.273)."""
    codes = np.arange(1 << depth, dtype=np.float64)
    scale = 255 / ((1 << depth) - 1) if full else 2.0 ** (8 - depth)
    return np.clip(np.floor(codes * scale + 0.5), 0, 255).astype(np.uint8)


def _to_eight_bits(plane: Plane, depth: int, full: bool) -> Pixels:
    if depth == 8:
        return plane.astype(np.uint8, copy=False)
    return np.asarray(_eight_bit_table(depth, full).take(plane, mode="clip"))


def _with_chroma(planes: list[Pixels]) -> list[Pixels]:
    """Grey gets chroma that says so."""
    if len(planes) > 1:
        return planes
    neutral = np.full_like(planes[0], 128)
    return [planes[0], neutral, neutral]


def _mapped(planes: list[Pixels], matrix: str, color_range: str) -> list[Pixels]:
    """R, G, B of full range, each [H, W], from planes of that size."""
    first, second, third = (plane[None] for plane in planes)
    rgb = FrameBlock((first, second, third), color_map(matrix, color_range)).rgb()[0]
    return [rgb[..., channel] for channel in range(3)]


def _over_white(colors: list[Pixels], opacity: Pixels) -> list[Pixels]:
    alpha = opacity.astype(np.uint16)
    white = 255 * (255 - alpha)
    return [((p * alpha + white + 127) // 255).astype(np.uint8) for p in colors]


def _to_sdr(planes: Planes, depth: int, stored: Stored, facts: MediaFacts) -> list[Pixels]:
    """BT.709 R, G, B, in bands of rows so that the temporaries stay in the cache."""
    height, width = planes[0].shape
    sx, sy = -(-width // planes[-1].shape[1]), -(-height // planes[-1].shape[0])
    out = [np.empty((height, width), np.uint8) for _ in range(3)]
    for top in range(0, height, BAND_ROWS):
        rows = slice(top, min(top + BAND_ROWS, height))
        chroma = slice(top // sy, -(-rows.stop // sy))
        band = [planes[0][rows]]
        band += [p[chroma].repeat(sy, axis=0).repeat(sx, axis=1) for p in planes[1:]]
        sdr = to_sdr(_signal(band, depth, stored), facts.color_transfer, _primaries(facts))
        for plane, channel in zip(out, sdr, strict=True):
            plane[rows] = channel.reshape(-1, width)
    return out


def _signal(band: Planes, depth: int, stored: Stored) -> npt.NDArray[np.float32]:
    """R'G'B' of 0..1, [3, pixels]: the map for 8 bits at the depth that is there."""
    matrix, color_range = stored
    scale = 255 / ((1 << depth) - 1) if color_range == "full" else 2.0 ** (8 - depth)
    values = np.full((3, band[0].size), 128 / scale, np.float32)
    for channel, plane in zip(values, band, strict=False):
        channel.reshape(plane.shape)[...] = plane
    if color_range == "full" and matrix != "rgb":  # H.273: neutral is half of 2^depth, not of white
        values[1 : len(band)] += 128 / scale - (1 << (depth - 1))
    colors = color_map(matrix, color_range)
    rows = np.array(colors.matrix).reshape(3, 3) * (scale / 255)
    signal = rows.astype(np.float32) @ values
    signal += (np.array(colors.offset, np.float32) / np.float32(255))[:, None]
    return np.asarray(signal)


def turn(plane: Pixels, orientation: Orientation) -> Pixels:
    """A view of the plane as it is displayed."""
    flipped = plane[:, ::-1] if orientation.mirrored else plane
    return np.rot90(flipped, orientation.quarter_turns)


def picture_block(picture: Picture, crop: Crop, reduced: Size | None = None) -> FrameBlock:
    """One frame of a still image, made smaller first where it is asked for: its R, G, B planes."""
    planes = [picture.rgb[..., channel] for channel in range(3)]
    if reduced is not None and reduced != (picture.facts.width, picture.facts.height):
        planes = [smaller_plane(plane, reduced) for plane in planes]
    red, green, blue = (np.ascontiguousarray(_part(plane, crop)[None]) for plane in planes)
    return FrameBlock((red, green, blue), IDENTITY)


def frame_rgb(frame: VideoFrame, facts: MediaFacts) -> Pixels:
    """uint8 [H, W, 3]: the whole frame as it is displayed."""
    width, height = frame_size(frame, facts)
    block = PictureReader(facts, Crop(0, 0, width, height), (width, height)).block([frame], 1)
    return np.ascontiguousarray(block.rgb()[0])


def still(frame: VideoFrame, facts: MediaFacts, short_side: int, scaler: Scaler) -> Pixels:
    """uint8 RGBX [h, w, 4] as displayed, short side at most `short_side`; one swscale call.

    The fourth byte says nothing: Pillow reads such pixels where they lie (`image_of`). Shrinks by
    averaging areas of the stored values. Pass one `Scaler` for all stills of a source.
    """
    width, height = fit_short_side(*frame_size(frame, facts), short_side)
    size = (height, width) if facts.rotation_degrees in (90, 270) else (width, height)
    layout = _still_layout(frame.format, facts)
    small = scaler(frame, facts, size, layout, SHRINK)
    planes = read_planes(small, facts, size, Crop(0, 0, *size), scaler)
    stored = _stored(small, facts)
    done = stored == RGB or _has_alpha(small.format) or converts_light(facts)
    planes = planes if done else _mapped(planes, *stored)
    turned = [turn(plane, facts.orientation) for plane in planes]
    pixels = np.zeros((*turned[0].shape, 4), np.uint8)
    for channel, plane in enumerate(turned):
        pixels[..., channel] = plane
    return pixels


def _still_layout(layout: VideoFormat, facts: MediaFacts) -> str:
    """RGB where swscale knows the matrix; else planes with a chroma sample for every pixel."""
    planar = _planar_name(layout.name)
    if planar.startswith("gbr") or (planar.startswith("gray") and converts_light(facts)):
        return planar
    if facts.color_matrix in MATRICES and not converts_light(facts):
        return "gbrp"
    return "yuv444p" + planar.partition("p")[2]


def image_of(pixels: Pixels) -> Image.Image:
    """Pillow's view of uint8 RGBX [h, w, 4]."""
    height, width = pixels.shape[:2]
    return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Baseline JFIF; the same bytes for the same pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def half_luma(data: bytes) -> Pixels:
    """uint8 [h, w]: a JPEG's luma at half its size, rounded up, as libjpeg shrinks it."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", (max(1, image.width // 2), max(1, image.height // 2)))
        return np.asarray(image.convert("L"))
