"""preview: what a build would do, for --dry-run: the same plan, nothing written, no footage opened.

plan ─┬─ shards that stay
      └─ shards to write ─ members ─┬─ copy: bytes of latents
                                    └─ encode: frames, pixels, bytes of footage
"""

from __future__ import annotations

from dataclasses import dataclass

from telecine.manifests.dataset import Dataset
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.events import Generation, find_work, jobs, unwritten
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


def preview_build(dataset: Dataset, generation: Generation, *, retry: bool) -> Preview:
    """What `plan_build` and the run after it would do. Commits nothing."""
    work = find_work(dataset, generation, retry=retry)
    shards = unwritten(dataset, work)
    preview = Preview(
        generation.build_id,
        generation.name,
        follows=work.event.follows,
        resumed=work.resumed,
        fresh=work.wishes.fresh,
        replaced=len(work.wishes.plan.replaces),
        shards=len(shards),
        dropped=len(work.wishes.dropped),
        uncaptioned=work.wishes.uncaptioned,
    )
    for job in jobs(dataset, work, shards):
        for member in job.members:
            _add(preview, member, generation, dataset.spec)
    return preview


def _add(preview: Preview, member: MemberJob, generation: Generation, spec: DatasetSpec) -> None:
    clip, source = member.clip, member.source
    encoding = plan_encoding(clip, generation.encoder, spec.vae)
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
