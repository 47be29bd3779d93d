"""export: what a trainer or a reader needs beside a build, in a folder of its own.

tables ─▶ the shards of a build ─┬─▶ urls     lists of their URLs, of all and by bucket
                                 ├─▶ energon  links to them, with Megatron-Energon's own index
                                 └─▶ card     README.md and croissant.json, for who publishes it

The dataset is left as it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import duckdb
from rich.console import Console

from telecine.infra import disk
from telecine.infra.errors import UsageError
from telecine.infra.storage import join
from telecine.infra.text import counted, size
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import BuildState, Shard, completed_build, connect, shards_of
from telecine.pipeline.export.folder import part_of, place, target_of
from telecine.pipeline.terminal.text import line, write

FORMATS = ("urls", "energon", "card")
_LAST = {"urls": "index.json", "energon": ".nv-meta/.info.json", "card": "README.md"}
LISTED = 10  # files named on a terminal


@dataclass(frozen=True)
class Exported:
    """What was written, and of what."""

    folder: str
    format: str
    build: str  # name
    build_id: str
    num_samples: int
    num_shards: int
    size_bytes: int  # of the shards
    files: tuple[str, ...]  # relative to the folder
    notes: tuple[str, ...]  # what is left to do, or to know


UrlOf: TypeAlias = Callable[[str], str]  # of a path relative to the dataset


def export(
    dataset: Dataset,
    folder: Path,
    form: str,
    *,
    build: str | None = None,
    prefix: str | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write one of FORMATS, of a completed build (None: the current one), into a folder.

    Raises UsageError where build or folder is not to be had, or an option does not fit the format;
    StorageError where the folder cannot be written to.
    """
    _check_options(form, prefix, split)
    target = target_of(dataset, folder, overwrite)
    con = connect(dataset.tables)
    found = completed_build(con, build)
    shards = shards_of(con, found.build_id)
    if not shards:
        raise UsageError(f"build {found.name} holds no sample: there is nothing to export")
    with disk.explained(str(target)), part_of(target) as part:
        notes = _write(form, part, dataset, con, found, shards, url_of(dataset, prefix), split)
        files = place(part, target, form, _LAST[form])
    return Exported(
        folder=str(target),
        format=form,
        build=found.name,
        build_id=found.build_id,
        num_samples=sum(s.num_samples for s in shards),
        num_shards=len(shards),
        size_bytes=sum(s.size_bytes for s in shards),
        files=files,
        notes=notes,
    )


def _write(
    form: str,
    part: Path,
    dataset: Dataset,
    con: duckdb.DuckDBPyConnection,
    build: BuildState,
    shards: list[Shard],
    url: UrlOf,
    split: str | None,
) -> tuple[str, ...]:
    if form == "urls":
        from telecine.pipeline.export.urls import write_urls

        return write_urls(part, build, shards, url)
    if form == "energon":
        from telecine.pipeline.export.energon import write_energon

        return write_energon(part, dataset, build, shards, split)
    from telecine.pipeline.export.card import write_card

    return write_card(part, dataset, con, build, shards, url)


# ── what is exported ─────────────────────────────────────────────────────────────────────────────


def url_of(dataset: Dataset, prefix: str | None) -> UrlOf:
    """URLs under the dataset or a prefix; in one with {} the path takes its place."""
    root = prefix or dataset.uri
    if "{}" in root:
        return lambda path: root.replace("{}", path)
    return lambda path: join(root, path)


def _check_options(form: str, prefix: str | None, split: str | None) -> None:
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}: choose one of {', '.join(FORMATS)}")
    if split is not None and form != "energon":
        raise UsageError(f"--split is for --format energon, not for {form}")
    if prefix is None:
        return
    if form == "energon":
        raise UsageError("--prefix is for --format urls and card: energon reads the files here")
    if not prefix.isprintable() or (form == "card" and ("{}" in prefix or "pipe:" in prefix)):
        raise UsageError(
            f"--prefix {prefix!r}: write where the dataset will lie, as in https://host/data"
            + (" or 'pipe:aws s3 cp s3://bucket/data/{} -'" if form == "urls" else "")
        )


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def print_exported(found: Exported, as_json: bool, console: Console) -> None:
    if as_json:
        write(console, json.dumps(dataclasses.asdict(found), indent=2))
        return
    line(
        console,
        f"{found.format} of build {found.build}: {counted(found.num_samples, 'sample')} in "
        f"{counted(found.num_shards, 'shard')}, {size(found.size_bytes)}",
    )
    top = sorted(found.files, key=lambda name: (name.count("/"), name))
    for name in top[:LISTED]:
        line(console, f"wrote {join(found.folder, name)}")
    if len(top) > LISTED:
        line(console, f"and {counted(len(top) - LISTED, 'file')} more there")
    for note in found.notes:
        line(console, note)
