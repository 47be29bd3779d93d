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

from telecine.infra.errors import TelecineError

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # were they changed: a table's files are only added


class StoreFiles(AbstractFileSystem):  # type: ignore[misc]  # it has no types
    """Files that were made known to it, to be read only; of the rest it knows nothing."""

    protocol = "s3"
    cachable = False  # by fsspec: another dataset's would be taken for this one's

    def __init__(self, store: Callable[[], fs.FileSystem]) -> None:
        """`store` is asked before every read: credentials expire."""
        super().__init__()
        self._store = store
        self._sizes: dict[str, int] = {}  # by URI
        self._files: dict[str, tuple[fs.FileSystem, pa.NativeFile]] = {}
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

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Reader:
        self._size(path)
        if mode != "rb":
            raise OSError(f"{path} is to be read only")
        return _Reader(self, path)

    def read_at(self, path: str, size: int, offset: int) -> bytes:
        """Bytes of a file; raises OSError, and nothing else, where it cannot be read."""
        try:
            data: bytes = self._file(path).read_at(size, offset)
        except (pa.ArrowException, OSError, TelecineError) as error:
            raise OSError(f"{path}: {' '.join(str(error).split())}") from None
        with self._lock:
            self.bytes_read += len(data)
        return data

    def _file(self, path: str) -> pa.NativeFile:
        """Opened once, which is a request, and by the first read: DuckDB may have it in memory."""
        store = self._store()
        with self._lock:
            opened_by, file = self._files.get(path, (None, None))
        if opened_by is not store:
            file = store.open_input_file(path.partition("://")[2])
            with self._lock:
                self._files[path] = store, file
        return file

    def _size(self, path: str) -> int:
        if path not in self._sizes:
            raise OSError(f"{path} is no file of the dataset's tables")
        return self._sizes[path]


class _Reader:
    """DuckDB seeks and then reads, from several threads at once: each has a position of its own."""

    def __init__(self, files: StoreFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._at = threading.local()

    def seek(self, offset: int) -> None:
        self._at.offset = offset

    def tell(self) -> int:
        return int(getattr(self._at, "offset", 0))

    def read(self, size: int) -> bytes:
        data = self._files.read_at(self._path, size, self.tell())
        self._at.offset = self.tell() + len(data)
        return data

    def close(self) -> None:
        """The file stays open for those who read it next."""
