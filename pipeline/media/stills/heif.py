"""HEIF and AVIF photographs: the primary item, put together and shown as its properties say.

    coded items ─decode─▶ RGB, alpha ─grid─▶ whole ─ICC─▶ sRGB over white ─clap, irot, imir─▶ shown

The box is read here (ISO 23008-12; MIAF, ISO 23000-22), the items are decoded by FFmpeg and become
RGB by the same contract as video: ten bits, PQ, HLG and wide primaries included.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from PIL import Image

from telecine.encoders.frames import Pixels
from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.facts import MediaFacts, Picture, read_colors
from telecine.pipeline.media.faults.sizes import check_picture_size
from telecine.pipeline.media.pixels import frame_rgb
from telecine.pipeline.media.resize import plane_view
from telecine.pipeline.media.stills.icc import to_srgb
from telecine.pipeline.media.stills.items import MAX_META_BYTES, Item, Items, read_items
from telecine.pipeline.media.stills.properties import (
    Tags,
    colors_of,
    described_orientation,
    profile_of,
    tags_of,
    transformed,
    turned,
)
from telecine.pipeline.media.tracks.iso import file_boxes

# Coded items: FFmpeg's decoder, and the property that sets it up
_CODECS = {
    b"av01": ("libdav1d", b"av1C"), b"hvc1": ("hevc", b"hvcC"), b"hev1": ("hevc", b"hvcC"),
    b"avc1": ("h264", b"avcC"), b"vvc1": ("vvc", b"vvcC"), b"jpeg": ("mjpeg", b"jpgC"),
    b"j2k1": ("jpeg2000", b""),
}  # fmt: skip
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
# Properties that change what is seen, and that are followed; others matter only where essential
_FOLLOWED = {b"clap", b"irot", b"imir"}
_KNOWN = _FOLLOWED | {
    b"ispe", b"pixi", b"colr", b"auxC", b"pasp", b"av1C", b"hvcC", b"avcC", b"vvcC", b"jpgC",
    b"a1lx", b"a1op", b"lsel", b"lhvC", b"oinf", b"tols", b"clli", b"mdcv", b"cclv", b"amve",
}  # fmt: skip
_STILLS = {b"avif", b"mif1", b"miaf", b"heic", b"heix", b"heim", b"heis", b"avci", b"jpeg", b"j2ki",
           b"vvic", b"mif3"}  # fmt: skip
_SEQUENCES = {b"avis", b"msf1", b"hevc", b"hevx", b"hevm", b"hevs", b"avcs"}
BAND_ROWS = 64  # of a picture that is shown over white: temporaries stay small
_DEEPEST = 2  # derivations of derivations
MAX_DECODED = 1 << 13  # coded items of one photograph


@dataclass(frozen=True)
class _Whole:
    """Pixels of an item before its own transforms."""

    rgb: Pixels  # [H, W, 3]
    alpha: Pixels | None  # [H, W], of its own auxiliary item or of its tiles'
    facts: MediaFacts
    icc: bytes | None


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so says that it holds photographs, or a sequence of them."""
    return bool(_brands(head) & (_STILLS | _SEQUENCES))


def is_photograph(file: BinaryIO, head: bytes) -> bool:
    """Whether its primary item is what it is: no film, no sequence of pictures in tracks."""
    if not is_heif(head):
        return False
    return head[8:12] in _STILLS or all(kind != b"moov" for kind, _, _ in file_boxes(file))


def has_opacity_track(file: BinaryIO, head: bytes) -> bool:
    """Whether a sequence has transparency in a track of its own (`auxi`, ISO 23008-12, 7.5.3)."""
    if not is_heif(head):
        return False
    for kind, start, length in file_boxes(file):
        if kind == b"moov":
            file.seek(start)
            movie = file.read(min(length, MAX_META_BYTES))
            return b"auxi" in movie and any(urn in movie for urn in _ALPHA)
    return False


def _brands(head: bytes) -> set[bytes]:
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[k : k + 4] for k in range(16, end - 3, 4))}


def heif_picture(file: BinaryIO, max_pixels: int) -> Picture | None:
    """The primary item as it is displayed, over white; None where the file names none.

    Raises MediaError: UNSUPPORTED (what is derived, coded or demanded in a way that is not known
    here), CORRUPT, TOO_LARGE.
    """
    items = read_items(file)
    if items is None:
        if any(kind == b"mini" for kind, _, _ in file_boxes(file)):
            raise MediaError(Reason.UNSUPPORTED, "an image with the short header; save it as PNG")
        return None
    reader = _Reader(items, max_pixels)
    item = items.by_id[items.primary]
    whole = reader.whole(item)
    rgb, premultiplied = whole.rgb, b"prem" in item.references
    if whole.icc and whole.facts.color_transfer == "sdr":
        rgb = np.asarray(to_srgb(Image.fromarray(rgb), whole.icc))
    if whole.alpha is not None:
        rgb = _over_white(rgb, whole.alpha, premultiplied)
    shown, orientation = transformed(rgb, item.properties)
    if not any(p.kind in (b"irot", b"imir") for p in item.properties):
        orientation = described_orientation(items)
        shown = turned(shown, orientation)
    height, width = shown.shape[:2]
    facts = replace(
        whole.facts,
        rotation_degrees=orientation.rotation,
        mirrored=orientation.mirrored,
        width=width,
        height=height,
    )
    return Picture(facts, np.ascontiguousarray(shown))


class _Reader:
    def __init__(self, items: Items, max_pixels: int) -> None:
        self._items, self._max_pixels = items, max_pixels
        self._decoded = 0

    def whole(self, item: Item, depth: int = 0) -> _Whole:
        strange = [p.kind for p in item.properties if p.essential and p.kind not in _KNOWN]
        if strange:
            raise MediaError(Reason.UNSUPPORTED, f"an image that demands {_name(strange[0])}")
        if item.kind in _CODECS:
            frame, facts, icc = self._decode(item)
            whole = _Whole(_rgb(frame, facts, icc), None, facts, icc)
        elif item.kind == b"grid" and depth < _DEEPEST:
            whole = self._grid(item, depth)
        elif item.kind == b"iovl" and depth < _DEEPEST:
            whole = self._overlay(item, depth)
        elif item.kind == b"iden" and depth < _DEEPEST:
            whole = self._identity(item, depth)
        else:
            raise MediaError(
                Reason.UNSUPPORTED,
                f"an image made as {_name(item.kind)}; save it as JPEG or PNG",
            )
        alpha = self._alpha(item, (whole.rgb.shape[0], whole.rgb.shape[1]), depth)
        return whole if alpha is None else replace(whole, alpha=alpha)

    def _grid(self, item: Item, depth: int) -> _Whole:
        """Tiles side by side, row by row, cut to the size that the grid says (ISO 23008-12)."""
        data, tiles = self._items.data(item), item.references.get(b"dimg", [])
        wide = len(data) > 1 and data[1] & 1
        if len(data) < (12 if wide else 8):
            raise MediaError(Reason.CORRUPT, "a grid without a size")
        rows, columns = data[2] + 1, data[3] + 1
        width, height = struct.unpack(">II" if wide else ">HH", data[4 : 12 if wide else 8])
        self._bound(width, height)
        if rows * columns != len(tiles):
            raise MediaError(Reason.CORRUPT, f"{len(tiles)} tiles for {rows} x {columns}")
        rgb = np.empty((height, width, 3), np.uint8)
        alpha: Pixels | None = None
        first: _Whole | None = None
        for k, tile in enumerate(self._tiles(tiles, depth)):
            first = first or _fitting(tile, rows, columns, width, height)
            if tile.rgb.shape != first.rgb.shape:
                raise MediaError(Reason.CORRUPT, "tiles of different sizes")
            y, x = k // columns * tile.rgb.shape[0], k % columns * tile.rgb.shape[1]
            part = rgb[y : y + tile.rgb.shape[0], x : x + tile.rgb.shape[1]]
            part[...] = tile.rgb[: part.shape[0], : part.shape[1]]
            if tile.alpha is not None:
                alpha = np.full((height, width), 255, np.uint8) if alpha is None else alpha
                alpha[y : y + part.shape[0], x : x + part.shape[1]] = tile.alpha[
                    : part.shape[0], : part.shape[1]
                ]
        if first is None:
            raise MediaError(Reason.CORRUPT, "a grid without tiles")
        facts = replace(first.facts, coded_width=width, coded_height=height)
        return _Whole(rgb, alpha, facts, profile_of(item) or first.icc)

    def _overlay(self, item: Item, depth: int) -> _Whole:
        """Pictures over each other on a canvas of one colour, each at its place (6.6.2.2)."""
        data, layers = self._items.data(item), item.references.get(b"dimg", [])
        wide = len(data) > 1 and data[1] & 1
        head, place = (">4HII", ">ii") if wide else (">4HHH", ">hh")
        places = 2 + struct.calcsize(head)
        if len(data) < places + struct.calcsize(place) * len(layers):
            raise MediaError(Reason.CORRUPT, "an overlay without its places")
        *fill, width, height = struct.unpack(head, data[2:places])
        self._bound(width, height)
        canvas = Image.new("RGBA", (width, height), tuple(value >> 8 for value in fill))
        corners = struct.iter_unpack(place, data[places:][: struct.calcsize(place) * len(layers)])
        first: _Whole | None = None
        for layer, (x, y) in zip(self._tiles(layers, depth), corners, strict=True):
            first = first or layer
            _lay(canvas, layer, x, y)
        if first is None:
            raise MediaError(Reason.CORRUPT, "an overlay of nothing")
        pixels = np.asarray(canvas)
        facts = replace(first.facts, coded_width=width, coded_height=height)
        return _Whole(pixels[..., :3], pixels[..., 3], facts, profile_of(item) or first.icc)

    def _identity(self, item: Item, depth: int) -> _Whole:
        """Another item, to be turned or cut once more."""
        for other in self._tiles(item.references.get(b"dimg", [])[:1], depth):
            height, width = other.rgb.shape[:2]
            facts = replace(other.facts, coded_width=width, coded_height=height)
            return replace(other, facts=facts, icc=profile_of(item) or other.icc)
        raise MediaError(Reason.CORRUPT, "an identity of nothing")

    def _tiles(self, ids: list[int], depth: int) -> Iterator[_Whole]:
        for number in ids:
            item = self._items.by_id.get(number)
            if item is None:
                raise MediaError(Reason.CORRUPT, f"tile {number} is not there")
            tile = self.whole(item, depth + 1)
            rgb, _ = transformed(tile.rgb, item.properties)
            alpha = tile.alpha
            if alpha is not None:
                alpha, _ = transformed(alpha, item.properties)
            yield replace(tile, rgb=rgb, alpha=alpha)

    def _alpha(self, item: Item, shape: tuple[int, int], depth: int) -> Pixels | None:
        """Of the auxiliary item beside this one, at this one's size."""
        for other in self._items.referring.get((b"auxl", item.id), []):
            if (other.body(b"auxC") or b"")[4:].split(b"\0")[0] not in _ALPHA:
                continue
            if other.kind in _CODECS:
                frame, facts, _ = self._decode(other)
                alpha = _opacity(frame, facts)
            else:
                alpha = self.whole(other, depth + 1).rgb[..., 0]
            if alpha.shape != shape:
                size = shape[1], shape[0]
                alpha = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BILINEAR))
            return alpha
        return None

    def _decode(self, item: Item) -> tuple[VideoFrame, MediaFacts, bytes | None]:
        """The last frame of the item: of layers it is the finest."""
        name, setup = _CODECS[item.kind]
        self._decoded += 1
        if self._decoded > MAX_DECODED:
            raise MediaError(Reason.TOO_LARGE, f"more than {MAX_DECODED} tiles")
        size = item.body(b"ispe") or b""
        if len(size) >= 12:
            self._bound(*struct.unpack(">II", size[4:12]))
        data, extra = self._items.data(item), item.body(setup) or b""
        if item.kind == b"jpeg":
            data, extra = extra + data, b""
        elif item.kind == b"vvc1":
            extra = extra[4:]
        try:
            frames = _frames(name, data, extra, self._max_pixels)
        except (FFmpegError, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise MediaError(Reason.CORRUPT, f"{_name(item.kind)}: {words}") from error
        if not frames or frames[-1].is_corrupt:
            raise MediaError(Reason.CORRUPT, f"{_name(item.kind)}: part of the picture is missing")
        frame = frames[-1]
        self._bound(frame.width, frame.height)
        said = [item, *self._items.referring.get((b"dimg", item.id), [])]  # tiles: what their grid
        facts = self._facts(frame, next(filter(None, map(colors_of, said)), None), name)
        return frame, facts, next(filter(None, map(profile_of, said)), None)

    def _facts(self, frame: VideoFrame, colr: Tags | None, codec: str) -> MediaFacts:
        """Colours from `colr`, else from the stream. Untagged matrices are BT.601 (MIAF)."""
        tags = tags_of(frame, colr)
        layout = frame.format
        colors = read_colors(
            is_rgb=layout.is_rgb,
            is_gray=len(layout.components) < 3,
            is_full=False,
            coded_height=0,
            tags=tags,
        )
        if colors is None:
            raise MediaError(Reason.UNSUPPORTED, f"colour matrix {tags[0]} of ITU-T H.273")
        planes_of_rgb = tags[0] == 0 and not layout.is_rgb and layout.name.startswith("yuv444")
        return MediaFacts(
            container="heif",
            codec={"libdav1d": "av1"}.get(codec, codec),
            pixel_format=layout.name,
            bit_depth=max(component.bits for component in layout.components),
            coded_width=frame.width,
            coded_height=frame.height,
            color_matrix="rgb" if planes_of_rgb else colors.matrix,
            color_range=colors.range,
            color_transfer=colors.transfer,
            color_primaries=colors.primaries,
            header_num_frames=1,
            width=frame.width,
            height=frame.height,
        )

    def _bound(self, width: int, height: int) -> None:
        check_picture_size(width, height, self._max_pixels)


def _lay(canvas: Image.Image, layer: _Whole, x: int, y: int) -> None:
    """What of the layer lies on the canvas, over what is there."""
    height, width = layer.rgb.shape[:2]
    part = (max(0, -x), max(0, -y), min(width, canvas.width - x), min(height, canvas.height - y))
    if part[2] <= part[0] or part[3] <= part[1]:
        return
    shown = Image.fromarray(layer.rgb).convert("RGBA")
    if layer.alpha is not None:
        shown.putalpha(Image.fromarray(layer.alpha))
    canvas.alpha_composite(shown.crop(part), (max(0, x), max(0, y)))


def _fitting(tile: _Whole, rows: int, columns: int, width: int, height: int) -> _Whole:
    """Raises MediaError CORRUPT where tiles of this size leave a gap, or none is seen of some."""
    high, wide = tile.rgb.shape[:2]
    covers = high * rows >= height and wide * columns >= width
    if not covers or high * (rows - 1) >= height or wide * (columns - 1) >= width:
        raise MediaError(
            Reason.CORRUPT, f"{rows} x {columns} tiles of {wide} x {high} px for {width} x {height}"
        )
    return tile


def _frames(codec: str, data: bytes, extra: bytes, max_pixels: int) -> list[VideoFrame]:
    context: VideoCodecContext = av.CodecContext.create(codec, "r")  # type: ignore[assignment]
    if extra:
        context.extradata = extra
    context.thread_count = 1
    context.options = {"max_pixels": str(max_pixels)}
    return [*context.decode(Packet(data)), *context.decode(None)]


def _rgb(frame: VideoFrame, facts: MediaFacts, icc: bytes | None) -> Pixels:
    """uint8 [H, W, 3] by the contract; of a profile's primaries it is `to_srgb` that knows."""
    if icc and facts.color_transfer == "sdr":
        facts = replace(facts, color_primaries="bt709")
    rgb = frame_rgb(frame, facts)
    if facts.color_matrix == "rgb" and not frame.format.is_rgb:
        rgb = rgb[..., [2, 0, 1]]  # the identity matrix: the planes are G, B, R (H.273)
    return rgb


def _opacity(frame: VideoFrame, facts: MediaFacts) -> Pixels:
    """uint8 [H, W] of an auxiliary frame's luma."""
    limited = frame.color_range == ColorRange.MPEG and facts.codec == "av1"
    most = (1 << frame.format.components[0].bits) - 1
    black, white = (16 / 255 * most, 235 / 255 * most) if limited else (0, most)
    plane = plane_view(frame, 0).astype(np.float32)
    scaled = np.clip((plane - black) * (255 / (white - black)), 0, 255)
    return np.asarray(np.rint(scaled).astype(np.uint8))


def _over_white(rgb: Pixels, alpha: Pixels, premultiplied: bool) -> Pixels:
    out = np.empty_like(rgb)
    for top in range(0, len(rgb), BAND_ROWS):
        rows = slice(top, top + BAND_ROWS)
        colors, opacity = rgb[rows].astype(np.uint32), alpha[rows, :, None].astype(np.uint32)
        light = colors * 255 if premultiplied else colors * opacity
        out[rows] = np.minimum((light + 255 * (255 - opacity) + 127) // 255, 255)
    return out


def _name(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
