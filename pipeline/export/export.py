"""Export: what a trainer or a reader needs beside a build, in a folder of its own.

tables ─▶ a build and its shards ─▶ a format (pipeline/export/formats.py) ─▶ files in a folder

The dataset is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from telecine.infra.errors import UsageError
from telecine.infra.store import disk
from telecine.infra.store.output import check_folder
from telecine.manifests.builds import completed_build, shards_of
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.pipeline.export.folder import part_of, place
from telecine.pipeline.export.formats import Content, Options, check_options, exporter


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


def export(
    dataset: Dataset,
    folder: Path,
    form: str,
    options: Options = Options(),  # noqa: B008  frozen
    *,
    build: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a completed build (None: the current one) in a format of that name into a folder.

    Raises UsageError where format, build or folder is not to be had, or an option does not fit the
    format; StorageError where the folder cannot be written to.
    """
    row = exporter(form)
    check_options(row, options)
    target = check_folder(folder, dataset=dataset.uri, overwrite=overwrite)
    con = connect(dataset.tables)
    found = completed_build(con, build)
    shards = shards_of(con, found.build_id)
    if not shards:
        raise UsageError(f"build {found.name} holds no sample: there is nothing to export")
    with disk.explained(str(target)), part_of(target) as part:
        notes = row.writer()(part, Content(dataset, con, found, shards, options))
        files = place(part, target, row.name, row.last)
    return Exported(
        folder=str(target),
        format=row.name,
        build=found.name,
        build_id=found.build_id,
        num_samples=sum(s.num_samples for s in shards),
        num_shards=len(shards),
        size_bytes=sum(s.size_bytes for s in shards),
        files=files,
        notes=notes,
    )
