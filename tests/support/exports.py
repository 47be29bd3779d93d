"""A dataset with three builds, made once for all tests of exports; and what is in it."""

from __future__ import annotations

import functools
import tarfile
from pathlib import Path

from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.pipeline.look.summary import BuildReport, Summary, summary
from tests.support import inline
from tests.support.lab import Lab
from tests.support.movies import picture, write_movie


@functools.cache
def made(folder: Path) -> Path:
    """A film and some images in three builds, `second` the current one. Not to be changed."""
    (folder / "exports").mkdir()
    lab = Lab(folder / "exports")
    write_movie(lab.footage / "film.mp4", [picture(frame) for frame in range(75)])
    for number in range(3):
        lab.image(f"{number}", seed=number)
    lab.image("wide", seed=3, size=(320, 240))
    lab.image("small", seed=9, size=(64, 64))
    lab.text("1", "Picture one, with ``` and | in it.")
    inline.ingest(str(lab.footage), str(lab.dataset))
    inline.rebuild(str(lab.dataset), {"select": {"where": "kind = 'video'"}}, name="films")
    inline.rebuild(str(lab.dataset), {"select": {"where": "width > 32"}}, name="second")
    return lab.dataset


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def listed(folder: Path) -> set[str]:
    """Files, but for the record of what was written."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and not path.name.startswith(".telecine")
    }


def facts(dataset: Dataset) -> tuple[Summary, BuildReport]:
    """What inspect says, of the dataset and of its current build."""
    found = summary(connect(dataset.tables), dataset.uri, dataset.spec)
    (current,) = [build for build in found.builds if build.current]
    return found, current


def members(dataset: Dataset) -> dict[str, dict[str, bytes]]:
    """Of every sample of the current build, by clip_id: its members, read from the tars."""
    found: dict[str, dict[str, bytes]] = {}
    _, report = facts(dataset)
    for path in Path(dataset.uri, "shards", report.name).rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                found.setdefault(key, {})[kind] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found
