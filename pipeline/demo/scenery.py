"""Draws the demo's moving pictures: hills under clouds, passing at different speeds, and balls.

Everything comes from a seed, so the same scene gives the same frames anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Color: TypeAlias = tuple[float, float, float]  # RGB, 0..1
Picture: TypeAlias = npt.NDArray[np.uint16]  # [H, W, 3] RGB, 0..65535: enough for 10-bit footage
Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """What stands before the camera, and how the camera moves over it."""

    seed: int
    zenith: Color
    horizon: Color
    ground: Color
    pan: float = 0.0  # frame widths per second, right > 0
    balls: int = 0


def draw(scene: Scene, width: int, height: int, fps: int, frames: int) -> Iterator[Picture]:
    """The frames of one shot: layers from far to near, the far ones passing more slowly."""
    rng = np.random.default_rng(scene.seed)
    travel = abs(scene.pan) * width / fps  # px per frame of the nearest layer
    reach = width + int(travel * frames) + 1
    sky = _sky(scene, rng, reach, height)
    ridges = [_Ridge.at_random(scene, rng, reach, height, depth) for depth in range(3)]
    balls = [_Ball.at_random(rng) for _ in range(scene.balls)]
    for index in range(frames):
        gone = travel * (index if scene.pan >= 0 else frames - 1 - index)
        left = int(0.2 * gone)
        canvas = sky[:, left : left + width].copy()
        for depth, ridge in enumerate(ridges):
            ridge.draw(canvas, int((0.4 + 0.3 * depth) * gone))
        for ball in balls:
            ball.draw(canvas, index / fps)
        yield canvas


def _sky(scene: Scene, rng: np.random.Generator, width: int, height: int) -> Picture:
    """A gradient from zenith to horizon, with clouds."""
    fall = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    zenith, horizon = np.array(scene.zenith, np.float32), np.array(scene.horizon, np.float32)
    clouds = 0.25 * (_texture(rng, width, height, height // 3) - 0.5)
    return _paint(zenith + (horizon - zenith) * fall + clouds[:, :, None])


@dataclass(frozen=True)
class _Ridge:
    """A range of hills, wider than the frame: nothing above row `top`, hill from row `foot` on."""

    paint: Picture
    mask: npt.NDArray[np.bool_]  # [H, W, 1]: where the hill stands
    top: int
    foot: int

    @classmethod
    def at_random(
        cls, scene: Scene, rng: np.random.Generator, width: int, height: int, depth: int
    ) -> _Ridge:
        """The nearer ridge (the greater `depth`) stands lower and behind less haze."""
        rise = 0.25 * (_texture(rng, width, 1, height // 2)[0] - 0.5)
        skyline = (height * (0.40 + 0.17 * depth + rise)).astype(np.int64)
        mask = np.arange(height)[:, None] >= skyline
        haze = 0.6 - 0.3 * depth
        color = np.array(scene.ground) * (1 - haze) + np.array(scene.horizon) * haze
        shade = 0.6 + 0.8 * _texture(rng, width, height, height // 12)
        paint = _paint(color.astype(np.float32) * shade[:, :, None])
        return cls(paint, mask[:, :, None], int(skyline.min()), int(skyline.max()))

    def draw(self, canvas: Picture, left: int) -> None:
        columns = slice(left, left + canvas.shape[1])
        band = slice(self.top, self.foot)  # only here is there something to choose
        np.copyto(canvas[band], self.paint[band, columns], where=self.mask[band, columns])
        canvas[self.foot :] = self.paint[self.foot :, columns]


@dataclass(frozen=True)
class _Ball:
    """A lit ball that bounces between the edges. Lengths in frame heights, time in seconds."""

    radius: float
    start: tuple[float, float]
    speed: tuple[float, float]
    color: Color

    @classmethod
    def at_random(cls, rng: np.random.Generator) -> _Ball:
        radius, x, y, dx, dy, red, green, blue = rng.random(8).tolist()
        return cls(
            radius=0.05 + 0.07 * radius,
            start=(x, y),
            speed=(0.15 + 0.4 * dx, 0.1 + 0.3 * dy),
            color=(red, green, 0.3 + 0.7 * blue),
        )

    def draw(self, canvas: Picture, seconds: float) -> None:
        height, width, _ = canvas.shape
        radius = self.radius * height
        x, y = (
            radius + _bounce((start + speed * seconds) * height, edge - 2 * radius)
            for start, speed, edge in zip(self.start, self.speed, (width, height), strict=True)
        )
        top, left, side = int(y - radius), int(x - radius), int(2 * radius) + 2
        box = canvas[top : top + side, left : left + side]
        rows = ((np.arange(box.shape[0]) + top - y) / radius)[:, None]
        columns = ((np.arange(box.shape[1]) + left - x) / radius)[None]
        light = 1 - 0.35 * np.hypot(rows + 0.4, columns + 0.4)  # from above and the left
        inside = rows**2 + columns**2 <= 1
        np.copyto(box, _paint(light[:, :, None] * self.color), where=inside[:, :, None])


def _bounce(distance: float, length: float) -> float:
    """Where a point that has gone `distance` is, between walls at 0 and `length`."""
    return length - abs(distance % (2 * length) - length)


def _texture(rng: np.random.Generator, width: int, height: int, cell: int) -> Floats:
    """Smooth noise [H, W] of about 0..1: three octaves, the coarsest `cell` px across."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in enumerate((4 / 7, 2 / 7, 1 / 7)):
        size = max(2, cell >> (2 * octave))
        coarse = rng.random((height // size + 2, width // size + 2), np.float32)
        stretched = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(stretched)
    return total


def _paint(rgb: npt.NDArray[np.floating[Any]]) -> Picture:
    painted: Picture = (np.clip(rgb, 0, 1) * 65535).astype(np.uint16)
    return painted
