"""Renders the small footage set of `telecine demo`: one file for each thing that footage can be.

The same code leaves the same bytes, and a file that is already there with those bytes is not
touched, so a second demo finds nothing new to ingest.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image

from telecine.pipeline.demo.scenery import Picture, Scene, draw


@dataclass(frozen=True)
class Shot:
    scene: Scene
    seconds: float


@dataclass(frozen=True)
class Film:
    """One video file. Its size is the displayed one; `rotation` turns the coded picture."""

    name: str
    width: int
    height: int
    fps: int
    shots: tuple[Shot, ...]
    ten_bit: bool = False
    rotation: int = 0  # degrees counter-clockwise that a player turns it: 0 or 90

    @property
    def coded_size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.rotation else (self.width, self.height)

    @property
    def pixel_format(self) -> str:
        return "yuv420p10le" if self.ten_bit else "yuv420p"


NOON = Scene(1, (0.25, 0.50, 0.85), (0.80, 0.88, 0.95), (0.30, 0.55, 0.20), pan=0.15)
DUSK = Scene(2, (0.10, 0.08, 0.30), (0.95, 0.45, 0.25), (0.25, 0.12, 0.20), pan=-0.10)
DESERT = Scene(3, (0.45, 0.65, 0.80), (0.95, 0.85, 0.65), (0.80, 0.55, 0.30), balls=3)
NIGHT = Scene(4, (0.02, 0.03, 0.10), (0.12, 0.18, 0.30), (0.05, 0.08, 0.12), balls=4)
SNOW = Scene(5, (0.60, 0.70, 0.80), (0.90, 0.93, 0.97), (0.75, 0.80, 0.88), pan=0.20, balls=1)
MARSH = Scene(6, (0.50, 0.55, 0.45), (0.75, 0.75, 0.55), (0.20, 0.35, 0.25), pan=-0.25)

FILMS = (
    Film("landscape.mp4", 1280, 720, 24, (Shot(NOON, 2.5), Shot(DUSK, 2), Shot(DESERT, 1.5))),
    Film("portrait.mp4", 720, 1280, 30, (Shot(MARSH, 2), Shot(SNOW, 1.5))),
    Film("square with caption.mp4", 480, 480, 30, (Shot(DESERT, 3),)),
    Film("subtitled.mp4", 640, 360, 30, (Shot(NIGHT, 2), Shot(NOON, 2), Shot(MARSH, 2))),
    Film("ten-bit.mp4", 640, 360, 24, (Shot(DUSK, 2.5),), ten_bit=True),
    Film("rotated.mp4", 360, 640, 30, (Shot(SNOW, 2.5),), rotation=90),
)

CAPTION = "Three balls bounce over desert dunes under a pale blue sky.\n"
SUBTITLES = """\
1
00:00:00,000 --> 00:00:02,000
Four balls drift through the night.

2
00:00:02,000 --> 00:00:04,000
The camera passes green hills at noon.

3
00:00:04,000 --> 00:00:06,000
A marsh slides by under a grey-green sky.
"""

ORIENTATION = 0x0112  # EXIF tag
STORED_TURNED = 6  # EXIF orientation: turn it clockwise by a quarter to display it


def render(folder: Path) -> list[Path]:
    """Every file of the demo set under `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, data in _contents():
        files.append(folder / name)
        _keep(files[-1], data)
    return files


def _contents() -> Iterator[tuple[str, bytes]]:
    for film in FILMS:
        data = _encode(film)
        yield film.name, data
        if film is FILMS[0]:
            # An MP4's index is written last, so half of the file cannot be played.
            yield "broken.mp4", data[: len(data) // 2]
    yield "square with caption.txt", CAPTION.encode()
    yield "subtitled.srt", SUBTITLES.encode()
    yield "photo.jpg", _photo()
    yield "picture.png", _picture()


def _keep(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and only where it would change."""
    if path.exists() and path.read_bytes() == data:
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def _photo() -> bytes:
    """A 640×960 portrait stored lying on its side, as cameras do."""
    upright = _still(SNOW, 640, 960)
    exif = Image.Exif()
    exif[ORIENTATION] = STORED_TURNED
    out = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def _picture() -> bytes:
    out = io.BytesIO()
    _still(DUSK, 960, 640).save(out, "PNG")
    return out.getvalue()


def _still(scene: Scene, width: int, height: int) -> Image.Image:
    return Image.fromarray(_eight_bits(next(draw(scene, width, height, 1, 1))))


def _encode(film: Film) -> bytes:
    """An MP4, tagged BT.709 limited range. One thread, so that every machine writes the same."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "crf": "23"}
        if film.ten_bit:
            options["x265-params"] = "log-level=none:pools=none:frame-threads=1"
        stream = container.add_stream(
            "libx265" if film.ten_bit else "libx264", rate=film.fps, options=options
        )
        stream.width, stream.height = film.coded_size
        stream.pix_fmt = film.pixel_format
        stream.set_display_rotation(film.rotation)
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        for shot in film.shots:
            frames = round(shot.seconds * film.fps)
            for picture in draw(shot.scene, film.width, film.height, film.fps, frames):
                container.mux(stream.encode(_frame(film, picture)))
        container.mux(stream.encode())
    return out.getvalue()


def _frame(film: Film, picture: Picture) -> av.VideoFrame:
    stored = np.ascontiguousarray(np.rot90(picture, -film.rotation // 90))
    if film.ten_bit:
        rgb = av.VideoFrame.from_ndarray(stored, format="rgb48le")
    else:
        rgb = av.VideoFrame.from_ndarray(_eight_bits(stored), format="rgb24")
    return rgb.reformat(
        format=film.pixel_format,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )


def _eight_bits(picture: Picture) -> npt.NDArray[np.uint8]:
    return (picture >> 8).astype(np.uint8)
