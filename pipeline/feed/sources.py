"""Which indexes a feed reads by: a build's own, one that was written for it, or several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from telecine.infra.errors import NotFound, UsageError
from telecine.infra.store.storage import Storage, absolute, is_s3, join
from telecine.manifests.index.arrow import arrow_source
from telecine.manifests.index.samples import SampleIndex, read_samples, samples_file
from telecine.manifests.shards import CURRENT_PATH, build_folder, index_path
from telecine.pipeline.feed.plan.steps import Source

Builds = str | Path | None | Mapping[str, float]


def open_sources(dataset: str, build: Builds, storage: Storage) -> list[Source]:
    """Raises UsageError where there is no such build or index."""
    if isinstance(build, Mapping):
        return [Source(_index(dataset, n, storage), float(w)) for n, w in build.items()]
    name = str(build) if build is not None else _current(dataset, storage)
    return [Source(_index(dataset, name, storage))]


def pinned(
    dataset: str, sources: Sequence[Source], digests: Sequence[str], storage: Storage
) -> list[Source] | None:
    """The sources by the indexes that they had; None where one of these is there no more."""
    found = []
    for source, digest in zip(sources, digests, strict=True):
        folder = join(dataset, build_folder(source.index.facts.build))
        uri = folder + samples_file(digest)
        if source.index.facts.digest == digest:
            found.append(source)
        elif storage.exists(uri):
            found.append(Source(_opened(uri, storage), source.weight))
        else:
            return None
    return found


def _current(dataset: str, storage: Storage) -> str:
    found = _said(dataset, storage)
    if found is None:
        raise UsageError(
            f"{dataset} has no {CURRENT_PATH}: name a dataset with a current build, or a build"
        )
    return str(found["name"])


def _said(dataset: str, storage: Storage) -> dict[str, Any] | None:
    """What current.json says; None: there is none."""
    try:
        said: dict[str, Any] = json.loads(storage.read_bytes(join(dataset, CURRENT_PATH)))
    except NotFound:
        return None
    return said


def _build_name(dataset: str, name: str, storage: Storage) -> str:
    """Of a build, or of a rendition that the current build is made with."""
    renditions = (_said(dataset, storage) or {}).get("renditions", {})
    return str(renditions[name]["name"]) if name in renditions else name


def _index(dataset: str, name: str, storage: Storage) -> SampleIndex:
    if name.endswith(".arrow"):
        return _opened(absolute(name), storage)
    name = _build_name(dataset, name, storage)
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
    if not is_s3(uri) and not Path(uri).is_file():
        raise UsageError(f"{uri}: there is no such index")
    return read_samples(arrow_source(uri, storage), uri)
