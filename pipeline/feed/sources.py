"""Which indexes a feed reads by: a build's own, one that was written for it, or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from telecine.infra.errors import NotFound, UsageError
from telecine.infra.store.storage import Storage, absolute, is_s3, join
from telecine.manifests.index.samples import SampleIndex, read_samples
from telecine.manifests.shards import CURRENT_PATH, index_path
from telecine.pipeline.feed.plan.steps import Source

Builds = str | Path | None | Mapping[str, float]


def open_sources(dataset: str, build: Builds, storage: Storage) -> list[Source]:
    """Raises UsageError where there is no such build or index."""
    if isinstance(build, Mapping):
        return [Source(_index(dataset, n, storage), float(w)) for n, w in build.items()]
    name = str(build) if build is not None else _current(dataset, storage)
    return [Source(_index(dataset, name, storage))]


def _current(dataset: str, storage: Storage) -> str:
    try:
        said = json.loads(storage.read_bytes(join(dataset, CURRENT_PATH)))
    except NotFound as error:
        raise UsageError(
            f"{dataset} has no {CURRENT_PATH}: name a dataset with a current build, or a build"
        ) from error
    return str(said["name"])


def _index(dataset: str, name: str, storage: Storage) -> SampleIndex:
    if name.endswith(".arrow"):
        return _opened(absolute(name), storage)
    try:
        index = json.loads(storage.read_bytes(join(dataset, index_path(name))))
    except NotFound as error:
        raise UsageError(
            f"{dataset} has no build {name!r} with an index: name it as its folder under shards/ "
            "is called, or an .arrow file that telecine feed --index wrote"
        ) from error
    if "samples" not in index:
        raise UsageError(
            f"build {name} was made by an older version and has no index of its samples: "
            f"telecine feed {dataset} --build {name} --index FILE.arrow writes one, and the next "
            "run of ingest, rebuild or gc does"
        )
    folder = join(dataset, index_path(name)).rpartition("/")[0]
    return _opened(f"{folder}/{index['samples']}", storage)


def _opened(uri: str, storage: Storage) -> SampleIndex:
    """Mapped where it lies on this machine."""
    if is_s3(uri):
        return read_samples(pa.py_buffer(storage.read_bytes(uri)), uri)
    if not Path(uri).is_file():
        raise UsageError(f"{uri}: there is no such index")
    return read_samples(pa.memory_map(uri), uri)
