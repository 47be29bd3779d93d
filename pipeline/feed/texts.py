"""Texts and embeddings of a column beside a build, by the rows of the build's index."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telecine.infra.errors import NotFound, Unreadable, UsageError
from telecine.infra.store.ranges import Range, Ranges
from telecine.infra.store.storage import Storage, join
from telecine.manifests.index.arrow import arrow_source
from telecine.manifests.index.columns import (
    ColumnIndex,
    column_folder,
    column_index_path,
    read_column,
)
from telecine.manifests.index.samples import SampleIndex
from telecine.manifests.tar import NPY_HEADER

Embedding = npt.NDArray[np.float16]


class Texts:
    """Raises UsageError where the column lacks samples of the index or embeddings of them, or has
    other texts; StorageError where the null prompt is not there.
    """

    def __init__(
        self, dataset: str, name: str, index: SampleIndex, storage: Storage, ranges: Ranges
    ) -> None:
        self._base = join(dataset, column_folder(name).rstrip("/"))
        self._ranges = ranges
        build = index.facts.build
        column = _opened(dataset, name, build, storage)
        rows = column.rows
        at = pc.index_in(index.rows["clip_id"], value_set=rows["clip_id"].combine_chunks())
        missing = at.null_count + _unlike(index, rows, at)
        if missing:
            raise UsageError(
                f"column {name} lacks or has other texts than {missing:,} of "
                f"{index.rows.num_rows:,} samples of build {build}: run telecine embed {dataset}"
            )
        self._row: npt.NDArray[np.int64] = at.combine_chunks().to_numpy().astype(np.int64)
        self._rows = rows.combine_chunks()
        bare = int((self._rows["size_bytes"].to_numpy()[self._row] == 0).sum())
        if bare and column.facts.dimensions:
            raise UsageError(
                f"column {name} has no embedding of {bare:,} of {index.rows.num_rows:,} samples of "
                f"build {build}: they have no caption yet, or it could not be encoded. Run "
                f"telecine caption and telecine embed {dataset} --retry-failed, or feed by an "
                "index without them (telecine feed --where ... --index FILE.arrow)"
            )
        self.null = self._null(column, storage)

    def read(self, row: int) -> tuple[str, Embedding | None]:
        """The text of the index's row, and its embedding [L, D]."""
        at = int(self._row[row])
        one = {name: self._rows[name][at].as_py() for name in self._rows.column_names}
        uri = f"{self._base}/{one['shard']}"
        text, whole = bytearray(one["text_bytes"]), bytearray(one["size_bytes"])
        asked = ((one["text_offset"], text), (one["offset"], whole))
        self._ranges.read(uri, [Range(at, [memoryview(data)]) for at, data in asked if data])
        if not whole:
            return text.decode(), None
        if hashlib.sha256(whole).digest() != one["sha256"]:
            raise Unreadable(f"its embedding in {uri} is not the one that was written")
        values = np.frombuffer(whole, "<f2", offset=NPY_HEADER)
        return text.decode(), values.reshape(one["tokens"], -1)

    def _null(self, column: ColumnIndex, storage: Storage) -> Embedding | None:
        facts = column.facts
        if not facts.null_file:
            return None
        uri = f"{self._base}/{facts.null_file}"
        data = storage.read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != facts.null_sha256:
            raise Unreadable(
                f"{uri} is not the null prompt that was written: remove it, and run telecine embed"
            )
        return np.frombuffer(data, "<f2", offset=NPY_HEADER).reshape(facts.null_tokens, -1)


def _unlike(index: SampleIndex, rows: pa.Table, at: pa.ChunkedArray) -> int:
    """Samples whose text is another one than the column was made of."""
    there = rows["text_digest"].combine_chunks().take(at.combine_chunks())
    same = pc.equal(there, index.rows["text_digest"].combine_chunks())
    return int(pc.sum(pc.invert(same)).as_py() or 0)


def _opened(dataset: str, name: str, build: str, storage: Storage) -> ColumnIndex:
    uri = join(dataset, column_index_path(name, build))
    try:
        said = json.loads(storage.read_bytes(uri))
    except NotFound as error:
        raise UsageError(
            f"build {build} has no column of texts {name!r}: telecine embed {dataset} makes one"
        ) from error
    arrow = f"{uri.rpartition('/')[0]}/{said['samples']}"
    return read_column(arrow_source(arrow, storage), arrow)
