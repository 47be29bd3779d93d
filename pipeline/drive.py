"""The driver's side of each step: feed the pool, show progress, commit the receipts.

Workers return rows; only the driver commits, so that what is visible is always whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import TypeAlias

from rich.console import Console

from telecine.encoders.kinds import RunsOn
from telecine.encoders.load import encoder_kind, load_encoder
from telecine.infra.errors import ClusterError, Reason, UsageError
from telecine.infra.ray import Cluster, Done, Lost, Resources
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect, orphans
from telecine.manifests.schemas import Clip, Source
from telecine.manifests.specs import VaeSpec
from telecine.pipeline.build.events import Work, drop_without_bucket, jobs, unwritten
from telecine.pipeline.build.plan import ShardPlan
from telecine.pipeline.build.worker import MemberJob, Receipt, ShardJob, ShardWorker
from telecine.pipeline.commit import Commits
from telecine.pipeline.media.timing import encoded_frames, encoded_rate
from telecine.pipeline.outcome import BuildOutcome, ScanOutcome
from telecine.pipeline.scan.compare import DigestWorker, Discovery, find_duplicates, needs_digest
from telecine.pipeline.scan.discover import ScanTask
from telecine.pipeline.scan.worker import Scanned, ScanWorker, rejected
from telecine.pipeline.terminal.progress import Step

ShardEnd: TypeAlias = "Done[ShardJob, Receipt] | Lost[ShardJob]"
RunJobs: TypeAlias = Callable[..., Iterator[ShardEnd]]
MakeJobs: TypeAlias = Callable[[Dataset, Work, list[ShardPlan]], Iterator[ShardJob]]

# A worker that needs longer than this for its bytes makes no progress and is ended.
SCAN_SECONDS, SCAN_SECONDS_PER_BYTE = 300.0, 40e-6
SHARD_SECONDS, SHARD_SECONDS_PER_PIXEL = 600.0, 1e-6  # without the encoder's own time
GPU_SPEED = 100  # a GPU is at least so many times as fast as the encoder says of a CPU

BLOCKS_AHEAD = 4  # decoded and waiting for a GPU, of a clip and of the next one

# Small objects travel together: a hand-over costs about as much as scanning a thumbnail.
BATCH_ITEMS, BATCH_BYTES = 32, 4 * 2**20


# ── scan ─────────────────────────────────────────────────────────────────────────────────────────


def scan_sources(
    found: Discovery,
    dataset: Dataset,
    cluster: Cluster,
    resources: Resources,
    commit_seconds: float,
    console: Console,
) -> ScanOutcome:
    """Scan what is new, each object once; commit stills and clips before the source's own row."""
    fingerprint = dataset.spec.scan_fingerprint
    duplicates = find_duplicates(
        found, _digests(found, dataset, cluster, resources), scan_fingerprint=fingerprint
    )
    receipts = _ScanReceipts(dataset, commit_seconds)
    receipts.unread([*found.carried(), *duplicates.rows])
    tasks = (task for task in found.tasks() if task.found.uri not in duplicates.uris)
    total = found.to_scan.num_rows - len(duplicates.uris)

    make_worker = partial(ScanWorker, dataset.storage, dataset.spec)
    ends = cluster.run_batches(
        batches(tasks), make_worker, resources=resources, limit_seconds=_scan_limit
    )
    step = Step(console, "scan", "sources", total, found.bytes_to_read)
    with receipts.commits, step:
        for end in ends:
            if isinstance(end, Done):
                receipts.scanned(end.item, end.result, step)
            else:
                receipts.lost(end, step)
    return receipts.outcome


def _scan_limit(batch: list[ScanTask]) -> float:
    size = sum(task.found.size_bytes for task in batch)
    return SCAN_SECONDS + SCAN_SECONDS_PER_BYTE * size


def batches(tasks: Iterable[ScanTask]) -> Iterator[list[ScanTask]]:
    """The tasks in order, small ones grouped, each large one alone."""
    batch: list[ScanTask] = []
    size = 0
    for task in tasks:
        if batch and (size + task.found.size_bytes > BATCH_BYTES or len(batch) == BATCH_ITEMS):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += task.found.size_bytes
    if batch:
        yield batch


def _digests(
    found: Discovery, dataset: Dataset, cluster: Cluster, resources: Resources
) -> Mapping[str, str]:
    """Content digests of the objects that another one's size makes suspect, by URI."""
    suspects = (task.found for task in needs_digest(found))
    ends = cluster.run(suspects, partial(DigestWorker, dataset.storage), resources=resources)
    return {end.item.uri: end.result for end in ends if isinstance(end, Done) and end.result}


@dataclass
class _ScanReceipts:
    dataset: Dataset
    commit_seconds: float
    outcome: ScanOutcome = field(default_factory=ScanOutcome)

    def __post_init__(self) -> None:
        self.commits = Commits(
            self.dataset.tables, ("stills", "clips", "sources"), self.commit_seconds
        )
        # What a killed run committed before it could say so in `sources`.
        self._orphans = orphans(connect(self.dataset.tables))

    def unread(self, sources: list[Source]) -> None:
        """Rows that needed no scan."""
        self.commits.add("sources", sources)
        for source in sources:
            if source.status == "duplicate":
                self.outcome.add(source)

    def scanned(self, tasks: list[ScanTask], results: list[Scanned], step: Step) -> None:
        for task, result in zip(tasks, results, strict=True):
            stills = [s for s in result.stills if s.clip_id not in self._orphans.stills]
            self.commits.add("stills", stills, sum(len(s.jpeg) for s in stills))
            clips = [c for c in result.clips if c.clip_id not in self._orphans.clips]
            self.commits.add("clips", clips)
            self.commits.add("sources", [result.source])
            self._advance(task, step, result.source, result.bytes_read)
        self.commits.flush_if_due()

    def lost(self, end: Lost[list[ScanTask]], step: Step) -> None:
        (task,) = end.item
        source = rejected(task, self.dataset.spec, end.reason, end.detail).source
        self.commits.add("sources", [source])
        self._advance(task, step, source, 0)
        self.commits.flush_if_due()

    def _advance(self, task: ScanTask, step: Step, source: Source, bytes_read: int) -> None:
        self.outcome.add(source, bytes_read)
        step.advance(
            weight=task.found.size_bytes,
            frames=source.num_frames,
            seconds=source.duration_seconds,
        )


# ── build ────────────────────────────────────────────────────────────────────────────────────────


def encoder_resources(
    cluster: Cluster, vae: VaeSpec, *, gpus: float | None = None, cpus: float | None = None
) -> Resources:
    """What one encoder gets. Asks the cluster, and so starts it, only for a learned one."""
    if encoder_kind(vae.encoder).runs_on != RunsOn.CPU:
        return model_resources(cluster, gpus=gpus, cpus=cpus)
    if gpus:
        raise UsageError(f"the {vae.encoder} encoder computes on the CPU: give it no GPU")
    return Resources(cpus=cpus or 1)


def model_resources(
    cluster: Cluster, *, gpus: float | None = None, cpus: float | None = None
) -> Resources:
    """What one learned model gets: where not told, a GPU if the cluster has any.

    Two CPUs beside a GPU: one thread decodes a clip, another begins the next one.
    """
    if gpus is None:
        gpus = 1.0 if cluster.gpus() else 0.0
    return Resources(cpus=cpus or (2 if gpus else 1), gpus=gpus)


def write_shards(
    work: Work,
    dataset: Dataset,
    cluster: Cluster,
    resources: Resources,
    commit_seconds: float,
    console: Console,
    make_jobs: MakeJobs = jobs,
) -> BuildOutcome:
    """Write the shards of the plan that have no rows yet. A shard's rows are one commit."""
    drop_without_bucket(dataset, work)
    outcome = BuildOutcome(uncaptioned=work.planned.uncaptioned)
    outcome.add(work.planned.dropped)
    run: RunJobs = partial(run_jobs, dataset=dataset, cluster=cluster, resources=resources)

    def keep(job: ShardJob, receipt: Receipt) -> None:
        commits.add("samples", receipt.samples)
        commits.flush_if_due()
        outcome.add(receipt.samples)
        outcome.frames_encoded += receipt.frames_encoded
        outcome.pixels_encoded += receipt.pixels_encoded
        outcome.encode_seconds += receipt.encode_seconds
        outcome.bytes_read += receipt.bytes_read
        outcome.bytes_of_footage += receipt.bytes_of_footage
        outcome.bytes_written += receipt.bytes_written
        step.advance(frames=receipt.frames_encoded, seconds=_seconds(job))

    shards = unwritten(dataset, work)
    commits = Commits(dataset.tables, ("samples",), commit_seconds)
    with commits, Step(console, "shard", "shards", len(shards), len(shards)) as step:
        fatal: list[ShardJob] = []
        for end in run(make_jobs(dataset, work, shards)):
            if isinstance(end, Done):
                keep(end.item, end.result)
            else:
                fatal.append(end.item)
        for job in fatal:
            _rescue(job, run, keep)
    return outcome


def run_jobs(
    todo: Iterable[ShardJob],
    attempts: int = 2,
    *,
    dataset: Dataset,
    cluster: Cluster,
    resources: Resources,
) -> Iterator[ShardEnd]:
    """Shards made by workers that encode as the dataset's spec says. Commits nothing."""
    # Decode threads help where the encoder computes elsewhere, or has a core to spare.
    ahead = BLOCKS_AHEAD if resources.gpus else 2 if resources.cpus > 1 else 0
    device = "cuda" if resources.gpus else "cpu"
    spec = dataset.spec
    return cluster.run(
        todo,
        partial(ShardWorker, dataset.uri, spec, dataset.storage, ahead, device),
        resources=resources,
        limit_seconds=partial(
            _shard_limit, vae=spec.vae, seconds=_seconds_per_pixel(spec.vae, resources)
        ),
        attempts=attempts,
    )


def _rescue(job: ShardJob, run: RunJobs, keep: Callable[[ShardJob, Receipt], None]) -> None:
    """A job whose workers died: find the members that kill, and write the shard without them.

    Where that fails too, nothing is encoded; what was to be copied is never given up for it.
    """
    for attempt in (_without_killers(job, run), _excluding(job, job.members, _LOST)):
        for end in run([attempt]):
            if isinstance(end, Done):
                keep(job, end.result)
                return
    raise ClusterError(
        f"shard {job.shard_id} could not be written: its workers died even where they had only "
        "latents to copy. Check the workers' memory and disk, then run again to go on"
    )


_LOST = (Reason.CRASHED, "every worker that tried to write its shard died")


def _without_killers(job: ShardJob, run: RunJobs) -> ShardJob:
    """The job with those members excluded that kill a worker on their own."""
    trials = [
        dataclasses.replace(job, members=(member,), trial=True)
        for member in job.members
        if member.copy is None
    ]
    for end in run(trials, attempts=1):
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
    """Of making a shard. The driver may have no GPU: what it asks is the encoder on a CPU."""
    encoding = load_encoder(vae).seconds_per_pixel / (GPU_SPEED if resources.gpus else 1)
    return SHARD_SECONDS_PER_PIXEL + encoding


def _shard_limit(job: ShardJob, vae: VaeSpec, seconds: float) -> float:
    return SHARD_SECONDS + seconds * sum(_pixels(member.clip, vae) for member in job.members)


def _pixels(clip: Clip, vae: VaeSpec) -> int:
    """Decoded or encoded, whichever is more."""
    rate = encoded_rate(clip, Fraction(vae.fps) if vae.fps else None)
    return clip.width * clip.height * max(clip.num_frames, encoded_frames(clip, rate))


def _seconds(job: ShardJob) -> float:
    return sum(m.clip.duration_seconds for m in job.members)
