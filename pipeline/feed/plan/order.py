"""The order of an epoch: a pure function of the sources' digests, the options and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telecine.pipeline.feed.plan.steps import START, Position, Renditions, Source, Split, Step


@dataclass(frozen=True)
class OrderOptions:
    """All that decides on the order beside the sources. None of it is about ranks or threads."""

    tokens: int = 65_536  # that a pack holds at most
    packs_per_step: int = 8
    seed: int = 0
    split: Split = "prefix"  # what becomes of clips longer than a pack
    image_share: float | None = None  # of the samples; None: as many as there are
    renditions: Renditions = "apart"  # "drawn": a clip in one of its builds; "paired": in all
    window: int = 4_096  # samples that are packed together, at least
    spread: int = 64  # shards whose samples are mixed
    width: int = 3_072  # of the model, for the cost (cost.py)


class Order:
    """Steps of packs over one source or several."""

    def __init__(self, sources: Sequence[Source], options: OrderOptions) -> None:
        self.sources = tuple(sources)
        self.options = options

    def steps(self, start: Position = START) -> Iterator[Step]:
        """From a position to the end of its epoch; the last step's `after` begins the next."""
        raise NotImplementedError

    def state(self, at: Position) -> dict[str, Any]:
        """A position and what the order was made of: numbers and words, fit for JSON."""
        raise NotImplementedError

    def position(self, state: Mapping[str, Any]) -> Position:
        """Of a state. Raises UsageError where it is another order's, and says what differs."""
        raise NotImplementedError
