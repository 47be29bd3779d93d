"""An endless order of samples: one shuffle after the other, each sample once in each.

    round 0                                      │ round 1 ...
    shards in a random order, `spread` at a time │
    │ samples of 64 shards, mixed │ of the next 64, mixed │ ...

A few shards at a time are open, whose bytes lie together; a round of it costs a shuffle of the
shards' numbers, and each group one of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from telecine.pipeline.feed.plan.hashes import Numbers, key, shuffled


class Deck:
    def __init__(
        self,
        members: Numbers,
        shards: npt.NDArray[np.int32],
        name: Sequence[str | int],
        spread: int,
    ) -> None:
        """`shards` says of each member where it lies; those of one shard follow each other.

        `name` decides on the order, along with the members and the shards.
        """
        self.size = len(members)
        self._members = members
        self._name = name
        self._spread = spread
        new = np.flatnonzero(np.diff(shards, prepend=np.int32(-1)))
        self._starts = new.astype(np.int64)
        self._counts = np.diff(self._starts, append=self.size)
        self._round: tuple[int, Numbers, Numbers] | None = None  # number, shards, ends of groups
        self._group: tuple[int, int, Numbers] | None = None  # round, number, members

    def some(self, most: int) -> Numbers:
        """So many of the members at most, evenly over the shards."""
        return self._members[np.linspace(0, self.size - 1, min(self.size, most)).astype(np.int64)]

    def take(self, start: int, stop: int) -> Numbers:
        """Members at places `start` to before `stop` of the endless order."""
        taken = [np.empty(0, np.int64)]
        while start < stop:
            number, begin = divmod(start, self.size)
            end = min(self.size, begin + stop - start)
            taken.append(self._take(number, begin, end))
            start += end - begin
        return np.concatenate(taken)

    def _take(self, number: int, begin: int, end: int) -> Numbers:
        _, _, ends = self._shards(number)
        first, last = np.searchsorted(ends, [begin, end - 1], side="right")
        parts = []
        for group in range(int(first), int(last) + 1):
            offset = int(ends[group - 1]) if group else 0
            parts.append(self._mixed(number, group)[max(begin - offset, 0) : end - offset])
        return np.concatenate(parts)

    def _shards(self, number: int) -> tuple[int, Numbers, Numbers]:
        found = self._round  # threads may ask at once, each for a round of its own
        if found is None or found[0] != number:
            order = shuffled(key(*self._name, number, "shards"), np.arange(len(self._starts)))
            last = np.append(np.arange(self._spread, len(order), self._spread), len(order)) - 1
            self._round = found = (number, order, np.cumsum(self._counts[order])[last])
        return found

    def _mixed(self, number: int, group: int) -> Numbers:
        found = self._group
        if found is None or found[:2] != (number, group):
            _, order, _ = self._shards(number)
            places = [
                np.arange(self._starts[shard], self._starts[shard] + self._counts[shard])
                for shard in order[group * self._spread : (group + 1) * self._spread]
            ]
            mixed = shuffled(key(*self._name, number, "samples"), np.concatenate(places))
            self._group = found = (number, group, self._members[mixed])
        return found[2]
