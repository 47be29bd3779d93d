"""Packs → steps of packs that cost alike.

All ranks wait for the slowest pack of a step, so a step gets packs that are next to each other by
cost. Packs that fill no step go on into the next window: the cheapest of the window's own, so that
how many there are says which.

    window's packs, the dearest first   │ ████ │ ▆▆▆▆ │ ▅▅▅▅ │ ▃▃▃▃ │ ▂▂ → next window
    its steps                           │ ▅▅▅▅ │ ████ │ ▃▃▃▃ │ ▆▆▆▆ │      in a random order
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from telecine.pipeline.feed.plan.hashes import shuffled
from telecine.pipeline.feed.plan.split import Fitted
from telecine.pipeline.feed.plan.steps import PackPlan


@dataclass(frozen=True, eq=False)
class Packed:
    """A window's packs, the dearest first."""

    fitted: Fitted
    packs: list[PackPlan]
    tokens: list[int]  # of each pack
    costs: list[float]


class Dealt(NamedTuple):
    """A pack's place: which of a window's it is."""

    window: Packed
    number: int
    repeated: bool = False

    @property
    def cost(self) -> float:
        return self.window.costs[self.number]


def own(window: Packed, cheapest: int | None = None) -> list[Dealt]:
    """A window's packs, or so many of the cheapest; the dearest first."""
    total = len(window.packs)
    first = 0 if cheapest is None else total - cheapest
    return [Dealt(window, number) for number in range(first, total)]


def dealt(
    window: Packed, carried: Sequence[Dealt], packs_per_step: int, under: int
) -> tuple[list[list[Dealt]], list[Dealt]]:
    """Steps of a window, in a random order by the key, and what is carried into the next."""
    here = own(window)
    whole, rest = divmod(len(carried) + len(here), packs_per_step)
    if not whole:
        return [], [*carried, *here]
    ready, left = here[: len(here) - rest], here[len(here) - rest :]
    packs = sorted([*carried, *ready], key=lambda pack: -pack.cost)
    steps = [packs[i * packs_per_step :][:packs_per_step] for i in range(whole)]
    return [steps[i] for i in shuffled(under, np.arange(whole)).tolist()], left


def filled(
    left: Sequence[Dealt], before: Sequence[Sequence[Dealt]], packs_per_step: int
) -> list[Dealt]:
    """The last step of an epoch: what is left, and again the cheapest packs of its last window."""
    packs = sorted((pack for step in before for pack in step), key=lambda pack: pack.cost)
    again = islice(cycle(packs or left), packs_per_step - len(left))
    repeats = [Dealt(pack.window, pack.number, repeated=True) for pack in again]
    return sorted([*repeats, *left], key=lambda pack: -pack.cost)
