"""Deleting, on disk and against a real S3 server process, and uploads that were never ended."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from telecine.infra.errors import AccessDenied, StorageError
from telecine.infra.store.disk import PART_PREFIX
from telecine.infra.store.storage import Storage, StoreOptions, join
from tests.support.s3 import S3Server

NAMES = ["a b+c&d=(1)#%.tar", "日本/é.tar", "deep/er/<&>.tar", "deep/left.tar"]


def test_what_is_named_goes_and_nothing_else(storage: Storage, root: str) -> None:
    for name in NAMES:
        storage.write_bytes(join(root, name), b"x")
    gone = [join(root, name) for name in NAMES if "left" not in name]
    for _ in range(2):  # again is no error
        storage.delete(gone, root)
        assert [info.uri for info in storage.list(root)] == [join(root, "deep/left.tar")]
    storage.delete([], root)


def test_folders_that_become_empty_go_up_to_the_root(storage: Storage, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in NAMES:
        storage.write_bytes(str(root / name), b"x")
    storage.delete([str(root / name) for name in NAMES[:3]], str(root))
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == ["deep", "deep/left.tar"]
    # Killed between a file and its folder, and run again.
    (root / "deep/left.tar").unlink()
    storage.delete([str(root / NAMES[3])], str(root))
    assert list(tmp_path.rglob("*")) == [root]


def test_links_are_not_walked_where_they_are_not_to_be(storage: Storage, tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root / "in/a.tar", other / "b.tar", other / f"{PART_PREFIX}0"):
        storage.write_bytes(str(path), b"x")
    (root / "in/borrowed").symlink_to(other)
    (root / "in/b.tar").symlink_to(other / "b.tar")
    (tmp_path / "linked").symlink_to(root)
    linked = str(tmp_path / "linked")
    assert len(list(storage.list(linked))) == 4
    listed = storage.list(linked, follow_links=False)
    assert [info.uri for info in listed] == [join(linked, "in/a.tar")]
    assert list(storage.unfinished(str(root), time.time() + 60)) == []


def test_a_link_to_a_folder_that_becomes_empty_stays(storage: Storage, tmp_path: Path) -> None:
    """As where shards/ lies on another disk."""
    away, link = tmp_path / "away", tmp_path / "root/shards"
    storage.write_bytes(str(away / "deep/x.tar"), b"x")
    link.parent.mkdir()
    link.symlink_to(away)
    storage.delete([str(link / "deep/x.tar")], str(link.parent))
    assert link.is_symlink()
    assert list(away.iterdir()) == []


def test_more_keys_than_one_request_takes(storage: Storage, s3: S3Server) -> None:
    uris = [s3.uri("many", f"{n:05d} +.tar") for n in range(1005)]
    for uri in [*uris, s3.uri("many-more")]:
        storage.write_bytes(uri, b"")
    storage.delete(iter(uris), s3.uri("many"))
    assert [info.uri for info in storage.list(s3.uri(""))] == [s3.uri("many-more")]


@pytest.fixture
def answers() -> Iterator[tuple[str, dict[str, tuple[int, str]], list[str]]]:
    """A server that gives one answer per method, and notes what it was asked."""
    said: dict[str, tuple[int, str]] = {}
    asked: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(f"{self.command} {self.path}")
            status, body = said[self.command]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", said, asked
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("aws_environment")
def test_a_store_that_deletes_one_by_one(
    answers: tuple[str, dict[str, tuple[int, str]], list[str]],
) -> None:
    url, said, asked = answers
    said["POST"] = (400, "<Error><Code>MissingContentMD5</Code></Error>")
    said["DELETE"] = (204, "")
    Storage(StoreOptions(url)).delete(["s3://b/d/x", "s3://b/d/y"], "s3://b/d")
    assert asked == ["POST /b?delete", "DELETE /b/d/x", "DELETE /b/d/y"]


@pytest.mark.usefixtures("aws_environment")
def test_a_key_that_may_not_be_deleted(
    answers: tuple[str, dict[str, tuple[int, str]], list[str]],
) -> None:
    url, said, _ = answers
    refused = "<Error><Key>d/x</Key><Code>{}</Code></Error>"
    for code, error in [("AccessDenied", AccessDenied), ("InternalError", StorageError)]:
        said["POST"] = (200, f"<DeleteResult>{refused.format(code)}</DeleteResult>")
        with pytest.raises(error, match=f"'s3://b/d/x'.*{code}"):
            Storage(StoreOptions(url)).delete(["s3://b/d/x"], "s3://b/d")
    said["POST"] = (200, f"<DeleteResult>{refused.format('NoSuchKey')}</DeleteResult>")
    Storage(StoreOptions(url)).delete(["s3://b/d/x"], "s3://b/d")


def test_uploads_that_were_never_ended(storage: Storage, root: str) -> None:
    storage.write_bytes(join(root, "shards/whole.tar"), b"x")
    if root.startswith("s3://"):
        bucket, _, key = root.removeprefix("s3://").partition("/")
        client = boto3.client("s3")
        upload = client.create_multipart_upload(Bucket=bucket, Key=f"{key}/shards/half.tar")
        client.upload_part(
            Bucket=bucket, Key=f"{key}/shards/half.tar", UploadId=upload["UploadId"], PartNumber=1,
            Body=b"half",
        )  # fmt: skip
        client.close()
    else:
        Path(root, "shards", f"{PART_PREFIX}0").write_bytes(b"half")
    assert list(storage.unfinished(join(root, "shards"), 0.0)) == []
    (found,) = storage.unfinished(join(root, "shards"), time.time() + 60)
    assert found.size_bytes == 4
    for _ in range(2):  # again is no error
        storage.abort(found)
        assert list(storage.unfinished(join(root, "shards"), time.time() + 60)) == []
    assert storage.read_bytes(join(root, "shards/whole.tar")) == b"x"
