"""shard: one worker makes one tar, from decode to upload, and returns its receipt.

decode    ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒         ahead of the encoder, the next member's beginning too
encode       ████████│████████│████████
write                 ▒▒       ▒▒       ▒▒   statistics, tar, digest: of the member before

Without `ahead` the same calls are made in line; the tar's bytes are the same. Of renditions that
are made together a clip is decoded once, and each has a tar of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from telecine.encoders.load import load_encoder
from telecine.infra.bugs import telecine_version
from telecine.infra.errors import (
    Changed,
    MediaError,
    NotFound,
    Reason,
    StorageError,
    Unreadable,
    UsageError,
    concerns_one_object,
)
from telecine.infra.faults import kill_point
from telecine.infra.prefetch import run_ahead
from telecine.infra.pulse import beat
from telecine.infra.store.storage import Storage, join
from telecine.manifests.buckets import Bucket
from telecine.manifests.fingerprint import canonical_json, sha256_of
from telecine.manifests.schemas import OF_LATENTS, Clip, Sample, Source
from telecine.manifests.shards import shard_path
from telecine.manifests.specs import DatasetSpec, VaeSpec
from telecine.manifests.tar import FACTS, LATENT, TEXT, Extent, Sealed, TarWriter, npy_parts
from telecine.pipeline.build.encode import ClipFrames, Encoded, aside_of, encode_aside, encode_clip
from telecine.pipeline.build.latents import latent_statistics
from telecine.pipeline.build.plan import Encoding, plan_encoding
from telecine.pipeline.build.sample import ChosenCaption, sample_json
from telecine.pipeline.media.aside import Aside
from telecine.pipeline.media.timing import output_edges
from telecine.pipeline.side.read import (
    Edges,
    TrackReader,
    Tracks,
    Without,
    add_without,
    tracks_digest,
)
from telecine.pipeline.side.times import native_stamps

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
    canary: bool = False  # where it is encoded, decode its first frames again and compare
    stamps: bytes | None = None  # its row of frame_times, if it has one


@dataclass(frozen=True, slots=True)
class ShardJob:
    build_id: str
    build_name: str
    plan: int
    shard_id: str
    bucket: Bucket
    members: tuple[MemberJob, ...]
    trial: bool = False  # encode and throw away: which member kills the worker?
    vae_fingerprint: str = ""  # the encoder's, where the build was planned; empty: any
    vae: VaeSpec | None = None  # what of a clip is encoded; None: as the worker's spec has it
    beside: tuple[ShardJob, ...] = ()  # of other renditions: made of the same decoded frames
    has_tracks: bool = False  # its samples have those of the spec
    expected_sha256: str = ""  # upload only a tar with this digest; empty: any

    @property
    def path(self) -> str:
        """Relative to the dataset."""
        return shard_path(self.build_name, self.bucket, self.shard_id)

    def row(self, member: MemberJob, **facts: Any) -> Sample:
        """The row of one member, kept or dropped."""
        return Sample(
            build_id=self.build_id,
            plan=self.plan,
            clip_id=member.clip.clip_id,
            text_digest=member.caption.text_digest,
            captions_digest=member.caption.captions_digest,
            tracks_digest=tracks_digest(member.source) if self.has_tracks else "",
            shard_id=self.shard_id,
            resolution=self.bucket.resolution,
            aspect=self.bucket.aspect,
            duration=self.bucket.duration,
            **facts,
        )

    def drop(self, member: MemberJob, reason: Reason, detail: str) -> Sample:
        return self.row(
            member,
            outcome="dropped",
            reason=reason,
            detail=detail,
            telecine_version=telecine_version(),
        )


@dataclass(slots=True)
class Receipt:
    """What became of a shard: a row per member, and what it cost."""

    samples: list[Sample] = field(default_factory=list)
    frames_encoded: int = 0
    pixels_encoded: int = 0  # of the encoded frames, after the crop
    encode_seconds: float = 0.0  # wall-clock, with the waiting for decoded frames
    bytes_read: int = 0
    bytes_of_footage: int = 0  # of the encoded spans, each its share of its source's bytes
    bytes_written: int = 0
    matches: bool = True  # the tar has the digest that was expected, where one was
    without_track: dict[str, Without] = field(default_factory=dict)  # by its name
    beside: list[Receipt] = field(default_factory=list)  # of the jobs beside this one


@dataclass(frozen=True, slots=True)
class Copied:
    """The latent member of another sample, as it stands there."""

    data: bytes
    sample: Sample


@dataclass(frozen=True, slots=True)
class Dropped:
    """A member that is left out, and why."""

    reason: Reason
    detail: str


Made: TypeAlias = Encoded | Copied | Dropped


@dataclass(slots=True)
class _Begun:
    """A member on its way: what of it is encoded or copied, and its frames if they are coming."""

    member: MemberJob
    encoding: Encoding
    vae: VaeSpec
    copy: Sample | None
    number: int = 0  # of its job
    frames: ClipFrames | None = None
    aside: Aside | None = None  # frames that come with those of another rendition
    tracks: Tracks = field(default_factory=Tracks)

    def close(self) -> None:
        for frames in (self.frames, self.aside):
            if frames is not None:
                frames.close()


class ShardWorker:
    """Holds the encoder on its torch device; called with one job at a time.

    `ahead`: decoded blocks that wait for the encoder, of a member and of the next one; 0 makes
    everything in line, which is faster where all share one core. Holds the latents of two clips
    at most, and on disk the frames of one for each rendition beside the first.
    """

    def __init__(
        self, dataset: str, spec: DatasetSpec, storage: Storage, ahead: int, device: str = "cpu"
    ) -> None:
        self._dataset = dataset
        self._spec = spec
        self._storage = storage
        self._ahead = ahead
        self._encoder = load_encoder(spec.vae, device)
        self._read_tracks = TrackReader(storage, spec.tracks)

    def __call__(self, job: ShardJob) -> Receipt:
        """Raises UsageError where the encoder is not the one that the job was planned with."""
        jobs = (job, *job.beside)
        for each in jobs:
            self._check_encoder(each)
        receipts = [Receipt() for _ in jobs]
        with tempfile.TemporaryDirectory(prefix="telecine-") as folder, ExitStack() as stack:
            paths = [Path(folder) / f"{number}.tar" for number in range(len(jobs))]
            tars = [stack.enter_context(TarWriter(path)) for path in paths]
            rows: list[list[Sample]] = [[] for _ in jobs]
            made = run_ahead(self._made(jobs, receipts), 1 if self._ahead else 0, "encode")
            with contextlib.closing(made):
                for one, result in made:
                    n = one.number
                    rows[n].append(row := self._write(jobs[n], one, result, tars[n]))
                    if row.outcome == "kept":
                        problems = {k: Without(1, why) for k, why in one.tracks.problems.items()}
                        add_without(receipts[n].without_track, problems)
            for n, each in enumerate(jobs):
                receipts[n].samples = _shard_rows(each, rows[n], sealed := tars[n].seal())
                self._upload(each, paths[n], sealed, receipts[n])
        receipts[0].beside = receipts[1:]
        return receipts[0]

    def _upload(self, job: ShardJob, path: Path, sealed: Sealed, receipt: Receipt) -> None:
        """Only of a shard that is not empty, not a trial, and as it was expected to be."""
        receipt.matches = job.expected_sha256 in ("", sealed.sha256)
        kept = any(row.outcome == "kept" for row in receipt.samples)
        if kept and receipt.matches and not job.trial:
            self._storage.upload(path, join(self._dataset, job.path))
            receipt.bytes_written = sealed.size_bytes

    def _check_encoder(self, job: ShardJob) -> None:
        if job.vae_fingerprint and job.vae_fingerprint != self._encoder.fingerprint:
            raise UsageError(
                f"the weights at {self._spec.vae.encoder} changed since the build was planned, or "
                f"differ on this machine ({socket.gethostname()}): put the same there on all of "
                "them, and run again"
            )

    def _made(
        self, jobs: Sequence[ShardJob], receipts: Sequence[Receipt]
    ) -> Generator[tuple[_Begun, Made], None, None]:
        """The members' latents in order, each encoded while the next one's decoding begins."""
        begun: deque[list[_Begun]] = deque()
        try:
            for seats in _clips(jobs):
                begun.append(self._begin(jobs, seats))
                if len(begun) > bool(self._ahead):
                    yield from self._make_all(begun.popleft(), receipts)
            while begun:
                yield from self._make_all(begun.popleft(), receipts)
        finally:
            for one in chain.from_iterable(begun):
                one.close()

    def _begin(
        self, jobs: Sequence[ShardJob], seats: Sequence[tuple[int, MemberJob]]
    ) -> list[_Begun]:
        """A clip in each of the jobs that have it. It is decoded once: for the first that encodes
        it, with what the others need laid aside.
        """
        all_of_it = [self._seat(number, jobs[number], member) for number, member in seats]
        encoded = [one for one in all_of_it if one.copy is None and not one.member.excluded]
        for one in encoded[1:]:
            one.aside = aside_of(one.member.clip, one.encoding, self._encoder)
        for one in encoded[:1]:
            one.frames = self._frames(one, [e.aside for e in encoded if e.aside is not None])
        return all_of_it

    def _seat(self, number: int, job: ShardJob, member: MemberJob) -> _Begun:
        vae = job.vae or self._spec.vae
        encoding = plan_encoding(member.clip, self._encoder, vae)
        assert encoding is not None  # the planner left out what has none
        copy = member.copy
        if copy is not None and tuple(copy.latent_shape) != encoding.latent_shape:
            copy = None  # of another encoder
        return _Begun(member, encoding, vae, copy, number)

    def _frames(self, one: _Begun, asides: Sequence[Aside] = ()) -> ClipFrames:
        return ClipFrames(
            one.member.clip,
            one.member.source,
            one.encoding,
            self._encoder,
            pixels=self._spec.pixels,
            storage=self._storage,
            ahead=self._ahead,
            asides=asides,
        )

    def _make_all(
        self, begun: Sequence[_Begun], receipts: Sequence[Receipt]
    ) -> Generator[tuple[_Begun, Made], None, None]:
        with ExitStack() as stack:
            for one in begun:
                stack.callback(one.close)
            for one in begun:
                yield self._make(one, receipts[one.number])

    def _make(self, one: _Begun, receipt: Receipt) -> tuple[_Begun, Made]:
        beat()
        with contextlib.closing(one):
            if one.member.excluded:
                return one, Dropped(*one.member.excluded)
            kill_point("encode", one.member.source.uri)
            try:
                one.tracks = self._tracks(one)  # first: without a required one nothing is encoded
                return one, self._latents(one, receipt)
            except MediaError as error:
                return one, Dropped(error.reason, error.detail)
            except StorageError as error:
                if not concerns_one_object(error):
                    raise
                return one, Dropped(_WHY.get(type(error), Reason.UNREADABLE), str(error))

    def _latents(self, one: _Begun, receipt: Receipt) -> Encoded | Copied:
        copied = self._copied(one.copy, receipt) if one.copy is not None else None
        if copied is not None:
            return copied
        began = time.perf_counter()
        if one.aside is not None and one.aside.complete:
            encoded = encode_aside(one.aside, one.member.clip, one.encoding, self._encoder,
                                   canary=one.member.canary)  # fmt: skip
        else:
            one.frames = one.frames or self._frames(one)
            encoded = encode_clip(one.frames, self._encoder, canary=one.member.canary)
            receipt.bytes_read += one.frames.bytes_read
        receipt.encode_seconds += time.perf_counter() - began
        clip, source, encoding = one.member.clip, one.member.source, one.encoding
        receipt.frames_encoded += encoding.frames
        receipt.pixels_encoded += encoding.frames * encoding.crop.width * encoding.crop.height
        receipt.bytes_of_footage += source.size_bytes * clip.num_frames // source.num_frames
        return encoded

    def _copied(self, sample: Sample, receipt: Receipt) -> Copied | None:
        """None where the shard is gone, cut short or damaged: its footage may not be."""
        uri = join(self._dataset, sample.shard_path)
        try:
            data = self._storage.read_range(uri, sample.latent_offset, sample.latent_bytes)
        except (NotFound, Unreadable):
            return None
        receipt.bytes_read += len(data)
        return Copied(data, sample) if sha256_of(data) == sample.latent_sha256 else None

    def _write(self, job: ShardJob, one: _Begun, made: Made, tar: TarWriter) -> Sample:
        if isinstance(made, Dropped):
            return job.drop(one.member, made.reason, made.detail)
        parts: tuple[bytes | memoryview, ...]
        try:
            if isinstance(made, Copied):
                parts, facts = (made.data,), _copied_facts(made)
            else:
                parts = npy_parts(made.latents)
                facts = _measured(made) | {"latent_sha256": sha256_of(*parts)}
        except MediaError as error:
            return job.drop(one.member, error.reason, error.detail)
        key = one.member.clip.clip_id
        extent = tar.add(f"{key}.{LATENT}", *parts)
        row = job.row(one.member, outcome="kept", **facts, **_placed(one.encoding, extent))
        metadata = sample_json(
            one.member.clip,
            one.member.source,
            one.member.caption,
            row,
            encoder=self._encoder,
            pixels=self._spec.pixels,
            vae=one.vae,
        )
        if one.tracks.said:
            metadata["tracks"] = one.tracks.said
        tar.add(f"{key}.{FACTS}", canonical_json(metadata).encode())
        if row.text_digest:
            tar.add(f"{key}.{TEXT}", one.member.caption.text.encode())
        for name, values in one.tracks.values.items():
            tar.add(f"{key}.{name}.npy", *npy_parts(values))
        return row

    def _tracks(self, one: _Begun) -> Tracks:
        """Raises MediaError where a required one is not whole."""
        if not self._spec.tracks:
            return Tracks()
        clip, encoding = one.member.clip, one.encoding
        stamps = native_stamps(clip, one.member.stamps)
        edges = None
        if stamps is not None:
            edges = Edges(*output_edges(clip, stamps.tolist(), encoding.rate, encoding.frames))
        return self._read_tracks(clip, one.member.source, edges)


def _clips(jobs: Sequence[ShardJob]) -> Iterator[list[tuple[int, MemberJob]]]:
    """Each clip of the jobs, with the number of every job that has it: plans order by clip_id."""
    if len(jobs) == 1:
        return ([(0, member)] for member in jobs[0].members)
    seats: dict[str, list[tuple[int, MemberJob]]] = {}
    for number, job in enumerate(jobs):
        for member in job.members:
            seats.setdefault(member.clip.clip_id, []).append((number, member))
    return (seats[clip_id] for clip_id in sorted(seats))


def _measured(encoded: Encoded) -> dict[str, Any]:
    """Columns of the sample's row. Raises MediaError where the latents are not finite."""
    return {**latent_statistics(encoded.latents), "psnr_db": encoded.psnr_db, **encoded.shown}


def _copied_facts(copied: Copied) -> dict[str, Any]:
    facts = {name: getattr(copied.sample, name) for name in OF_LATENTS}
    return {"copied_from": copied.sample.shard_path, **facts}


def _placed(encoding: Encoding, extent: Extent) -> dict[str, Any]:
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


def _shard_rows(job: ShardJob, rows: list[Sample], sealed: Sealed) -> list[Sample]:
    """The rows with what is known once the tar is whole."""
    kept = [row.clip_id for row in rows if row.outcome == "kept"]
    places = {clip_id: place for place, clip_id in enumerate(kept)}
    shard: dict[str, Any] = {
        "shard_path": job.path,
        "shard_sha256": sealed.sha256,
        "shard_bytes": sealed.size_bytes,
        "shard_samples": len(kept),
    }
    return [
        dataclasses.replace(row, position=places[row.clip_id], **shard)
        if row.outcome == "kept"
        else row
        for row in rows
    ]
