"""What every command that writes a file or folder does with a place where it must or can not."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from telecine.infra.errors import AccessDenied, StorageError, TelecineError, UsageError
from telecine.infra.store.storage import Storage
from telecine.pipeline.cli.main import app
from telecine.testing.media import smooth
from tests.support.lab import Lab
from tests.support.movies import write_movie
from tests.support.s3 import S3Server


@dataclass(frozen=True)
class Writer:
    """A command, but for the dataset and the place it writes to."""

    name: str
    suffix: str  # of the file; empty: it writes a folder
    line: Callable[[str, str, str], list[str]]  # of dataset, a clip of it, and the place

    def __str__(self) -> str:
        return self.name

    def run(self, dataset: str, clip: str, place: Path, *more: str) -> TelecineError | None:
        done = CliRunner().invoke(app, [*self.line(dataset, clip, str(place)), *more])
        if done.exit_code == 0:
            return None
        assert isinstance(done.exception, TelecineError), done
        return done.exception


WRITERS = (
    Writer("query", ".parquet", lambda d, _, o: ["query", d, "FROM clips", "--parquet", o]),
    Writer("report", ".html", lambda d, _, o: ["report", d, "-o", o]),
    Writer("decode", ".mp4", lambda d, c, o: ["decode", d, c, "-o", o]),
    Writer("export", "", lambda d, _, o: ["export", d, o, "--format", "urls"]),
    Writer("feed", ".arrow", lambda d, _, o: ["feed", d, "--index", o]),
)
# They ask for their place as the others of their command do, and write in ways of their own.
OTHER_FORMS = (
    Writer("decode-png", ".png", lambda d, c, o: ["decode", d, c, "-o", o]),
    Writer("export-energon", "", lambda d, _, o: ["export", d, o, "--format", "energon"]),
    Writer("export-card", "", lambda d, _, o: ["export", d, o, "--format", "card"]),
)
FILES = tuple(writer for writer in WRITERS if writer.suffix)
each_writer = pytest.mark.parametrize("writer", WRITERS, ids=str)
each_file_writer = pytest.mark.parametrize("writer", FILES, ids=str)


@dataclass(frozen=True)
class Made:
    dataset: Path
    video: str  # clip_id

    def run(self, writer: Writer, place: Path, *more: str) -> TelecineError | None:
        return writer.run(str(self.dataset), self.video, place, *more)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One video, ingested. To be copied."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    write_movie(lab.footage / "film.mp4", [*zip(*smooth(31, 160, 200).planes, strict=True)])
    lab.ingest()
    kept = [sample.clip_id for sample in lab.live() if sample.outcome == "kept"]
    return Made(lab.dataset, kept[0])


@pytest.fixture
def made(master: Made, tmp_path: Path) -> Made:
    shutil.copytree(master.dataset, tmp_path / "dataset")
    return Made(tmp_path / "dataset", master.video)


def everything(folder: Path) -> dict[str, bytes | str]:
    """All that is below a folder; of links where they lead."""
    return {
        str(path): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    } | {str(path): "" for path in folder.rglob("*") if path.is_dir()}


def refused(made: Made, writer: Writer, place: Path, words: str, *more: str) -> None:
    before = everything(made.dataset.parent)
    error = made.run(writer, place, *more)
    assert isinstance(error, UsageError)
    assert error.args[0].count("\n") == 0
    assert words in str(error)
    assert everything(made.dataset.parent) == before


@each_writer
def test_a_good_place_is_written_to(made: Made, writer: Writer, tmp_path: Path) -> None:
    before = everything(made.dataset)
    assert made.run(writer, tmp_path / f"out{writer.suffix}") is None
    assert (tmp_path / f"out{writer.suffix}").exists()
    assert everything(made.dataset) == before


@each_writer
def test_nothing_is_written_into_the_dataset(made: Made, writer: Writer) -> None:
    for below in ("", "tables", "tables/clips", "shards"):
        place = made.dataset / below / f"out{writer.suffix}"
        refused(made, writer, place, "lies in the dataset", "--overwrite")


@each_writer
def test_nor_through_links(made: Made, writer: Writer, tmp_path: Path) -> None:
    """To the dataset's folder, to a file that is to come in it, or from it to another disk."""
    name = f"out{writer.suffix}"
    (tmp_path / "link").symlink_to(made.dataset)
    refused(made, writer, tmp_path / "link" / name, "lies in the dataset")
    refused(made, writer, tmp_path / "link" / "tables" / name, "lies in the dataset")
    (tmp_path / name).symlink_to(made.dataset / "tables" / name)
    refused(made, writer, tmp_path / name, "lies in the dataset", "--overwrite")
    shutil.move(made.dataset / "shards", tmp_path / "elsewhere")
    (made.dataset / "shards").symlink_to(tmp_path / "elsewhere")
    refused(made, writer, tmp_path / "elsewhere" / name, "lies in the dataset")
    refused(made, writer, made.dataset / "shards" / name, "lies in the dataset")


@each_writer
def test_a_dataset_named_through_a_link_is_the_same(
    made: Made, writer: Writer, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(made.dataset)
    linked = Made(tmp_path / "link", made.video)
    refused(linked, writer, made.dataset / f"out{writer.suffix}", "lies in the dataset")


@each_writer
@pytest.mark.parametrize("remote", ["s3://bucket/out", "gs://bucket/out", "https://host/out"])
def test_places_are_on_this_machine(made: Made, writer: Writer, remote: str) -> None:
    refused(made, writer, Path(remote + writer.suffix), "on this machine; upload it from there")


@each_file_writer
def test_a_file_needs_a_folder_and_a_name_of_its_own(
    made: Made, writer: Writer, tmp_path: Path
) -> None:
    name = f"out{writer.suffix}"
    refused(made, writer, tmp_path / "none" / name, f"there is no folder {tmp_path / 'none'}")
    (tmp_path / "file").write_text("mine")
    refused(made, writer, tmp_path / "file" / name, "there is no folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).mkdir()
    refused(made, writer, tmp_path / "folder" / name, "this is a folder", "--overwrite")
    (tmp_path / name).write_text("mine")
    refused(made, writer, tmp_path / name, "add --overwrite")
    assert made.run(writer, tmp_path / name, "--overwrite") is None
    assert (tmp_path / name).stat().st_size > 4


@each_file_writer
def test_a_device_or_pipe_is_not_replaced(made: Made, writer: Writer, tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe{writer.suffix}"
    os.mkfifo(pipe)
    error = made.run(writer, pipe, "--overwrite")
    assert isinstance(error, UsageError)
    assert "no regular file" in str(error)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("writer", [w for w in WRITERS if not w.suffix], ids=str)
def test_a_folder_is_empty_or_may_be_written_over(
    made: Made, writer: Writer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    refused(made, writer, tmp_path / "file", "is a file: name a folder", "--overwrite")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    refused(made, writer, tmp_path / "full", "is not empty")
    assert made.run(writer, tmp_path / "full", "--overwrite") is None
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@each_writer
def test_where_nobody_may_write(made: Made, writer: Writer) -> None:
    """/sys refuses root too. Said at once: before a clip is decoded or a table read."""
    if not Path("/sys").is_dir():
        pytest.skip("there is no /sys here")
    error = made.run(writer, Path(f"/sys/out{writer.suffix}"))
    assert isinstance(error, AccessDenied)
    assert "this user may not do this" in str(error)


SMALL_DISK = 'mount -t tmpfs -o size=4k tmpfs "$1" && shift && exec "$@"'


@pytest.mark.parametrize("writer", [*WRITERS, *OTHER_FORMS], ids=str)
def test_a_disk_that_is_full(made: Made, writer: Writer, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, disk, "true"], check=False).returncode
    ):
        pytest.skip("no disk of 4 kB can be mounted here")
    telecine = Path(sys.executable).with_name("telecine")
    words = writer.line(str(made.dataset), made.video, str(disk / f"out{writer.suffix}"))
    done = subprocess.run([*alone, disk, telecine, *words], capture_output=True)
    said = done.stderr.decode()
    assert done.returncode == StorageError.exit_code, said
    assert "the disk is full" in said
    assert "Traceback" not in said


@each_writer
def test_beside_a_dataset_on_s3_any_place_is_outside(
    master: Made, writer: Writer, s3: S3Server, tmp_path: Path
) -> None:
    storage = Storage()
    for path in master.dataset.rglob("*"):
        if path.is_file():
            storage.upload(path, s3.uri("data", str(path.relative_to(master.dataset))))
    place = tmp_path / f"out{writer.suffix}"
    error = writer.run(s3.uri("data"), master.video, place)
    assert error is None
    assert place.exists()
    inside = Path(s3.uri("data", f"out{writer.suffix}"))
    assert isinstance(writer.run(s3.uri("data"), master.video, inside), UsageError)
