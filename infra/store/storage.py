"""Objects on disk and in S3-compatible stores under one set of names (infra/store/uris.py)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from telecine.infra.errors import NotFound, Unreadable, UsageError
from telecine.infra.store import disk
from telecine.infra.store.disk import ObjectInfo
from telecine.infra.store.reader import ObjectReader
from telecine.infra.store.uris import absolute, is_s3, join, without_password

if TYPE_CHECKING:
    from telecine.infra.store.s3 import S3

__all__ = ["ObjectInfo", "ObjectReader", "Storage", "StoreOptions", "absolute", "is_s3", "join"]


@dataclass(frozen=True)
class StoreOptions:
    """Where S3 is, beyond what the environment and ~/.aws say."""

    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        if self.endpoint_url is None:
            return
        url = urlsplit(self.endpoint_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UsageError(
                f"endpoint {without_password(self.endpoint_url)!r} is no URL of a store; "
                "write http://host:port or https://host"
            )
        if "@" in url.netloc:
            raise UsageError(
                f"endpoint {without_password(self.endpoint_url)!r} holds a password; give "
                "credentials through AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            )


class Storage:
    """Reads and writes objects. Picklable; each process makes its own client when it needs one."""

    def __init__(self, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self.options}

    @cached_property
    def _s3(self) -> S3:
        from telecine.infra.store.s3 import (
            S3,  # a tenth of a second, which work on a disk need not wait
        )

        return S3(self.options)

    def list(self, uri: str, *, follow_links: bool = True) -> Iterator[ObjectInfo]:
        """The object of that name, and every object in the folder of that name, in URI order.

        `s3://bucket/day1` stands for the key `day1` and the keys under `day1/`, not for those
        under `day10/`. On disk, links below the folder are left out unless they are to be
        followed. Raises NotFound where there is neither.
        """
        if is_s3(uri):
            return self._s3.list(uri)
        return disk.list_objects(uri, follow_links=follow_links)

    def find(self, uri: str) -> ObjectInfo | None:
        """The object, or None if there is none of that name (a folder is no object)."""
        return self._s3.find(uri) if is_s3(uri) else disk.find(uri)

    def exists(self, uri: str) -> bool:
        return self.find(uri) is not None

    def stat(self, uri: str) -> ObjectInfo:
        found = self.find(uri)
        if found is None and is_s3(uri):
            raise self._s3.not_found(uri)
        if found is None:
            raise NotFound(f"{uri!r}: there is no such file; check the path")
        return found

    def open(self, info: ObjectInfo) -> ObjectReader:
        """That version of the object.

        Raises Changed or NotFound: at once on disk; on S3 from any read, since each request names
        the version it wants.
        """
        ranges = self._s3.ranges(info) if is_s3(info.uri) else disk.DiskRanges(info)
        return ObjectReader(ranges, info.size_bytes)

    def read_bytes(self, uri: str) -> bytes:
        if is_s3(uri):
            return self._s3.get(uri, {})
        with disk.explained(uri):
            return Path(uri).read_bytes()

    def read_range(self, uri: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises Unreadable if the object ends before."""
        if not length:
            return b""
        if is_s3(uri):
            data = self._s3.get(uri, {"Range": f"bytes={offset}-{offset + length - 1}"})
        else:
            with disk.explained(uri), Path(uri).open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        if len(data) != length:
            raise Unreadable(
                f"{uri!r}: asked for {length} bytes from byte {offset} and got {len(data)}; "
                "the object is shorter than expected: check that it is whole"
            )
        return data

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Atomic: readers see the old object or the new one, whole."""
        if not is_s3(uri):
            with disk.explained(uri), disk.replacing(Path(uri)) as file:
                file.write(data)
            return
        self._s3.put(uri, data)

    def upload(self, local_path: str | os.PathLike[str], uri: str) -> None:
        """Atomic, as write_bytes; a large file goes to S3 in parts."""
        with disk.explained(os.fspath(local_path)), Path(local_path).open("rb") as source:
            if is_s3(uri):
                self._s3.upload(source, uri)
            else:
                with disk.explained(uri), disk.replacing(Path(uri)) as target:
                    shutil.copyfileobj(source, target, 2**20)

    def delete(self, uris: Iterable[str], within: str) -> None:
        """Remove these objects, all in the folder `within`; one that is gone already is no error.

        On disk the folders that this empties go too.
        """
        if is_s3(within):
            self._s3.delete(uris)
            return
        for uri in uris:
            disk.delete(uri, within)

    def unfinished(self, uri: str, before: float) -> Iterator[ObjectInfo]:
        """Uploads into a folder that began before that time (Unix) and were never ended.

        On disk their part files; on S3 parts that no listing shows: `version` is the upload's id
        and the size that of the parts. To be ended with `abort`.
        """
        return self._s3.unfinished(uri, before) if is_s3(uri) else disk.unfinished(uri, before)

    def abort(self, upload: ObjectInfo) -> None:
        """End an upload that `unfinished` found; one that is gone already is no error."""
        if is_s3(upload.uri):
            self._s3.abort(upload)
        else:
            disk.delete(upload.uri, os.path.dirname(upload.uri))  # noqa: PTH120  (a URI)

    def delta_options(self, uri: str) -> dict[str, str]:
        """Storage options for `deltalake`, from the same chain as everything else; {} on disk.

        Holds secrets: not to be printed. Credentials that expire are as fresh as this call.
        """
        return self._s3.delta_options(uri) if is_s3(uri) else {}
