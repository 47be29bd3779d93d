"""Frames and stills that are generated, each time the same, for tests of models."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from telecine.encoders.frames import ColorMap, FrameBlock, Pixels

# Limited-range YCbCr to RGB, ITU-R BT.709 and BT.601; and planes that are RGB already.
BT709 = ColorMap(
    (1.1643836, 0.0, 1.7927411, 1.1643836, -0.2132486, -0.5329093, 1.1643836, 2.1124018, 0.0),
    (-248.10100, 76.878084, -289.01757),
)
BT601 = ColorMap(
    (1.1643836, 0.0, 1.5960268, 1.1643836, -0.3917623, -0.8129676, 1.1643836, 2.0172321, 0.0),
    (-222.92157, 135.57528, -276.83585),
)
RGB = ColorMap((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def cut(clip: FrameBlock, sizes: Iterator[int] | Sequence[int]) -> Iterator[FrameBlock]:
    """The clip in blocks of these sizes."""
    start = 0
    for size in sizes:
        y, cb, cr = (plane[start : start + size] for plane in clip.planes)
        yield FrameBlock((y, cb, cr), clip.colors)
        start += size


def head(clip: FrameBlock, frames: int) -> FrameBlock:
    return next(cut(clip, [frames]))


def smooth(
    frames: int,
    height: int,
    width: int,
    step: tuple[int, int] = (2, 2),
    colors: ColorMap = BT709,
    seed: int = 0,
) -> FrameBlock:
    """Drifting waves with some grain: inside the RGB gamut, coefficients of every kind."""
    random = np.random.default_rng(seed)

    def plane(height: int, width: int, centre: float, swing: float) -> Pixels:
        t, y, x = np.ogrid[:frames, :height, :width]
        down, across, speed = random.uniform(0.02, 0.25, 3)
        waves = np.sin(down * y + speed * t) * np.cos(across * x - 2 * speed * t)
        grain = random.uniform(-0.3, 0.3, (frames, height, width))
        return np.asarray(np.rint(centre + swing * (waves + grain)), np.uint8)

    sx, sy = step
    chroma = (height // sy, width // sx)
    planes = (
        plane(height, width, 120, 40),
        plane(*chroma, 128, 15),
        plane(*chroma, 124, 15),
    )
    return FrameBlock(planes, colors)


def noise(frames: int, height: int, width: int, seed: int = 0) -> FrameBlock:
    """Any bytes at all, 4:2:0, mostly outside the RGB gamut."""
    random = np.random.default_rng(seed)
    shapes = [(frames, height, width), *[(frames, height // 2, width // 2)] * 2]
    y, cb, cr = (random.integers(0, 256, shape, np.uint8) for shape in shapes)
    return FrameBlock((y, cb, cr), BT709)


def jpeg(
    seed: int, width: int = 64, height: int = 48, mode: str = "RGB", quality: int = 90
) -> bytes:
    """A picture of a few random colors, as a still is stored."""
    colors = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return encoded(Image.fromarray(colors).resize((width, height)).convert(mode), quality)


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()
