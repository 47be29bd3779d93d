"""Small JPEGs by clip and position.

A table of stills has no index: to find one still is to read the column of clip_ids. So whoever
waits meanwhile is served by the next question together, and a page of clips is asked for at once,
before the browser asks for its pictures one by one.

    page ── expect(24 clips) ──┐
    browser ── get(clip, 0) ───┴──▶ one question at a time for all that wait ──▶ cache

At ten million clips the table is some tens of thousands of files, and to open each takes longer
than anybody waits. A source's stills are committed together, so a short list, learnt once in the
background, leads to one file for each:

    hash of source_id   ... 0x2f.. 0x31.. 0x31.. 0x77.. ...      in order: found by bisection
    number of file      ...     12      3     40      3 ...
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt

from telecine.infra.text import literals
from telecine.pipeline.browse.snapshot import Snapshot

FEW = 64  # files that are as well opened all
AT_ONCE = 500  # files that are learnt with one question


class StillFiles:
    """Kept from one snapshot to the next: a file never changes, and only new ones are read."""

    def __init__(self, few: int = FEW) -> None:
        self._few = few
        self._lock = threading.Lock()
        self._learning = threading.Lock()
        self._learner: threading.Thread | None = None
        self._paths: list[str] = []
        self._sources: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._numbers: npt.NDArray[np.uint32] = np.empty(0, np.uint32)
        self._stopped = False

    def of(self, snapshot: Snapshot, clip_ids: Iterable[str]) -> list[str] | None:
        """Files that hold all stills of these clips; None where every file may, for now."""
        files = snapshot.dataset.tables.files("stills")
        if len(files) <= self._few:
            return None
        with self._lock:
            paths, sources, numbers = list(self._paths), self._sources, self._numbers
        if not set(files) <= set(paths):
            self._learn_apart(snapshot, files)
            return None
        with snapshot.asking(hurry=True) as con:
            wanted = _hashes(con, clip_ids)
        first = np.searchsorted(sources, wanted, "left")
        last = np.searchsorted(sources, wanted, "right")
        found = {n for a, b in zip(first, last, strict=True) for n in numbers[a:b].tolist()}
        return [path for n in sorted(found) if (path := paths[n]) in set(files)]

    def learn(self, snapshot: Snapshot, files: Sequence[str]) -> None:
        """Read which sources are in the files that are new."""
        with self._learning:
            new = sorted(set(files) - set(self._paths))
            for start in range(0, len(new), AT_ONCE):
                if self._stopped:
                    return
                self._add(snapshot, new[start : start + AT_ONCE])

    def close(self) -> None:
        """Ends what is being learnt; the snapshot's questions are to be interrupted as well."""
        self._stopped = True
        if self._learner is not None:
            self._learner.join()

    def _learn_apart(self, snapshot: Snapshot, files: Sequence[str]) -> None:
        with self._lock:
            if self._stopped or (self._learner is not None and self._learner.is_alive()):
                return
            self._learner = threading.Thread(target=self._try_to_learn, args=(snapshot, files))
            self._learner.start()

    def _try_to_learn(self, snapshot: Snapshot, files: Sequence[str]) -> None:
        with contextlib.suppress(duckdb.Error):  # what is wrong with a file, the next one says
            self.learn(snapshot, files)

    def _add(self, snapshot: Snapshot, files: Sequence[str]) -> None:
        there = f"read_parquet([{literals(files)}], filename = true)"
        with snapshot.asking(hurry=True) as con:
            query = f"SELECT DISTINCT hash(source_id) AS source, filename FROM {there}"
            found = con.sql(query).to_arrow_table()
        base = {path: len(self._paths) + n for n, path in enumerate(files)}
        numbers = [base[path] for path in found.column("filename").to_pylist()]
        sources = np.concatenate([self._sources, found.column("source").to_numpy()])
        order = np.argsort(sources, kind="stable")
        with self._lock:
            self._paths = [*self._paths, *files]
            self._numbers = np.concatenate([self._numbers, np.array(numbers, np.uint32)])[order]
            self._sources = sources[order]


def _hashes(con: duckdb.DuckDBPyConnection, clip_ids: Iterable[str]) -> npt.NDArray[np.uint64]:
    listed = literals(clip_ids)
    query = f"SELECT DISTINCT hash(source_id) AS source FROM clips WHERE clip_id IN ({listed})"
    found: npt.NDArray[np.uint64] = con.sql(query).to_arrow_table().column("source").to_numpy()
    return found


# ── stills by clip ────────────────────────────────────────────────────────────────────────────────


CACHE_BYTES = 128 * 2**20
CLIPS_AT_ONCE = 48

Jpegs: TypeAlias = dict[int, bytes]  # by position


class Stills:
    """Those of one snapshot. May be asked from many threads."""

    def __init__(self, snapshot: Snapshot, files: StillFiles | None = None) -> None:
        self._snapshot = snapshot
        self._files = files
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Jpegs] = OrderedDict()
        self._bytes = 0
        self._waiting: OrderedDict[str, Future[Jpegs]] = OrderedDict()  # and those being asked for
        self._asker: ThreadPoolExecutor | None = None

    def expect(self, clip_ids: Iterable[str]) -> None:
        """Somebody will ask for these."""
        for clip_id in clip_ids:
            self._future(clip_id)

    def get(self, clip_id: str, position: int) -> bytes | None:
        """None where there is no such still."""
        return self.of(clip_id).get(position)

    def of(self, clip_id: str) -> Jpegs:
        """All of a clip, in order; empty where there is none."""
        return self._future(clip_id).result()

    def _future(self, clip_id: str) -> Future[Jpegs]:
        with self._lock:
            if clip_id in self._known:
                self._known.move_to_end(clip_id)
                done: Future[Jpegs] = Future()
                done.set_result(self._known[clip_id])
                return done
            if clip_id in self._waiting:
                return self._waiting[clip_id]
            self._waiting[clip_id] = asked = Future[Jpegs]()
            if self._asker is None:
                self._asker = ThreadPoolExecutor(1, "stills")
            self._asker.submit(self._answer)
            return asked

    def _answer(self) -> None:
        """For all that wait by now; whoever comes meanwhile waits for the next one."""
        with self._lock:
            asked = {
                clip_id: future for clip_id, future in self._waiting.items() if not future.running()
            }
            asked = dict(list(asked.items())[:CLIPS_AT_ONCE])
            for future in asked.values():
                future.set_running_or_notify_cancel()
        if not asked:
            return
        try:
            found = read_stills(self._snapshot, asked, self._files)
        except BaseException as error:  # raised again for each who waits
            with self._lock:
                for clip_id in asked:
                    del self._waiting[clip_id]
            for future in asked.values():
                future.set_exception(error)
            return
        with self._lock:
            for clip_id, jpegs in found.items():
                self._keep(clip_id, jpegs)
                del self._waiting[clip_id]
        for clip_id, future in asked.items():
            future.set_result(found[clip_id])

    def _keep(self, clip_id: str, jpegs: Jpegs) -> None:
        self._known[clip_id] = jpegs
        self._bytes += sum(map(len, jpegs.values()))
        while self._bytes > CACHE_BYTES and len(self._known) > 1:
            _, gone = self._known.popitem(last=False)
            self._bytes -= sum(map(len, gone.values()))


def read_stills(
    snapshot: Snapshot, clip_ids: Iterable[str], files: StillFiles | None = None
) -> dict[str, Jpegs]:
    """Of each clip; empty for those that have none. One pass over the table, or what files say."""
    found: dict[str, Jpegs] = {clip_id: {} for clip_id in clip_ids}
    listed = literals(found)
    some = files.of(snapshot, found) if files else None
    if some is not None and not some:
        return found
    table = "stills" if some is None else f"read_parquet([{literals(some)}])"
    query = f"SELECT clip_id, position, jpeg FROM {table} WHERE clip_id IN ({listed}) ORDER BY ALL"
    with snapshot.asking(hurry=True) as con:
        for clip_id, position, jpeg in con.sql(query).fetchall():
            found[clip_id][position] = jpeg
    return found
