"""Shots of a still scene by a camera whose every move is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tests.support.pictures import leaves

Luma = npt.NDArray[np.float64]

FINE = 4  # points of the scene for a sample of the grid, across and down


@dataclass(frozen=True)
class Pose:
    """Where the scene's points lie in the picture: moved, enlarged and turned about its middle."""

    x: float = 0.0  # widths, right > 0
    y: float = 0.0  # heights, down > 0
    zoom: float = 0.0  # natural logarithm of the enlargement
    roll: float = 0.0  # degrees, counter-clockwise > 0, as seen


@cache
def scenery(seed: int = 0) -> Luma:
    """Three grids of 64 wide and high, in limited range."""
    return 16 + leaves(3 * 64 * FINE, 3 * 64 * FINE, seed, least=2.5 * FINE) * 219 / 255


def shot(
    poses: Sequence[Pose], size: tuple[int, int] = (64, 36), scene: Luma | None = None
) -> list[Luma]:
    """The luma samples, [height, width], of each pose: bilinear in a scene four times as fine."""
    return [_seen(pose, size, scenery() if scene is None else scene) for pose in poses]


def _seen(pose: Pose, size: tuple[int, int], scene: Luma) -> Luma:
    width, height = size
    across = np.arange(width) - (width - 1) / 2 - pose.x * width
    down = (np.arange(height) - (height - 1) / 2 - pose.y * height)[:, None]
    angle, scale = np.radians(pose.roll), FINE * np.exp(-pose.zoom)
    # Turning the picture counter-clockwise, with y down, takes (x, y) to (cx + sy, cy - sx).
    x = scale * (np.cos(angle) * across - np.sin(angle) * down) + (scene.shape[1] - 1) / 2
    y = scale * (np.sin(angle) * across + np.cos(angle) * down) + (scene.shape[0] - 1) / 2
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    u, v = x - left, y - top
    upper = scene[top, left] * (1 - u) + scene[top, left + 1] * u
    lower = scene[top + 1, left] * (1 - u) + scene[top + 1, left + 1] * u
    return np.asarray(upper * (1 - v) + lower * v)
