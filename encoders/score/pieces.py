"""A text in pieces that a model can read at once. Pure.

"It is day. A dog runs by. Two men talk."  ─▶  "It is day. A dog runs by."  "Two men talk."
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from telecine.encoders.caption.guards import SENTENCES

Cut: TypeAlias = tuple[Callable[[str], list[str]], str]  # and what joins its parts again


def pieces(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Each holds as many sentences as fit; none of an empty text.

    A sentence that does not fit is cut between words, and such a word in halves.
    """
    return _packed(" ".join(text.split()), fits, _CUTS)


def _packed(text: str, fits: Callable[[str], bool], cuts: Sequence[Cut]) -> list[str]:
    if len(text) < 2 or fits(text):
        return [text] if text else []
    (split, joint), *finer = cuts
    packed = [""]
    for unit in split(text):
        longer = f"{packed[-1]}{joint}{unit}" if packed[-1] else unit
        if fits(longer):
            packed[-1] = longer
        else:
            packed += _packed(unit, fits, finer or cuts)
    return [piece for piece in packed if piece]


def _halves(word: str) -> list[str]:
    return [word[: len(word) // 2], word[len(word) // 2 :]]


_CUTS: tuple[Cut, ...] = (
    (SENTENCES.split, " "),
    (str.split, " "),
    (_halves, ""),
)
