"""Embed: a worker keeps the text encoder loaded; another one puts texts and embeddings into tars.

PartJob   ─▶ EmbedWorker  ─▶ columns/NAME/parts/…, a row a text    on a device
ColumnJob ─▶ ColumnWorker ─▶ columns/NAME/tars/…,  a row a sample  copies, encodes nothing
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from telecine.encoders.load import load_text_encoder
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.text.interface import EncodedText
from telecine.infra.errors import StorageError, UsageError
from telecine.infra.pulse import beat
from telecine.infra.store.storage import Storage, join
from telecine.manifests.fingerprint import sha256_of
from telecine.manifests.index.columns import EMBEDDING, TEXT
from telecine.manifests.schemas import ColumnSample, TextEmbedding
from telecine.manifests.specs import EmbedSpec
from telecine.manifests.tar import TarWriter, npy_parts
from telecine.pipeline.embed.plan import ColumnJob, Member, PartJob

READERS = 16  # ranges that are read at once


@dataclass(frozen=True, slots=True)
class Written:
    """A tar of a column, and what it holds."""

    rows: tuple[ColumnSample, ...]
    bytes_written: int


class EmbedWorker:
    """Lives in a worker process and keeps the encoder loaded: a part in, a row of each text out."""

    def __init__(
        self, dataset: str, spec: EmbedSpec, storage: Storage, runtime: ModelRuntime
    ) -> None:
        self._dataset, self._storage = dataset, storage
        self._encoder = load_text_encoder(spec, runtime)

    def __call__(self, job: PartJob) -> list[TextEmbedding]:
        """Raises UsageError where the encoder is not the one that the job was planned with."""
        if job.encoder_fingerprint != self._encoder.fingerprint:
            raise UsageError(
                "the text encoder on this machine is not the one that the run was begun with: put "
                "the same files there on all of them, and run again"
            )
        found = self._encoder.encode([text for _, text in job.texts])
        with tempfile.TemporaryDirectory(prefix="telecine-") as folder:
            path = Path(folder) / "part.tar"
            with TarWriter(path) as tar:
                rows = [
                    _stored(job, digest, one, tar)
                    for (digest, _), one in zip(job.texts, found, strict=True)
                ]
                tar.seal()
            if any(row.outcome == "ok" for row in rows):
                self._storage.upload(path, join(self._dataset, job.path))
        return rows


def _stored(job: PartJob, digest: str, one: EncodedText | str, tar: TarWriter) -> TextEmbedding:
    if isinstance(one, str):
        return failed(job, digest, one)
    parts = npy_parts(one.embedding)
    extent = tar.add(f"{digest}.npy", *parts)
    return TextEmbedding(
        text_digest=digest,
        encoder_fingerprint=job.encoder_fingerprint,
        outcome="ok",
        tokens=len(one.embedding),
        truncated=one.truncated,
        path=job.path,
        offset=extent.offset,
        size_bytes=extent.size,
        sha256=sha256_of(*parts),
    )


def failed(job: PartJob, digest: str, detail: str) -> TextEmbedding:
    return TextEmbedding(
        text_digest=digest,
        encoder_fingerprint=job.encoder_fingerprint,
        outcome="failed",
        detail=detail,
    )


class ColumnWorker:
    """Writes a tar of a column: texts from the job, embeddings from their parts, by digest."""

    def __init__(self, dataset: str, storage: Storage) -> None:
        self._dataset, self._storage = dataset, storage

    def __call__(self, job: ColumnJob) -> Written:
        """Raises StorageError where an embedding is not what the tables say."""
        with tempfile.TemporaryDirectory(prefix="telecine-") as folder:
            path = Path(folder) / "column.tar"
            with TarWriter(path) as tar:
                rows = [
                    _written(job, place, member, embedding, tar)
                    for place, (member, embedding) in enumerate(self._read(job.members))
                ]
                sealed = tar.seal()
            self._storage.upload(path, join(self._dataset, job.path))
        whole = (
            replace(row, tar_sha256=sealed.sha256, tar_bytes=sealed.size_bytes) for row in rows
        )
        return Written(tuple(whole), sealed.size_bytes)

    def _read(self, members: Sequence[Member]) -> Iterator[tuple[Member, bytes]]:
        """In order, a few at once."""
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(members), READERS):
                some = members[start : start + READERS]
                yield from zip(some, pool.map(self._embedding, some), strict=True)
                beat()

    def _embedding(self, member: Member) -> bytes:
        if not member.size_bytes:
            return b""
        uri = join(self._dataset, member.part)
        data = self._storage.read_range(uri, member.offset, member.size_bytes)
        if sha256_of(data) != member.sha256:
            raise StorageError(
                f"{uri!r} does not hold the embedding that the tables name at byte "
                f"{member.offset}: it is damaged. Remove the file and run telecine embed again: "
                "its texts are encoded anew"
            )
        return data


def _written(
    job: ColumnJob, place: int, member: Member, embedding: bytes, tar: TarWriter
) -> ColumnSample:
    text = tar.add(f"{member.clip_id}.{TEXT}", member.text.encode())
    row = ColumnSample(
        column_name=job.column,
        encoder_fingerprint=job.encoder_fingerprint,
        shard_id=job.shard_id,
        digest=job.digest,
        path=job.path,
        tar_sha256="",
        tar_bytes=0,
        position=place,
        clip_id=member.clip_id,
        text_digest=member.text_digest,
        text_offset=text.offset,
        text_bytes=text.size,
    )
    if not embedding:
        return row
    extent = tar.add(f"{member.clip_id}.{EMBEDDING}", embedding)
    return replace(
        row,
        offset=extent.offset,
        size_bytes=extent.size,
        sha256=member.sha256,
        tokens=member.tokens,
        truncated=member.truncated,
    )
