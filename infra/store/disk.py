"""Objects on a local or mounted disk: listing, ranges, atomic writes, and what errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from telecine.infra.errors import AccessDenied, Changed, NotFound, StorageError, Unreadable

PART_PREFIX = ".telecine-part-"  # a file being written; one left by a killed process is garbage


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of one object. `version`: the ETag on S3; size and mtime in ns on disk."""

    uri: str
    size_bytes: int
    version: str
    modified: float = field(default=0.0, compare=False)  # seconds since 1970; 0: not asked for


def info(uri: str, status: os.stat_result) -> ObjectInfo:
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return ObjectInfo(uri, status.st_size, version, status.st_mtime)


def find(uri: str) -> ObjectInfo | None:
    """The regular file of that name, through links; None for anything else."""
    with explained(uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = Path(uri).stat()
        return info(uri, status) if stat.S_ISREG(status.st_mode) else None
    return None


def list_objects(uri: str, *, follow_links: bool = True) -> Iterator[ObjectInfo]:
    """A file, or every regular file in a folder and below, in URI order.

    `uri` may be a link; of those below it none is listed or walked unless they are followed.
    """
    with explained(uri):
        status = Path(uri).stat()
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(uri.rstrip("/") or "/", status, frozenset(), follow_links)
    elif stat.S_ISREG(status.st_mode):
        yield info(uri, status)
    else:
        raise StorageError(f"{uri!r} is neither a file nor a folder: give the path of one")


def _walk(
    folder: str, status: os.stat_result, above: frozenset[tuple[int, int]], follow_links: bool
) -> _Infos:
    here = above | {(status.st_dev, status.st_ino)}
    if len(here) == len(above):
        return  # a link to a folder above: a loop
    with explained(folder), os.scandir(folder) as entries:
        found = [
            (entry.path, entry.stat())
            for entry in entries
            if (follow_links or not entry.is_symlink()) and _resolves(entry)
        ]
    for path, at in sorted(found, key=lambda e: e[0] + "/" * stat.S_ISDIR(e[1].st_mode)):
        if stat.S_ISDIR(at.st_mode):
            yield from _walk(path, at, here, follow_links)
        elif stat.S_ISREG(at.st_mode):  # not a socket, pipe or device
            yield info(path, at)


_Infos = Iterator[ObjectInfo]


def _resolves(entry: os.DirEntry[str]) -> bool:
    """False for a dangling link, and for a file deleted since its folder was read."""
    try:
        entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return False
        raise
    return True


class DiskRanges:
    """Bytes of one open file. Raises Changed or NotFound at once."""

    remote = False

    def __init__(self, wanted: ObjectInfo) -> None:
        self._wanted = wanted
        with explained(wanted.uri):
            self._file = os.open(wanted.uri, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.ExitStack() as opened:
            opened.callback(self.close)
            self.verify()
            opened.pop_all()

    def read(self, offset: int, length: int) -> bytes:
        with explained(self._wanted.uri):
            data = os.pread(self._file, length, offset)
            while data and len(data) < length:  # the kernel gives 2 GiB at most
                more = os.pread(self._file, length - len(data), offset + len(data))
                data = data + more if more else b""
        if not data:
            raise changed(self._wanted)
        return data

    def verify(self) -> None:
        """What is open here is what was listed, and nobody wrote to it since."""
        if info(self._wanted.uri, os.fstat(self._file)) != self._wanted:
            raise changed(self._wanted)

    def close(self) -> None:
        os.close(self._file)


def changed(wanted: ObjectInfo) -> Changed:
    return Changed(
        f"{wanted.uri!r} is no longer version {wanted.version!r}: it was replaced or written to "
        "since it was listed; run ingest again to take it up as it is now"
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the path's place, whole and on disk, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / (PART_PREFIX + secrets.token_hex(8))
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # there is none where all went well
    _sync_folder(path.parent)


def delete(uri: str, within: str) -> None:
    """Remove a file, and the folders that this empties up to `within`, which stays."""
    path, top = Path(uri), Path(within)
    with explained(uri):
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if top not in folder.parents or not _emptied(folder):
                return


def _emptied(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:  # by a run that was killed here
        return True
    except OSError as error:
        # ENOTDIR: it is a link to a folder, which stays.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def unfinished(uri: str, before: float) -> Iterator[ObjectInfo]:
    """Files in a folder that a process which was killed left half written before that time.

    No link is followed: what it leads to is not ours to end.
    """
    for found in list_objects(uri, follow_links=False):
        written_ns = int(found.version.rpartition("-")[2])
        if Path(found.uri).name.startswith(PART_PREFIX) and written_ns < before * 1e9:
            yield found


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns the operating system's errors about a path into ours."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{uri!r}: there is no such file or folder; check the path") from error
    except PermissionError as error:
        raise AccessDenied(
            f"{error.filename or uri!r}: this user may not do this ({error.strerror}); "
            "change its permissions, or give another path"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{uri!r}: the disk is full; make room and run the same command again, "
                "which goes on where this one stopped"
            ) from error
        raise Unreadable(f"{uri!r}: {error.strerror or error}") from error
