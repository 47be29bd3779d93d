"""Histories of runs: footage added, replaced, put back, captions changed, runs killed in between.

After each of them every current clip has one live sample, and its bytes are its own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from telecine.pipeline.recipes import Built
from tests.support.lab import Lab
from tests.support.snapshot import assert_same, tables_of


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    for n, name in enumerate("abc"):
        made.image(name, n)
    return made


def test_a_changed_text_copies_and_so_does_changing_it_back(lab: Lab) -> None:
    for text in ("one", "two", "one", "one"):
        lab.text("a", text)
        built = lab.ingest()
    assert built == Built()  # the last run had nothing to do
    assert {s.plan for s in lab.live()} == {2}
    captions = {c["text"] for c in tables_of(lab.dataset)["captions"]}
    assert {"one", "two"} <= captions
    assert all(s.copied_from for s in lab.live())


def test_new_footage_tops_up_a_small_shard(lab: Lab) -> None:
    assert lab.ingest().frames_encoded == 3
    lab.image("d", 3)
    built = lab.ingest()
    assert (built.frames_encoded, built.samples_copied, built.shards) == (1, 3, 1)


def test_footage_replaced_and_put_back(lab: Lab) -> None:
    lab.ingest()
    first = (lab.footage / "a.png").read_bytes()
    stamp = (lab.footage / "a.png").stat()
    lab.image("a", 7)
    lab.ingest()
    (lab.footage / "a.png").write_bytes(first)
    os.utime(lab.footage / "a.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    lab.ingest()
    assert lab.ingest() == Built()


def test_footage_put_back_while_a_copy_was_in_force(lab: Lab) -> None:
    """The same version is a source again, after it was a duplicate: its clips are there once."""
    stamp = (lab.footage / "a.png").stat()
    lab.ingest()
    shutil.copy(lab.footage / "a.png", lab.footage / "kept.bin")
    lab.image("a", 8)
    lab.ingest()  # kept.bin holds the bytes now
    shutil.copy(lab.footage / "kept.bin", lab.footage / "a.png")
    os.utime(lab.footage / "a.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    lab.ingest()
    lab.image("kept", 9)
    (lab.footage / "kept.png").replace(lab.footage / "kept.bin")
    lab.ingest()
    clips = [c["clip_id"] for c in tables_of(lab.dataset)["clips"]]
    assert len(clips) == len(set(clips))


def test_what_was_dropped_is_tried_again_when_asked(lab: Lab) -> None:
    lab.killed("committed:planned")
    (lab.footage / "b.png").rename(lab.footage.parent / "b.png")
    assert lab.ingest().dropped == 1
    assert {s.reason for s in lab.live()} == {"", "source_missing"}
    (lab.footage.parent / "b.png").rename(lab.footage / "b.png")
    assert lab.ingest() == Built()
    built = lab.ingest(retry_rejected=True)
    assert (built.frames_encoded, built.samples_copied) == (1, 2)
    assert {s.outcome for s in lab.live()} == {"kept"}


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("committed:planned", marks=pytest.mark.slow),
        "commit:samples",
        pytest.param("committed:samples", marks=pytest.mark.slow),
        "committed:completed",
    ],
)
def test_killed_while_copying_and_run_again(lab: Lab, tmp_path: Path, point: str) -> None:
    lab.ingest()
    undisturbed = Lab(tmp_path, "undisturbed")
    shutil.copytree(lab.dataset, undisturbed.dataset)
    lab.image("d", 3)
    lab.text("a", "another")
    undisturbed.ingest()
    lab.killed(point)
    lab.ingest()
    assert_same(undisturbed.dataset, lab.dataset)


def test_killed_then_new_footage_then_run_again(lab: Lab) -> None:
    """The interrupted plan is finished, and what came since is planned and built in one run."""
    lab.killed("committed:planned")
    lab.image("d", 3)
    lab.image("e", 4)
    built = lab.ingest()
    assert built.frames_encoded == 5
    assert lab.ingest() == Built()


def test_a_lost_tar_is_encoded_again_where_it_would_be_copied(lab: Lab) -> None:
    lab.ingest()
    for tar in lab.dataset.rglob("*.tar"):
        tar.unlink()
    lab.image("d", 3)
    built = lab.ingest()
    assert (built.frames_encoded, built.samples_copied, built.dropped) == (4, 0, 0)
