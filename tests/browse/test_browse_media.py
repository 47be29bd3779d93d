"""browse: stills, sources in ranges and latents to look at, and nothing else of the disk."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import numpy as np
import pytest
from PIL import Image

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.schemas import Sample, Source
from telecine.pipeline.browse.media import Unsatisfiable, parse_range
from tests.support.browsing import Served, dataset, made, one, plain_tables, served
from tests.support.inline import ingest
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(dataset()) as found:
        yield found


@pytest.fixture(scope="module")
def tables() -> duckdb.DuckDBPyConnection:
    return plain_tables()


def test_stills_are_those_of_the_table(server: Served, tables: duckdb.DuckDBPyConnection) -> None:
    rows = tables.sql("SELECT clip_id, position, jpeg FROM stills").fetchall()
    for clip_id, position, jpeg in rows:
        answer = server.get(f"/stills/{clip_id}/{position}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.body == jpeg
    assert server.get(f"/stills/{rows[0][0]}/999").status == 404
    assert server.get("/stills/nonesuch/0").status == 404


def a_film() -> Source:
    return next(s for s in dataset().tables.rows(Source) if s.kind == "video" and s.num_clips == 2)


def test_a_source_goes_out_in_ranges(server: Served) -> None:
    source = a_film()
    data = Path(source.uri).read_bytes()
    size = len(data)

    def get(range_: str | None, **more: str) -> Any:
        headers = more | ({"Range": range_} if range_ else {})
        return server.get("/footage", source.source_id, **headers)

    whole = get(None)
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"].startswith("video/")
    assert whole.headers["content-length"] == str(size)
    for asked, (start, stop) in {
        "bytes=0-": (0, size),
        "bytes=0-0": (0, 1),
        "bytes=100-199": (100, 200),
        f"bytes={size - 1}-": (size - 1, size),
        f"bytes=5-{10 * size}": (5, size),
        "bytes=-100": (size - 100, size),
        f"bytes=-{10 * size}": (0, size),
    }.items():
        part = get(asked)
        assert part.status == 206, asked
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.body == data[start:stop]
    for asked in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        none = get(asked)
        assert none.status == 416, asked
        assert none.headers["content-range"] == f"bytes */{size}"
        assert none.body == b""
    for asked in ("bytes=5-4", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-"):
        assert get(asked).status == 200, asked
    assert get("bytes=0-9", If_Range=whole.headers["etag"]).status == 206
    assert get("bytes=0-9", If_Range='"another"').status == 200
    head = get("bytes=0-9", method="HEAD")
    assert (head.status, head.body) == (206, b"")
    assert head.headers["content-length"] == "10"
    head = get(None, method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(size))


def test_a_range_of_absurd_numbers_is_no_range() -> None:
    assert parse_range(f"bytes={'9' * 5000}-", 10) is None


def test_ranges_of_an_empty_object_are_not_to_be_had() -> None:
    assert parse_range(None, 0) is None
    for asked in ("bytes=0-", "bytes=-1"):
        with pytest.raises(Unsatisfiable):
            parse_range(asked, 0)


def test_a_source_that_is_gone_or_changed_is_said_to_be(server: Served, tmp_path: Path) -> None:
    source = a_film()
    path = Path(source.uri)
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        gone = server.get("/footage", source.source_id, Accept="video/*")
        path.write_bytes(b"another")
        changed = server.get("/footage", source.source_id, Accept="video/*")
    finally:
        away.replace(path)
    assert (gone.status, gone.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert "no such file" in gone.text
    assert changed.status == 502
    assert "no longer version" in changed.text


def test_nothing_else_is_handed_out(server: Served, tables: duckdb.DuckDBPyConnection) -> None:
    rejected = one(tables, "SELECT min(source_id) FROM sources WHERE status = 'rejected'")
    assert server.get("/footage", rejected).status == 404
    for path in ("/etc/hostname", "../../etc/hostname", str(made() / "dataset" / "telecine.toml")):
        for place in ("/footage", "/stills", "/clips", "/static", "/decoded/x", "/channels/x"):
            for form in (path, quote(path, safe=""), path.replace("..", "%2e%2e")):
                answer = server.get(f"{place}/{form}")
                assert answer.status in (400, 404, 405), (place, form)
                assert b"[scan]" not in answer.body
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/guard.py", "//app.py"):
        assert server.get(path).status == 404


def test_latents_are_decoded_when_asked_for(server: Served) -> None:
    film = next(s for s in dataset().tables.rows(Sample) if s.encoded_frames > 1)
    picture = next(s for s in dataset().tables.rows(Sample) if s.encoded_frames == 1)
    answers: list[Any] = []
    waiting = [
        threading.Thread(
            target=lambda: answers.append(server.get("/decoded", film.build_id, film.clip_id))
        )
        for _ in range(2)
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert [a.status for a in answers] == [200, 200]
    assert answers[0].headers["content-type"] == "video/mp4"
    assert answers[0].body == answers[1].body
    assert answers[0].body[4:8] == b"ftyp"
    part = server.get("/decoded", film.build_id, film.clip_id, Range="bytes=4-7")
    assert (part.status, part.body) == (206, b"ftyp")
    shown = server.get("/decoded", picture.build_id, picture.clip_id)
    assert shown.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(shown.body)) as decoded:
        assert decoded.size == (picture.encoded_width, picture.encoded_height)
    assert server.get("/decoded", film.build_id, "nonesuch").status == 404


def test_channels_are_pictured(server: Served) -> None:
    sample = next(s for s in dataset().tables.rows(Sample) if s.encoded_frames > 1)
    answer = server.get("/channels", sample.build_id, sample.clip_id)
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.body)) as sheet:
        greys = np.asarray(sheet)
    _, _, height, width = sample.latent_shape
    zoom = -(-160 // max(height, width))
    assert greys.shape == (4 * (zoom * height + 4) - 4, 4 * (zoom * width + 4) - 4, 2)
    # The first channel's middle frame, as webdataset would read it.
    tar = (made() / "dataset" / sample.shard_path).read_bytes()
    member = tar[sample.latent_offset : sample.latent_offset + sample.latent_bytes]
    plane = np.load(io.BytesIO(member))[0, sample.latent_shape[1] // 2].astype(float)
    tile = greys[: zoom * height : zoom, : zoom * width : zoom, 0].astype(float)
    low, high = np.quantile(plane, [0.01, 0.99])
    assert np.abs(tile - np.clip((plane - low) / (high - low) * 255, 0, 255)).max() <= 1


def test_from_an_object_store_it_is_the_same(s3: S3Server, storage: Storage) -> None:
    """Tables through Arrow, sources and shards in ranges of objects."""
    footage = made() / "footage"
    film = next(p for p in sorted(footage.iterdir()) if p.suffix in (".webm", ".mp4"))
    picture = next(p for p in sorted(footage.iterdir()) if p.suffix in (".jpg", ".png"))
    for path in (film, picture):
        storage.upload(path, s3.uri("footage", path.name))
    ingest(s3.uri("footage"), s3.uri("dataset"))
    with served(open_dataset(s3.uri("dataset"), storage)) as server:
        assert server.get("/").status == 200
        clips = server.get("/clips?where=true&sort=kind").clips()
        assert len(clips) >= 2
        assert server.get("/charts.json").json()["clips"] == len(clips)
        for clip_id in clips:
            assert server.get("/clips", clip_id).status == 200
            assert server.get(f"/stills/{clip_id}/0").body[:2] == b"\xff\xd8"
        tables = open_dataset(s3.uri("dataset"), storage).tables
        for source in tables.rows(Source):
            data = (footage / Path(source.uri).name).read_bytes()
            assert server.get("/footage", source.source_id).body == data
            part = server.get("/footage", source.source_id, Range="bytes=-10")
            assert (part.status, part.body) == (206, data[-10:])
        sample = next(s for s in tables.rows(Sample) if s.outcome == "kept")
        for place in ("/channels", "/decoded"):
            assert server.get(place, sample.build_id, sample.clip_id).status == 200
