"""A dataset's Parquet files in object storage as DuckDB opens them, with a count of what it reads.

    DuckDB's reader ── seek, read ──▶ StoreFiles ── ranges ──▶ Arrow's S3 client

DuckDB's own S3 client is an extension, to be downloaded. A scan through Arrow reads whole columns
where DuckDB skips what a filter leaves out, and cannot be counted: a file system written in Python
that fails within Arrow's scheduler waits for the interpreter's lock, whose holder waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from fsspec.spec import AbstractFileSystem
from pyarrow import fs

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # were they changed: a table's files are only added


class StoreFiles(AbstractFileSystem):  # type: ignore[misc]  # it has no types
    """Files that were made known to it, to be read only; of the rest it knows nothing."""

    protocol = "s3"
    cachable = False  # by fsspec: another dataset's would be taken for this one's

    def __init__(self, store: Callable[[], fs.FileSystem]) -> None:
        """`store` is asked whenever a file is opened: credentials expire."""
        super().__init__()
        self._store = store
        self._sizes: dict[str, int] = {}  # by URI
        self._lock = threading.Lock()
        self.bytes_read = 0

    def know(self, sizes: Mapping[str, int]) -> None:
        """Files by URI, and how many bytes each has."""
        self._sizes.update(sizes)

    # ── what DuckDB asks ─────────────────────────────────────────────────────────────────────────

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path] if path in self._sizes else []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._size(path), "type": "file"}

    def modified(self, path: str) -> datetime:
        return _NEVER

    def open(self, path: str, mode: str = "rb", **_: Any) -> _File:
        self._size(path)
        if mode != "rb":
            raise OSError(f"{path} is to be read only")
        return _File(path, self._store, self._count)

    def _size(self, path: str) -> int:
        if path not in self._sizes:
            raise OSError(f"{path} is no file of the dataset's tables")
        return self._sizes[path]

    def _count(self, number: int) -> None:
        with self._lock:
            self.bytes_read += number


class _File:
    """DuckDB seeks and then reads, from several threads at once: each has a position of its own."""

    def __init__(
        self, uri: str, store: Callable[[], fs.FileSystem], count: Callable[[int], None]
    ) -> None:
        self._uri = uri
        self._store = store
        self._count = count
        self._at = threading.local()
        self._opening = threading.Lock()
        self._file: pa.NativeFile | None = None

    def seek(self, offset: int) -> None:
        self._at.offset = offset

    def tell(self) -> int:
        return int(getattr(self._at, "offset", 0))

    def read(self, size: int) -> bytes:
        offset = self.tell()
        try:
            data: bytes = self._opened().read_at(size, offset)
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"{self._uri}: {' '.join(str(error).split())}") from None
        self._count(len(data))
        self._at.offset = offset + len(data)
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> pa.NativeFile:
        """Opened when it is first read: what DuckDB has in its cache costs no request."""
        with self._opening:
            if self._file is None:
                path = self._uri.partition("://")[2]
                self._file = self._store().open_input_file(path)
            return self._file
