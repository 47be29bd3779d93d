"""An S3 server in a process of its own, on loopback; and what lies on disk put there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from telecine.infra.store.storage import Storage, join
from tests.support.waiting import until


@dataclass(frozen=True)
class S3Server:
    """A real S3 server process on loopback, and an empty bucket of this test's own."""

    endpoint_url: str
    bucket: str

    def uri(self, *parts: str) -> str:
        return "/".join([f"s3://{self.bucket}", *parts])


@contextlib.contextmanager
def moto_server(**environment: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"MOTO_S3_CUSTOM_ENDPOINTS": url} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(port), process)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def put(folder: Path, uri: str) -> str:
    """Copy a folder of the disk, such as a dataset, to a path or a URI, and return that."""
    storage = Storage()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        storage.upload(path, join(uri, str(path.relative_to(folder))))
    return uri
