"""Small scenes as footage: pictures and films of each orientation, with captions of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from telecine.pipeline.demo.scenery import Color, Scene, draw
from tests.support import inline
from tests.support.lab import Lab
from tests.support.movies import Movie, Planes, write_movie

COLOURS: tuple[tuple[str, Color], ...] = (
    ("red", (0.8, 0.2, 0.1)),
    ("green", (0.15, 0.6, 0.2)),
    ("blue", (0.15, 0.3, 0.85)),
    ("yellow", (0.9, 0.8, 0.2)),
    ("violet", (0.5, 0.2, 0.7)),
    ("white", (0.9, 0.9, 0.95)),
    ("black", (0.05, 0.05, 0.08)),
)
FRAMES = 30
SPEC = {"buckets": {"resolutions": [64]}}  # of pictures that are this small


def scene(seed: int) -> tuple[str, Scene]:
    """A caption and what it says, another for each of the first 210 seeds."""
    sky, ground = seed % 7, (seed // 7 + seed + 1) % 7
    (above, zenith), (below, earth) = COLOURS[sky], COLOURS[ground]
    _, horizon = COLOURS[(seed * 3 + 2) % 7]
    text = f"Number {seed}: {below} hills under a {above} sky"
    return text, Scene(seed, zenith, horizon, earth, pan=0.1 + 0.02 * (seed % 5), balls=seed % 4)


def still(lab: Lab, seed: int, size: tuple[int, int]) -> None:
    """A PNG of width × height px with its caption."""
    text, shown = scene(seed)
    (frame,) = draw(shown, *size, 15, 1)
    Image.fromarray((frame >> 8).astype(np.uint8)).save(lab.footage / f"s{seed}.png")
    lab.text(f"s{seed}", text)


def film(lab: Lab, seed: int, size: tuple[int, int]) -> None:
    """An MP4 of width × height px with its caption."""
    text, shown = scene(seed)
    frames = list(_planes(draw(shown, *size, 15, FRAMES)))
    write_movie(lab.footage / f"f{seed}.mp4", frames, Movie(rate=15))
    lab.text(f"f{seed}", text)


def _planes(frames: Iterator[np.ndarray]) -> Iterator[Planes]:
    """4:2:0 in BT.709, limited range."""
    for frame in frames:
        r, g, b = (frame[..., i].astype(np.float64) / 65535 for i in range(3))
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        chroma = ((b - y) / 1.8556, (r - y) / 1.5748)
        small = (c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in chroma)
        u, v = ((128 + 224 * c).round().astype(np.uint8) for c in small)
        yield (16 + 219 * y).round().astype(np.uint8), u, v


def dataset(lab: Lab) -> str:
    """Made of the footage; its folder"""
    inline.ingest(str(lab.footage), str(lab.dataset), SPEC)
    return str(lab.dataset)
