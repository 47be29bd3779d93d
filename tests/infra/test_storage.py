"""Storage on disk and against a real S3 server process: names, ranges, versions, refusals."""

from __future__ import annotations

import http.client
import http.server
import os
import pickle
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from telecine.infra.errors import (
    AccessDenied,
    BadCredentials,
    Changed,
    NotFound,
    Reason,
    StorageError,
    UsageError,
)
from telecine.infra.store.storage import ObjectInfo, Storage, StoreOptions, absolute, join
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import Scanned, scan_source
from tests.support.digests import reference_digest
from tests.support.s3 import S3Server, moto_server

STRANGE = [
    "a b+c&d=(1)#%.mp4",
    "100%/50%25.mp4",
    "what?.mov",
    "日本/映像 🎬.mov",
    ".hidden/.clip.mp4",
    "double//slash.mp4",
    "no-extension",
    "quote'\"<>;,@$!*~^`{}[]|\\.mp4",
    "é.mp4",  # composed
    "é.mp4",  # decomposed: another name
]


# ── names and listings ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", STRANGE)
def test_any_legal_name_survives_a_round_trip(storage: Storage, root: str, name: str) -> None:
    if "//" in name and not root.startswith("s3://"):
        pytest.skip("a file system has no empty folder name")
    uri = join(root, name)
    storage.write_bytes(uri, name.encode())
    (listed,) = storage.list(root)
    assert listed == storage.stat(uri) == ObjectInfo(uri, len(name.encode()), listed.version)
    assert storage.read_bytes(listed.uri) == name.encode()
    with storage.open(listed) as reader:
        assert reader.read() == name.encode()
    assert [info.uri for info in storage.list(uri)] == [uri]


def test_keys_that_paths_would_normalise_are_themselves(storage: Storage, s3: S3Server) -> None:
    keys = ["a/../b.mp4", "./c.mp4", "/leading.mp4", "trailing.mp4/"]
    for key in keys:
        storage.write_bytes(f"s3://{s3.bucket}/{key}", key.encode())
    found = {info.uri: storage.read_bytes(info.uri) for info in storage.list(s3.uri())}
    assert found == {f"s3://{s3.bucket}/{key}": key.encode() for key in keys}


def test_a_listing_is_recursive_in_uri_order_and_names_what_changed(
    storage: Storage, root: str
) -> None:
    names = ["b/z.mp4", "b.mp4", "b-c/x.mp4", "b/a/deep.mp4", "a.mp4"]
    for name in names:
        storage.write_bytes(join(root, name), b"one")
    first = list(storage.list(root))
    assert [info.uri for info in first] == sorted(join(root, name) for name in names)
    storage.write_bytes(join(root, "a.mp4"), b"two")
    changed = set(storage.list(root)) - set(first)
    assert [info.uri for info in changed] == [join(root, "a.mp4")]


def test_a_folder_is_not_its_longer_named_neighbour(storage: Storage, root: str) -> None:
    for name in ["day1/a.mp4", "day10/b.mp4", "day1.mp4"]:
        storage.write_bytes(join(root, name), b"x")
    for typed in ["day1", "day1/"]:
        assert [i.uri for i in storage.list(join(root, typed))] == [join(root, "day1/a.mp4")]


def test_more_keys_than_one_page(storage: Storage, s3: S3Server) -> None:
    uris = [s3.uri("many", f"{n:05d} +.mp4") for n in range(1105)]
    server = http.client.HTTPConnection(s3.endpoint_url.removeprefix("http://"))
    for uri in uris:  # as the client would, without the client's cost
        server.request("PUT", quote(uri.removeprefix("s3:/")), b"")
        answer = server.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    server.close()
    assert [info.uri for info in storage.list(s3.uri("many"))] == uris


def test_an_empty_bucket_lists_nothing(storage: Storage, s3: S3Server) -> None:
    assert list(storage.list(s3.uri())) == list(storage.list(s3.uri("")))


def test_disk_listing_follows_links_once_and_leaves_out_what_is_no_file(
    storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.mp4").write_bytes(b"x")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "linked.mp4").symlink_to("real/a.mp4")
    (tmp_path / "dangling.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    names = [info.uri.removeprefix(f"{tmp_path}/") for info in storage.list(str(tmp_path))]
    assert names == ["linked.mp4", "real/a.mp4"]


def test_a_name_that_is_not_utf8_can_be_listed_and_read(storage: Storage, tmp_path: Path) -> None:
    name = os.fsdecode(b"bad-\xff.mp4")
    (tmp_path / name).write_bytes(b"x")
    (info,) = storage.list(str(tmp_path))
    assert storage.read_bytes(info.uri) == b"x"


def test_absolute_refuses_what_is_neither_a_path_nor_s3(tmp_path: Path) -> None:
    assert absolute("s3://bucket/a b") == "s3://bucket/a b"
    assert absolute("footage/../x") == str(Path.cwd() / "x")
    for wrong in ["gs://bucket/x", "https://host/x.mp4", "s3://", "s3:///key"]:
        with pytest.raises(UsageError, match="s3://bucket"):
            absolute(wrong)


# ── versions ─────────────────────────────────────────────────────────────────────────────────────


def test_a_replaced_object_is_not_read(storage: Storage, root: str) -> None:
    uri = join(root, "clip.mp4")
    storage.write_bytes(uri, b"a" * 3_000_000)
    listed = storage.stat(uri)
    reader = storage.open(listed)
    assert reader.read(10) == b"a" * 10
    storage.write_bytes(uri, b"b" * 3_000_000)
    # The open file on disk is still the old one, whole; the store has only the new one.
    with reader:
        if root.startswith("s3://"):
            reader.seek(2_000_000)
            with pytest.raises(Changed, match="ingest again"):
                reader.read(10)
        else:
            assert reader.content_digest() == reference_digest(b"a" * 3_000_000)
    with pytest.raises(Changed, match="ingest again"), storage.open(listed) as reader:
        reader.read(10)


def test_a_file_written_to_while_it_is_read_is_noticed(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(b"a" * 100)
    with storage.open(storage.stat(str(path))) as reader:
        reader.read()
        path.write_bytes(b"b" * 50)
        with pytest.raises(Changed):
            reader.content_digest()


def test_a_vanished_object(storage: Storage, root: str) -> None:
    with pytest.raises(NotFound), storage.open(ObjectInfo(join(root, "gone"), 5, "5-5")) as reader:
        reader.read()


# ── writing ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1000, 70 * 2**20])
def test_upload(storage: Storage, root: str, tmp_path: Path, size: int) -> None:
    local = tmp_path / "shard.tar"
    data = random.Random(size).randbytes(size)
    local.write_bytes(data)
    storage.upload(local, join(root, "deep/er/shard.tar"))
    assert storage.read_bytes(join(root, "deep/er/shard.tar")) == data
    assert [i.size_bytes for i in storage.list(root)] == [size]


def test_read_range(storage: Storage, root: str) -> None:
    storage.write_bytes(join(root, "x"), b"0123456789")
    assert storage.read_range(join(root, "x"), 3, 4) == b"3456"
    assert storage.read_range(join(root, "x"), 3, 0) == b""
    with pytest.raises(StorageError):
        storage.read_range(join(root, "x"), 8, 4)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        storage.write_bytes(str(tmp_path / "folder"), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_written_files_have_ordinary_permissions(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    storage.write_bytes(str(tmp_path / "ours"), b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_storage_travels_without_its_client(storage: Storage, s3: S3Server) -> None:
    storage.write_bytes(s3.uri("x"), b"1")
    assert pickle.loads(pickle.dumps(storage)).read_bytes(s3.uri("x")) == b"1"


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there(storage: Storage, root: str) -> None:
    storage.write_bytes(join(root, "clips/a.mp4"), b"x")
    missing = join(root, "clip")
    assert storage.find(missing) is None
    for ask in (storage.stat, storage.read_bytes, lambda uri: list(storage.list(uri))):
        with pytest.raises(NotFound, match=r"check|begin so: 'root/clips/a.mp4'"):
            ask(missing)


def test_a_missing_bucket_is_named(storage: Storage, s3: S3Server, tmp_path: Path) -> None:
    uri = "s3://no-such-bucket/x"
    (tmp_path / "f").write_bytes(b"x")
    for ask in (
        storage.stat,
        storage.read_bytes,
        lambda uri: list(storage.list(uri)),
        lambda uri: storage.write_bytes(uri, b""),
        lambda uri: storage.upload(tmp_path / "f", uri),
    ):
        with pytest.raises(NotFound, match="no bucket 'no-such-bucket'"):
            ask(uri)
    with pytest.raises(StorageError, match="Bad Bucket!"):
        list(storage.list("s3://Bad Bucket!/x"))


def test_a_server_that_is_not_there_is_said_quickly(
    storage: Storage, aws_environment: pytest.MonkeyPatch
) -> None:
    aws_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match=r"no answer from http://127.0.0.1:1.*check the endp"):
        list(storage.list("s3://bucket"))


def test_no_credentials(storage: Storage, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for ask in (storage.stat, storage.delta_options):
        with pytest.raises(BadCredentials, match="set AWS_ACCESS_KEY_ID"):
            ask(s3.uri("x"))
    with pytest.raises(UsageError, match="nobody"):
        Storage(StoreOptions(profile="nobody")).stat(s3.uri("x"))


def test_an_unknown_access_key(aws_environment: pytest.MonkeyPatch) -> None:
    with moto_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as endpoint:
        storage = Storage(StoreOptions(endpoint_url=endpoint))
        with pytest.raises(BadCredentials, match="does not know this access key") as refused:
            list(storage.list("s3://bucket"))
        with pytest.raises(AccessDenied, match="credentials in force"):
            storage.stat("s3://bucket/x")
    assert "telecine-test" not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("localhost:9000", "http://host:port"),
        ("http://user:hunter2@host", r"\*\*\*@host.*holds a password"),
    ],
)
def test_a_wrong_endpoint(endpoint: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        StoreOptions(endpoint_url=endpoint)
    assert "hunter2" not in str(refused.value)


ANSWERS = {
    "/bucket/forbidden": (403, "AccessDenied"),
    "/bucket/signature": (403, "SignatureDoesNotMatch"),
    "/bucket/clock": (403, "RequestTimeTooSkewed"),
    "/bucket/expired": (400, "ExpiredToken"),
    "/bucket/gone": (404, "NoSuchKey"),
    "/bucket/odd": (405, "MethodNotAllowed"),
}


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does when it refuses, and breaks the first answer to /bucket/broken off."""

    protocol_version = "HTTP/1.1"
    broken = 0

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/bucket/broken":
            self._break_off()
            return
        status, code = ANSWERS[path]
        body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break_off(self) -> None:
        type(self).broken += 1
        self.send_response(206)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789"[: 5 if self.broken == 1 else 10])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def refusing(aws_environment: pytest.MonkeyPatch) -> Iterator[Storage]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Storage(StoreOptions(endpoint_url=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()


@pytest.mark.parametrize(
    ("key", "error", "advice"),
    [
        ("forbidden", AccessDenied, "the bucket's policy"),
        ("signature", BadCredentials, "secret key is wrong"),
        ("clock", BadCredentials, "clock is wrong"),
        ("expired", BadCredentials, "new credentials"),
        ("odd", StorageError, "405 MethodNotAllowed"),
    ],
)
def test_a_refusal_says_what_to_do(
    refusing: Storage, key: str, error: type[StorageError], advice: str
) -> None:
    with pytest.raises(error, match=advice) as refused:
        refusing.read_bytes(f"s3://bucket/{key}")
    assert refused.type is error
    assert f"s3://bucket/{key}" in str(refused.value)
    assert "telecine-test-secret" not in str(refused.value)


def scan(storage: Storage, uri: str) -> Scanned:
    task = ScanTask(Found(uri, version="v", size_bytes=1000), revision=0)
    return scan_source(task, storage, DatasetSpec())


def test_an_object_that_may_not_be_read_is_one_rejected_source(
    refusing: Storage, tmp_path: Path
) -> None:
    for uri in ("s3://bucket/forbidden", "s3://bucket/gone", str(tmp_path / "gone")):
        source = scan(refusing, uri).source
        assert (source.status, source.reason) == ("rejected", Reason.UNREADABLE)
        assert uri in source.detail


@pytest.mark.parametrize("key", ["signature", "clock", "expired", "odd"])
def test_a_store_that_refuses_its_caller_rejects_no_source(refusing: Storage, key: str) -> None:
    with pytest.raises(StorageError, match=f"s3://bucket/{key}"):
        scan(refusing, f"s3://bucket/{key}")


def test_a_store_that_is_gone_rejects_no_source(
    storage: Storage, aws_environment: pytest.MonkeyPatch
) -> None:
    aws_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="no answer from"):
        scan(storage, "s3://bucket/x")


def test_an_answer_that_breaks_off_is_asked_for_again(refusing: Storage) -> None:
    _Refusing.broken = 0
    assert refusing.read_range("s3://bucket/broken", 0, 10) == b"0123456789"
    assert _Refusing.broken == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(AccessDenied, match="permissions"):
        storage.read_bytes(str(tmp_path / "secret"))


# ── the libraries that read through it ───────────────────────────────────────────────────────────


def test_deltalake_commits_to_the_same_store(storage: Storage, s3: S3Server) -> None:
    """Of two commits of one version one wins, and the other goes on top of it."""
    options = storage.delta_options(s3.uri())
    uri = s3.uri("data%20set", "tables", "t")
    write_deltalake(uri, pa.table({"x": [0]}), storage_options=options)

    def append(number: int) -> None:
        rows = pa.table({"x": [number]})
        write_deltalake(uri, rows, mode="append", storage_options=options)

    threads = [threading.Thread(target=append, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = DeltaTable(uri, storage_options=options)
    assert table.version() == 6
    assert sorted(table.to_pyarrow_table()["x"].to_pylist()) == list(range(7))
    assert any(i.uri.startswith(s3.uri("data set/tables")) for i in storage.list(s3.uri()))
    assert storage.delta_options("/local") == {}
