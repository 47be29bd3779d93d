"""still_files: which files of the table of stills hold those of which source.

The table has no index, and holds most of a dataset's bytes but for its shards: at ten million
clips some tens of thousands of files, and to open each takes longer than anybody waits. A source's
stills are committed together, so a short list, learnt once in the background, leads to one file
for each:

    hash of source_id   ... 0x2f.. 0x31.. 0x31.. 0x77.. ...      in order: found by bisection
    number of file      ...     12      3     40      3 ...
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence

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
