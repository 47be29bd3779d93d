"""How much of each clip its tracks cover → `scores`: columns to select by, before a build is made.

Of all of the clip's frames; a build's sample says the same of those that it encodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import duckdb

from telecine.infra.cluster import Done, Resources, run_batches
from telecine.infra.pulse import beat
from telecine.infra.store.storage import Storage
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Clip, Score, Source, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.tracks import coverage, gap, uncovered
from telecine.pipeline.commit import Commits
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run
from telecine.pipeline.side.formats import UnusableTrack
from telecine.pipeline.side.read import TrackReader, native_edges, tracks_digest

BATCH_CLIPS = 4096  # of few sources: their files are read once, and the tables for each batch


@dataclass(frozen=True, slots=True)
class CoverTask:
    """A clip of which some track's coverage is not known."""

    clip: Clip
    source: Source
    stamps: bytes | None  # its row of frame_times, if it has one


def cover_clips(run: Run) -> int:
    """Measure what is not known, and say of how many clips; none where no track is asked for."""
    dataset, spec = run.dataset, run.dataset.spec
    if not spec.tracks:
        return 0
    with connect(dataset.tables) as con:
        return _cover(run, con)


def _cover(run: Run, con: duckdb.DuckDBPyConnection) -> int:
    dataset, spec = run.dataset, run.dataset.spec
    con.execute(f"CREATE TEMP TABLE uncovered AS {_UNCOVERED.format(uncovered(spec))}")
    ((total,),) = con.sql("SELECT count(*) FROM uncovered").fetchall()
    if not total:
        return 0
    batches = (_tasks(con, start) for start in range(0, total, BATCH_CLIPS))
    make_worker = partial(CoverWorker, dataset.storage, spec)
    commits = Commits(dataset.tables, ("scores",), run.options.commit_seconds)
    with commits, Step(run.progress, "tracks", "clips", total, total) as step:
        for end in run_batches(run.cluster, batches, make_worker, resources=Resources(cpus=1)):
            if isinstance(end, Done):
                commits.add("scores", end.result)
            commits.flush_if_due()
            step.advance(done=len(end.item), weight=len(end.item))
    return int(total)


# In order of the sources, so that a batch reads few track files.
_UNCOVERED = """
SELECT clip_id, row_number() OVER (ORDER BY source_id, start_frame, clip_id) - 1 AS place
FROM current_clips SEMI JOIN ({}) USING (clip_id)
"""


def _tasks(con: duckdb.DuckDBPyConnection, start: int) -> list[CoverTask]:
    """The clips whose place is in the batch from `start`."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batch AS FROM uncovered WHERE place BETWEEN $1 AND $2",
        [start, start + BATCH_CLIPS - 1],
    )
    clips = "current_clips SEMI JOIN batch USING (clip_id)"
    rows = con.sql(f"FROM {clips} ORDER BY source_id, start_frame, clip_id")
    found: list[Clip] = from_arrow(rows.to_arrow_table(), Clip)
    rows = con.sql(f"FROM current_sources SEMI JOIN (FROM {clips}) USING (source_id)")
    sources = {s.source_id: s for s in from_arrow(rows.to_arrow_table(), Source)}
    rows = con.sql(
        "SELECT clip_id, any_value(stamps) FROM frame_times "
        "SEMI JOIN batch USING (clip_id) GROUP BY clip_id"
    )
    times = dict(rows.fetchall())
    return [CoverTask(clip, sources[clip.source_id], times.get(clip.clip_id)) for clip in found]


class CoverWorker:
    def __init__(self, storage: Storage, spec: DatasetSpec) -> None:
        self._tracks = spec.tracks
        self._read = TrackReader(storage, spec.tracks)

    def __call__(self, batch: Sequence[CoverTask]) -> list[Score]:
        return [row for task in batch for row in self._rows(task)]

    def _rows(self, task: CoverTask) -> Iterator[Score]:
        beat()
        edges = native_edges(task.clip, task.stamps)
        for name, spec in self._tracks.items():
            values = {coverage(name): 0.0}
            try:
                aligned = self._read.aligned(task.clip, task.source, edges, spec)
                values = {coverage(name): aligned.coverage, gap(name): aligned.gap_seconds}
            except UnusableTrack:
                pass  # its sample says why
            for column, value in values.items():
                yield Score(
                    clip_id=task.clip.clip_id,
                    name=column,
                    scorer_fingerprint=spec.fingerprint,
                    input_digest=tracks_digest(task.source),
                    value=value,
                )
