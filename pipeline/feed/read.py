"""Pieces of samples → a pack's memory, by the index: whole ones in one read, with what follows.

tar   │ header │ .npy header │ C × T × H × W │ header │ json │ header │ txt │ ...
               ▲ offset      └─ into the pack ┘ └─────── members, parsed ───┘
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from telecine.infra.errors import NotFound, Unreadable, UsageError
from telecine.infra.store.ranges import Range, Ranges
from telecine.infra.store.storage import join
from telecine.manifests.index.samples import BuildFacts, SampleIndex
from telecine.manifests.index.tracks import group
from telecine.manifests.shards import build_folder
from telecine.manifests.tar import BLOCK, DTYPE, NPY_HEADER
from telecine.pipeline.feed.pack import Member
from telecine.pipeline.feed.plan.steps import Piece
from telecine.pipeline.feed.texts import Texts

Verify: TypeAlias = Literal["first", "always", "never"]


@dataclass(frozen=True)
class Row:
    """Of the index."""

    clip_id: str
    shard: str
    offset: int
    size_bytes: int
    sample_bytes: int
    sha256: bytes
    shape: list[int]
    frames: int
    fps_num: int
    fps_den: int
    text_digest: bytes | None  # of its .txt; None: it has none


_COLUMNS = list(Row.__dataclass_fields__)


class BadSample(Unreadable):
    """A sample that is not what the index says of it; `reason` is one word for all of a kind."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _reason(error: Exception) -> str:
    if isinstance(error, BadSample):
        return error.reason
    if isinstance(error, NotFound):
        return "missing"
    return "short" if isinstance(error, Unreadable) else "facts"


class Reader:
    """Of one source. For many threads at once."""

    def __init__(
        self, dataset: str, index: SampleIndex, ranges: Ranges, verify: Verify,
        tracks: Sequence[str] = (), texts: Texts | None = None,
    ) -> None:  # fmt: skip
        self.facts = index.facts
        self._folder = join(dataset, build_folder(index.facts.build).rstrip("/"))
        self._rows = index.rows.select(_COLUMNS).combine_chunks()
        self._ranges, self._verify = ranges, verify
        self._tracks, self.texts = tracks, texts
        self._checked = np.zeros(index.rows.num_rows, np.bool_)
        self._lock = threading.Lock()

    def row(self, number: int) -> Row:
        return Row(*(self._rows[name][number].as_py() for name in _COLUMNS))

    def read(self, piece: Piece, into: memoryview) -> Member:
        """Fill `into` with the piece's values. Raises Unreadable, with the key, of a bad one."""
        row = self.row(piece.row)
        uri = f"{self._folder}/{row.shard}"
        try:
            tail = self._whole(row, piece, uri, into) or self._part(row, piece, uri, into)
            return self._member(row, piece, tail)
        except (NotFound, Unreadable, ValueError, KeyError) as error:
            raise BadSample(
                f"sample {row.clip_id} in {uri} cannot be fed: {error}. Find what is damaged with "
                'telecine verify, or leave out and count such samples with bad="skip"',
                _reason(error),
            ) from error

    def _whole(self, row: Row, piece: Piece, uri: str, into: memoryview) -> bytearray | None:
        if (piece.start, piece.stop) != (0, row.shape[1]):
            return None
        head, tail = bytearray(NPY_HEADER), bytearray(row.sample_bytes - row.size_bytes)
        views = [memoryview(head), into, memoryview(tail)]
        self._ranges.read(uri, [Range(row.offset, views)], row.sha256.hex())
        _check_head(head, row)
        if self._verify == "always" or (self._verify == "first" and not self._checked[piece.row]):
            digest = hashlib.sha256(head)
            digest.update(into)
            if digest.digest() != row.sha256:
                raise BadSample("its digest is not the one it was written with", "digest")
            self._checked[piece.row] = True
        return tail

    def _part(self, row: Row, piece: Piece, uri: str, into: memoryview) -> bytearray:
        """Some latent frames: of each channel a range."""
        head, tail = bytearray(NPY_HEADER), bytearray(row.sample_bytes - row.size_bytes)
        channels, frames, height, width = row.shape
        frame = height * width * DTYPE.itemsize
        size = (piece.stop - piece.start) * frame
        ranges = [Range(row.offset, [memoryview(head)])]
        for channel in range(channels):
            start = row.offset + NPY_HEADER + (channel * frames + piece.start) * frame
            ranges.append(Range(start, [into[channel * size : (channel + 1) * size]]))
        ranges.append(Range(row.offset + row.size_bytes, [memoryview(tail)]))
        self._ranges.read(uri, ranges, row.sha256.hex())
        _check_head(head, row)
        return tail

    def _member(self, row: Row, piece: Piece, tail: bytearray) -> Member:
        members = parsed(tail, -row.size_bytes % BLOCK)
        if "json" not in members:
            raise BadSample("no json follows its latents", "facts")
        if self._verify != "never":
            _check_caption(members.get("txt", b""), row)
        channels, frames, height, width = row.shape
        whole = (piece.start, piece.stop) == (0, frames)
        member = Member(
            key=row.clip_id,
            shape=(channels, piece.stop - piece.start, height, width),
            start_latent=piece.start,
            exact=whole or (piece.start == 0 and bool(self.facts.causal)),
            num_frames=row.frames if whole else _frames(self.facts, piece),
            fps=row.fps_num / row.fps_den,
            build=self.facts,
            members=members,
        )
        if self.texts is not None:
            caption, embedding = self.texts.read(piece.row)
            member = replace(member, caption_of_column=caption, text=embedding)
        if self._tracks:
            member = replace(member, tracks=self._grouped(members, piece))
        return member

    def _grouped(
        self, members: Mapping[str, bytes], piece: Piece
    ) -> dict[str, npt.NDArray[np.float32]]:
        import json

        said = json.loads(members["json"]).get("tracks", {})
        found = {}
        for name in self._tracks:
            if name not in said:
                there = f"it has {', '.join(sorted(said))}" if said else "it has none"
                raise UsageError(
                    f"tracks: build {self.facts.build} has no track {name!r}, {there}. Tracks are "
                    f"declared as [tracks.{name}] and made by telecine rebuild (docs/tracks.md)"
                )
            if f"{name}.npy" in members:
                values = np.load(io.BytesIO(members[f"{name}.npy"]), allow_pickle=False)
                stride, causal = self.facts.temporal_stride or 1, bool(self.facts.causal)
                grouped = group(values, stride, causal, said[name]["rule"])
                found[name] = grouped[piece.start : piece.stop]
        return found


def parsed(tail: bytes | bytearray, start: int) -> dict[str, bytes]:
    """Members in the rest of a sample, by what follows the key in their names (POSIX ustar)."""
    found = {}
    while start + BLOCK <= len(tail) and tail[start]:
        header = tail[start : start + BLOCK]
        name = bytes(header[:100]).rstrip(b"\0").decode()
        size = int(bytes(header[124:136]).rstrip(b"\0 ") or b"0", 8)
        start += BLOCK
        found[name.partition(".")[2]] = bytes(tail[start : start + size])
        start += size + -size % BLOCK
    return found


def _check_head(head: bytearray, row: Row) -> None:
    """That a latent of this shape begins here."""
    shape = ", ".join(map(str, row.shape))
    if not head.startswith(b"\x93NUMPY") or f"({shape})".encode() not in head:
        raise BadSample(f"no latent of shape ({shape}) begins at byte {row.offset}", "header")


def _check_caption(text: bytes, row: Row) -> None:
    if row.text_digest is not None and hashlib.sha256(text).digest() != row.text_digest:
        raise BadSample("its caption is not the one it was written with", "digest")


def _frames(facts: BuildFacts, piece: Piece) -> int:
    """That the piece's latent frames were made of."""
    stride = facts.temporal_stride or 1
    if facts.causal and piece.start == 0:
        return 1 + (piece.stop - 1) * stride
    return (piece.stop - piece.start) * stride
