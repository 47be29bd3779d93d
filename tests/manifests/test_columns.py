"""The index of a column: written, read back, refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from telecine.infra.errors import UsageError
from telecine.manifests.index.columns import SCHEMA, ColumnFacts, ColumnIndex, read_column
from telecine.manifests.index.samples import SCHEMA as OF_SAMPLES
from telecine.manifests.index.samples import BuildFacts, SampleIndex

FACTS = ColumnFacts(
    name="t5",
    build_id="b" * 32,
    build="dct",
    build_digest="1" * 64,
    digest="2" * 64,
    encoder={"name": "t5"},
    encoder_fingerprint="3" * 64,
    dimensions=8,
    null_file="null-4.npy",
    null_sha256="4" * 64,
    null_tokens=1,
)
ROW = {
    "clip_id": "a" * 32,
    "shard": "tars/ab/ab-12.tar",
    "text_digest": bytes(32),
    "text_offset": 512,
    "text_bytes": 3,
    "offset": 1536,
    "size_bytes": 128 + 5 * 8 * 2,
    "sha256": None,
    "tokens": 5,
    "truncated": False,
}


def test_an_index_of_a_column_is_read_back_as_it_was_written() -> None:
    index = ColumnIndex(FACTS, pa.Table.from_pylist([ROW], schema=SCHEMA))

    read = read_column(pa.py_buffer(index.to_bytes()), "column.arrow")

    assert read.facts == FACTS
    assert read.rows.to_pylist() == [ROW]
    assert read.rows.schema.equals(SCHEMA)


def test_an_index_of_samples_is_no_index_of_a_column() -> None:
    facts = BuildFacts("b", "dct", "d", 2, {}, "f", 4, True)
    samples = SampleIndex(facts, OF_SAMPLES.empty_table())

    with pytest.raises(UsageError, match=r"x\.arrow is no index of a column"):
        read_column(pa.py_buffer(samples.to_bytes()), "x.arrow")
