"""A store that Arrow reads, with a count of the bytes that came from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Never

import pyarrow as pa
from pyarrow import fs


class ByteCount:
    """How many bytes were read, by whatever thread."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.value += number


def counting(store: fs.FileSystem, count: ByteCount) -> fs.FileSystem:
    """The store, to be read only; what its files give is added to `count`.

    Costs nothing that could be measured on a million rows: Arrow asks for whole column chunks.
    """
    return fs.PyFileSystem(_Handler(store, count))


class _Handler(fs.FileSystemHandler):  # type: ignore[misc]  # it has no types
    """What Arrow asks of a file system in Python: all but the opening of files is the store's."""

    def __init__(self, store: fs.FileSystem, count: ByteCount) -> None:
        self._store = store
        self._count = count

    def get_type_name(self) -> str:
        return f"counted {self._store.type_name}"

    def normalize_path(self, path: str) -> str:
        return str(self._store.normalize_path(path))

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:
        return list(self._store.get_file_info(paths))

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        return list(self._store.get_file_info(selector))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_File(self._store.open_input_file(path), self._count), mode="r")

    def _refuse(self, *_: object, **__: object) -> Never:
        raise NotImplementedError("tables are written by deltalake, never through here")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse


class _File:
    """Arrow seeks and reads under a lock of its own."""

    def __init__(self, file: pa.NativeFile, count: ByteCount) -> None:
        self._file = file
        self._count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int | None = None) -> bytes:
        data: bytes = self._file.read(size)
        self._count.add(len(data))
        return data

    def read_buffer(self, size: int | None = None) -> pa.Buffer:
        buffer = self._file.read_buffer(size)
        self._count.add(buffer.size)
        return buffer
