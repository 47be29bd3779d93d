"""Bytes of objects, from where they lie straight into memory that is there: for many threads.

disk    preadv into the caller's views, whatever they are parts of
S3      parts of PART_BYTES at once, each a request of its own
cache   either of them, kept on a local disk up to so many bytes; the longest unread goes first
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from telecine.infra.errors import (
    AccessDenied,
    BadCredentials,
    Changed,
    NotFound,
    StorageError,
    Unreadable,
    UsageError,
)
from telecine.infra.store import disk
from telecine.infra.store.storage import Storage, is_s3

PART_BYTES = 4 * 2**20
REQUESTS = 16  # to a store at once
PATIENCE = 300.0  # seconds for which a store that does not answer is asked again
LOOKS = 32  # at a cache's files, in the time in which a process alone would fill it
_IN_A_CALL = 2**30  # bytes: the system reads at most 2 GiB


@dataclass(frozen=True)
class Range:
    """From a byte of an object on: as much as the views hold, one after the other."""

    offset: int
    views: Sequence[memoryview]

    @property
    def size(self) -> int:
        return sum(map(len, self.views))


class Ranges(Protocol):
    def read(self, uri: str, ranges: Sequence[Range], holds: str = "") -> None:
        """Fill all views. `holds` says what is there, by which a cache tells it from an older one.

        Raises NotFound, Unreadable where the object ends before, StorageError.
        """


def open_ranges(
    uri: str, storage: Storage, cache: str | Path | None, cache_bytes: float | None
) -> Ranges:
    """Of the objects below a URI. Raises UsageError for a cache's size without a cache."""
    if cache is None and cache_bytes is not None:
        raise UsageError(f"cache_bytes = {cache_bytes:g} without a cache: name its folder too")
    ranges: Ranges = StoreRanges(storage) if is_s3(uri) else DiskRanges()
    return ranges if cache is None else CachedRanges(ranges, Path(cache), cache_bytes)


class DiskRanges:
    def read(self, uri: str, ranges: Sequence[Range], holds: str = "") -> None:
        with disk.explained(uri):
            file = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for one in ranges:
                    _fill(file, uri, one.offset, one.views)
            finally:
                os.close(file)


def _fill(file: int, uri: str, offset: int, views: Sequence[memoryview]) -> None:
    left = [view for view in views if len(view)]
    while left:
        count = os.preadv(file, [view[:_IN_A_CALL] for view in left[:1]] if
                          len(left[0]) > _IN_A_CALL else left, offset)  # fmt: skip
        if not count:
            raise Unreadable(f"{uri!r} ends at byte {offset}, before what was asked for")
        offset += count
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if left and count:
            left[0] = left[0][count:]


class StoreRanges:
    """Raises StorageError where the store gives no answer for `patience` seconds."""

    def __init__(self, storage: Storage, patience: float = PATIENCE) -> None:
        self._storage, self._patience = storage, patience
        self._pool = ThreadPoolExecutor(REQUESTS, "range")

    def read(self, uri: str, ranges: Sequence[Range], holds: str = "") -> None:
        parts = [part for one in ranges for part in _parts(one)]
        for done in [self._pool.submit(self._read, uri, part) for part in parts]:
            done.result()

    def _read(self, uri: str, part: Range) -> None:
        data = memoryview(self._patiently(uri, part))
        for view in part.views:
            view[:] = data[: len(view)]
            data = data[len(view) :]

    def _patiently(self, uri: str, part: Range) -> bytes:
        """Asked again, ever more seldom, where nothing is wrong but the store itself."""
        end, pause = time.monotonic() + self._patience, 0.5
        while True:
            try:
                return self._storage.read_range(uri, part.offset, part.size)
            except _LASTING:
                raise
            except StorageError:
                if time.monotonic() + pause > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 30.0)


_LASTING = (AccessDenied, BadCredentials, Changed, NotFound, Unreadable, UsageError)


def _parts(whole: Range) -> Iterator[Range]:
    """Of PART_BYTES each, but for the last."""
    left = [view for view in whole.views if len(view)]
    offset = whole.offset
    while left:
        views, room = [], PART_BYTES
        while left and room:
            views.append(left[0][:room])
            left[0] = left[0][room:]
            room -= len(views[-1])
            if not len(left[0]):
                left.pop(0)
        part = Range(offset, views)
        yield part
        offset += part.size


class CachedRanges:
    """A file for what was read at once. Processes of one machine may share the folder."""

    def __init__(self, ranges: Ranges, folder: Path, most_bytes: float | None) -> None:
        self._ranges, self._folder, self._most = ranges, folder, most_bytes
        self._disk = DiskRanges()
        self._lock = threading.Lock()
        with disk.explained(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        self._added = 0  # bytes since it was looked at
        if most_bytes is not None:
            self._evict(most_bytes)

    def read(self, uri: str, ranges: Sequence[Range], holds: str = "") -> None:
        size = sum(one.size for one in ranges)
        views = [view for one in ranges for view in one.views]
        asked = "\0".join(f"{one.offset} {one.size}" for one in ranges)
        name = hashlib.sha256(f"{uri}\0{holds}\0{asked}".encode()).hexdigest()
        path = self._folder / name[:2] / name
        with contextlib.suppress(OSError, StorageError):  # another rank may remove it meanwhile
            if path.stat().st_size == size:
                os.utime(path)
                self._disk.read(str(path), [Range(0, views)])
                return
        self._ranges.read(uri, ranges)
        with contextlib.suppress(OSError):  # full, or not ours: the cache is not what is asked for
            self._keep(path, views, size)

    def _keep(self, path: Path, views: Sequence[memoryview], size: int) -> None:
        if self._most is not None and size > self._most:
            return
        path.parent.mkdir(exist_ok=True)
        with disk.replacing(path) as file:
            for view in views:
                file.write(view)
        with self._lock:
            self._added += size
            # Others of this machine add to it too: look now and then.
            if self._most is not None and self._added > self._most / LOOKS:
                self._evict(self._most * (1 - 1 / LOOKS))

    def _evict(self, most: float) -> None:
        files = sorted(self._files())
        held, self._added = sum(size for _, size, _ in files), 0
        for _, size, path in files:
            if held <= most:
                break
            path.unlink(missing_ok=True)
            held -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was read last, its bytes, its path."""
        found = []
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found
