"""plan: from the clips that are wanted and the shards that exist to the shards to write. Pure.

    wanted ─┬─ in a fresh shard ─────────────────────▶ stays where it is
            ├─ in a stale shard (a text changed, a member is no longer wanted) ─▶ copied
            ├─ in a small shard of a bucket that gets new members (topped up) ──▶ copied
            ├─ in a shard of another build with equal latents ──────────────────▶ copied
            └─ in none ──────────────────────────────▶ encoded

A shard is fresh while each of its members is wanted with the text it has. Members stand in order
of their clip_id, which is a hash, so that one shard mixes sources.

A build that follows another one is laid out as that one: the shard that a clip has there is its
followed shard, and this build's shard of the same id takes the clips that have it, in the same
order.

    followed   A: 1 4 7     B: 2 3 9
    this one   A: 1 4 7     B: 2   9     C: 5 8      3 has no latents here; 5 and 8 are new
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from telecine.encoders.video.interface import VideoEncoder
from telecine.manifests.buckets import Bucket
from telecine.manifests.fingerprint import fingerprint, short_id
from telecine.manifests.specs import TrackSpec, VaeSpec
from telecine.manifests.tar import BLOCK, NPY_HEADER
from telecine.pipeline.media.geometry import Crop, crop_to_grid, reduced_size
from telecine.pipeline.media.timing import Timed, encoded_frames, encoded_rate

TRACK_RESERVE = 2048  # a track's headers, and its words in the JSON
NUMBERS_RESERVE = 16  # a column may hold lists, whose length is not known before they are read
TEXT_RESERVE = 8192  # a sample's JSON and text members with their headers, without captions


class ClipShape(Timed, Protocol):
    """What of a clip the planner needs: its time and its size."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Encoding:
    """What of a clip is encoded, and the latents that come of it."""

    rate: Fraction  # frames per second; 0 for an image
    frames: int
    left_out: int  # frames at the end, beyond the temporal grid
    size: tuple[int, int]  # width, height in px that the displayed picture is made
    crop: Crop  # of that
    latent_shape: tuple[int, int, int, int]  # C, T', H', W'

    @property
    def latent_bytes(self) -> int:
        """float16 values and the .npy header"""
        return 2 * math.prod(self.latent_shape) + NPY_HEADER


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that the build wants."""

    clip_id: str
    captions_digest: str
    bucket: Bucket
    size_bytes: int  # in the tar
    copied: bool = False  # a live shard has its latents, here or in another build
    tracks_digest: str = ""
    followed_shard: str = ""  # shard_id it has in the build that is followed, if it has one


@dataclass(frozen=True, slots=True)
class LiveMember:
    """A sample that an existing shard of the build holds."""

    clip_id: str
    captions_digest: str
    shard_id: str
    shard_bytes: int
    bucket: Bucket
    tracks_digest: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    clip_id: str
    copied: bool  # else encoded


@dataclass(frozen=True, slots=True)
class ShardPlan:
    shard_id: str
    bucket: Bucket
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    shards: tuple[ShardPlan, ...]
    replaces: tuple[str, ...]  # shard_ids that `shards` stand in for

    @property
    def digest(self) -> str:
        shards = [[s.shard_id, fingerprint([m.clip_id for m in s.members])] for s in self.shards]
        return fingerprint([shards, list(self.replaces)])

    @property
    def num_samples(self) -> int:
        return sum(len(s.members) for s in self.shards)


def crop_grid(encoder: VideoEncoder, vae: VaeSpec) -> int:
    """Px that an encoded width and height are multiples of"""
    return encoder.spatial_stride * vae.patch


def plan_encoding(clip: ClipShape, encoder: VideoEncoder, vae: VaeSpec) -> Encoding | None:
    """None where the clip is smaller than `vae.short_side` or the grid, or shorter than the
    encoder's first step.
    """
    size = reduced_size(clip.width, clip.height, vae.short_side)
    crop = None if size is None else crop_to_grid(*size, crop_grid(encoder, vae))
    rate = encoded_rate(clip, vae)
    available = encoded_frames(clip, rate)
    frames = encoder.valid_frames(available)
    if size is None or crop is None or frames == 0:
        return None
    shape = encoder.latent_shape(frames, crop.height, crop.width)
    return Encoding(rate, frames, available - frames, size, crop, shape)


def sample_bytes(
    encoding: Encoding, text_bytes: int, tracks: Mapping[str, TrackSpec] | None = None
) -> int:
    """Tar bytes of a sample, known before a frame is decoded; `text_bytes` are those of its .txt
    and of what its JSON says of captions.
    """
    blocks = math.ceil(encoding.latent_bytes / BLOCK) + 1
    numbers = sum(NUMBERS_RESERVE * len(track.columns) for track in (tracks or {}).values())
    beside = 4 * numbers * encoding.frames + TRACK_RESERVE * len(tracks or {})
    return blocks * BLOCK + TEXT_RESERVE + text_bytes + beside


def plan_shards(
    wanted: Iterable[Candidate],
    live: Iterable[LiveMember],
    *,
    build_id: str,
    number: int,
    target_bytes: int,
    taken: Collection[str] = (),
) -> Plan:
    """Every wanted clip in exactly one shard, new or kept; the order of the inputs is nothing.

    `number` is the plan's own within its build: a shard's name holds it, so that members which
    come together again later (a text changed back, footage put back) make another shard, not one
    that a plan in between replaced. For the same reason a followed shard that is `taken`, a
    shard_id that this build has used, gives the clips a shard but not its name. No shard is planned
    above `target_bytes` unless one sample alone is, or the shard that it follows has these clips.
    """
    candidates = {c.clip_id: c for c in wanted}
    shards: dict[str, list[LiveMember]] = defaultdict(list)
    for member in live:
        shards[member.shard_id].append(member)
    fresh = _fresh(candidates, shards, taken)
    kept = fresh - _topped_up(candidates, {s: shards[s] for s in fresh}, target_bytes)
    settled = {m.clip_id for shard_id in kept for m in shards[shard_id]}
    pool: dict[tuple[Bucket, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates.values():
        if candidate.clip_id not in settled:
            pool[candidate.bucket, candidate.followed_shard].append(candidate)
    return Plan(
        tuple(
            _shard(members, "" if followed in taken else followed, build_id, number)
            for bucket, followed in sorted(pool)
            for members in _fill(pool[bucket, followed], math.inf if followed else target_bytes)
        ),
        tuple(sorted(shards.keys() - kept)),
    )


def _fresh(
    candidates: Mapping[str, Candidate],
    shards: Mapping[str, list[LiveMember]],
    taken: Collection[str],
) -> set[str]:
    """Shards of which each member is wanted as it is, and where the layout followed has it."""
    followers = Counter(c.followed_shard for c in candidates.values())

    def fresh(shard_id: str) -> bool:
        members = shards[shard_id]
        there = [candidates.get(m.clip_id) for m in members]
        if [c and _told(c) for c in there] != [_told(m) for m in members]:
            return False
        followed, *others = {c.followed_shard for c in there if c}
        whole = len(members) == followers[followed] and (shard_id == followed or followed in taken)
        return not others and (not followed or whole)

    return set(filter(fresh, shards))


def _told(member: Candidate | LiveMember) -> list[str]:
    """What a sample is made of beside its latents."""
    tracks = [member.tracks_digest] if member.tracks_digest else []
    return [member.captions_digest, *tracks]


def _topped_up(
    candidates: Mapping[str, Candidate], fresh: Mapping[str, list[LiveMember]], target_bytes: int
) -> set[str]:
    """Of the fresh shards the small ones in buckets that get new members."""
    settled = {m.clip_id for members in fresh.values() for m in members}
    unbound = [c for c in candidates.values() if not c.followed_shard]
    busy = {c.bucket for c in unbound if c.clip_id not in settled}
    firsts = {shard_id: members[0] for shard_id, members in fresh.items()}
    return {
        shard_id
        for shard_id, first in firsts.items()
        if 2 * first.shard_bytes < target_bytes
        and first.bucket in busy
        and not candidates[first.clip_id].followed_shard
    }


def _fill(candidates: list[Candidate], target_bytes: float) -> Iterator[list[Candidate]]:
    members: list[Candidate] = []
    size = 0
    for candidate in sorted(candidates, key=lambda c: c.clip_id):
        if members and size + candidate.size_bytes > target_bytes:
            yield members
            members, size = [], 0
        members.append(candidate)
        size += candidate.size_bytes
    if members:
        yield members


def _shard(members: list[Candidate], followed: str, build_id: str, number: int) -> ShardPlan:
    bucket = members[0].bucket
    content = [[m.clip_id, *_told(m)] for m in members]
    return ShardPlan(
        followed or short_id("shard", build_id, number, bucket.folder, content),
        bucket,
        tuple(Member(m.clip_id, m.copied) for m in members),
    )
