"""Long clips in windows: which stills each window shows, and one text from all of theirs. Pure.

clip     0 s ────────────── 12.5 s ────────────── 25 s     window_seconds = 10: three of 8.3 s
stills   │   │   │   │   │   │   │   │   │   │   │   │
views    [ 0 .. 8.3     ][ 8.3 .. 16.7  ][ 16.7 .. 25  ]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from telecine.encoders.caption.interface import Window

Stills: TypeAlias = tuple[tuple[float, bytes], ...]  # (seconds since the clip's first frame, JPEG)


@dataclass(frozen=True, slots=True)
class View:
    """What a model is shown at once: a window of a clip, or no still where it is to join texts."""

    prompt: str
    stills: Stills = ()  # in order of time
    start_seconds: float = 0.0  # of the window, since the clip's first frame
    end_seconds: float = 0.0  # excluded; equals the start for an image


def views(
    stills: Stills, duration_seconds: float, *, prompt: str, frames: int, window_seconds: float
) -> list[View]:
    """The windows of a clip, equally long and no longer than `window_seconds`.

    Of each up to `frames` stills, evenly spread. A window that no still lies in belongs to the one
    before it, or after it at the beginning. Without stills there is no view.
    """
    count = max(1, math.ceil(duration_seconds / window_seconds - 1e-9))
    length = duration_seconds / count
    inside: list[list[tuple[float, bytes]]] = [[] for _ in range(count)]
    for still in stills:
        place = int(still[0] / length) if length else 0
        inside[min(place, count - 1)].append(still)
    held = [number for number, some in enumerate(inside) if some]
    if not held:
        return []
    starts = [0.0, *(number * length for number in held[1:])]
    ends = [*starts[1:], duration_seconds]
    return [
        View(prompt, _spread(inside[number], frames), start, end)
        for number, start, end in zip(held, starts, ends, strict=True)
    ]


def _spread(stills: Sequence[tuple[float, bytes]], count: int) -> Stills:
    """The middle one of each of `count` equal parts, or all where there are fewer."""
    of = len(stills)
    if of <= count:
        return tuple(stills)
    return tuple(stills[(2 * i + 1) * of // (2 * count)] for i in range(count))


def joined(texts: Sequence[str]) -> str:
    """The texts one after the other as sentences; what says the same as the one before, once."""
    told: list[str] = []
    for text in texts:
        sentence = text if text[-1:] in _ENDS else f"{text}."
        if text and sentence != (told[-1] if told else None):
            told.append(sentence)
    return " ".join(told)


_ENDS = (".", "!", "?", "…", "。", "！", "？", '"', "”", "」")


def merge_prompt(prompt: str, windows: Sequence[Window]) -> str:
    """The prompt, and under it each window's text with its span."""
    lines = (f"[{w.start_seconds:.1f} s to {w.end_seconds:.1f} s] {w.text}" for w in windows)
    return "\n".join([prompt, "", *lines])
