"""What HEIF says of one item: its colours, and how it is cut, turned and mirrored."""

from __future__ import annotations

import struct
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from telecine.encoders.frames import Pixels
from telecine.infra.errors import MediaError
from telecine.pipeline.media.geometry import Orientation
from telecine.pipeline.media.stills.exif import exif_orientation
from telecine.pipeline.media.stills.items import Item, Items, Property
from telecine.pipeline.media.tracks.iso import NO_MARGINS, clean_aperture

Tags: TypeAlias = tuple[int, int, int, int]  # matrix, range, transfer, primaries (ITU-T H.273)
UNSPECIFIED = 2
MAX_EXIF_BYTES = 1 << 20


def profile_of(item: Item) -> bytes | None:
    """Its ICC profile."""
    bodies = [p.body for p in item.properties if p.kind == b"colr"]
    return next((b[4:] for b in bodies if b[:4] in (b"prof", b"rICC")), None)


def colors_of(item: Item) -> Tags | None:
    """(matrix, range, transfer, primaries), as `read_colors` takes them."""
    for part in item.properties:
        if part.kind == b"colr" and part.body[:4] == b"nclx" and len(part.body) >= 11:
            primaries, transfer, matrix, full = struct.unpack(">HHHB", part.body[4:11])
            return matrix, 2 if full & 0x80 else 1, transfer, primaries
    return None


def tags_of(frame: VideoFrame, colors: Tags | None) -> Tags:
    """The container's word, and the stream's where it leaves something open."""
    own = (frame.colorspace, frame.color_range or 2, frame.color_trc, frame.color_primaries)
    if colors is None:
        return own
    matrix, full, transfer, primaries = (
        told if said == UNSPECIFIED and k != 1 else said
        for k, (said, told) in enumerate(zip(colors, own, strict=True))
    )
    return matrix, full, transfer, primaries


def transformed(pixels: Pixels, properties: list[Property]) -> tuple[Pixels, Orientation]:
    """As `clap`, `irot` and `imir` say, in the order in which they are given."""
    orientation = Orientation()
    for part in properties:
        if part.kind == b"clap":
            pixels = _cut(pixels, part.body)
        elif part.kind == b"irot" and part.body:
            turns = part.body[0] & 3
            pixels = np.rot90(pixels, turns)
            orientation = _then(orientation, turns, mirrored=False)
        elif part.kind == b"imir" and part.body:
            sides = part.body[0] & 1  # 0 exchanges top and bottom, 1 left and right
            pixels = pixels[:, ::-1] if sides else pixels[::-1]
            orientation = _then(orientation, 0 if sides else 2, mirrored=True)
    return pixels, orientation


def _then(first: Orientation, turns: int, *, mirrored: bool) -> Orientation:
    """`first`, then a flip left to right if `mirrored`, then quarter turns, as one."""
    own = -first.quarter_turns if mirrored else first.quarter_turns
    return Orientation((own + turns) % 4 * 90, first.mirrored != mirrored)


def turned(pixels: Pixels, orientation: Orientation) -> Pixels:
    flipped = pixels[:, ::-1] if orientation.mirrored else pixels
    return np.rot90(flipped, orientation.quarter_turns)


def _cut(pixels: npt.NDArray[np.uint8], clap: bytes) -> Pixels:
    """The clean aperture; all of it where that shows what is not there."""
    rows, columns = pixels.shape[:2]
    left, top, right, bottom = clean_aperture(columns, rows, clap) or NO_MARGINS
    return pixels[top : rows - bottom, left : columns - right]


def described_orientation(items: Items) -> Orientation:
    """Of the EXIF that describes the primary item. A broken one never costs the picture."""
    for item in items.referring.get((b"cdsc", items.primary), []):
        if item.kind == b"Exif" and sum(length for _, length in item.parts) <= MAX_EXIF_BYTES:
            try:
                data = items.data(item)
            except MediaError:
                continue
            return exif_orientation(data[4 + int.from_bytes(data[:4], "big") :])
    return Orientation()
