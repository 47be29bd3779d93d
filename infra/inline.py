"""No cluster: every worker in the caller's own process, one item after the other.

For tests, debugging and notebooks: nothing is started, a breakpoint in a worker stops where it is
set, and Ray need not be installed. What it cannot do is outlive a worker: one that dies takes the
process with it, and one that hangs is not ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from telecine.infra.bugs import failure
from telecine.infra.cluster import (
    ONE_CORE,
    Cluster,
    Done,
    Item,
    Lost,
    MakeWorker,
    Resources,
    Result,
)
from telecine.infra.errors import ClusterError, TelecineError

_log = logging.getLogger("telecine.cluster")


class InlineCluster(Cluster):
    """Has one worker, made anew after it failed, and GPUs only for those told to take one."""

    def __enter__(self) -> InlineCluster:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(
        self,
        items: Iterable[Item],
        make_worker: MakeWorker[Item, Result],
        *,
        resources: Resources = ONE_CORE,
        stall_seconds: Callable[[Item], float] | None = None,
        attempts: int = 2,
    ) -> Iterator[Done[Item, Result] | Lost[Item]]:
        worker: Callable[[Item], Result] | None = None
        for item in items:
            for left in reversed(range(attempts)):
                worker = worker or _started(make_worker)
                end = _tried(item, worker, last=not left)
                if isinstance(end, Done):
                    break
                worker = None  # as its process would be gone
            yield end

    def gpus(self) -> float:
        return 0.0

    def size(self, resources: Resources) -> int:
        return 1


def _started(make_worker: MakeWorker[Item, Result]) -> Callable[[Item], Result]:
    try:
        return make_worker()
    except TelecineError:
        raise
    except Exception as error:  # of which a worker's process would die
        raise ClusterError(f"a worker could not start: {error!r}") from error


def _tried(
    item: Item, worker: Callable[[Item], Result], *, last: bool
) -> Done[Item, Result] | Lost[Item]:
    try:
        return Done(item, worker(item))
    except TelecineError:
        raise  # the store, the spec: no other item would fare better
    except Exception as error:  # of which a worker's process would die
        if last:
            _log.warning("a worker failed: %r", error, exc_info=error)
        return Lost(item, *failure(error))
