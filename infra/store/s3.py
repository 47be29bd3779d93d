"""Objects in S3-compatible stores: the half of Storage that needs boto3. Only this imports it.

Credentials, profile and region come from boto3's chain.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3
import botocore.exceptions as aws
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from telecine.infra.errors import (
    AccessDenied,
    BadCredentials,
    Changed,
    NoBucket,
    NotFound,
    StorageError,
    Unreadable,
    UsageError,
)
from telecine.infra.pulse import beat
from telecine.infra.store import disk
from telecine.infra.store.disk import ObjectInfo
from telecine.infra.store.uris import join, split_s3, without_password

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

    from telecine.infra.store.storage import StoreOptions

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


class S3:
    """An S3-compatible store. Each process makes its own client when it needs one."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._made: tuple[int, S3Client] | None = None  # a client, and the process that made it

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        bucket, key = split_s3(uri)
        found = self.find(uri) if key and not key.endswith("/") else None
        if found:
            yield found
        folder = key if not key or key.endswith("/") else key + "/"
        empty = found is None
        with self._explained(uri):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=folder):
                for item in page.get("Contents", ()):
                    empty = False
                    name = f"s3://{bucket}/{item['Key']}"
                    version, modified = item["ETag"].strip('"'), item["LastModified"].timestamp()
                    yield ObjectInfo(name, item["Size"], version, modified)
        if empty and key:
            raise self.not_found(uri)

    def find(self, uri: str) -> ObjectInfo | None:
        head = self._head(uri)
        return head and ObjectInfo(uri, head["ContentLength"], head["ETag"].strip('"'))

    def get(self, uri: str, request: dict[str, Any]) -> bytes:
        """An object, or what of it the request names (Range, IfMatch)."""
        bucket, key = split_s3(uri)
        attempt = 0
        with self._explained(uri):
            while True:
                body = self._client().get_object(Bucket=bucket, Key=key, **request)["Body"]
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

    def ranges(self, info: ObjectInfo) -> Ranges:
        return Ranges(self, info)

    def put(self, uri: str, data: bytes) -> None:
        bucket, key = split_s3(uri)
        # The one checksum that every store verifies.
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        with self._explained(uri):
            self._client().put_object(Bucket=bucket, Key=key, Body=data, ContentMD5=md5)

    def upload(self, source: BinaryIO, uri: str) -> None:
        """A large one in parts."""
        bucket, key = split_s3(uri)
        with self._explained(uri):
            upload = self._client().upload_fileobj
            upload(source, bucket, key, Config=_TRANSFER, Callback=lambda _: beat())

    def delete(self, uris: Iterable[str]) -> None:
        for bucket, names in groupby(map(split_s3, uris), key=lambda name: name[0]):
            keys = (key for _, key in names)
            while batch := tuple(islice(keys, _BATCH)):
                self._delete_batch(bucket, batch)

    def unfinished(self, uri: str, before: float) -> Iterator[ObjectInfo]:
        bucket, key = split_s3(join(uri, ""))
        with self._explained(uri):
            client = self._client()
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
        bucket, key = split_s3(upload.uri)
        with (
            self._explained(upload.uri),
            contextlib.suppress(self._client().exceptions.NoSuchUpload),
        ):
            self._client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.version)

    def delta_options(self, uri: str) -> dict[str, str]:
        with self._explained(uri):
            client, credentials = self._client(), self._session().get_credentials()
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

    def not_found(self, uri: str) -> NotFound:
        """Says what is there instead."""
        bucket, key = split_s3(uri)
        with self._explained(uri):
            near = self._client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=3)
        names = ", ".join(repr(item["Key"]) for item in near.get("Contents", ()))
        hint = f"keys that begin so: {names}" if names else "check the key, letter by letter"
        return NotFound(f"{uri!r}: bucket {bucket!r} has no such object or folder; {hint}")

    def _session(self) -> boto3.Session:
        return boto3.Session(profile_name=self._options.profile, region_name=self._options.region)

    def _client(self) -> S3Client:
        """That of the process."""
        if self._made is None or self._made[0] != os.getpid():
            session, endpoint = self._session(), self._options.endpoint_url
            # Every other tool knows AWS_REGION too.
            region = session.region_name or os.environ.get("AWS_REGION", "us-east-1")
            client = session.client("s3", region, endpoint_url=endpoint, config=_CONFIG)
            self._made = os.getpid(), client
        return self._made[1]

    def _head(self, uri: str) -> HeadObjectOutputTypeDef | None:
        bucket, key = split_s3(uri)
        with self._explained(uri):
            try:
                return self._client().head_object(Bucket=bucket, Key=key) if key else None
            except aws.ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def _delete_batch(self, bucket: str, keys: tuple[str, ...]) -> None:
        """At most 1000 keys."""
        failed: Any = ()
        with self._explained(f"s3://{bucket}/{keys[0]}"):
            client = self._client()
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
            raise StorageError(f"{uri!r}: {without_password(str(error))}") from error

    def _endpoint(self) -> str:
        client = self._made and self._made[1]
        return without_password(client.meta.endpoint_url) if client else "the store"


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(uri: str, error: aws.ClientError) -> StorageError:
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    bucket, _ = split_s3(uri)
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
    short = status == 416  # it ends before the first byte that was asked for
    kind = Unreadable if sealed or short else StorageError
    return kind(f"{uri!r}: the store answered {status} {code}: {words}")


class Ranges:
    """Bytes of one version: a request for any other is refused by the store (If-Match)."""

    remote = True

    def __init__(self, store: S3, info: ObjectInfo) -> None:
        self._store, self._info = store, info

    def read(self, offset: int, length: int) -> bytes:
        span = f"bytes={offset}-{offset + length - 1}"
        request = {"Range": span, "IfMatch": f'"{self._info.version}"'}
        data = self._store.get(self._info.uri, request)
        if len(data) != length:
            raise disk.changed(self._info)
        return data

    def verify(self) -> None:
        """Every range came from the version asked for."""

    def close(self) -> None:
        """The client is the store's."""
