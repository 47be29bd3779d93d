"""A feed as PyTorch's loaders take it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.feed import Feed
from telecine.pipeline.feed.pack import Pack
from telecine.pipeline.feed.schedule import Schedule


class Packs(IterableDataset[Pack]):
    """For DataLoader(Packs(feed), batch_size=None), and torchdata's StatefulDataLoader.

    The feed reads on threads of its own, so no worker is needed; one may be there, more would each
    give all packs. Raises UsageError where there are more.
    """

    def __init__(self, feed: Feed | Schedule) -> None:
        self.feed = feed
        self._process = os.getpid()

    def __iter__(self) -> Iterator[Pack]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise UsageError(
                f"num_workers = {worker.num_workers}: a feed reads on threads of its own. "
                "Use num_workers=0, and more threads= where reading is too slow"
            )
        return iter(self._own())

    def state_dict(self) -> dict[str, Any]:
        return self._own().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._own().load_state_dict(state)

    def _own(self) -> Feed | Schedule:
        """Feed of the process that asks: a fork has none of its threads, so it gets a copy."""
        if self._process != os.getpid():
            self.feed, self._process = copy.deepcopy(self.feed), os.getpid()
        return self.feed
