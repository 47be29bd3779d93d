"""The command's ends, in processes of its own: ^C, damage, no cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import inline
from tests.support.commands import COMMAND, telecine
from tests.support.waiting import until


@pytest.mark.parametrize("whole_group", [False, True])  # kill -INT, and ^C at a terminal
def test_an_interrupted_run_says_so(demo_footage: Path, tmp_path: Path, whole_group: bool) -> None:
    film = demo_footage / "landscape.mp4"
    run = subprocess.Popen(
        [*COMMAND, "ingest", film, "--dataset", tmp_path / "dataset", "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until(lambda: list(tmp_path.glob("dataset/tables/sources")), run)
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGINT)
    stdout, stderr = run.communicate()
    assert run.returncode == 130, stderr
    assert stderr.endswith(b"stopped; run the same command again to go on\n")
    assert b"Traceback" not in stderr
    assert stdout == b""


def test_an_address_of_nothing(demo_footage: Path, tmp_path: Path) -> None:
    done = telecine(
        "ingest", demo_footage, "--dataset", tmp_path / "dataset", "--ray-address", "127.0.0.1:1"
    )
    assert done.returncode == 5
    assert "error: nobody answers at the Ray address 127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # the step that needed it, and this


def test_a_file_of_a_table_that_is_gone(demo_footage: Path, tmp_path: Path) -> None:
    """Found by whichever library meets it first: a message and the exit code of storage."""
    footage, dataset = tmp_path / "footage", tmp_path / "dataset"
    footage.mkdir()
    shutil.copy(min(demo_footage.glob("*.jpg")), footage)
    inline.ingest(str(footage), str(dataset))
    (file,) = dataset.glob("tables/sources/*.parquet")
    file.unlink()
    for args in (
        ["ingest", footage, "--dataset", dataset],
        ["inspect", dataset],
        ["inspect", dataset, "sources"],
    ):
        done = telecine(*args)
        assert done.returncode == 3, done.stderr
        assert done.stderr.startswith("error: ")
        assert file.name in done.stderr
        assert "Traceback" not in done.stderr
