"""All the real footage, the broken and the hostile, through one run of the real command."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from telecine.infra.errors import Reason
from tests.support.commands import telecine
from tests.support.snapshot import tables_of

REASONS = {str(reason) for reason in Reason}
SCRIPTS = {
    "concat.mp4": "ffconcat version 1.0\nfile '../canary/canary.mp4'\n",
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n../canary/canary.mp4\n",
    "absolute.mov": "ffconcat version 1.0\nfile '{canary}'\n",
}


@pytest.fixture(scope="module")
def run(
    footage: Path, demo_footage: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The dataset, and what the command printed."""
    folder = tmp_path_factory.mktemp("footage")
    (folder / "canary").mkdir()
    canary = Path(shutil.copy(demo_footage / "square with caption.mp4", folder / "canary"))
    canary = canary.rename(folder / "canary" / "canary.mp4")
    (folder / "scripts").mkdir()
    for name, text in SCRIPTS.items():
        (folder / "scripts" / name).write_text(text.format(canary=canary))
    done = telecine("ingest", footage, folder / "scripts", "--dataset", folder / "d", "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "d", json.loads(done.stdout)


def listed(footage: Path) -> set[str]:
    """Every file of both indexes, whatever the index says of it."""
    names = set()
    for folder in (footage, footage / "bad"):
        with (folder / "INDEX.csv").open(encoding="utf-8") as file:
            names |= {str(folder / row["file"]) for row in csv.DictReader(file)}
    return names


def test_every_file_ends_as_clips_or_with_a_reason(
    run: tuple[Path, dict[str, Any]], footage: Path
) -> None:
    dataset, outcome = run
    sources = {s["uri"]: s for s in tables_of(dataset)["sources"]}
    assert listed(footage) <= sources.keys()
    for source in sources.values():
        if source["status"] == "scanned":
            assert source["num_frames"] > 0
            assert not source["reason"]
        else:
            assert source["reason"] in REASONS
            assert source["detail"]
    assert outcome["scan"]["rejected"] == Counter(s["status"] for s in sources.values())["rejected"]


def test_frames_in_are_frames_kept_and_dropped(run: tuple[Path, dict[str, Any]]) -> None:
    tables = tables_of(run[0])
    kept: dict[str, int] = defaultdict(int)
    for clip in tables["clips"]:
        kept[clip["source_id"]] += clip["num_frames"]
    for source in tables["sources"]:
        dropped = sum(span["num_frames"] for span in source["dropped"])
        assert source["num_frames"] == kept[source["source_id"]] + dropped
        assert {span["reason"] for span in source["dropped"]} <= REASONS


def test_every_clip_that_has_a_bucket_is_encoded(run: tuple[Path, dict[str, Any]]) -> None:
    """What the scan saw, a seek finds again, frame for frame."""
    samples = tables_of(run[0])["samples"]
    assert {s["reason"] for s in samples} <= {"", "no_bucket", "damaged"}


def test_the_scan_agrees_with_the_index(run: tuple[Path, dict[str, Any]], footage: Path) -> None:
    """Displayed size and frame count, where the index states them without a remark."""
    sources = {s["uri"]: s for s in tables_of(run[0])["sources"]}
    compared = 0
    with (footage / "INDEX.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            source = sources[str(footage / row["file"])]
            frames = row["frames_decoded"]
            # The index counts a stream's first image (some are animations) and takes the first
            # video stream (the scan takes the largest).
            if source["kind"] != "video" or not frames.isdecimal() or frames == "1":
                continue
            if row["n_video"] != "1":
                continue
            compared += 1
            assert source["num_frames"] == int(frames), row["file"]
            coded = (source["coded_width"], source["coded_height"])
            assert coded == (int(row["width"]), int(row["height"])), row["file"]
            turn = int(row["rotation"]) % 360
            assert source["rotation_degrees"] == turn, row["file"]
    assert compared > 40


def test_scripts_that_name_other_files_read_nothing(run: tuple[Path, dict[str, Any]]) -> None:
    scripts = [s for s in tables_of(run[0])["sources"] if Path(s["uri"]).name in SCRIPTS]
    assert {s["reason"] for s in scripts} == {"unrecognised"}
    assert len(scripts) == len(SCRIPTS)
