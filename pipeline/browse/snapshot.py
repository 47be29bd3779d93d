"""The tables as they stood at one moment, asked by many requests at once.

    Watch ──a page is loaded: newer versions?──▶ Snapshot ── one in-memory DuckDB ─┬─▶ cursor
                                                    └─ values that take long       └─▶ cursor

Every cursor belongs to one request. They share a database and so its limit of memory. A snapshot
that nobody holds any more is closed by itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import duckdb

from telecine.infra.errors import TelecineError, UsageError
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import TABLES
from telecine.pipeline.catalog.columns import Column, columns

LOOK_SECONDS = 5.0  # between two looks for newer tables
LOOK_SHARE = 0.05  # of the time that may go into looking, where opening the tables is slow
QUERY_SECONDS = 120.0  # after which a question is given up
AT_ONCE = 4  # questions that pages ask; lookups for pictures are not counted
KEPT = 64  # values that took long

Value = TypeVar("Value")


class Once:
    """What was worked out once; whoever asks for it meanwhile waits. The last few are kept."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        with self._lock:
            found = self._known.get(key)
            mine = found is None
            future: Future[Value] = Future() if found is None else found
            self._known[key] = future
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        if mine:
            self._make(key, make, future)
        return future.result()

    def _make(self, key: Hashable, make: Callable[[], Value], future: Future[Value]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # those who wait get it too; the next one tries again
            with self._lock:
                if self._known.get(key) is future:
                    del self._known[key]
            future.set_exception(error)


class Snapshot:
    """One dataset at one version of every table. May be asked from many threads."""

    def __init__(self, dataset: Dataset, query_seconds: float = QUERY_SECONDS) -> None:
        self.dataset = dataset
        self._query_seconds = query_seconds
        self.spec = dataset.spec
        self.versions = {name: dataset.tables.version(name) for name in TABLES}
        self.taken = time.time()
        self.once = Once()
        self._con = connect(dataset.tables)
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()

    @contextlib.contextmanager
    def asking(self, *, hurry: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of one's own. In a hurry one waits for no other question.

        Raises UsageError where a question takes too long.
        """
        with contextlib.nullcontext() if hurry else self._turns:
            cursor = self._cursor()
            late = threading.Event()
            timer = threading.Timer(self._query_seconds, _give_up, (cursor, late))
            timer.daemon = True
            timer.start()
            try:
                yield cursor
            except duckdb.InterruptException as error:
                if not late.is_set():
                    raise
                raise UsageError(
                    f"the tables were asked for {self._query_seconds:.0f} s without an answer; "
                    "ask for less: another condition, or another column to sort by"
                ) from error
            finally:
                timer.cancel()
                cursor.close()

    @property
    def columns(self) -> list[Column]:
        """What an order may name, and a condition, but for those of a clip's place."""
        return self.once.get("columns", self._columns)

    def _columns(self) -> list[Column]:
        with self.asking(hurry=True) as con:
            return columns(con, self.spec)

    def interrupt(self) -> None:
        """End the questions under way."""
        for cursor in list(self._cursors):
            with contextlib.suppress(duckdb.Error):
                cursor.interrupt()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            cursor = self._con.cursor()
            self._cursors.add(cursor)
            return cast("duckdb.DuckDBPyConnection", cursor)


def _give_up(cursor: duckdb.DuckDBPyConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(duckdb.Error):
        cursor.interrupt()


class Watch:
    """The newest snapshot. A page that is loaded looks for a newer one, every few seconds."""

    def __init__(self, dataset: Dataset) -> None:
        self._snapshot = Snapshot(dataset)
        self._looking = threading.Lock()
        self._next = time.monotonic() + LOOK_SECONDS
        self.trouble = ""  # why the last look failed, or empty

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def look(self) -> Snapshot:
        """The newest there is, as of a few seconds ago; where it cannot be had, the last one."""
        if time.monotonic() >= self._next and self._looking.acquire(blocking=False):
            try:
                began = time.monotonic()
                self._take()
                pause = max(LOOK_SECONDS, (time.monotonic() - began) / LOOK_SHARE)
                self._next = time.monotonic() + pause
            finally:
                self._looking.release()
        return self._snapshot

    def _take(self) -> None:
        known = self._snapshot
        try:
            found = open_dataset(known.dataset.uri, known.dataset.storage)
            versions = {name: found.tables.version(name) for name in TABLES}
            if versions != known.versions or found.spec != known.spec:
                self._snapshot = Snapshot(found)
            else:
                known.taken = time.time()
            self.trouble = ""
        except TelecineError as error:
            self.trouble = str(error)
