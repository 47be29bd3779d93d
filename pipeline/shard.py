"""shard: one worker makes one tar, from decode to upload, and returns its receipt."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.frames import Latents
from encoders.load import load_encoder
from infra.errors import (
    Changed,
    MediaError,
    NotFound,
    Reason,
    StorageError,
    concerns_one_object,
)
from infra.faults import kill_point
from infra.storage import Storage, join
from manifests.fingerprint import canonical_json
from manifests.schemas import Clip, Sample, Source
from manifests.specs import DatasetSpec
from pipeline.encode import encode_clip
from pipeline.plan import Bucket, Encoding, plan_encoding
from pipeline.sample import ChosenCaption, sample_json
from pipeline.tar import Extent, TarWriter, npy_parts

_WHY: dict[type[Exception], Reason] = {
    NotFound: Reason.SOURCE_MISSING,
    Changed: Reason.SOURCE_CHANGED,
}


@dataclass(frozen=True, slots=True)
class MemberJob:
    """All that is known of one member before a frame of it is decoded."""

    clip: Clip
    source: Source
    caption: ChosenCaption
    copy: Sample | None  # the sample whose latents are taken, or None: encode
    excluded: tuple[Reason, str] | None = None  # leave it out: it killed its worker


@dataclass(frozen=True, slots=True)
class ShardJob:
    build_id: str
    build_name: str
    plan: int
    shard_id: str
    bucket: Bucket
    members: tuple[MemberJob, ...]
    trial: bool = False  # encode and throw away: which member kills the worker?

    @property
    def path(self) -> str:
        """Relative to the dataset."""
        return f"shards/{self.build_name}/{self.bucket.folder}/{self.shard_id}.tar"

    def row(self, member: MemberJob, **facts: Any) -> Sample:
        """The row of one member, kept or dropped."""
        return Sample(
            build_id=self.build_id,
            plan=self.plan,
            clip_id=member.clip.clip_id,
            text_digest=member.caption.text_digest,
            shard_id=self.shard_id,
            resolution=self.bucket.resolution,
            aspect=self.bucket.aspect,
            duration=self.bucket.duration,
            **facts,
        )

    def drop(self, member: MemberJob, reason: Reason, detail: str) -> Sample:
        return self.row(member, outcome="dropped", reason=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a shard: a row per member, and what it cost."""

    samples: list[Sample]
    frames_encoded: int = 0
    bytes_read: int = 0
    bytes_of_footage: int = 0  # of the encoded spans, each its share of its source's bytes
    bytes_written: int = 0


class ShardWorker:
    """Holds the encoder; called with one job at a time.

    `ahead`: blocks that a decode thread runs ahead of the encoder; 0 decodes in line, which is
    faster where decoder and encoder share one core.
    """

    def __init__(self, dataset: str, spec: DatasetSpec, storage: Storage, ahead: int) -> None:
        self._dataset = dataset
        self._spec = spec
        self._storage = storage
        self._ahead = ahead
        self._encoder = load_encoder(spec.vae)
        self._frames_encoded = self._bytes_read = self._bytes_of_footage = 0

    def __call__(self, job: ShardJob) -> Receipt:
        self._frames_encoded = self._bytes_read = self._bytes_of_footage = 0
        with tempfile.TemporaryDirectory(prefix="telecine-") as folder:
            path = Path(folder) / "shard.tar"
            with TarWriter(path) as tar:
                rows = [self._member(job, member, tar) for member in job.members]
                sealed = tar.seal()
            kept = [row for row in rows if row.outcome == "kept"]
            written = bool(kept) and not job.trial
            if written:
                self._storage.upload(path, join(self._dataset, job.path))
        shard: dict[str, Any] = {
            "shard_path": job.path,
            "shard_sha256": sealed.sha256,
            "shard_bytes": sealed.size_bytes,
            "shard_samples": len(kept),
        }
        places = {row.clip_id: place for place, row in enumerate(kept)}
        samples = [
            dataclasses.replace(row, position=places[row.clip_id], **shard)
            if row.outcome == "kept"
            else row
            for row in rows
        ]
        return Receipt(
            samples,
            self._frames_encoded,
            self._bytes_read,
            self._bytes_of_footage,
            sealed.size_bytes if written else 0,
        )

    def _member(self, job: ShardJob, member: MemberJob, tar: TarWriter) -> Sample:
        if member.excluded:
            return job.drop(member, *member.excluded)
        kill_point("encode", member.source.uri)
        encoding = plan_encoding(member.clip, self._encoder, self._spec.vae)
        assert encoding is not None  # the planner left out what has none
        try:
            parts, facts = self._latents(member, encoding)
        except MediaError as error:
            return job.drop(member, error.reason, error.detail)
        except StorageError as error:
            if not concerns_one_object(error):
                raise
            return job.drop(member, _WHY.get(type(error), Reason.UNREADABLE), str(error))
        key = member.clip.clip_id
        extent = tar.add(f"{key}.latent.npy", *parts)
        row = job.row(member, outcome="kept", **facts, **_placed(encoding, extent))
        metadata = sample_json(
            member.clip,
            member.source,
            member.caption,
            row,
            encoder=self._encoder,
            pixels=self._spec.pixels,
        )
        tar.add(f"{key}.json", canonical_json(metadata).encode())
        tar.add(f"{key}.txt", member.caption.text.encode())
        return row

    def _latents(
        self, member: MemberJob, encoding: Encoding
    ) -> tuple[tuple[bytes | memoryview, ...], dict[str, Any]]:
        """The .npy member in parts, and what the row says of its values."""
        if member.copy is not None:
            with contextlib.suppress(NotFound):  # a shard that is gone: its footage may not be
                return self._copied(member.copy)
        latents, bytes_read = encode_clip(
            member.clip,
            member.source,
            encoding,
            encoder=self._encoder,
            pixels=self._spec.pixels,
            storage=self._storage,
            ahead=self._ahead,
        )
        self._bytes_read += bytes_read
        source = member.source
        self._frames_encoded += encoding.frames
        self._bytes_of_footage += source.size_bytes * member.clip.num_frames // source.num_frames
        return npy_parts(latents), _statistics(latents)

    def _copied(self, sample: Sample) -> tuple[tuple[bytes, ...], dict[str, Any]]:
        uri = join(self._dataset, sample.shard_path)
        data = self._storage.read_range(uri, sample.latent_offset, sample.latent_bytes)
        self._bytes_read += len(data)
        facts = {
            "copied_from": sample.shard_path,
            "latent_mean": sample.latent_mean,
            "latent_std": sample.latent_std,
            "latent_absmax": sample.latent_absmax,
        }
        return (data,), facts


def _placed(encoding: Encoding, extent: Extent) -> Mapping[str, Any]:
    return {
        "latent_offset": extent.offset,
        "latent_bytes": extent.size,
        "latent_shape": encoding.latent_shape,
        "encoded_width": encoding.crop.width,
        "encoded_height": encoding.crop.height,
        "crop_x": encoding.crop.x,
        "crop_y": encoding.crop.y,
        "encoded_frames": encoding.frames,
        "frames_left_out": encoding.left_out,
        "fps_num": encoding.rate.numerator,
        "fps_den": encoding.rate.denominator,
    }


def _statistics(latents: Latents) -> dict[str, Any]:
    """Mean, standard deviation and largest magnitude, a latent frame at a time (float64 sums)."""
    count = latents.size
    total = squares = largest = 0.0
    for frame in latents.swapaxes(0, 1):
        values = frame.astype(np.float32)
        total += float(values.sum(dtype=np.float64))
        squares += float(np.square(values).sum(dtype=np.float64))
        largest = max(largest, float(np.abs(values).max()))
    mean = total / count
    std = max(squares / count - mean * mean, 0.0) ** 0.5
    facts = {"latent_mean": mean, "latent_std": std, "latent_absmax": largest}
    return {name: float(f"{value:.6g}") for name, value in facts.items()}
