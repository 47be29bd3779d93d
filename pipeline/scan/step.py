"""scan: objects → sources, clips, stills. The driver's side: feed the workers, commit the receipts.

    discovery ─▶ digests of suspects ─▶ batches of tasks ─▶ worker.py ─▶ stills, clips, then sources

Workers return rows; only the driver commits, so that what is visible is always whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from telecine.infra.bugs import Bugs
from telecine.infra.cluster import STALL_SECONDS, Done, Lost, Resources, run_batches
from telecine.infra.errors import is_unfinished
from telecine.manifests.queries import connect, orphans
from telecine.manifests.schemas import Source
from telecine.pipeline.commit import Commits
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run
from telecine.pipeline.scan.compare import (
    DigestWorker,
    Discovery,
    State,
    find_duplicates,
    needs_digest,
)
from telecine.pipeline.scan.discover import ScanTask
from telecine.pipeline.scan.worker import Scanned, ScanWorker, rejected

# Small objects travel together: a hand-over costs about as much as scanning a thumbnail.
BATCH_ITEMS, BATCH_BYTES = 32, 4 * 2**20


@dataclass
class ScanOutcome:
    scanned: int = 0
    rejected: int = 0
    duplicates: int = 0
    clips: int = 0
    frames: int = 0
    bytes_read: int = 0
    bytes_of_footage: int = 0
    tried_again: int = 0  # of those scanned or rejected: an earlier run's scan had not ended well
    unfinished: int = 0  # of those rejected: the next run tries again
    bugs: Bugs = field(default_factory=Bugs)

    def add(self, source: Source, bytes_read: int = 0) -> None:
        self.scanned += source.status == "scanned"
        self.rejected += source.status == "rejected"
        self.duplicates += source.status == "duplicate"
        self.clips += source.num_clips
        self.frames += source.num_frames
        self.bytes_read += bytes_read
        self.bytes_of_footage += source.size_bytes if bytes_read else 0
        self.unfinished += is_unfinished(source.reason, source.tries)
        self.bugs.note(source.reason, source.detail, source.uri)


def scan_sources(run: Run, found: Discovery, resources: Resources) -> ScanOutcome:
    """Scan what is new, each object once; commit stills and clips before the source's own row."""
    dataset = run.dataset
    duplicates = find_duplicates(
        found, _digests(run, found, resources), scan_fingerprint=dataset.spec.scan_fingerprint
    )
    receipts = _Receipts(run)
    receipts.outcome.tried_again = found.tallies[State.UNFINISHED].objects
    receipts.unread([*found.carried(), *duplicates.rows])
    tasks = (task for task in found.tasks() if task.found.uri not in duplicates.uris)
    total = found.to_scan.num_rows - len(duplicates.uris)
    ends = run_batches(
        run.cluster,
        batches(tasks),
        partial(ScanWorker, dataset.storage, dataset.spec),
        resources=resources,
        stall_seconds=lambda _: STALL_SECONDS,
    )
    step = Step(run.progress, "scan", "sources", total, found.bytes_to_read)
    with receipts.commits, step:
        for end in ends:
            if isinstance(end, Done):
                receipts.scanned(end.item, end.result, step)
            else:
                receipts.lost(end, step)
    return receipts.outcome


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


def _digests(run: Run, found: Discovery, resources: Resources) -> Mapping[str, str]:
    """Content digests of the objects that another one's size makes suspect, by URI."""
    suspects = (task.found for task in needs_digest(found))
    make_worker = partial(DigestWorker, run.dataset.storage)
    ends = run.cluster.run(
        suspects, make_worker, resources=resources, stall_seconds=lambda _: STALL_SECONDS
    )
    return {end.item.uri: end.result for end in ends if isinstance(end, Done) and end.result}


class _Receipts:
    """What workers returned, on its way into the tables."""

    def __init__(self, run: Run) -> None:
        self.outcome = ScanOutcome()
        tables, self._spec = run.dataset.tables, run.dataset.spec
        self.commits = Commits(
            tables, ("stills", "frame_times", "clips", "sources"), run.options.commit_seconds
        )
        # What a killed run committed before it could say so in `sources`.
        self._orphans = orphans(connect(tables))

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
            times = [t for t in result.frame_times if t.clip_id not in self._orphans.frame_times]
            self.commits.add("frame_times", times)
            self.commits.add("clips", clips)
            self.commits.add("sources", [result.source])
            self._advance(task, step, result.source, result.bytes_read)
        self.commits.flush_if_due()

    def lost(self, end: Lost[list[ScanTask]], step: Step) -> None:
        (task,) = end.item
        source = rejected(task, self._spec, end.reason, end.detail).source
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
