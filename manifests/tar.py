"""Write a WebDataset tar whose bytes depend on its samples alone.

The headers are the standard library's (USTAR, no times, no owners); the data is written from the
array's own memory, so that 370 MB of latents are never held twice. Reading is webdataset's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine.infra.errors import StorageError

END = 2 * tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a member's data lies in the tar, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sealed:
    sha256: str
    size_bytes: int


class TarWriter:
    """`add` members, then `seal`; leaving the context without it leaves a file nobody names.

    Raises StorageError where the disk is full or may not be written: no fault of a member.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _explained(path):
            self._file = path.open("wb")
        self._sha256 = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written has been said, by `seal` too
            self._file.close()

    def add(self, name: str, *parts: bytes | memoryview) -> Extent:
        info = tarfile.TarInfo(name)
        info.size = sum(len(part) for part in parts)
        info.mode = 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        extent = Extent(self._size, info.size)
        for part in parts:
            self._write(part)
        self._write(bytes(-info.size % tarfile.BLOCKSIZE))
        return extent

    def seal(self) -> Sealed:
        self._write(bytes(END))
        self._write(bytes(-self._size % tarfile.RECORDSIZE))
        with _explained(self._path):
            self._file.flush()
        return Sealed(self._sha256.hexdigest(), self._size)

    def _write(self, data: bytes | memoryview) -> None:
        with _explained(self._path):
            self._file.write(data)
        self._sha256.update(data)
        self._size += len(data)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        try:
            space = f"{shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB are free"
        except OSError as again:
            space = str(again)
        raise StorageError(
            f"cannot write the shard {path} before its upload: {error.strerror or error} ({space} "
            "there). Make room, or set TMPDIR to a folder on a larger disk that may be written, "
            "and run again"
        ) from error


def npy_parts(latents: npt.NDArray[np.float16]) -> tuple[bytes, memoryview]:
    """The .npy form of an array, as a header and the array's own memory."""
    array = np.ascontiguousarray(latents)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data
