"""What finds shots with a network: small pictures in, its opinion of each of them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 27, 48  # px of the pictures

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Opinion:
    """Of each frame, 0..1: float32 [n] each."""

    cut: npt.NDArray[np.float32]  # it is the last before a hard cut, or amid a gradual transition
    transition: npt.NDArray[np.float32]  # it lies in a transition, hard or gradual


class ShotNetwork(Protocol):
    def judge(self, frames: Frames) -> Opinion:
        """What each of the frames is; uint8 RGB [n, 27, 48, 3], n at least 1.

        The first and last stand for what would come before and after them.
        """
