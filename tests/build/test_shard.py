"""The worker that makes a shard: what overlaps, what costs what, and that its bytes do not care."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import tarfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine.encoders.frames import FrameBlock, Latents
from telecine.encoders.video.dct import DctEncoder
from telecine.infra.errors import NotFound, Reason, UsageError
from telecine.infra.store.reader import ObjectReader
from telecine.infra.store.storage import ObjectInfo, Storage
from telecine.manifests.buckets import Bucket
from telecine.manifests.schemas import Sample
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.plan import plan_encoding
from telecine.pipeline.build.sample import ChosenCaption
from telecine.pipeline.build.worker import MemberJob, Receipt, ShardJob, ShardWorker
from telecine.pipeline.media.decode import Cut, decode_clip
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import scan_source
from tests.support.blocks import psnr
from tests.support.lacking import Lacking
from tests.support.movies import random_planes, write_movie
from tests.support.waiting import PATIENCE, until

SPEC = DatasetSpec()
FRAMES = 26  # of each member; 25 are encoded, in blocks of 1, 4, 4, 4, 4, 4, 4


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemberJob, ...]:
    """Four clips of one second."""
    folder = tmp_path_factory.mktemp("footage")
    return tuple(_member(folder / f"{n}.mp4", seed=n) for n in range(4))


def _member(path: Path, seed: int) -> MemberJob:
    _write(path, seed)
    info = Storage().stat(str(path))
    found = Found(info.uri, info.version, info.size_bytes)
    scanned = scan_source(ScanTask(found, 0), Storage(), SPEC)
    (clip,) = scanned.clips
    caption = ChosenCaption("signal", "f", f"Clip {seed}.", f"t{seed}")
    return MemberJob(clip, scanned.source, caption, None)


def _write(path: Path, seed: int, frames: int = FRAMES) -> None:
    still = random_planes(seed, 64, 96)
    write_movie(path, [tuple(np.roll(p, n, axis=1) for p in still) for n in range(frames)])


def job_of(members: Iterable[MemberJob], **changes: Any) -> ShardJob:
    job = ShardJob("b" * 32, "dct-b", 0, "d" * 32, Bucket(64, "3x2", "1s"), tuple(members))
    return dataclasses.replace(job, **changes)


def make_worker(
    dataset: Path,
    ahead: int = 0,
    encoder: DctEncoder | None = None,
    storage: Storage | None = None,
) -> ShardWorker:
    worker = ShardWorker(str(dataset), SPEC, storage or Storage(), ahead)
    worker._encoder = encoder or worker._encoder
    return worker


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name in {"decode", "encode"}]


def nothing(number: int) -> None:
    pass


@dataclass(frozen=True)
class Watched(DctEncoder):
    """The DCT, with a word as each clip begins: `began(number)`; `seen` gets the seeds."""

    began: Callable[[int], None] = nothing
    seen: list[int] = field(default_factory=list)

    def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
        self.seen.append(seed)
        self.began(len(self.seen) - 1)
        return super().encode(blocks, frames, seed)


class WatchedStorage(Storage):
    """Storage that says when an object is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: dict[str, threading.Event] = {}

    def open(self, info: ObjectInfo) -> ObjectReader:
        self.opened.setdefault(info.uri, threading.Event()).set()
        return super().open(info)


# Order and bytes


def test_order_and_bytes_are_the_same_however_far_ahead(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    """Of members that are encoded, copied, gone and left out."""
    (old,) = make_worker(tmp_path)(job_of(members[:1], shard_id="0" * 32)).samples
    gone = dataclasses.replace(members[2].source, uri="/nonesuch.mp4")
    mixed = (
        members[3],
        dataclasses.replace(members[0], copy=old),
        dataclasses.replace(members[2], source=gone),
        dataclasses.replace(members[1], canary=True),
        dataclasses.replace(members[2], excluded=(Reason.CRASHED, "it died")),
    )
    made: list[tuple[list[Sample], bytes]] = []
    for ahead in (0, 1, 4):
        receipt = make_worker(tmp_path, ahead)(job_of(mixed))
        made.append((receipt.samples, (tmp_path / receipt.samples[0].shard_path).read_bytes()))
        assert not threads()
        assert (receipt.frames_encoded, receipt.pixels_encoded) == (50, 50 * 96 * 64)
        assert receipt.encode_seconds > 0
        assert receipt.bytes_written == len(made[-1][1])
    assert made[0] == made[1] == made[2]
    assert [s.outcome for s in made[0][0]] == ["kept", "kept", "dropped", "kept", "dropped"]
    assert [s.reason for s in made[0][0]] == ["", "", Reason.SOURCE_MISSING, "", Reason.CRASHED]
    assert [s.position for s in made[0][0] if s.outcome == "kept"] == [0, 1, 2]
    with tarfile.open(fileobj=io.BytesIO(made[0][1])) as tar:
        keys = [name.partition(".")[0] for name in tar.getnames()[::3]]
    assert keys == [m.clip.clip_id for m in (members[3], members[0], members[1])]


# What overlaps


def test_the_next_member_is_decoded_while_one_is_encoded(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    storage = WatchedStorage()
    for member in members:
        storage.opened[member.source.uri] = threading.Event()

    def began(number: int) -> None:
        if number + 1 < len(members):
            assert storage.opened[members[number + 1].source.uri].wait(PATIENCE)

    receipt = make_worker(tmp_path, 2, Watched(began=began), storage)(job_of(members))
    assert [s.outcome for s in receipt.samples] == ["kept"] * 4


def test_a_member_is_written_while_the_next_is_encoded(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    """The encoder's identity is asked for as a sample is written."""
    second = threading.Event()
    waited = []

    class Waits(Watched):
        def identity(self) -> dict[str, Any]:
            if not waited:
                waited.append(second.wait(PATIENCE))
            return super().identity()

    encoder = Waits(began=lambda number: second.set() if number == 1 else None)
    make_worker(tmp_path, 1, encoder)(job_of(members))
    assert waited == [True]


@pytest.mark.parametrize("ahead", [1, 3])
def test_blocks_that_wait_are_bounded(
    ahead: int, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    counts = []

    def waiting() -> int:
        held = [block for block in gc.get_objects() if type(block) is FrameBlock]
        counts.append(len(held))
        return len(held)

    def began(number: int) -> None:  # of its blocks none was taken
        if number + 1 < len(members):
            until(lambda: waiting() >= 2 * ahead)
        waiting()

    gc.collect()
    assert waiting() == 0
    make_worker(tmp_path, ahead, Watched(began=began))(job_of(members))
    assert max(counts) == 2 * ahead  # of this member and of the next


def test_latents_of_two_members_at_most_are_held(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    held: list[weakref.ref[Latents]] = []

    class Weighed(Watched):
        def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
            latents = super().encode(blocks, frames, seed)
            held.append(weakref.ref(latents))
            assert sum(ref() is not None for ref in held) <= 2
            return latents

    make_worker(tmp_path, 2, Weighed())(job_of(members * 3))
    assert len(held) == 12


# What an error costs


@pytest.mark.parametrize("ahead", [0, 2])
def test_footage_that_changed_costs_its_member(
    ahead: int, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    clip = dataclasses.replace(members[1].clip, num_frames=30)
    changed = dataclasses.replace(members[1], clip=clip)
    receipt = make_worker(tmp_path, ahead)(job_of([members[0], changed, members[2]]))
    assert [s.reason for s in receipt.samples] == ["", Reason.FRAMES_MISMATCH, ""]
    assert not threads()


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_index_that_is_wrong_costs_a_second_decode(
    ahead: int,
    members: tuple[MemberJob, ...],
    tmp_path: Path,
) -> None:
    right = make_worker(tmp_path)(job_of(members))
    _write(tmp_path / "short.mp4", seed=0, frames=FRAMES // 2)
    storage = Lacking(tmp_path / "short.mp4")
    made = make_worker(tmp_path, ahead, storage=storage)(job_of(members))
    assert made.samples == right.samples
    assert storage.opened == len(members) + 1


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_that_are_not_finite_cost_their_member(
    ahead: int, value: float, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    class Broken(Watched):
        def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
            latents = super().encode(blocks, frames, seed)
            if len(self.seen) == 2:
                latents[3, 2, 1, 1] = value
            return latents

    canaries = [dataclasses.replace(m, canary=True) for m in members]
    receipt = make_worker(tmp_path, ahead, Broken())(job_of(canaries))
    assert [s.reason for s in receipt.samples] == ["", Reason.NOT_FINITE, "", ""]


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_encoder_that_fails_ends_the_job_and_every_thread(
    ahead: int, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    def began(number: int) -> None:
        if number == 1:
            raise RuntimeError("the device is gone")

    worker = make_worker(tmp_path, ahead, Watched(began=began))
    with pytest.raises(RuntimeError, match="the device is gone"):
        worker(job_of(members))
    assert not threads()
    assert not (tmp_path / job_of(members).path).exists()


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_writer_that_fails_ends_the_job_and_every_thread(
    ahead: int, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    class Nameless(Watched):
        def identity(self) -> dict[str, Any]:
            raise RuntimeError("no identity")

    with pytest.raises(RuntimeError, match="no identity"):
        make_worker(tmp_path, ahead, Nameless())(job_of(members))
    assert not threads()


# Copies


def copies(members: Iterable[MemberJob], samples: Iterable[Sample]) -> list[MemberJob]:
    pairs = zip(members, samples, strict=True)
    return [dataclasses.replace(member, copy=sample) for member, sample in pairs]


def test_latents_are_copied_from_another_build(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    canaries = [dataclasses.replace(m, canary=True) for m in members]
    old = make_worker(tmp_path)(job_of(canaries)).samples
    encoder = Watched()
    job = job_of(copies(members, old), build_id="e" * 32, build_name="dct-e")
    receipt = make_worker(tmp_path, 2, encoder)(job)
    assert encoder.seen == []
    assert (receipt.frames_encoded, receipt.encode_seconds) == (0, 0)
    for before, after in zip(old, receipt.samples, strict=True):
        assert after.copied_from == before.shard_path != after.shard_path
        assert after.psnr_db == before.psnr_db > 0
        assert latent_columns(after) == latent_columns(before)
        assert latents_of(tmp_path, after) == latents_of(tmp_path, before)


def latent_columns(sample: Sample) -> dict[str, Any]:
    row = dataclasses.asdict(sample)
    return {k: v for k, v in row.items() if k.startswith(("latent_m", "latent_s", "channel"))}


def latents_of(dataset: Path, sample: Sample) -> bytes:
    path = str(dataset / sample.shard_path)
    return Storage().read_range(path, sample.latent_offset, sample.latent_bytes)


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_cannot_be_copied_is_encoded(
    ahead: int, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    """A tar that is gone, and latents of another shape."""
    old = make_worker(tmp_path)(job_of(members)).samples
    gone = dataclasses.replace(old[0], shard_path="shards/nonesuch.tar")
    other = dataclasses.replace(old[1], latent_shape=(16, 7, 8, 8))
    job = job_of(copies(members, [gone, other, *old[2:]]), build_name="dct-e")
    receipt = make_worker(tmp_path, ahead)(job)
    assert receipt.frames_encoded == 50
    assert [bool(s.copied_from) for s in receipt.samples] == [False, False, True, True]
    assert [s.latent_mean for s in receipt.samples] == [s.latent_mean for s in old]


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damaged_latents_are_not_copied_but_encoded(
    damage: str, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    old = make_worker(tmp_path)(job_of(members)).samples
    sound = [latents_of(tmp_path, sample) for sample in old]
    tar = tmp_path / old[0].shard_path
    data = bytearray(tar.read_bytes())
    middle = old[0].latent_offset + old[0].latent_bytes // 2
    data[middle] ^= 1  # the last bit of one number
    tar.write_bytes(data[:middle] if damage == "cut" else data)
    receipt = make_worker(tmp_path)(job_of(copies(members, old), build_name="dct-e"))
    copied = [bool(s.copied_from) for s in receipt.samples]
    assert copied == [False, *[damage == "flipped"] * (len(old) - 1)]
    assert [latents_of(tmp_path, sample) for sample in receipt.samples] == sound


# What a job asks for


def test_another_encoder_than_planned_is_refused(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    worker = make_worker(tmp_path)
    with pytest.raises(UsageError, match="changed since the build was planned"):
        worker(job_of(members, vae_fingerprint="f" * 64))
    planned = job_of(members, vae_fingerprint=DctEncoder().fingerprint)
    assert worker(planned).samples == worker(job_of(members)).samples


def test_a_tar_of_another_digest_is_not_uploaded(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    worker, job = make_worker(tmp_path), job_of(members)
    refused: Receipt = worker(dataclasses.replace(job, expected_sha256="0" * 64))
    assert (refused.matches, refused.bytes_written) == (False, 0)
    with pytest.raises(NotFound):
        Storage().stat(str(tmp_path / job.path))
    digest = refused.samples[0].shard_sha256
    made = worker(dataclasses.replace(job, expected_sha256=digest))
    assert made.matches
    assert made.bytes_written == (tmp_path / job.path).stat().st_size


def test_the_seed_comes_from_the_clip(members: tuple[MemberJob, ...], tmp_path: Path) -> None:
    encoder = Watched()
    make_worker(tmp_path, 2, encoder)(job_of(members))
    expected = [int(m.clip.clip_id[:16], 16) for m in members]
    assert encoder.seen == expected
    assert len(set(expected)) == 4


# What is said of the latents


def test_statistics_are_those_of_the_stored_values(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    for row in make_worker(tmp_path)(job_of(members)).samples:
        values = np.load(io.BytesIO(latents_of(tmp_path, row))).astype(np.float64)
        assert row.latent_mean == pytest.approx(values.mean(), rel=1e-5, abs=1e-7)
        assert row.latent_std == pytest.approx(values.std(), rel=1e-5)
        assert row.latent_absmax == pytest.approx(np.abs(values).max(), rel=1e-5)
        axes = (1, 2, 3)
        assert row.channel_means == pytest.approx(values.mean(axes), rel=1e-5, abs=1e-7)
        assert row.channel_stds == pytest.approx(values.std(axes), rel=1e-5)
        assert len(row.channel_means) == len(row.channel_stds) == 16


@pytest.mark.parametrize("causal", [True, False])
def test_a_canary_is_decoded_and_compared(
    causal: bool, members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    decoded: list[int] = []

    class Whole(Watched):
        def decode(self, latents: Latents) -> Iterator[Any]:
            decoded.append(latents.shape[1])
            return super().decode(latents)

    Whole.causal = causal  # type: ignore[misc]
    jobs = [dataclasses.replace(members[0], canary=True), members[1]]
    canary, other = make_worker(tmp_path, 2, Whole())(job_of(jobs)).samples
    assert decoded == [5 if causal else 7]  # of 17 frames, and of all 25
    latents = np.load(io.BytesIO(latents_of(tmp_path, canary)))
    frames = np.concatenate(list(DctEncoder().decode(latents)))[:17]
    given = np.concatenate([block.rgb() for block in blocks_of(members[0])])[:17]
    assert canary.psnr_db == pytest.approx(psnr(given, frames), abs=0.002)
    assert 5 < canary.psnr_db < 60
    assert other.psnr_db == 0


def blocks_of(member: MemberJob) -> Iterator[FrameBlock]:
    encoding = plan_encoding(member.clip, DctEncoder(), SPEC.vae)
    assert encoding is not None
    with Path(member.source.uri).open("rb") as file:
        sizes = DctEncoder().block_sizes(encoding.frames)
        cut = Cut(encoding.rate, encoding.frames, encoding.crop, sizes)
        yield from decode_clip(file, member.source, member.clip, cut, SPEC.pixels)


def test_the_json_says_how_to_read_the_latents(
    members: tuple[MemberJob, ...], tmp_path: Path
) -> None:
    (row,) = make_worker(tmp_path)(job_of(members[:1])).samples
    with tarfile.open(tmp_path / row.shard_path) as tar:
        file = tar.extractfile(f"{row.clip_id}.json")
        assert file is not None
        latent = json.load(file)["latent"]
    encoder = DctEncoder()
    assert latent == {
        "shape": [16, 7, 8, 12],
        "dtype": "float16",
        "posterior": "mean",
        "normalised": True,
        "mean": list(encoder.latents_mean),
        "std": list(encoder.latents_std),
        "temporal_stride": 4,
        "spatial_stride": 8,
        "vae": encoder.identity(),
        "vae_fingerprint": encoder.fingerprint,
    }
