"""build: clips × captions × an encoder → shards, `samples`. The driver's side of events.py's plan.

    plan ─▶ shards without rows ─▶ jobs ─▶ worker.py ─▶ receipts ─▶ samples ─▶ completed
                                            ╳ ─▶ its members one by one ─▶ the shard without them

Workers return rows; only the driver commits, so that what is visible is always whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from telecine.encoders.load import load_encoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.bugs import Bugs
from telecine.infra.cluster import STALL_SECONDS, Done, Lost, Resources
from telecine.infra.errors import ClusterError, Reason
from telecine.manifests.dataset import Dataset
from telecine.manifests.schemas import Clip, Sample
from telecine.manifests.specs import VaeSpec
from telecine.pipeline.build.events import (
    Work,
    complete,
    drop_without_bucket,
    jobs,
    plan_builds,
)
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.plan import ShardPlan
from telecine.pipeline.build.preview import record_rate
from telecine.pipeline.build.renditions import joined_jobs
from telecine.pipeline.build.worker import MemberJob, Receipt, ShardJob, ShardWorker
from telecine.pipeline.commit import Commits
from telecine.pipeline.media.timing import encoded_frames, encoded_rate
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run
from telecine.pipeline.side.read import Without, add_without

ShardEnd: TypeAlias = "Done[ShardJob, Receipt] | Lost[ShardJob]"
RunJobs: TypeAlias = Callable[..., Iterator[ShardEnd]]
MakeJobs: TypeAlias = Callable[[Dataset, Work, list[ShardPlan]], Iterator[ShardJob]]

# Between two beats may lie the encoder's own time, of a whole clip where it takes all frames first.
BUSY = 4  # how much slower than the encoder says a machine may be
GPU_SPEED = 100  # a GPU is at least so many times as fast as the encoder says of a CPU

BLOCKS_AHEAD = 4  # decoded and waiting for a GPU, of a clip and of the next one


@dataclass
class BuildOutcome:
    shards: int = 0
    samples: int = 0
    dropped: int = 0
    frames_encoded: int = 0
    pixels_encoded: int = 0  # frames × width × height
    encode_seconds: float = 0.0  # of all workers together, waiting for decoded frames included
    samples_copied: int = 0
    bytes_read: int = 0
    bytes_of_footage: int = 0  # of the spans encoded, each its share of its source's bytes
    bytes_written: int = 0
    uncaptioned: int = 0  # clips that wait for a caption, so for a shard
    dropped_by_reason: dict[str, int] = field(default_factory=dict)
    bugs: Bugs = field(default_factory=Bugs)
    without_track: dict[str, Without] = field(default_factory=dict, compare=False)  # by its name

    build: str = field(default="", compare=False)  # its name, whatever the run did to it

    def __iadd__(self, other: BuildOutcome) -> BuildOutcome:
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if isinstance(value, int | float):
                setattr(self, part.name, value + getattr(other, part.name))
        for reason, count in other.dropped_by_reason.items():
            self.dropped_by_reason[reason] = self.dropped_by_reason.get(reason, 0) + count
        self.bugs.add(other.bugs)
        add_without(self.without_track, other.without_track)
        self.uncaptioned = other.uncaptioned  # as the last plan saw it
        return self

    def add(self, samples: list[Sample]) -> None:
        kept = [s for s in samples if s.outcome == "kept"]
        self.shards += bool(kept)
        self.samples += len(kept)
        for sample in samples:
            if sample.outcome == "dropped":
                self.dropped += 1
                reasons = self.dropped_by_reason
                reasons[sample.reason] = reasons.get(sample.reason, 0) + 1
                self.bugs.note(sample.reason, sample.detail, f"clip {sample.clip_id}")
        self.samples_copied += sum(bool(s.copied_from) for s in kept)

    def add_receipt(self, receipt: Receipt) -> None:
        self.add(receipt.samples)
        add_without(self.without_track, receipt.without_track)
        self.frames_encoded += receipt.frames_encoded
        self.pixels_encoded += receipt.pixels_encoded
        self.encode_seconds += receipt.encode_seconds
        self.bytes_read += receipt.bytes_read
        self.bytes_of_footage += receipt.bytes_of_footage
        self.bytes_written += receipt.bytes_written


def build_samples(
    run: Run, builds: Sequence[Generation], needs: Callable[[Run], Resources]
) -> list[BuildOutcome]:
    """What the builds lack: their plans, and those after them where an earlier run began some.

    `needs` is asked what a worker gets, where there is one to start.
    """
    built = {one.build_id: BuildOutcome(build=one.name) for one in builds}
    dataset, retry = run.dataset, run.options.retry_rejected
    works = plan_builds(dataset, builds, retry=retry)
    while works:
        resources = needs(run)
        written = write_shards(run, works, resources)
        complete(dataset, works)
        for build_id, outcome in written.items():
            built[build_id] += outcome
        _record_rate(run, builds[0].encoder, list(written.values()), resources)
        # What an earlier run began is finished first; what came since are plans of their own.
        works = plan_builds(dataset, builds, retry=retry) if works[0].resumed else []
    return list(built.values())


def _record_rate(
    run: Run, encoder: VideoEncoder, written: Sequence[BuildOutcome], resources: Resources
) -> None:
    if pixels := sum(one.pixels_encoded for one in written):
        workers = run.cluster.size(resources)
        seconds = sum(one.encode_seconds for one in written) / workers
        record_rate(run.dataset, encoder, pixels=pixels, seconds=seconds, workers=workers)


def write_shards(
    run: Run, works: Sequence[Work], resources: Resources, make_jobs: MakeJobs = jobs
) -> dict[str, BuildOutcome]:
    """Write the shards of the plans that have no rows yet; what came of each build, by build_id.

    The rows of what one job makes are one commit.
    """
    dataset = run.dataset
    outcomes = {
        work.event.build_id: BuildOutcome(uncaptioned=work.planned.uncaptioned) for work in works
    }
    for work in works:
        drop_without_bucket(dataset, work)
        outcomes[work.event.build_id].add(work.planned.dropped)
    do: RunJobs = partial(run_jobs, run, resources=resources)

    def keep(job: ShardJob, receipt: Receipt) -> None:
        each = list(zip((job, *job.beside), (receipt, *receipt.beside), strict=True))
        commits.add("samples", [row for _, made in each for row in made.samples])
        commits.flush_if_due()
        for one, made in each:
            outcomes[one.build_id].add_receipt(made)
        frames = sum(made.frames_encoded for _, made in each)
        step.advance(frames=frames, seconds=_seconds(job))

    count, todo = joined_jobs(dataset, works, make_jobs)
    commits = Commits(dataset.tables, ("samples",), run.options.commit_seconds)
    with commits, Step(run.progress, "build", "shards", count, count) as step:
        fatal: list[ShardJob] = []
        for end in do(todo):
            if isinstance(end, Done):
                keep(end.item, end.result)
            else:
                fatal += [dataclasses.replace(end.item, beside=()), *end.item.beside]
        for job in fatal:
            _rescue(job, do, keep)
    return outcomes


def run_jobs(
    run: Run, todo: Iterable[ShardJob], attempts: int = 2, *, resources: Resources
) -> Iterator[ShardEnd]:
    """Shards made by workers that encode as the dataset's spec says. Commits nothing."""
    # Decode threads help where the encoder computes elsewhere, or has a core to spare.
    ahead = BLOCKS_AHEAD if resources.gpus else 2 if resources.cpus > 1 else 0
    device = "cuda" if resources.gpus else "cpu"
    dataset, spec = run.dataset, run.dataset.spec
    return run.cluster.run(
        todo,
        partial(ShardWorker, dataset.uri, spec, dataset.storage, ahead, device),
        resources=resources,
        stall_seconds=partial(
            _stall_seconds, vae=spec.vae, per_pixel=_seconds_per_pixel(spec.vae, resources)
        ),
        attempts=attempts,
    )


def _rescue(job: ShardJob, do: RunJobs, keep: Callable[[ShardJob, Receipt], None]) -> None:
    """A job whose workers died: find the members that kill, and write the shard without them.

    Where that fails too, nothing is encoded; what was to be copied is never given up for it.
    """
    for attempt in (_without_killers(job, do), _excluding(job, job.members, _LOST)):
        for end in do([attempt]):
            if isinstance(end, Done):
                keep(job, end.result)
                return
    raise ClusterError(
        f"shard {job.shard_id} could not be written: its workers died even where they had only "
        "latents to copy. Check the workers' memory and disk, then run again to go on"
    )


_LOST = (Reason.CRASHED, "every worker that tried to write its shard died")


def _without_killers(job: ShardJob, do: RunJobs) -> ShardJob:
    """The job with those members excluded that kill a worker on their own."""
    trials = [
        dataclasses.replace(job, members=(member,), trial=True)
        for member in job.members
        if member.copy is None
    ]
    for end in do(trials, attempts=1):
        if isinstance(end, Lost):
            job = _excluding(job, end.item.members, (end.reason, end.detail))
    return job


def _excluding(job: ShardJob, members: Iterable[MemberJob], why: tuple[Reason, str]) -> ShardJob:
    """The job without encoding these members; latents that are copied stay."""
    left_out = {m.clip.clip_id for m in members if m.copy is None}
    judged = (
        dataclasses.replace(m, excluded=why) if m.clip.clip_id in left_out else m
        for m in job.members
    )
    return dataclasses.replace(job, members=tuple(judged))


def _seconds_per_pixel(vae: VaeSpec, resources: Resources) -> float:
    """Of encoding. The driver may have no GPU: what it asks is the encoder on a CPU."""
    return load_encoder(vae).seconds_per_pixel / (GPU_SPEED if resources.gpus else 1)


def _stall_seconds(job: ShardJob, vae: VaeSpec, per_pixel: float) -> float:
    """Two beats are no further apart than one clip in one rendition; the first decodes for all."""
    vaes = [one.vae or vae for one in (job, *job.beside)]
    largest = max((_pixels(m.clip, one) for m in job.members for one in vaes), default=0)
    return STALL_SECONDS + BUSY * per_pixel * largest


def _pixels(clip: Clip, vae: VaeSpec) -> int:
    """That are encoded."""
    frames = encoded_frames(clip, encoded_rate(clip, vae))
    return clip.width * clip.height * frames


def _seconds(job: ShardJob) -> float:
    return sum(m.clip.duration_seconds for m in job.members)
