"""A dataset of real footage where that is at hand, hostile names and texts in it, and a server."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import uvicorn

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.pipeline.browse.app import listen, make_app
from telecine.pipeline.browse.guard import LOOPBACK_NAMES
from telecine.pipeline.demo.footage import render
from tests.support.inline import ingest, rebuild
from tests.support.waiting import until

SCRIPT = "<script>window.owned = 1</script>"
TEXT = f'{SCRIPT}</script><!-- "><img src=x onerror="window.owned = 2"> javascript:window.owned=3'
NAME = "\"><img src=x onerror=window.owned=4>' & \u202egpj.webm"

_REAL = (
    "playwright__movie.mp4",  # H.264, two shots
    "androidx__bear-vp9-odd-dimensions.webm",  # VP9
    "libvpl__cars_320x240.h264",  # no container: no browser plays it
    "mdnshared__hummingbird.jpg",
    "sharp__grey-8bit-alpha.png",
    "bad/INDEX.csv",
)
_DEMO = ("landscape.mp4", "portrait.mp4", "rotated.mp4", "photo.jpg", "picture.png", "broken.mp4")


def real_footage() -> Path | None:
    default = Path(__file__).resolve().parents[3] / "shared" / "footage"
    folder = Path(os.environ.get("TELECINE_FOOTAGE", default))
    return folder if all((folder / name).exists() for name in _REAL) else None


@functools.cache
def made() -> Path:
    """A folder with `footage` and `dataset`, of two builds: once in a run of the tests."""
    root = tempfile.TemporaryDirectory(prefix="telecine-tests-")
    made_once.append(root)
    folder = Path(root.name)
    footage = folder / "footage"
    footage.mkdir()
    real = real_footage()
    if real is None:
        render(folder / "demo")
    given, names = (real, _REAL) if real else (folder / "demo", _DEMO)
    for name in names:
        shutil.copy(given / name, footage / Path(name).name)
    first, second = footage / Path(names[0]).name, footage / Path(names[1]).name
    shutil.copy(second, footage / NAME)
    with (footage / NAME).open("ab") as file:  # other bytes: no duplicate
        file.write(b"\xec\x81\x00")
    first.with_suffix(".txt").write_text(TEXT)
    (footage / f"{SCRIPT.replace('/', '')}.mp4").write_text("no film\n")
    ingest(str(footage), str(folder / "dataset"))
    rebuild(str(folder / "dataset"), {"vae": {"fps": "8"}}, name="eight", promote=False)
    return folder


made_once: list[Any] = []  # holds the folder until the run ends


def dataset() -> Dataset:
    return open_dataset(str(made() / "dataset"), Storage())


def plain_tables() -> duckdb.DuckDBPyConnection:
    """DuckDB over the Parquet files, without our code: nothing was replaced or compacted here."""
    con = duckdb.connect()
    for name in ("sources", "clips", "stills", "captions", "samples", "builds"):
        files = f"{made()}/dataset/tables/{name}/*.parquet"
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM '{files}'")
    return con


def one(con: duckdb.DuckDBPyConnection, query: str, *params: Any) -> Any:
    ((value,),) = con.sql(query, params=list(params)).fetchall()
    return value


def clips_where(clause: str, **more: str) -> str:
    """The address of a page of clips."""
    return "/clips?" + "&".join(f"{k}={quote(v)}" for k, v in {"where": clause, **more}.items())


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def clips(self) -> list[str]:
        return re.findall(r'data-clip="([^"]*)"', self.text)

    def link(self, rel: str) -> str:
        """Where the link to the page before or after leads, or nowhere."""
        found = re.search(rf'rel="{rel}" href="([^"]*)"', self.text)
        return found[1].replace("&amp;", "&") if found else ""


@dataclass(frozen=True)
class Served:
    """A server on loopback."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, *parts: str, method: str = "GET", **headers: str) -> Answer:
        """The path goes out as it is. Underscores in names of headers stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        sent = {"Accept": "text/html"} | {n.replace("_", "-"): v for n, v in headers.items()}
        with contextlib.closing(connection):
            whole = path + "".join(f"/{quote(part, safe='')}" for part in parts)
            connection.putrequest(method, whole, skip_host="Host" in sent)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())


@contextlib.contextmanager
def served(
    opened: Dataset, names: frozenset[str] = LOOPBACK_NAMES, record: Any = None
) -> Iterator[Served]:
    """The application under a real server in a thread. `record` sees every request's scope."""
    app = make_app(opened, names)

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        if record is not None and scope["type"] == "http":
            record(scope)
        await app(scope, receive, send)

    with contextlib.closing(listen("127.0.0.1", 0)) as socket:
        config = uvicorn.Config(
            recorded, log_level="error", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started
            yield Served(socket.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
