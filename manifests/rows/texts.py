"""Tables of what texts are embedded to, and of the tars that hold texts beside a build's shards."""

from __future__ import annotations

from dataclasses import dataclass

from telecine.manifests.rows.field import column


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEmbedding:
    """Where one text's embedding under one encoder lies; clips that share a text share it."""

    text_digest: str = column("SHA-256 of the text")
    encoder_fingerprint: str = column("of the text encoder, weights and options included")
    outcome: str = column("ok or failed")
    detail: str = column("why it failed, or empty", "")
    tokens: int = column("that were encoded: rows of the embedding", 0)
    truncated: bool = column("the text has more tokens than were encoded", False)
    path: str = column("of the tar it lies in, relative to the dataset, or empty", "")
    offset: int = column("byte offset of its .npy in the tar", 0)
    size_bytes: int = column("bytes of the .npy: float16 [tokens, D]", 0)
    sha256: str = column("of the .npy", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSample:
    """One clip's text in one tar of a column. The tar's facts ride along."""

    column_name: str = column("folder under columns/")
    encoder_fingerprint: str = column("of the text encoder")
    shard_id: str = column("the build's shard that the tar lies beside")
    digest: str = column("of what is in the tar: clips, texts, encoder")
    path: str = column("of the tar, relative to the dataset")
    tar_sha256: str = column("of the tar")
    tar_bytes: int = column("size of the tar")
    position: int = column("of the sample in its shard, from 0")
    clip_id: str = column("the clip")
    text_digest: str = column("SHA-256 of its .txt; empty: it has no caption yet")
    text_offset: int = column("byte offset of its .txt in the tar")
    text_bytes: int = column("bytes of its .txt")
    offset: int = column("byte offset of its text.npy in the tar", 0)
    size_bytes: int = column("bytes of its text.npy; 0: it has none", 0)
    sha256: str = column("of its text.npy", "")
    tokens: int = column("rows of the embedding", 0)
    truncated: bool = column("the text has more tokens than were encoded", False)
