"""preview: what a build would do, for --dry-run: the same plan, nothing written, no footage opened.

plan ─┬─ shards that stay
      └─ shards to write ─ members ─┬─ copy: bytes of latents
                                    └─ encode: frames, pixels, bytes of footage

How long it would take is reckoned from rates.json: how fast each encoder last went here. It holds
time, so it is no table: runs over the same footage leave equal tables, not equal rates. Nothing
depends on it. One that is missing, damaged or of another age only means no estimate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import StorageError
from telecine.manifests.dataset import Dataset
from telecine.manifests.shards import RATES_PATH
from telecine.pipeline.build.events import Work, find_works, jobs, unwritten
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.plan import plan_encoding, sample_bytes
from telecine.pipeline.build.worker import MemberJob


@dataclass
class Preview:
    """The next plan of a build. Bytes are known before a frame is decoded, to within a few kB."""

    build_id: str
    name: str
    follows: str  # build_id whose layout the shards take over, or empty
    resumed: bool  # an earlier run began the plan; what came since is not counted
    fresh: int  # shards that stay
    replaced: int  # shards that the new ones stand in for
    shards: int  # to write
    dropped: int  # clips without a bucket
    uncaptioned: int  # clips that wait for a caption
    encoded: int = 0  # samples
    copied: int = 0  # samples
    frames_to_decode: int = 0
    frames_to_encode: int = 0  # at the encoded rate
    pixels_to_encode: int = 0
    seconds_to_encode: float = 0.0
    bytes_of_footage: int = 0  # of the spans to encode, each its share of its source's bytes
    bytes_to_copy: int = 0  # of latents
    bytes_to_write: int = 0

    @property
    def idle(self) -> bool:
        """There is nothing to encode, copy or write."""
        return not (self.shards or self.replaced or self.dropped)


def preview_builds(dataset: Dataset, builds: Sequence[Generation], *, retry: bool) -> list[Preview]:
    """What `plan_builds` and the run after it would do, the first build first. Commits nothing.

    Where an earlier run began plans, only of those.
    """
    works = find_works(dataset, builds, retry=retry)
    by_id = {one.build_id: one for one in builds}
    return [_preview(dataset, by_id[work.event.build_id], work) for work in works]


def _preview(dataset: Dataset, generation: Generation, work: Work) -> Preview:
    shards = unwritten(dataset, work)
    preview = Preview(
        generation.build_id,
        generation.name,
        follows=work.event.follows,
        resumed=work.resumed,
        fresh=work.planned.fresh,
        replaced=len(work.planned.plan.replaces),
        shards=len(shards),
        dropped=len(work.planned.dropped),
        uncaptioned=work.planned.uncaptioned,
    )
    for job in jobs(dataset, work, shards):
        for member in job.members:
            _add(preview, member, generation)
    return preview


def _add(preview: Preview, member: MemberJob, generation: Generation) -> None:
    clip, source = member.clip, member.source
    encoding = plan_encoding(clip, generation.encoder, generation.asked.vae)
    assert encoding is not None  # the planner left out what has none
    preview.bytes_to_write += sample_bytes(encoding, member.caption.text_bytes)
    if member.copy is not None:
        preview.copied += 1
        preview.bytes_to_copy += member.copy.latent_bytes
        return
    preview.encoded += 1
    preview.frames_to_decode += clip.num_frames
    preview.frames_to_encode += encoding.frames
    preview.pixels_to_encode += encoding.frames * encoding.crop.width * encoding.crop.height
    preview.seconds_to_encode += clip.duration_seconds
    preview.bytes_of_footage += source.size_bytes * clip.num_frames // source.num_frames


# ── how long it would take ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Rate:
    """Of decoding and encoding, the waiting of one for the other included; not of the writing."""

    pixels_per_second: float  # frames × width × height encoded by one worker
    workers: int  # that ran beside each other


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float
    workers: int
    rate: Rate  # it was reckoned from


def record_rate(
    dataset: Dataset, encoder: VideoEncoder, *, pixels: int, seconds: float, workers: int
) -> None:
    """Note what a run measured: `pixels` encoded in `seconds` by `workers` side by side.

    Does nothing where nothing was encoded, or where the note cannot be written: the build is done.
    """
    if pixels <= 0 or seconds <= 0 or workers <= 0:
        return
    rates = _read(dataset)
    rates[_key(encoder)] = dataclasses.asdict(
        Rate(float(f"{pixels / seconds / workers:.6g}"), workers)
    )
    text = json.dumps(rates, indent=1, sort_keys=True) + "\n"
    with contextlib.suppress(StorageError):
        dataset.storage.write_bytes(dataset.path(RATES_PATH), text.encode())


def estimate(
    dataset: Dataset,
    encoder: VideoEncoder,
    *,
    pixels: int,
    shards: int,
    workers: int | None = None,
) -> Estimate | None:
    """How long encoding `pixels` would take with so many workers (None: as many as last time).

    No more of them than there are shards have anything to do: one worker owns one shard. None where
    no run under this very encoder was measured.
    """
    rate = _rate(_read(dataset).get(_key(encoder)))
    if rate is None:
        return None
    workers = max(1, min(workers or rate.workers, shards))
    return Estimate(pixels / (rate.pixels_per_second * workers), workers, rate)


def _key(encoder: VideoEncoder) -> str:
    return f"{encoder.identity()['name']}-{encoder.fingerprint}"


def _rate(found: Any) -> Rate | None:
    """None unless it is a rate that can be divided by."""
    try:
        rate = Rate(float(found["pixels_per_second"]), int(found["workers"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    usable = math.isfinite(rate.pixels_per_second) and rate.pixels_per_second > 0
    return rate if usable and rate.workers > 0 else None


def _read(dataset: Dataset) -> dict[str, Any]:
    try:
        found = json.loads(dataset.storage.read_bytes(dataset.path(RATES_PATH)))
    except (StorageError, ValueError, RecursionError):  # not there, or not JSON
        return {}
    return found if isinstance(found, dict) else {}
