"""Write a WebDataset tar whose bytes depend on its samples alone.

The headers are the standard library's (USTAR, no times, no owners); the data is written from the
array's own memory, so that 370 MB of latents are never held twice. Reading is webdataset's.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from encoders.frames import Latents

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
    """`add` members, then `seal`; leaving the context without it leaves a file nobody names."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._sha256 = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        self._file.flush()
        return Sealed(self._sha256.hexdigest(), self._size)

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._size += len(data)


def npy_parts(latents: Latents) -> tuple[bytes, memoryview]:
    """The .npy form of an array, as a header and the array's own memory."""
    array = np.ascontiguousarray(latents)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data
