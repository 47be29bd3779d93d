"""A dataset of the first format, made by an older version: opened, topped up and rebuilt by this.

Twice: as it was made, and as a still older version would have left it, without columns that came
later. Its footage lies in a store, so that it has the same name wherever the test runs.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.queries import VIEWS, connect
from telecine.manifests.schemas import TABLES, arrow_schema, defaults_of
from telecine.manifests.tables import Tables
from telecine.pipeline.cli.main import app
from tests.fixtures.make_dataset import BUCKET, film
from tests.support import inline
from tests.support.browsing import served
from tests.support.older import LATER, forget_columns, unpack
from tests.support.s3 import S3Server

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FIRST, VIDEOS = "dct-effcd6c7", "videos"  # its builds; the second one is current
FOOTAGE = f"s3://{BUCKET}/footage"


@pytest.fixture
def oldest(tmp_path: Path, s3: S3Server, storage: Storage) -> str:
    """The dataset without columns that came later, with its footage where it was."""
    dataset = laid_out(tmp_path, s3, storage)
    forget_columns(dataset)
    return str(dataset)


@pytest.fixture(params=["as it was made", "without later columns"])
def old(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, storage: Storage) -> str:
    """Either."""
    dataset = laid_out(tmp_path, s3, storage)
    if request.param != "as it was made":
        forget_columns(dataset)
    return str(dataset)


def laid_out(tmp_path: Path, s3: S3Server, storage: Storage) -> Path:
    dataset = unpack(tmp_path)
    put = urllib.request.Request(f"{s3.endpoint_url}/{BUCKET}", method="PUT")
    urllib.request.urlopen(put).close()
    for path in sorted((tmp_path / "footage").iterdir()):
        storage.upload(path, f"{FOOTAGE}/{path.name}")
    return dataset


def shards(dataset: str) -> Mapping[str, bytes]:
    return {str(p.relative_to(dataset)): p.read_bytes() for p in Path(dataset).rglob("*.tar")}


def done(*args: str | Path) -> str:
    """What the command prints, in this process."""
    found = CliRunner().invoke(app, [*map(str, args)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def inspect(*args: str | Path) -> Any:
    return json.loads(done("inspect", *args, "--json"))


def verify(*args: str | Path) -> None:
    done("verify", *args, "--workers", "0")


def clip_of(dataset: str, name: str) -> str:
    """The first clip of the footage of that name."""
    query = (
        "SELECT clip_id FROM current_clips JOIN current_sources USING (source_id) "
        "WHERE ends_with(uri, ?) ORDER BY start_frame"
    )
    found = connect(Tables(dataset)).sql(query, params=[name]).fetchall()
    return str(found[0][0])


# ── looking at it ────────────────────────────────────────────────────────────────────────────────


def test_every_table_reads_with_every_column(old: str) -> None:
    tables = Tables(old)
    con = connect(tables)
    for name, row in TABLES.items():
        there = {f.name for f in arrow_schema(row)}
        assert set(con.sql(f"FROM {name}").columns) == there
        assert tables.arrow(name).schema.names == arrow_schema(row).names
        lost = [c for c in LATER.get(name, ()) if c not in tables.columns(name).found.names]
        for column in lost:
            default = defaults_of(row)[column]
            values = {getattr(r, column) for r in tables.rows(row)}
            assert values == {default}
    for view in VIEWS:
        assert con.sql(f"FROM {view}").fetchall()


def test_the_commands_that_look(old: str, tmp_path: Path) -> None:
    done("inspect", old)
    for name in TABLES:
        inspect(old, name, "--limit", "0")
    assert len(inspect(old, "clips", "--where", "motion > 0")) == 3
    clip = clip_of(old, "captioned.mp4")
    assert "Red grains drift to the right." in done("inspect", old, "clip", clip)
    joined = done(
        "query", old, "SELECT count(*) AS n, count(caption) AS said FROM dataset", "--json"
    )
    assert json.loads(joined) == [{"n": 4, "said": 4}]
    assert "corrupt" in done("explain", old, "half.mp4")
    assert "kind" in done("explain", old, "picture.jpg")
    assert VIDEOS in done("explain", old, "captioned.mp4")
    assert "1 in A alone" in done("diff", old, FIRST, VIDEOS)
    done("diff", f"{old}@2", f"{old}@now")
    done("report", old, "-o", tmp_path / "report.html")


def test_its_pages(old: str) -> None:
    clip = clip_of(old, "shots.mp4")
    dataset = open_dataset(old, Storage())
    with served(dataset) as server:
        for path in ("/", "/clips", "/rejected", "/builds", "/charts.json", f"/clips/{clip}"):
            answer = server.get(path)
            assert answer.status == 200, (path, answer.text[:500])
        assert len(server.get("/clips").clips()) == 4


# ── going on with it ─────────────────────────────────────────────────────────────────────────────


def test_it_is_topped_up_and_what_was_there_keeps_its_bytes(
    old: str, s3: S3Server, storage: Storage, tmp_path: Path
) -> None:
    before = shards(old)
    again = inline.ingest(FOOTAGE, old)
    assert (again.scan.scanned, again.build.shards) == (0, 0)
    verify(old)  # with an index of samples, though no new plan was made
    new = tmp_path / "more.mp4"
    new.write_bytes(film((6, 30, 220, 220)))
    storage.upload(new, s3.uri("more", "more.mp4"))
    more = inline.ingest(s3.uri("more"), old)
    # The shard that was not full is made again beside the old one, with its latents copied.
    assert (more.scan.scanned, more.build.samples, more.build.samples_copied) == (1, 4, 3)
    after = shards(old)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1
    assert set(Tables(old).columns("sources").found.names) >= set(LATER["sources"])
    assert len(inspect(old, "clips")) == 5
    verify(old)
    verify(old, FIRST)


def test_all_of_it_is_scanned_again_where_its_file_says_so(oldest: str) -> None:
    clips = {row["clip_id"] for row in inspect(oldest, "clips", "--limit", "0")}
    file = Path(oldest) / "telecine.toml"
    file.write_text(file.read_text().replace("version = 1\n", "version = 2\n"))
    again = inline.ingest(FOOTAGE, oldest)
    assert again.scan.scanned > 0
    assert again.build.samples == 3  # the build in force takes videos
    assert clips.isdisjoint(row["clip_id"] for row in inspect(oldest, "clips", "--limit", "0"))
    verify(oldest, FIRST)


def test_the_rules_that_new_footage_follows_are_said(tmp_path: Path) -> None:
    spec = tmp_path / "older.toml"
    spec.write_text("[scan]\nversion = 1\n[pixels]\nversion = 1\n")
    (tmp_path / "footage").mkdir()
    (tmp_path / "footage" / "empty.mp4").touch()
    line = ("ingest", tmp_path / "footage", "--dataset", tmp_path / "old", "--workers", "0")
    first = CliRunner().invoke(app, [*map(str, line), "--config", str(spec)])
    assert "begun under older rules" in first.stderr, first.output
    new = (*line[:3], tmp_path / "new", *line[4:])
    assert "older rules" not in CliRunner().invoke(app, [*map(str, new)]).stderr


def test_it_is_rebuilt_promoted_rolled_back_and_cleaned(oldest: str) -> None:
    before = shards(oldest)
    copied = inline.rebuild(oldest, {"shards": {"target_bytes": 1_000_000}}, name="small")
    assert (copied.samples, copied.samples_copied) == (3, 3)
    said = inline.rebuild(oldest, {"caption": {"captioner": "sidecar"}}, name="said")
    assert said.frames_encoded == 0
    encoded = inline.rebuild(oldest, {"vae": {"patch": 1}}, name="fine", promote=False)
    assert encoded.frames_encoded > 0
    assert {path: shards(oldest)[path] for path in before} == before
    for build in ("small", FIRST, VIDEOS):
        done("promote", oldest, build)
        verify(oldest)
    done("rollback", oldest)
    assert current(oldest) == FIRST
    done("gc", oldest, "--yes")
    left = {Path(path).parts[1] for path in shards(oldest)}
    assert left == {FIRST}
    verify(oldest)
    done("inspect", oldest)


def current(dataset: str) -> str:
    rows: Any = inspect(dataset, "builds", "--limit", "0")
    events = [r for r in rows if r["event"] in ("promoted", "rolled_back")]
    return str(max(events, key=lambda r: r["sequence"])["name"])


def test_a_damaged_shard_of_it_is_made_again(old: str) -> None:
    before = shards(old)
    damaged = next(p for p in Path(old).rglob("*.tar") if VIDEOS in p.parts)
    damaged.write_bytes(b"x" * 1024)
    verify(old, "--repair")
    assert shards(old) == before
