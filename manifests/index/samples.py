"""The index of a build's samples: where each lies and what shape it has, in one Arrow file.

    shards/BUILD/index.json             names the shards, and the file of their samples
    shards/BUILD/samples-DIGEST.arrow   a row per sample, in the order of the shards and in each

A file is never changed: a build that grows has another digest, so another file, and whoever reads
by the older one goes on with it. It is mapped, not parsed: ten million samples open at once.

    tar of a shard:   │ header │ latent.npy │ header │ json │ header │ txt │ ... │ header │
                               ▲ offset     │                                    │
                               ├ size_bytes ┤                                    │
                               └────────────────── sample_bytes ─────────────────┘ at most
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from telecine.manifests.index.arrow import Format, arrow_bytes, arrow_read

FORMAT = Format(
    "index of samples",
    version=1,
    made_by="it is written beside a build's index.json, or by telecine feed --index",
)

# Lengths are of the sample, as it is stored.
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),  # path relative to the build's folder
        ("position", pa.int32()),  # in its shard, from 0
        ("offset", pa.int64()),  # byte of the tar at which latent.npy begins, its header included
        ("size_bytes", pa.int64()),  # of latent.npy
        ("sample_bytes", pa.int64()),  # from `offset` to the end of the sample's last member
        ("sha256", pa.binary(32)),  # of latent.npy
        ("shape", pa.list_(pa.int32(), 4)),  # C, T', H', W'
        ("frames", pa.int32()),  # that were encoded
        ("fps_num", pa.int32()),  # encoded frames per second, 0 of an image
        ("fps_den", pa.int32()),
        ("bucket", pa.dictionary(pa.int32(), pa.string())),  # 360/16x9/4s
        ("text_digest", pa.binary(32)),  # SHA-256 of its .txt; NULL: captions are in a column
    ]
)


@dataclass(frozen=True)
class BuildFacts:
    """What all samples of a build have in common."""

    build_id: str
    build: str  # its name: the folder under shards/
    digest: str  # of the shards, as index.json has it: equal ones hold equal samples
    patch: int  # px of a latent that the trainer's patch is wide and high: the grid it was cut to
    vae: Mapping[str, Any]  # the encoder's identity
    vae_fingerprint: str
    temporal_stride: int | None  # frames of a latent frame; None: a build that does not say
    causal: bool | None  # the first latent frame is of the first frame alone


@dataclass(frozen=True)
class SampleIndex:
    """Rows by SCHEMA, and what they have in common."""

    facts: BuildFacts
    rows: pa.Table

    def to_bytes(self) -> memoryview:
        """As an Arrow file, which can be mapped. The same index gives the same bytes."""
        return arrow_bytes(self.facts, self.rows, FORMAT.version)


def samples_file(digest: str) -> str:
    """Its name within the build's folder."""
    return f"samples-{digest[:16]}.arrow"


def read_samples(source: pa.Buffer | pa.NativeFile, where: str) -> SampleIndex:
    """The index in an Arrow file; `where` is its name in messages.

    Raises UsageError where it is none, or one of a version that this Telecine does not know.
    """
    return SampleIndex(*arrow_read(source, where, FORMAT, BuildFacts))


def narrowed(index: SampleIndex, rows: pa.Table) -> SampleIndex:
    """The index of some of the rows, in their order; it has a digest of its own."""
    digest = hashlib.sha256(index.facts.digest.encode())
    for clip_id in rows["clip_id"].to_pylist():
        digest.update(clip_id.encode())
    facts = BuildFacts(**{**vars(index.facts), "digest": digest.hexdigest()})
    return SampleIndex(facts, rows.combine_chunks())
