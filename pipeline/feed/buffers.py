"""Memory that packs are read into, used again once nobody looks at it any more.

Fresh memory has to be filled with zeros by the system first, which costs as much as reading.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def _unseen(buffers: list[Bytes]) -> int:
    """References that Python counts of a buffer that only the list has, in a loop as those below.

    Of the loop's and the call's own some versions count more than others.
    """
    for buffer in buffers:
        return sys.getrefcount(buffer)
    raise ValueError("no buffer was given")


_OURS = _unseen([np.empty(0, np.uint8)])


class Buffers:
    """Not for several threads: whoever asks for packs takes them."""

    def __init__(self) -> None:
        self._made: list[Bytes] = []

    def take(self, size: int) -> Bytes:
        """At least so many bytes; free again when no view of them is left."""
        for buffer in self._made:
            if len(buffer) >= size and sys.getrefcount(buffer) <= _OURS:
                return buffer
        in_use = []
        for buffer in self._made:
            if sys.getrefcount(buffer) > _OURS:
                in_use.append(buffer)
        made = np.empty(size, np.uint8)
        self._made = [*in_use, made]
        return made
