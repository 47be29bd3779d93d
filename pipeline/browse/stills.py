"""stills: small JPEGs by clip and position.

A table of stills has no index: to find one still is to read the column of clip_ids. So whoever
waits meanwhile is served by the next question together, and a page of clips is asked for at once,
before the browser asks for its pictures one by one.

    page ── expect(24 clips) ──┐
    browser ── get(clip, 0) ───┴──▶ one question at a time for all that wait ──▶ cache
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from telecine.infra.text import literals
from telecine.pipeline.browse.snapshot import Snapshot
from telecine.pipeline.browse.still_files import StillFiles

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
