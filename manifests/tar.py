"""A shard's own format: a WebDataset tar whose bytes depend on its samples alone.

    header  CLIP_ID.latent.npy   .npy header │ float16 values     512-byte blocks, padded with zeros
    header  CLIP_ID.json         what a trainer conditions on
    header  CLIP_ID.txt          the caption
    header  CLIP_ID.TRACK.npy    of each track that it has: float32 [frames, numbers]

The headers are the standard library's (USTAR, no times, no owners); the data is written from the
array's own memory, so that 370 MB of latents are never held twice. Trainers read it with any
WebDataset reader; what is here reads it to check it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from telecine.infra.errors import StorageError
from telecine.manifests.schemas import Sample

if TYPE_CHECKING:
    from _hashlib import HASH

BLOCK = tarfile.BLOCKSIZE
END = 2 * BLOCK
LATENT, FACTS, TEXT = SUFFIXES = ("latent.npy", "json", "txt")  # of a sample's members, in order
DTYPE = np.dtype("<f2")
NPY_HEADER = 128  # bytes before the values of a latent, whatever its shape
CHUNK_BYTES = 2**20  # of what is read past


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
        self._write(bytes(-info.size % BLOCK))
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


def npy_parts(latents: npt.NDArray[np.floating[Any]]) -> tuple[bytes, memoryview]:
    """The .npy form of an array, as a header and the array's own memory."""
    array = np.ascontiguousarray(latents)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class NpyHeader:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    size_bytes: int  # of the header: the values begin there


def read_npy_header(data: bytes) -> NpyHeader:
    """Of an .npy, or of its beginning. Raises ValueError, with what it is instead, where it is none
    as `npy_parts` writes it.
    """
    if data[:8] != np.lib.format.magic(1, 0):
        is_npy = data.startswith(np.lib.format.MAGIC_PREFIX)
        raise ValueError("an .npy of another version" if is_npy else "no .npy header")
    file = io.BytesIO(data)
    file.seek(8)
    try:
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise ValueError("no .npy header") from error
    if fortran_order:
        raise ValueError("an array in Fortran order")
    return NpyHeader(shape, dtype, file.tell())


def is_track(name: str) -> bool:
    """Whether a member of that name holds a track of its sample."""
    return name.endswith(".npy") and not name.endswith(f".{LATENT}")


def described(shape: Iterable[int], dtype: np.dtype[np.generic]) -> str:
    return f"{dtype} {'×'.join(map(str, shape))}"


def values_offset(data: bytes, sample: Sample, uri: str, size_bytes: int) -> int:
    """Where in a latent's member, of which `data` is the beginning, its float16 values begin.

    Raises StorageError where a member of `size_bytes` that begins so is not what the sample's row
    says of it; `uri` is the shard's.
    """
    try:
        header = read_npy_header(data)
        found = described(header.shape, header.dtype)
        whole = header.size_bytes + DTYPE.itemsize * math.prod(header.shape)
        if (header.shape, header.dtype, whole) == (sample.latent_shape, DTYPE, size_bytes):
            return header.size_bytes
    except ValueError as error:
        found = str(error)
    raise StorageError(
        f"{uri!r} does not hold what the tables say: expected "
        f"{described(sample.latent_shape, DTYPE)} at byte {sample.latent_offset}, found {found} "
        f"in {size_bytes} bytes. Check the build with telecine verify"
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A member as it stands in the tar."""

    name: str
    offset: int  # of its data
    size: int
    sha256: str
    array: str  # type and shape of an .npy, else empty


class _Bytes:
    """A tar's bytes in turn, each hashed as it goes by."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")
        self.sha256 = hashlib.sha256()
        self.offset = 0

    def parts(self, length: int) -> Iterator[memoryview]:
        """The next `length` bytes in pieces, fewer at the end."""
        while length and (self._left or self._next()):
            part, self._left = self._left[:length], self._left[length:]
            length -= len(part)
            self.offset += len(part)
            yield part

    def take(self, length: int) -> bytes:
        return b"".join(self.parts(length))

    def skip(self, length: int, digest: HASH | None = None) -> None:
        for part in self.parts(length):
            if digest is not None:
                digest.update(part)

    def _next(self) -> bool:
        chunk = next(self._chunks, b"")
        self.sha256.update(chunk)
        self._left = memoryview(chunk)
        return bool(chunk)


def read_members(chunks: Iterable[bytes]) -> tuple[str, list[Found]]:
    """SHA-256 of all bytes, and the members as far as they can be read as a tar."""
    data, members = _Bytes(chunks), []
    with contextlib.suppress(tarfile.HeaderError):
        while any(header := data.take(BLOCK)):
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            members.append(_member(info, data))
    while data.take(CHUNK_BYTES):
        pass
    return data.sha256.hexdigest(), members


def _member(info: tarfile.TarInfo, data: _Bytes) -> Found:
    offset, digest, array = data.offset, hashlib.sha256(), ""
    if info.name.endswith(LATENT):
        array = _array(data.take(min(NPY_HEADER, info.size)))
    elif info.name.endswith(TEXT):
        data.skip(info.size, digest)
    data.skip(offset + info.size + -info.size % BLOCK - data.offset)
    return Found(info.name, offset, info.size, digest.hexdigest(), array)


def _array(data: bytes) -> str:
    """As `described` has it; what else it is, where it is none of ours."""
    try:
        header = read_npy_header(data)
    except ValueError as error:
        return str(error)
    return described(header.shape, header.dtype)
