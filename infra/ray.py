"""Ray: a cluster whose workers are processes, on this machine or on many (infra/cluster.py).

One item in flight per worker means that a dying worker costs one item (docs/decisions/0002), and
that its beats (infra/pulse.py) are the item's: a decode that makes no progress is ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Generic

import ray
import ray.exceptions

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
from telecine.infra.errors import ClusterError, Reason, TelecineError
from telecine.infra.pulse import beats

OBJECT_STORE_BYTES = 256 * 2**20  # rows, stills and receipts; pixels never travel
READY_SECONDS = 600  # with no worker at work; clusters may have to add a machine
CONNECT_SECONDS = 5
START_DEATHS = 3  # in a row, of workers that died before they were ready
ALIVE_SECONDS = 5.0  # between two looks at whether the cluster is still there
POLL_SECONDS = 1.0
PULSE_SECONDS = 10.0  # without a sign of life before a worker is asked for its beats


class RayCluster(Cluster):
    """Ray on this machine, or the cluster at `address` (or RAY_ADDRESS): reached on first use.

    Use as a context manager; a run that turns out to have nothing to do never starts Ray. Without
    an address, a Ray that this process has joined already is used, and goes on running afterwards.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._joins_any = address is None
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._workers = workers
        self._running = False
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def run(
        self,
        items: Iterable[Item],
        make_worker: MakeWorker[Item, Result],
        *,
        resources: Resources = ONE_CORE,
        stall_seconds: Callable[[Item], float] | None = None,
        attempts: int = 2,
        ready_seconds: float = READY_SECONDS,
    ) -> Iterator[Done[Item, Result] | Lost[Item]]:
        """As `Cluster.run`; `ready_seconds` bounds the wait for a worker while none is at work."""
        rest = iter(items)
        for first in rest:
            self._start()
            sized = self._sized(resources)
            pool = _Pool(
                chain([first], rest), make_worker, sized, stall_seconds, attempts, ready_seconds
            )
            # A run that is interrupted elsewhere leaves this generator to the garbage collector,
            # which may come after Ray's end.
            self._undo.callback(pool.close)
            try:
                yield from pool.run()
            except (ray.exceptions.RayError, ConnectionError) as error:
                raise ClusterError(f"the Ray cluster failed: {_first_line(error)}") from error

    def gpus(self) -> float:
        """GPUs that the cluster has now; asks it, and so starts it."""
        self._start()
        return float(ray.cluster_resources().get("GPU", 0.0))

    def size(self, resources: Resources) -> int:
        self._start()
        return pool_size(self._sized(resources))

    def _sized(self, resources: Resources) -> Resources:
        bounds = [n for n in (resources.workers, self._workers) if n]
        return replace(resources, workers=min(bounds, default=None))

    def _start(self) -> None:
        if self._running or (self._joins_any and ray.is_initialized()):
            return
        options: dict[str, Any] = {"address": self._address}
        if self._address is not None:
            _check_answers(self._address)
        else:
            _check_shared_memory()
            options = {
                "address": "local",
                "num_cpus": max(self._workers or 0, os.cpu_count() or 1),
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
            }
        try:
            with _no_usage_reports():
                ray.init(log_to_driver=False, configure_logging=False, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = (
                f"join the Ray cluster at {self._address}"
                if self._address
                else "start Ray on this machine"
            )
            raise ClusterError(
                f"could not {where}: {error}. Check the address (host:port of the head node) and, "
                "where the cluster asks for a token, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; or "
                "leave out --ray-address and RAY_ADDRESS to run on this machine alone."
            ) from error
        self._undo.callback(ray.shutdown)
        self._running = True


@contextlib.contextmanager
def _no_usage_reports() -> Iterator[None]:
    """Nothing here asks for a network. Ray's own processes inherit what is set as they start."""
    name = "RAY_USAGE_STATS_ENABLED"
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]


def _check_answers(address: str) -> None:
    """Ray itself tries an address at which nobody listens for minutes, and loudly."""
    named = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if named is None:  # "auto", or a mistake that Ray explains
        return
    try:
        socket.create_connection((named[1], int(named[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"nobody answers at the Ray address {address}: {error}. Give host:port of the head "
            "node, start the cluster, or leave out --ray-address and RAY_ADDRESS to run on this "
            "machine alone."
        ) from error


def _check_shared_memory() -> None:
    shared = Path("/dev/shm")
    if shared.is_dir() and (free := shutil.disk_usage(shared).free) < OBJECT_STORE_BYTES:
        raise ClusterError(
            f"Ray needs {OBJECT_STORE_BYTES // 2**20} MiB of shared memory and {shared} has "
            f"{free // 2**20} MiB free. In a container, start it with --shm-size=1g."
        )


def pool_size(resources: Resources) -> int:
    """How many such workers the cluster holds at once, at least one."""
    total = ray.cluster_resources()
    fits = [total.get("CPU", 0) / resources.cpus] if resources.cpus else []
    if resources.gpus:
        fits.append(total.get("GPU", 0) / resources.gpus)
    count = max(1, int(min(fits, default=1)))
    return min(count, resources.workers) if resources.workers else count


@dataclass(frozen=True)
class _Failure:
    """A worker raised what it should not."""

    reason: Reason
    detail: str


@ray.remote(concurrency_groups={"pulse": 1})
class _Host:
    """The process that hosts one worker. It tells its beats while it works."""

    def __init__(self, make_worker: MakeWorker[Any, Any]) -> None:
        self._make_worker = make_worker

    def ready(self) -> None:
        # Not in __init__: an error raised there comes back as text, without its type.
        self._work = self._make_worker()

    def work(self, item: Any) -> Any:
        try:
            return self._work(item)
        except TelecineError:
            raise
        except Exception as error:  # not every one can travel, nor can any bring its traceback
            return _Failure(*failure(error))

    @ray.method(concurrency_group="pulse")  # type: ignore[untyped-decorator]
    def beats(self) -> int:
        return beats()


@dataclass
class _Task(Generic[Item]):
    item: Item
    attempts_left: int


@dataclass
class _Slot(Generic[Item]):
    """One worker process and what it is doing: nothing, getting ready, or a task."""

    host: Any
    ref: Any
    started: float  # the process
    task: _Task[Item] | None = None
    beats: int = -1  # that the process was heard to make
    asked: Any = None  # for its beats
    still: float = 0.0  # seconds that the task was watched without one


class _Pool(Generic[Item, Result]):
    def __init__(
        self,
        items: Iterable[Item],
        make_worker: MakeWorker[Item, Result],
        resources: Resources,
        stall_seconds: Callable[[Item], float] | None,
        attempts: int,
        ready_seconds: float,
    ) -> None:
        self._items = iter(items)
        self._retries: deque[_Task[Item]] = deque()
        self._make_worker = make_worker
        self._resources = resources
        self._stall_seconds = stall_seconds
        self._attempts = attempts
        self._ready_seconds = ready_seconds
        self._slots: list[_Slot[Item]] = []
        self._start_deaths = 0
        self._seen_alive = self._watched = time.monotonic()

    def run(self) -> Iterator[Done[Item, Result] | Lost[Item]]:
        try:
            size = pool_size(self._resources)
            while len(self._slots) < size and (task := self._next()) is not None:
                self._retries.append(task)  # no more processes than items
                self._slots.append(self._start())
            while self._slots and self._has_work():
                yield from self._step()
        finally:
            self.close()

    def close(self) -> None:
        """End the workers. A second time does nothing."""
        while self._slots:
            ray.kill(self._slots.pop().host)

    def _start(self) -> _Slot[Item]:
        options = {"num_cpus": self._resources.cpus, "num_gpus": self._resources.gpus}
        host = _Host.options(**options).remote(self._make_worker)  # type: ignore[attr-defined]
        return _Slot(host, host.ready.remote(), time.monotonic())

    def _next(self) -> _Task[Item] | None:
        for item in self._items:
            return _Task(item, self._attempts)
        return None

    def _has_work(self) -> bool:
        """A worker that is still to start is not waited for where there is none."""
        if any(slot.task for slot in self._slots) or self._retries:
            return True
        if (task := self._next()) is not None:
            self._retries.append(task)
        return bool(self._retries)

    def _step(self) -> Iterator[Done[Item, Result] | Lost[Item]]:
        by_ref = {slot.ref: slot for slot in self._slots}
        finished, _ = ray.wait(list(by_ref), num_returns=1, timeout=POLL_SECONDS)
        for ref in finished:
            yield from self._finish(by_ref[ref])
        if self._stall_seconds is not None:
            yield from self._end_stalled(self._stall_seconds)
        self._check_starts()
        if time.monotonic() - self._seen_alive > ALIVE_SECONDS:
            self._check_alive()

    def _check_starts(self) -> None:
        """While others work, one that finds no place or hangs holds up nothing."""
        if any(slot.task for slot in self._slots):
            return
        if any(time.monotonic() - slot.started > self._ready_seconds for slot in self._slots):
            raise ClusterError(
                f"no worker with {self._resources.cpus} CPU and {self._resources.gpus} GPU started "
                f"within {self._ready_seconds:.0f} s. Check that the cluster has them free."
            )

    def _check_alive(self) -> None:
        """Ray waits for a cluster that is gone for ever, and says nothing."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if ray.get_runtime_context().get_node_id() not in alive:
            raise ClusterError(
                "Ray died on this machine (its raylet process is gone): was it killed, for memory "
                "perhaps? Run the same command again, which goes on where this one stopped."
            )
        self._seen_alive = time.monotonic()

    def _finish(self, slot: _Slot[Item]) -> Iterator[Done[Item, Result] | Lost[Item]]:
        task = slot.task
        try:
            result = ray.get(slot.ref)
        except TelecineError as error:
            # The store, the spec or the cluster: no other item would fare better.
            raise getattr(error, "cause", error) from None
        except ray.exceptions.RayTaskError as error:
            if task is None:
                raise ClusterError(f"a worker could not start: {error.cause}") from error
            yield from self._failed(task, *failure(error.cause))
            self._end(slot)
        except ray.exceptions.RayError as error:
            self._check_alive()  # an item is not to blame for the end of the cluster
            if task is not None:
                yield from self._failed(task, *_death(error))
            else:
                self._start_died(error)
            self._replace(slot)
        else:
            self._start_deaths = 0
            if task is not None and isinstance(result, _Failure):
                yield from self._failed(task, result.reason, result.detail)
                self._end(slot)
                return
            if task is not None:
                yield Done(task.item, result)
            self._assign(slot)

    def _start_died(self, error: ray.exceptions.RayError) -> None:
        self._start_deaths += 1
        if self._start_deaths == START_DEATHS:
            raise ClusterError(
                f"{START_DEATHS} workers in a row died as they started: {_first_line(error)}. "
                "Check the memory that is free, and the encoder or captioner they load."
            ) from error

    def _failed(self, task: _Task[Item], reason: Reason, detail: str) -> Iterator[Lost[Item]]:
        task.attempts_left -= 1
        if task.attempts_left > 0:
            self._retries.append(task)
        else:
            yield Lost(task.item, reason, detail)

    def _assign(self, slot: _Slot[Item]) -> None:
        """Give an idle worker its next item, or end it where there is none."""
        task = self._retries.popleft() if self._retries else self._next()
        if task is None:
            ray.kill(slot.host)
            self._slots.remove(slot)
            return
        slot.task, slot.still = task, 0.0
        slot.ref = slot.host.work.remote(task.item)

    def _end(self, slot: _Slot[Item]) -> None:
        """A worker that failed may be in no state to go on: another takes its place."""
        ray.kill(slot.host)
        self._replace(slot)

    def _replace(self, slot: _Slot[Item]) -> None:
        """A dead worker's place is filled while there is work that nobody has begun."""
        self._slots.remove(slot)
        if not self._retries and (task := self._next()) is not None:
            self._retries.append(task)
        if self._retries:
            self._slots.append(self._start())

    def _end_stalled(self, stall_seconds: Callable[[Item], float]) -> Iterator[Lost[Item]]:
        """Ends the workers that do not get on."""
        self._listen()
        for slot in list(self._slots):
            if slot.task is None:
                continue
            limit = stall_seconds(slot.task.item)
            if slot.still > limit and not _is_ready(slot.ref):
                self._end(slot)
                yield Lost(slot.task.item, Reason.TIMEOUT, f"no progress for {limit:.0f} s")
            elif slot.asked is None and slot.still > min(PULSE_SECONDS, limit / 4):
                slot.asked = slot.host.beats.remote()

    def _listen(self) -> None:
        """Takes in the beats that were asked for. Who holds the interpreter gives no answer.

        Time in which nobody looked (the caller was busy, the machine slept) counts for a moment.
        """
        now = time.monotonic()
        watched = min(now - self._watched, 2 * POLL_SECONDS)
        self._watched = now
        for slot in self._slots:
            slot.still += watched
            if slot.asked is None or not _is_ready(slot.asked):
                continue
            with contextlib.suppress(ray.exceptions.RayError):  # its task will tell
                heard = ray.get(slot.asked)
                slot.still = slot.still if heard == slot.beats else 0.0
                slot.beats = heard
            slot.asked = None


def _is_ready(ref: Any) -> bool:
    return bool(ray.wait([ref], timeout=0)[0])


def _death(error: ray.exceptions.RayError) -> tuple[Reason, str]:
    text = str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in text:
        return Reason.OUT_OF_MEMORY, "its worker process was killed for memory"
    return Reason.CRASHED, f"its worker process died: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
