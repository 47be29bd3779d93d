"""Chance by hash: the same on every machine, and under every version of NumPy.

NumPy's own generators may give other numbers in another version (NEP 19); an order that is to be
resumed after an upgrade may not.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

_GOLDEN, _FIRST, _SECOND = (
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_GOLDEN_RATIO = 0.6180339887498949


def key(*parts: str | int) -> int:
    """64 bits that stand for some words and numbers."""
    said = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")


def mixed(under: int, numbers: Numbers) -> npt.NDArray[np.uint64]:
    """A hash of each number under a key: SplitMix64 (Steele, Lea and Flood 2014), twice."""
    start = np.uint64(under)
    return _finished(_finished(numbers.astype(np.uint64) * _GOLDEN + start) + start)


def _finished(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def shuffled(under: int, numbers: Numbers) -> Numbers:
    """The numbers, which are unlike each other, in an order that depends on the key alone."""
    return numbers[np.argsort(mixed(under, numbers), kind="stable")]


def chance(seed: int, epoch: int, word: str) -> float:
    """From 0 to before 1: even over words, and over the epochs of each word as well.

    A word's epochs step by the golden ratio, so that any few in a row are spread evenly: what has
    a share of 0.3 happens to it 3 times in 10 epochs, or 2 or 4 times, never 0 or 8.
    """
    return (key(seed, word) / 2**64 + epoch * _GOLDEN_RATIO) % 1.0


def text_dropped(seed: int, epoch: int, clip_id: str, share: float) -> bool:
    """Whether a sample's text is left out this time, as classifier-free guidance asks for."""
    return share > 0 and chance(seed, epoch, f"text\0{clip_id}") < share
