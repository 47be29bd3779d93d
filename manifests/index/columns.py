"""A column beside a build's shards: text and its embedding of each sample, in tars of their own.

    columns/NAME/BUILD/index.json            names the column's tars, in the order of the build's
    columns/NAME/BUILD/column-DIGEST.arrow   a row per sample, in the order of samples-DIGEST.arrow
    columns/NAME/tars/ab/ID-DIGEST.tar       CLIP_ID.txt, CLIP_ID.text.npy: the keys of shard ID
    columns/NAME/null-DIGEST.npy             the embedding of the empty text, [L, D]

No file is ever changed: another text gives a shard's tar another digest, so another name, and
whoever reads by an older index goes on with it. Builds with the same shards (one family) share the
tars; each has an index. Embeddings are float16 [L, D], L real tokens: no padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from telecine.manifests.index.arrow import Format, arrow_bytes, arrow_read

FORMAT = Format("index of a column", version=1, made_by="telecine embed writes it")
COLUMNS = "columns"
TEXT, EMBEDDING = SUFFIXES = ("txt", "text.npy")  # of a sample's members, in order

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),  # path relative to columns/NAME/
        ("text_digest", pa.binary(32)),  # SHA-256 of its .txt
        ("text_offset", pa.int64()),  # byte of the tar at which the text begins
        ("text_bytes", pa.int64()),
        ("offset", pa.int64()),  # at which text.npy begins, its header of 128 bytes included
        ("size_bytes", pa.int64()),  # of text.npy; 0: it has none
        ("sha256", pa.binary(32)),  # of text.npy; NULL: it has none
        ("tokens", pa.int32()),  # rows of the embedding
        ("truncated", pa.bool_()),  # the text has more tokens than were encoded
    ]
)


@dataclass(frozen=True)
class ColumnFacts:
    """What all samples of a column have in common."""

    name: str
    build_id: str
    build: str  # its name
    build_digest: str  # of the build's shards that it was made for, as their own index has it
    digest: str  # of the column's tars: equal ones hold equal texts and embeddings
    encoder: Mapping[str, Any]  # its identity
    encoder_fingerprint: str
    dimensions: int  # D of every embedding; 0: texts alone
    null_file: str  # relative to columns/NAME/; empty: there is none
    null_sha256: str
    null_tokens: int


@dataclass(frozen=True)
class ColumnIndex:
    """Rows by SCHEMA, and what they have in common."""

    facts: ColumnFacts
    rows: pa.Table

    def to_bytes(self) -> memoryview:
        """As an Arrow file, which can be mapped. The same index gives the same bytes."""
        return arrow_bytes(self.facts, self.rows, FORMAT.version)


def read_column(source: pa.Buffer | pa.NativeFile, where: str) -> ColumnIndex:
    """The index in an Arrow file; `where` is its name in messages.

    Raises UsageError where it is none, or one of a version that this Telecine does not know.
    """
    return ColumnIndex(*arrow_read(source, where, FORMAT, ColumnFacts))


# ── where it lies, relative to the dataset ───────────────────────────────────────────────────────


def column_folder(name: str) -> str:
    """With the slash at its end: everything of the column begins so."""
    return f"{COLUMNS}/{name}/"


def column_index_path(name: str, build: str) -> str:
    """Of its index.json beside a build."""
    return f"{column_folder(name)}{build}/index.json"


def column_file(digest: str) -> str:
    """The Arrow index, within the folder of its index.json."""
    return f"column-{digest[:16]}.arrow"


def column_tar(name: str, shard_id: str, digest: str) -> str:
    """`digest` is of what goes into it: clips, texts and encoder."""
    return f"{column_folder(name)}tars/{shard_id[:2]}/{shard_id}-{digest[:16]}.tar"


def null_path(name: str, digest: str) -> str:
    """Of the empty text's embedding; `digest` is its SHA-256."""
    return f"{column_folder(name)}null-{digest[:16]}.npy"


def part_path(name: str, digest: str) -> str:
    """Of embeddings that await the tars they go into; `digest` is of texts and encoder."""
    return f"{column_folder(name)}parts/{digest[:2]}/{digest[:32]}.tar"
