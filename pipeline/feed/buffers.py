"""Memory that packs are read into, used again once nobody looks at it any more.

Fresh memory has to be filled with zeros by the system first, which costs as much as reading.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_OURS = 3  # references: the list's, the loop's, and the call's that counts them


class Buffers:
    """Not for several threads: whoever asks for packs takes them."""

    def __init__(self) -> None:
        self._made: list[Bytes] = []

    def take(self, size: int) -> Bytes:
        """At least so many bytes; free again when no view of them is left."""
        for buffer in self._made:
            if len(buffer) >= size and sys.getrefcount(buffer) <= _OURS:
                return buffer
        self._made = [b for b in self._made if sys.getrefcount(b) > _OURS]
        made = np.empty(size, np.uint8)
        self._made.append(made)
        return made
