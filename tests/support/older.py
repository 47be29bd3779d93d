"""Tables as another version of Telecine leaves them, written by deltalake alone."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake


def write_table(
    uri: str,
    name: str,
    rows: pa.Table,
    options: Mapping[str, str] | None = None,
    wrote: str | None = None,
) -> None:
    """A new table of the rows, of their schema. `wrote`: the version its commits name."""
    where = f"{uri}/tables/{name}"
    given = dict(options or {})
    append_only = {"delta.appendOnly": "true"}
    DeltaTable.create(where, schema=rows.schema, configuration=append_only, storage_options=given)
    noted = CommitProperties(custom_metadata={"telecineVersion": wrote} if wrote else {})
    write_deltalake(where, rows, mode="append", commit_properties=noted, storage_options=given)


FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "dataset-format-1.tar.gz"

# What could have come since a still older version: columns with a default, of every kind.
LATER = {
    "sources": ("profile", "mirrored", "interlaced", "decode_errors", "color_primaries"),
    "captions": ("text_key", "windows"),
    "samples": ("psnr_db", "channel_means", "channel_stds", "copied_from"),
    "builds": ("replaces",),
}


def unpack(folder: Path) -> Path:
    """`footage` and `dataset` of the fixture, under a folder; the dataset."""
    with tarfile.open(FIXTURE) as tar:
        tar.extractall(folder, filter="data")
    return folder / "dataset"


def forget_columns(dataset: Path, lacking: Mapping[str, Collection[str]] = LATER) -> None:
    """Tables made again, commit by commit, as by a version that had not these columns yet."""
    for name, columns in lacking.items():
        where = dataset / "tables" / name
        commits = list(_commits(where))
        shutil.rmtree(where)
        empty = commits[0].schema.empty_table().drop_columns(list(columns))
        append_only = {"delta.appendOnly": "true"}
        DeltaTable.create(str(where), schema=empty.schema, configuration=append_only)
        for rows in commits:
            write_deltalake(str(where), rows.drop_columns(list(columns)), mode="append")


def _commits(where: Path) -> Iterator[pa.Table]:
    """The rows that each version after the first added; nothing was compacted."""
    seen: set[str] = set()
    for version in range(1, DeltaTable(str(where)).version() + 1):
        table = DeltaTable(str(where), version=version)
        added = set(table.file_uris()) - seen
        seen |= added
        schema = pa.schema(table.schema().to_arrow())
        yield pa.concat_tables(pq.read_table(file) for file in sorted(added)).cast(schema)
