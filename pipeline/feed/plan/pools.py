"""What is drawn from: a source by itself, or the clips of several renditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.plan.columns import Columns
from telecine.pipeline.feed.plan.hashes import Numbers, chance


class Pool(Protocol):
    """Members, counted from 0: what comes once an epoch."""

    @property
    def shards(self) -> npt.NDArray[np.int32]:
        """[n]: where each lies; those of one shard follow each other."""

    @property
    def images(self) -> npt.NDArray[np.bool_]: ...

    def pick(self, members: Numbers, epoch: int) -> tuple[Numbers, Numbers]:
        """Sources and rows of some members, [m, k] each: k samples that stay together."""


class Alone:
    """The samples of one source."""

    def __init__(self, source: int, columns: Columns) -> None:
        self._source = source
        self.shards = columns.shards
        self.images = columns.images

    def pick(self, members: Numbers, epoch: int) -> tuple[Numbers, Numbers]:
        rows = members[:, None]
        return np.full_like(rows, self._source), rows


class Clips:
    """The clips that several sources hold, each with its row in every one of them."""

    def __init__(self, columns: Sequence[Columns]) -> None:
        self._ids, self._rows = _joined([c.clip_ids() for c in columns])
        first = np.argmax(self._rows >= 0, axis=1)
        row = self._rows[np.arange(len(first)), first]
        self.shards = np.zeros(len(first), np.int32)
        self.images = np.zeros(len(first), np.bool_)
        base = 0  # shards of two sources are not the same one
        for source, of in enumerate(columns):
            here = first == source
            self.shards[here] = of.shards[row[here]] + base
            self.images[here] = of.images[row[here]]
            base += int(of.shards.max(initial=-1)) + 1

    def __len__(self) -> int:
        return len(self._rows)

    def _only(self, members: npt.NDArray[np.bool_]) -> None:
        self._ids, self._rows = self._ids.filter(pa.array(members)), self._rows[members]
        self.shards, self.images = self.shards[members], self.images[members]


class Drawn(Clips):
    """Each clip in one of its renditions, by weight; over the epochs in each as often as due."""

    def __init__(self, columns: Sequence[Columns], weights: Sequence[float], seed: int) -> None:
        super().__init__(columns)
        self._weights = np.asarray(weights, np.float64)
        self._seed = seed

    def pick(self, members: Numbers, epoch: int) -> tuple[Numbers, Numbers]:
        rows = self._rows[members]
        upto = np.cumsum(np.where(rows >= 0, self._weights, 0.0), axis=1)
        ids = self._ids.take(pa.array(members)).to_pylist()
        drawn = np.array([chance(self._seed, epoch, f"rendition\0{name}") for name in ids])
        source = (upto > (drawn * upto[:, -1])[:, None]).argmax(axis=1)[:, None]
        return source.astype(np.int64), np.take_along_axis(rows, source, axis=1)


class Paired(Clips):
    """Clips in all of their renditions at once; what one of the sources lacks is left out."""

    def __init__(self, columns: Sequence[Columns]) -> None:
        super().__init__(columns)
        whole: npt.NDArray[np.bool_] = np.all(self._rows >= 0, axis=1)
        if not whole.any():
            raise UsageError(
                f"no clip is in all of the {len(columns)} sources that renditions = 'paired' pairs "
                "by clip_id: name builds of one dataset"
            )
        self.unpaired = int(len(whole) - whole.sum())
        self._only(whole)

    def pick(self, members: Numbers, epoch: int) -> tuple[Numbers, Numbers]:
        rows = self._rows[members]
        return np.broadcast_to(np.arange(rows.shape[1]), rows.shape), rows


def _joined(ids: Sequence[pa.Array]) -> tuple[pa.Array, Numbers]:
    """All clip ids, in the order in which they first come, and their rows [n, sources], or -1."""
    known = pa.chunked_array([ids[0]])
    rows = np.full((len(ids[0]), len(ids)), -1, np.int64)
    rows[:, 0] = np.arange(len(ids[0]))
    for source, more in enumerate(ids[1:], 1):
        at = pc.index_in(more, value_set=known.combine_chunks())
        new = np.asarray(at.is_null())
        at = at.fill_null(0).to_numpy().astype(np.int64)
        at[new] = len(known) + np.arange(new.sum())
        known = pa.chunked_array([*known.chunks, more.filter(pa.array(new))])
        rows = np.vstack([rows, np.full((int(new.sum()), len(ids)), -1, np.int64)])
        rows[at, source] = np.arange(len(more))
    return known.combine_chunks(), rows
