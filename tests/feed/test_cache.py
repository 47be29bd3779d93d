"""Ranges of objects kept on a local disk, and a store that does not answer for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from telecine.infra.errors import StorageError, UsageError
from telecine.infra.store.ranges import (
    LOOKS,
    CachedRanges,
    DiskRanges,
    Range,
    StoreRanges,
    open_ranges,
)
from telecine.infra.store.storage import Storage, StoreOptions


def read(ranges: CachedRanges | StoreRanges, uri: str, offset: int, size: int) -> bytes:
    data = bytearray(size)
    ranges.read(uri, [Range(offset, [memoryview(data)])])
    return bytes(data)


def test_ranks_of_one_machine_share_a_bounded_cache(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 400
    file, folder, most = tmp_path / "object", tmp_path / "cache", 20_000
    file.write_bytes(whole)
    ranks = [CachedRanges(DiskRanges(), folder, most) for _ in range(4)]
    for turn in range(100):
        for rank in ranks:
            offset = turn * 1000
            assert read(rank, str(file), offset, 500) == whole[offset : offset + 500]
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert held <= most * (1 + len(ranks) / LOOKS) + 500
    file.unlink()  # what was read last is still there
    assert read(ranks[0], str(file), 99_000, 500) == whole[99_000:99_500]


def test_what_is_another_object_is_not_taken_from_a_cache(tmp_path: Path) -> None:
    file, cached = tmp_path / "object", CachedRanges(DiskRanges(), tmp_path / "cache", None)
    for holds in ("one", "two", "one"):
        file.write_bytes(holds.encode())
        data = bytearray(3)
        cached.read(str(file), [Range(0, [memoryview(data)])], holds)
        assert data == holds.encode()


def test_a_cache_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        open_ranges(str(tmp_path), Storage(), tmp_path / "file" / "cache", None)
    with pytest.raises(UsageError, match="without a cache"):
        open_ranges(str(tmp_path), Storage(), None, 1e9)


class Busy(BaseHTTPRequestHandler):
    """A store that asks for patience as often as `left` says, and then has the object."""

    left = 0

    def do_GET(self) -> None:
        if type(self).left:
            type(self).left -= 1
            self.send_error(503)
            return
        self.send_response(206)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def busy() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow  # waits between its requests
def test_a_store_that_does_not_answer_is_asked_again(
    busy: str, aws_environment: pytest.MonkeyPatch
) -> None:
    storage = Storage(StoreOptions(busy))
    Busy.left = 6  # more than a request is tried
    assert read(StoreRanges(storage), "s3://bucket/object", 0, 4) == b"data"
    Busy.left = 100
    with pytest.raises(StorageError, match="503"):
        read(StoreRanges(storage, patience=0), "s3://bucket/object", 0, 4)
