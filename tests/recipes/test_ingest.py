"""The main job as a user runs it: the real command, Ray really started, shards read back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pytest
import webdataset

from tests.support.commands import inspect, killed_at, telecine
from tests.support.inline import ingesting
from tests.support.snapshot import assert_same, shards_of, tables_of


@pytest.fixture(scope="module")
def dataset(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo footage, ingested by the command."""
    folder = tmp_path_factory.mktemp("ingest") / "dataset"
    done = telecine("ingest", demo_footage, "--dataset", folder)
    assert done.returncode == 0, done.stderr
    assert "1 rejected" in done.stdout
    return folder


def test_every_object_and_every_frame_is_accounted_for(dataset: Path, demo_footage: Path) -> None:
    sources = tables_of(dataset)["sources"]
    names = {Path(s["uri"]).name for s in sources}
    sidecars = {Path(s["sidecar_uri"]).name for s in sources if s["sidecar_uri"]}
    assert names | sidecars == {p.name for p in demo_footage.iterdir()}
    clips = tables_of(dataset)["clips"]
    kept: dict[str, int] = defaultdict(int)
    for clip in clips:
        kept[clip["source_id"]] += clip["num_frames"]
    for source in sources:
        dropped = sum(span["num_frames"] for span in source["dropped"])
        assert source["frames_kept"] == kept[source["source_id"]]
        assert source["frames_dropped"] == dropped
        assert source["num_frames"] == source["frames_kept"] + dropped


def test_each_clip_is_one_sample_or_dropped_with_a_reason(dataset: Path) -> None:
    tables = tables_of(dataset)
    samples = {s["clip_id"]: s for s in tables["samples"]}
    assert len(samples) == len(tables["samples"])
    assert samples.keys() == {c["clip_id"] for c in tables["clips"]}
    assert all(s["outcome"] == "kept" or s["reason"] for s in samples.values())


# webdataset leaves its files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_and_stacks_a_batch(dataset: Path) -> None:
    (index_path,) = (dataset / "shards").glob("*/index.json")
    index = json.loads(index_path.read_text())
    urls = [str(index_path.parent / shard["path"]) for shard in index["shards"]]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == index["num_samples"]
    rows = {s["clip_id"]: s for s in tables_of(dataset)["samples"]}
    shapes: dict[tuple[int, ...], list[Any]] = defaultdict(list)
    for sample in samples:
        latents, facts = sample["latent.npy"], sample["json"]
        row = rows[sample["__key__"]]
        assert facts["clip_id"] == sample["__key__"]
        assert latents.dtype == np.float16
        assert np.isfinite(latents).all()
        assert list(latents.shape) == facts["latent"]["shape"] == list(row["latent_shape"])
        assert latents.shape[1:] == (
            1 + (facts["num_frames"] - 1) // 4,
            facts["height"] // 8,
            facts["width"] // 8,
        )
        assert sample["txt"] == facts["caption"] != ""
        shapes[latents.shape].append(latents)
    for latents in shapes.values():
        assert np.stack(latents).shape[0] == len(latents)


def test_sidecar_text_is_the_caption(dataset: Path) -> None:
    captions = tables_of(dataset)["captions"]
    texts = {c["text"] for c in captions if c["captioner"] == "sidecar"}
    assert "Three balls bounce over desert dunes under a pale blue sky." in texts
    assert "Four balls drift through the night." in texts


def test_tables_are_read_without_our_code(dataset: Path) -> None:
    clips = polars.scan_delta(str(dataset / "tables" / "clips")).collect()
    assert clips.height == len(tables_of(dataset)["clips"]) > 0
    files = str(dataset / "tables" / "clips" / "*.parquet")
    ((count,),) = duckdb.sql(f"SELECT count(*) FROM read_parquet('{files}')").fetchall()
    assert count == clips.height


def test_inspect_says_what_is_there(dataset: Path) -> None:
    tables = tables_of(dataset)
    listed = inspect(dataset, "clips", "--limit", "0")
    assert {row["clip_id"] for row in listed} == {c["clip_id"] for c in tables["clips"]}
    images = inspect(dataset, "clips", "--where", "kind = 'image'")
    assert len(images) == sum(c["kind"] == "image" for c in tables["clips"])
    rejected = inspect(dataset, "sources", "--where", "status = 'rejected'", "--columns", "reason")
    assert rejected == [{"reason": "corrupt"}]
    assert inspect(dataset)["sources"]


def dataset_build(dataset: Path) -> str:
    """The current build's name, as a trainer learns it."""
    name: str = json.loads((dataset / "shards" / "current.json").read_text())["name"]
    return name


def test_running_again_does_nothing(dataset: Path, demo_footage: Path) -> None:
    tables, shards = tables_of(dataset), shards_of(dataset)
    done = telecine("ingest", demo_footage, "--dataset", dataset, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["build"].pop("build") == dataset_build(dataset)
    assert outcome["build"].pop("settled") == {"current": True, "failures": [], "before": ""}
    assert not any([*outcome["scan"].values(), *outcome["build"].values()])
    assert tables_of(dataset) == tables
    assert shards_of(dataset) == shards


def test_dry_run_touches_nothing(demo_footage: Path, tmp_path: Path) -> None:
    done = telecine("ingest", demo_footage, "--dataset", tmp_path / "d", "--dry-run", "--json")
    preview = json.loads(done.stdout)
    videos = [p for p in demo_footage.iterdir() if p.suffix not in {".txt", ".srt", ".json"}]
    assert preview["sources"]["new"]["objects"] == len(videos)
    assert preview["bytes_to_read"] == sum(p.stat().st_size for p in videos)
    assert not (tmp_path / "d").exists()


@pytest.fixture(scope="module")
def few(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few and small files, for tests that ingest often."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("ten-bit.mp4", "square with caption.mp4", "square with caption.txt"):
        shutil.copy2(demo_footage / name, folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "d"
    subprocess.run(ingesting(few, folder, 2), check=True)
    return folder


WITH_RAY = ("committed:sources", "commit:samples")  # the others end the same way sooner without
BOUNDARIES = [
    f"{point}:{name}"
    for name in ("stills", "clips", "sources", "captions", "planned", "samples", "completed")
    for point in ("commit", "committed")
] + ["committed:promoted", "committed:index"]


def test_killed_at_every_boundary_and_run_again(
    few: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """One dataset, killed at each boundary in turn, ends as one that was never disturbed.

    And as one that another number of workers made.
    """
    folder = tmp_path / "d"
    for boundary in BOUNDARIES:
        killed_at(boundary, *ingesting(few, folder, workers=int(boundary in WITH_RAY)))
    subprocess.run(ingesting(few, folder, 1), check=True)
    assert_same(undisturbed, folder)


def test_a_dying_worker_costs_its_source_alone(few: Path, tmp_path: Path) -> None:
    done = telecine(
        "ingest", few, "--dataset", tmp_path / "d", "--json", TELECINE_KILL_AT="scan:ten-bit"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scan"]["rejected"] == 1  # and nothing that Ray has to say
    status = {Path(s["uri"]).name: s for s in tables_of(tmp_path / "d")["sources"]}
    assert status["ten-bit.mp4"]["reason"] == "crashed"
    assert status["square with caption.mp4"]["status"] == "scanned"
    done = telecine("ingest", few, "--dataset", tmp_path / "d", "--retry-rejected")
    assert done.returncode == 0, done.stderr
    assert len(inspect(tmp_path / "d", "samples")) == 2


def test_a_clip_that_kills_its_encoder_is_left_out(few: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    done = telecine("ingest", few, "--dataset", folder, TELECINE_KILL_AT="encode:ten-bit")
    assert done.returncode == 0, done.stderr
    outcomes = {s["outcome"]: s["reason"] for s in tables_of(folder)["samples"]}
    assert outcomes == {"kept": "", "dropped": "crashed"}


def test_the_same_bytes_elsewhere_are_not_ingested_twice(
    few: Path, undisturbed: Path, tmp_path: Path
) -> None:
    source, folder = tmp_path / "f", tmp_path / "d"
    shutil.copytree(undisturbed, folder)
    shutil.copytree(few, source)
    # The same bytes under other names are known, wherever they lie.
    done = telecine("ingest", source, "--dataset", folder, "--json")
    assert json.loads(done.stdout)["scan"]["duplicates"] == 2
    assert len(inspect(folder, "samples")) == 2


def test_a_superseded_source_leaves_the_build(
    few: Path, demo_footage: Path, tmp_path: Path
) -> None:
    source, folder = tmp_path / "f", tmp_path / "d"
    shutil.copytree(few, source)
    assert telecine("ingest", source, "--dataset", folder).returncode == 0
    before = {s["clip_id"] for s in inspect(folder, "samples")}
    shutil.copy(demo_footage / "rotated.mp4", source / "ten-bit.mp4")
    done = telecine("ingest", source, "--dataset", folder, "--json")
    assert done.returncode == 0, done.stderr
    after = {s["clip_id"] for s in inspect(folder, "samples")}
    assert len(after - before) == len(before - after) == 1
    (index,) = (folder / "shards").glob("*/index.json")
    assert json.loads(index.read_text())["num_samples"] == len(after)
