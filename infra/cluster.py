"""A cluster: a pool of workers that each take one item at a time, and may die.

    items ──▶ worker ──▶ Done(item, result)
                  ╳ ───▶ one retry, on a fresh worker ──▶ Lost(item, reason, detail)

What a recipe asks of it, whatever it is made of: processes of Ray (infra/ray.py), or none, all work
being done in the caller's own process (infra/inline.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from telecine.infra.errors import Reason

Item = TypeVar("Item")
Result = TypeVar("Result")
MakeWorker: TypeAlias = Callable[[], Callable[[Item], Result]]


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Result]):
    item: Item
    result: Result


@dataclass(frozen=True, slots=True)
class Lost(Generic[Item]):
    """The item's worker died or failed, and so did the one that tried again; or it hung."""

    item: Item
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Resources:
    """What one worker needs, and how many there are at most (None: as many as fit)."""

    cpus: float = 1
    gpus: float = 0
    workers: int | None = None


ONE_CORE = Resources()
# Without a beat before a worker is ended: a store that breaks off may be asked again and again for
# minutes (infra/store/s3.py).
STALL_SECONDS = 600.0


class Cluster(Protocol):
    """Whoever opened it closes it; what is asked of it here starts it where it is not running."""

    def run(
        self,
        items: Iterable[Item],
        make_worker: MakeWorker[Item, Result],
        *,
        resources: Resources = ONE_CORE,
        stall_seconds: Callable[[Item], float] | None = None,
        attempts: int = 2,
    ) -> Iterator[Done[Item, Result] | Lost[Item]]:
        """Each item through one worker of a pool; outcomes in the order in which they end.

        `make_worker` is called once in each worker (it loads the model). A TelecineError in a
        worker ends the run; any other exception (INTERNAL, with its traceback), or the worker's
        death, costs the item an attempt, and the next one is a fresh worker's. An item whose worker
        does not beat (infra/pulse.py) for `stall_seconds` is lost at once: TIMEOUT.

        Raises ClusterError where no worker can start or the cluster itself fails.
        """
        ...

    def gpus(self) -> float:
        """GPUs that there are for workers."""
        ...

    def size(self, resources: Resources) -> int:
        """How many workers that need so much run beside each other, at least one."""
        ...


def run_batches(
    cluster: Cluster,
    batches: Iterable[list[Item]],
    make_worker: MakeWorker[list[Item], Result],
    *,
    resources: Resources = ONE_CORE,
    stall_seconds: Callable[[list[Item]], float] | None = None,
) -> Iterator[Done[list[Item], Result] | Lost[list[Item]]]:
    """`Cluster.run` over batches, where one that is lost is tried again item by item: only the item
    that kills its worker is lost.
    """
    suspects: list[Item] = []

    def run(todo: Iterable[list[Item]]) -> Iterator[Done[list[Item], Result] | Lost[list[Item]]]:
        return cluster.run(todo, make_worker, resources=resources, stall_seconds=stall_seconds)

    for end in run(batches):
        if isinstance(end, Lost) and len(end.item) > 1:  # which of them was it?
            suspects.extend(end.item)
        else:
            yield end
    yield from run([item] for item in suspects)
