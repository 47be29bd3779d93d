"""Objects on disk and in S3-compatible stores under one set of names. Only this imports boto3.

A URI is an absolute path, or `s3://bucket/key` with the key as it is: never percent-quoted, so
that `a b+c&d=(1)#%.mp4` is that very key. Credentials, profile and region come from boto3's chain.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as aws
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from infra import disk
from infra.disk import ObjectInfo
from infra.errors import (
    AccessDenied,
    BadCredentials,
    Changed,
    NoBucket,
    NotFound,
    StorageError,
    Unreadable,
    UsageError,
)
from infra.reader import ObjectReader

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

__all__ = ["ObjectInfo", "ObjectReader", "Storage", "StoreOptions", "absolute", "is_s3", "join"]

_ATTEMPTS = 4  # of a request, by botocore; and of a response that breaks off, by us
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    connect_timeout=5,
    read_timeout=60,
    # The newer checksums are unknown to many stores that speak S3.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_TRANSFER = TransferConfig(
    multipart_threshold=64 * 2**20, multipart_chunksize=16 * 2**20, max_concurrency=4
)

_BATCH = 1000  # keys of one request to delete
# What stores answer that cannot delete many at once, or only with a checksum of their own choice.
_ONE_BY_ONE = {"NotImplemented", "MethodNotAllowed", "InvalidRequest", "MissingContentMD5", "501"}

_MISSING = {"404", "NotFound", "NoSuchKey", "NoSuchBucket"}
_CHANGED = {"412", "PreconditionFailed"}
_EXPIRED = "the session token is wrong or has expired: get new credentials"
_UNKNOWN_KEY = (
    "the store does not know this access key: check AWS_ACCESS_KEY_ID or the profile, "
    "and that they belong to this endpoint"
)
_BAD_CREDENTIALS = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY or the profile",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
}
_NO_RIGHT = (
    "the credentials in force may not do this: check them and the bucket's policy "
    "(where listing is not allowed, an object that is not there is refused too)"
)
_NO_CREDENTIALS = (
    "no complete credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or name a profile"
)


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
                f"endpoint {_shown(self.endpoint_url)!r} is no URL of a store; "
                "write http://host:port or https://host"
            )
        if "@" in url.netloc:
            raise UsageError(
                f"endpoint {_shown(self.endpoint_url)!r} holds a password; give credentials "
                "through AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            )


def _shown(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url)


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The URI of what a user typed: S3 as it is, a path made absolute."""
    if is_s3(uri):
        _split(uri)
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


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"{uri!r} names no bucket; write s3://bucket or s3://bucket/prefix")
    return bucket, key


class Storage:
    """Reads and writes objects. Picklable; each process makes its own client when it needs one."""

    def __init__(self, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        self._client: tuple[int, S3Client] | None = None  # and the process that made it

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self.options, "_client": None}

    def list(self, uri: str, *, follow_links: bool = True) -> Iterator[ObjectInfo]:
        """The object of that name, and every object in the folder of that name, in URI order.

        `s3://bucket/day1` stands for the key `day1` and the keys under `day1/`, not for those
        under `day10/`. On disk, links below the folder are left out unless they are to be
        followed. Raises NotFound where there is neither.
        """
        if is_s3(uri):
            return self._list_s3(uri)
        return disk.list_objects(uri, follow_links=follow_links)

    def find(self, uri: str) -> ObjectInfo | None:
        """The object, or None if there is none of that name (a folder is no object)."""
        if not is_s3(uri):
            return disk.find(uri)
        head = self._head(uri)
        return head and ObjectInfo(uri, head["ContentLength"], head["ETag"].strip('"'))

    def exists(self, uri: str) -> bool:
        return self.find(uri) is not None

    def stat(self, uri: str) -> ObjectInfo:
        found = self.find(uri)
        if found is None:
            raise self._not_found(uri)
        return found

    def open(self, info: ObjectInfo) -> ObjectReader:
        """That version of the object.

        Raises Changed or NotFound: at once on disk; on S3 from any read, since each request names
        the version it wants.
        """
        ranges = _S3Ranges(self, info) if is_s3(info.uri) else disk.DiskRanges(info)
        return ObjectReader(ranges, info.size_bytes)

    def read_bytes(self, uri: str) -> bytes:
        if is_s3(uri):
            return self._get(uri, {})
        with disk.explained(uri):
            return Path(uri).read_bytes()

    def read_range(self, uri: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises Unreadable if the object ends before."""
        if not length:
            return b""
        if is_s3(uri):
            data = self._get(uri, {"Range": f"bytes={offset}-{offset + length - 1}"})
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
        bucket, key = _split(uri)
        # The one checksum that every store verifies.
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        with self._explained(uri):
            self._s3().put_object(Bucket=bucket, Key=key, Body=data, ContentMD5=md5)

    def upload(self, local_path: str | os.PathLike[str], uri: str) -> None:
        """Atomic, as write_bytes; a large file goes to S3 in parts."""
        with disk.explained(os.fspath(local_path)), Path(local_path).open("rb") as source:
            if is_s3(uri):
                bucket, key = _split(uri)
                with self._explained(uri):
                    self._s3().upload_fileobj(source, bucket, key, Config=_TRANSFER)
            else:
                with disk.explained(uri), disk.replacing(Path(uri)) as target:
                    shutil.copyfileobj(source, target, 2**20)

    def delete(self, uris: Iterable[str], within: str) -> None:
        """Remove these objects, all in the folder `within`; one that is gone already is no error.

        On disk the folders that this empties go too.
        """
        if not is_s3(within):
            for uri in uris:
                disk.delete(uri, within)
            return
        for bucket, names in groupby(map(_split, uris), key=lambda name: name[0]):
            keys = (key for _, key in names)
            while batch := tuple(islice(keys, _BATCH)):
                self._delete_s3(bucket, batch)

    def unfinished(self, uri: str, before: float) -> Iterator[ObjectInfo]:
        """Uploads into a folder that began before that time (Unix) and were never ended.

        On disk their part files; on S3 parts that no listing shows: `version` is the upload's id
        and the size that of the parts. To be ended with `abort`.
        """
        if not is_s3(uri):
            yield from disk.unfinished(uri, before)
            return
        bucket, key = _split(join(uri, ""))
        with self._explained(uri):
            client = self._s3()
            pages = client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=bucket, Prefix=key):
                for found in page.get("Uploads", ()):
                    if found["Initiated"].timestamp() < before:
                        name, upload = found["Key"], found["UploadId"]
                        parts = client.get_paginator("list_parts")
                        size = sum(
                            part["Size"]
                            for each in parts.paginate(Bucket=bucket, Key=name, UploadId=upload)
                            for part in each.get("Parts", ())
                        )
                        yield ObjectInfo(f"s3://{bucket}/{name}", size, upload)

    def abort(self, upload: ObjectInfo) -> None:
        """End an upload that `unfinished` found; one that is gone already is no error."""
        if not is_s3(upload.uri):
            disk.delete(upload.uri, os.path.dirname(upload.uri))  # noqa: PTH120  (a URI)
            return
        bucket, key = _split(upload.uri)
        with self._explained(upload.uri), contextlib.suppress(self._s3().exceptions.NoSuchUpload):
            self._s3().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.version)

    def delta_options(self, uri: str) -> dict[str, str]:
        """Storage options for `deltalake`, from the same chain as everything else; {} on disk.

        Holds secrets: not to be printed. Credentials that expire are as fresh as this call.
        """
        if not is_s3(uri):
            return {}
        with self._explained(uri):
            client, credentials = self._s3(), self._session().get_credentials()
            if credentials is None:
                raise aws.NoCredentialsError
            keys = credentials.get_frozen_credentials()
        options = {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
            "AWS_REGION": client.meta.region_name,
            # Of two commits of one version the store lets one through (If-None-Match: *).
            "AWS_CONDITIONAL_PUT": "etag",
        }
        endpoint = client.meta.endpoint_url
        if ".amazonaws.com" not in endpoint:
            options["AWS_ENDPOINT_URL"] = endpoint
            options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        return {name: value for name, value in options.items() if value}

    def _session(self) -> boto3.Session:
        return boto3.Session(profile_name=self.options.profile, region_name=self.options.region)

    def _s3(self) -> S3Client:
        if self._client is None or self._client[0] != os.getpid():
            session, endpoint = self._session(), self.options.endpoint_url
            # Every other tool knows AWS_REGION too.
            region = session.region_name or os.environ.get("AWS_REGION", "us-east-1")
            client = session.client("s3", region, endpoint_url=endpoint, config=_CONFIG)
            self._client = os.getpid(), client
        return self._client[1]

    def _head(self, uri: str) -> HeadObjectOutputTypeDef | None:
        bucket, key = _split(uri)
        with self._explained(uri):
            try:
                return self._s3().head_object(Bucket=bucket, Key=key) if key else None
            except aws.ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def _list_s3(self, uri: str) -> Iterator[ObjectInfo]:
        bucket, key = _split(uri)
        found = self.find(uri) if key and not key.endswith("/") else None
        if found:
            yield found
        folder = key if not key or key.endswith("/") else key + "/"
        empty = found is None
        with self._explained(uri):
            pages = self._s3().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=folder):
                for item in page.get("Contents", ()):
                    empty = False
                    name = f"s3://{bucket}/{item['Key']}"
                    yield ObjectInfo(name, item["Size"], item["ETag"].strip('"'))
        if empty and key:
            raise self._not_found(uri)

    def _delete_s3(self, bucket: str, keys: tuple[str, ...]) -> None:
        """At most 1000 keys."""
        failed: Any = ()
        with self._explained(f"s3://{bucket}/{keys[0]}"):
            client = self._s3()
            try:
                answer = client.delete_objects(
                    Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys], "Quiet": True}
                )
                failed = answer.get("Errors", ())
            except aws.ClientError as error:
                if _code(error) not in _ONE_BY_ONE:
                    raise
                for key in keys:
                    client.delete_object(Bucket=bucket, Key=key)
        for each in failed:
            refused = aws.ClientError({"Error": each}, "DeleteObjects")
            if _code(refused) not in _MISSING:
                raise _refusal(f"s3://{bucket}/{each['Key']}", refused)

    def _get(self, uri: str, request: dict[str, Any]) -> bytes:
        bucket, key = _split(uri)
        attempt = 0
        with self._explained(uri):
            while True:
                body = self._s3().get_object(Bucket=bucket, Key=key, **request)["Body"]
                attempt += 1
                try:
                    with contextlib.closing(body):
                        return body.read()
                except (
                    aws.ReadTimeoutError, aws.ResponseStreamingError, aws.IncompleteReadError,
                ):  # fmt: skip
                    if attempt == _ATTEMPTS:
                        raise
                    time.sleep(0.25 * 2**attempt)

    def _not_found(self, uri: str) -> NotFound:
        """Says what is there instead."""
        if not is_s3(uri):
            return NotFound(f"{uri!r}: there is no such file; check the path")
        bucket, key = _split(uri)
        with self._explained(uri):
            near = self._s3().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=3)
        names = ", ".join(repr(item["Key"]) for item in near.get("Contents", ()))
        hint = f"keys that begin so: {names}" if names else "check the key, letter by letter"
        return NotFound(f"{uri!r}: bucket {bucket!r} has no such object or folder; {hint}")

    @contextlib.contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        """Turns botocore's errors about a URI into ours."""
        try:
            yield
        except aws.ClientError as error:
            raise _refusal(uri, error) from error
        except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
            raise BadCredentials(f"{uri!r}: {_NO_CREDENTIALS}") from error
        except (aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.SSOError) as error:
            raise BadCredentials(f"{uri!r}: {error}; get new credentials") from error
        except aws.ProfileNotFound as error:
            raise UsageError(f"{uri!r}: {error}; check ~/.aws/config") from error
        except (aws.ConnectionError, aws.HTTPClientError) as error:
            raise StorageError(
                f"{uri!r}: no answer from {self._endpoint()} ({type(error).__name__}); "
                "check the endpoint and the network, then run the same command again"
            ) from error
        except (aws.BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
            raise StorageError(f"{uri!r}: {_shown(str(error))}") from error

    def _endpoint(self) -> str:
        client = self._client and self._client[1]
        return _shown(client.meta.endpoint_url) if client else "the store"


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(uri: str, error: aws.ClientError) -> StorageError:
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    bucket, _ = _split(uri)
    if code == "NoSuchBucket":
        return NoBucket(f"{uri!r}: there is no bucket {bucket!r}; check its name and the endpoint")
    if code in _MISSING:
        return NotFound(f"{uri!r}: there is no such object; check the key, letter by letter")
    if code in _CHANGED:
        return Changed(f"{uri!r} was replaced since it was listed; run ingest again")
    if code in _BAD_CREDENTIALS or status == 401:
        return BadCredentials(f"{uri!r}: {code}: {_BAD_CREDENTIALS.get(code, _NO_CREDENTIALS)}")
    if status == 403 or code == "AccessDenied":
        return AccessDenied(f"{uri!r}: {code}: {_NO_RIGHT}")
    words = error.response.get("Error", {}).get("Message", "")
    # Encrypted with a key that is not ours to use: so is this object, not the store.
    sealed = code == "InvalidRequest" or code.startswith("KMS.")
    kind = Unreadable if sealed else StorageError
    return kind(f"{uri!r}: the store answered {status} {code}: {words}")


class _S3Ranges:
    """Bytes of one version: a request for any other is refused by the store (If-Match)."""

    remote = True

    def __init__(self, storage: Storage, info: ObjectInfo) -> None:
        self._storage, self._info = storage, info

    def read(self, offset: int, length: int) -> bytes:
        span = f"bytes={offset}-{offset + length - 1}"
        request = {"Range": span, "IfMatch": f'"{self._info.version}"'}
        data = self._storage._get(self._info.uri, request)
        if len(data) != length:
            raise disk.changed(self._info)
        return data

    def verify(self) -> None:
        """Every range came from the version asked for."""

    def close(self) -> None:
        """The client is the storage's."""
