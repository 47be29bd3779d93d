"""Which feed is on at which step: curricula, such as draft → mid → final over one dataset."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from telecine.infra.errors import UsageError


class Stages:
    """By the steps at which they begin: (0, 20_000) is a stage of 20,000 steps and an endless one.

    A state is the step alone: each stage's feed has its own position, and a feed that comes in
    two stages goes on in the second where it stopped in the first.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        """Raises UsageError unless they begin at 0 and rise."""
        if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise UsageError(
                f"stages begin at steps {list(starts)}: the first begins at 0, each other one "
                "later than the one before"
            )
        self._starts = tuple(starts)

    def at(self, step: int) -> int:
        """Number of the stage that a step, counted from 0, is in."""
        return bisect_right(self._starts, step) - 1

    def left(self, step: int) -> int | None:
        """Steps of the stage from this one on, itself counted; None: it is the last stage."""
        after = self.at(step) + 1
        return self._starts[after] - step if after < len(self._starts) else None
