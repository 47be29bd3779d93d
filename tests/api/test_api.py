"""import telecine: what the commands do, from Python, printing nothing and changing no process."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tarfile
import typing
from pathlib import Path

import pyarrow as pa
import pytest

import telecine
from telecine.infra import errors
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def made(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's footage, ingested by the function."""
    folder = tmp_path_factory.mktemp("api") / "dataset"
    ingested = telecine.ingest(demo_footage, folder, workers=0)
    assert ingested.scan.clips == ingested.build.samples + ingested.build.dropped
    assert ingested.build.settled.current
    return folder


def test_running_a_job_again_does_nothing(made: Path, demo_footage: Path) -> None:
    again = telecine.ingest([demo_footage], telecine.open(made), workers=0)
    assert (again.scan.scanned, again.build.samples, again.build.shards) == (0, 0, 0)


def test_a_blank_selection_is_none(made: Path) -> None:
    again = telecine.rebuild(made, spec={"select": {"where": "  "}}, workers=0)
    assert (again.samples, again.build) == (0, telecine.rebuild(made, workers=0).build)


def test_a_query_gives_an_arrow_table(made: Path) -> None:
    rows = telecine.query(made, "SELECT kind, count(*) AS clips FROM dataset GROUP BY kind")
    assert isinstance(rows, pa.Table)
    assert set(rows.column_names) == {"kind", "clips"}
    assert sum(rows["clips"].to_pylist()) == len(list(telecine.clips(made)))


@pytest.mark.parametrize("where", ["width > height", "motion > 0.01 and width >= 200", "false"])
def test_clips_are_those_that_the_condition_takes(made: Path, where: str) -> None:
    taken = [clip.clip_id for clip in telecine.clips(made, where)]
    sql = f"SELECT clip_id FROM dataset WHERE {where} ORDER BY clip_id"
    assert taken == telecine.query(made, sql)["clip_id"].to_pylist()
    assert len(taken) < len(list(telecine.clips(made)))


def test_a_clip_is_typed(made: Path) -> None:
    clip = next(telecine.clips(made))
    assert isinstance(clip, telecine.Clip)
    assert clip.duration_seconds >= 0


def test_a_rebuild_copies_and_promotes_and_goes_back(made: Path) -> None:
    before = telecine.query(made, "SELECT count(*) AS n FROM samples WHERE outcome = 'kept'")
    built = telecine.rebuild(
        made, spec={"shards": {"target_bytes": 1_000_000}}, name="small", workers=0
    )
    assert (built.build, built.settled.current) == ("small", True)
    assert (built.frames_encoded, built.samples) == (0, before["n"][0].as_py())
    current = json.loads((made / "shards" / "current.json").read_text())
    assert current["name"] == "small"
    telecine.rollback(made)
    assert json.loads((made / "shards" / "current.json").read_text())["name"] != "small"
    telecine.promote(made, "small")
    assert json.loads((made / "shards" / "current.json").read_text())["name"] == "small"


def test_captions_of_another_captioner(made: Path) -> None:
    telecine.caption(made, spec={"caption": {"captioner": "signal"}}, workers=0)
    names = telecine.query(made, "SELECT DISTINCT captioner FROM captions")
    assert any("signal" in name for name in names["captioner"].to_pylist())


def test_an_export_lists_what_there_is(made: Path, tmp_path: Path) -> None:
    exported = telecine.export(made, tmp_path / "lists", "urls")
    assert exported.num_samples > 0
    assert all((tmp_path / "lists" / name).exists() for name in exported.files)


def test_an_index_has_the_samples_that_a_condition_takes(made: Path, tmp_path: Path) -> None:
    count = telecine.feed_index(made, tmp_path / "wide.arrow", where="width > height")
    sql = "SELECT clip_id FROM dataset WHERE in_build AND width > height"
    wanted = set(telecine.query(made, sql)["clip_id"].to_pylist())
    found = pa.ipc.open_file(tmp_path / "wide.arrow").read_all()["clip_id"].to_pylist()
    assert (count, set(found)) == (len(wanted), wanted)
    assert wanted


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: telecine.open(d / "nowhere"), "no dataset"),
        (lambda d: list(telecine.clips(d, "nonesuch > 1")), "nonesuch"),
        (lambda d: telecine.query(d, "DROP TABLE clips"), "DROP|read"),
        (lambda d: telecine.rebuild(d, spec={"vae": {"nonesuch": 1}}, workers=0), "nonesuch"),
        (lambda d: telecine.rebuild(d, spec={"scan": {"max_seconds": 3}}, workers=0), "scan"),
        (lambda d: telecine.ingest(d / "nowhere", d, workers=0), "nowhere"),
        (lambda d: telecine.promote(d, "nonesuch"), "nonesuch"),
        (lambda d: telecine.feed_index(d, d / "x.arrow"), "lies in the dataset"),
        (lambda d: telecine.ingest([], d, workers=0), "no source was given"),
        (lambda d: telecine.rebuild(d, workers=-1), "a number from 0 on"),
        (lambda d: telecine.rebuild(d, workers=0, ray_address="h:1"), "h:1 was asked for too"),
    ],
)
def test_a_mistake_is_an_error_of_ours(
    made: Path, call: typing.Callable[[Path], object], words: str
) -> None:
    with pytest.raises(telecine.TelecineError, match=words):
        call(made)


def test_a_dataset_in_a_store(s3: S3Server, made: Path, demo_footage: Path) -> None:
    uri = s3.uri("dataset")
    still = next(demo_footage.glob("*.jpg"))
    telecine.ingest(still, uri, workers=0)
    dataset = telecine.open(uri, endpoint_url=s3.endpoint_url)
    (clip,) = telecine.clips(dataset)
    assert clip.num_frames == 1
    assert telecine.query(dataset, "SELECT uri FROM sources")["uri"].to_pylist() == [str(still)]


def test_every_public_name_is_there_documented_and_typed() -> None:
    for name in telecine.__all__:
        value = getattr(telecine, name)
        in_the_tree = name in (errors.__doc__ or "")  # which says of each what to do next
        assert value.__doc__ or in_the_tree, name
        if inspect.isfunction(value):
            hints = inspect.signature(value)
            assert hints.return_annotation is not inspect.Signature.empty, name
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = telecine.nonesuch


QUIET = """
import io, os, sys, threading, logging
before = (dict(os.environ), threading.active_count(), logging.getLogger().handlers[:])
import telecine
heavy = {"ray", "torch", "av", "duckdb", "deltalake", "boto3", "starlette", "typer"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
footage, folder = sys.argv[1:]
telecine.ingest(footage, folder, workers=0)
assert len(list(telecine.clips(folder))) == 1
assert before[0] == dict(os.environ)
assert before[2] == logging.getLogger().handlers
assert "ray" not in sys.modules
"""


def test_nothing_is_printed_and_the_process_stays_as_it_is(
    demo_footage: Path, tmp_path: Path
) -> None:
    still = next(demo_footage.glob("*.jpg"))
    done = subprocess.run(
        [sys.executable, "-c", QUIET, still, tmp_path / "dataset"],
        env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    tars = list((tmp_path / "dataset" / "shards").rglob("*.tar"))
    assert len(tars) == 1
    with tarfile.open(tars[0]) as tar:
        assert len(tar.getnames()) == 3


MISSING = """
import sys
sys.modules["av"] = None
import telecine
try:
    telecine.ingest(sys.argv[1], sys.argv[2], workers=0)
except telecine.UsageError as error:
    print(error)
"""


def test_a_package_that_is_missing_is_named_with_what_brings_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING, tmp_path, tmp_path / "dataset"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "telecine.ingest needs av" in done.stdout
    assert "pip install 'telecine[prepare]'" in done.stdout
