"""Names of objects: an absolute path, or `s3://bucket/key` with the key as it is.

A key is never percent-quoted, so that `a b+c&d=(1)#%.mp4` is that very key.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from telecine.infra.errors import UsageError


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The URI of what a user typed: S3 as it is, a path made absolute."""
    if is_s3(uri):
        split_s3(uri)
        return uri
    if re.match(r"s3:/*", uri):
        raise UsageError(f"{uri!r}: an object store is s3://bucket/prefix, with two slashes")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        raise UsageError(
            f"{uri!r}: only local paths and s3://bucket/prefix can be used; "
            "another S3-compatible store is s3:// too, with its --endpoint-url"
        )
    return os.path.abspath(Path(uri).expanduser())  # noqa: PTH100  (leaves links alone)


def join(uri: str, *parts: str) -> str:
    return "/".join([uri.removesuffix("/"), *parts])


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises UsageError where there is no bucket."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"{uri!r} names no bucket; write s3://bucket or s3://bucket/prefix")
    return bucket, key


def without_password(url: str) -> str:
    """As it may be shown."""
    return re.sub(r"//[^/]*@", "//***@", url)
