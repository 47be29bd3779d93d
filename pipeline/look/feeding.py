"""feed: which samples a trainer will get, as an index of them to read by; from the tables alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from telecine.infra.errors import NotFound, UsageError
from telecine.infra.store.output import check_file, writing
from telecine.manifests.builds import completed_build, shards_of
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.samples import SampleIndex, narrowed
from telecine.manifests.queries import connect
from telecine.manifests.shards import CURRENT_PATH
from telecine.pipeline.build.index import sample_index
from telecine.pipeline.catalog.selection import selected_or_none

SUFFIX = ".arrow"  # by which a feed tells an index from a build's name


@dataclass(frozen=True)
class Asked:
    """A build to feed from, and its weight among others; None: by the number of its samples."""

    build: str | None  # None: the current one
    weight: float | None = None


def asked_builds(given: Sequence[str]) -> list[Asked]:
    """Of texts like NAME or NAME=WEIGHT; none of them: the current build."""
    return [_asked(text) for text in given] or [Asked(None)]


def _asked(text: str) -> Asked:
    name, equals, weight = text.rpartition("=")
    if not equals:
        return Asked(text)
    if not re.fullmatch(r"\d*\.?\d+", weight) or not float(weight):
        raise UsageError(f"--build {text}: the weight is a number above 0, as in {name}=0.7")
    return Asked(name, float(weight))


def index_of(dataset: Dataset, build: str | None, where: str | None = None) -> SampleIndex:
    """The samples of a build (None: the current one), of any version, that a condition takes.

    Raises UsageError where there is no such build, the build is not completed, the condition is
    none over clips (docs/inspect.md), or nothing is left.
    """
    con = connect(dataset.tables)
    found = completed_build(con, _of_rendition(dataset, build))
    index = sample_index(con, found.last, shards_of(con, found.build_id))
    clips = selected_or_none(con, dataset.spec, where)
    if clips is not None:
        taken = pc.is_in(index.rows["clip_id"], value_set=clips["clip_id"].combine_chunks())
        index = narrowed(index, index.rows.filter(taken))
    if not index.rows.num_rows:
        raise UsageError(
            f"build {found.name} has no samples"
            + (f" that --where {where!r} takes" if where else "")
        )
    return index


def _of_rendition(dataset: Dataset, name: str | None) -> str | None:
    """The build that a rendition of the current family is, by `current.json`; else the name."""
    try:
        said = json.loads(dataset.storage.read_bytes(dataset.path(CURRENT_PATH)))
    except NotFound:
        return name
    renditions = said.get("renditions", {})
    return str(renditions[name]["name"]) if name in renditions else name


def check_index_file(path: Path, dataset: str, *, overwrite: bool) -> None:
    """Refuse a place for an index before any work. Raises UsageError, StorageError."""
    if path.suffix != SUFFIX:
        raise UsageError(f"--index {path}: name a file that ends in {SUFFIX}")
    check_file(path, "--index", dataset=dataset, overwrite=overwrite)


def write_index_file(index: SampleIndex, path: Path) -> int:
    """An index for `Feed(dataset, build="FILE.arrow")`; returns its bytes."""
    data = index.to_bytes()
    with writing(path) as file:
        file.write(data)
    return len(data)
