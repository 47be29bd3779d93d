"""caption: stills, measured facts and sidecars of the clips that have no caption yet → `captions`.

    current clips ─┬─ settled under this captioner and this input ─▶ nothing to do
                   └─ pending ─▶ CaptionTask ─▶ worker (ask.py) ─▶ Caption

The input of a caption is named by a digest of the stills, and, where the captioner uses them, of
the measured facts and the sidecar's version. So a changed sidecar or measure makes a new caption,
and nothing else does. A clip is settled when a row for its present input has a text, or comes from
the captioner's last speaker and did not fail, or is the third failure: until then each run asks
once more (`retry_failed` asks whatever the count). A later text beats any failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from telecine.encoders.caption.interface import Captioner, CaptionRequest, ClipFacts, Input
from telecine.encoders.load import load_captioner
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.cluster import Lost, Resources, run_batches
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Caption
from telecine.manifests.tables import Tables
from telecine.pipeline.caption.worker import CaptionTask, Partial, accept, make_caption_worker
from telecine.pipeline.catalog.captions import (
    FACTS,
    MAX_ATTEMPTS,
    by_speakers,
    captions_of,
    inputs,
    usable,
)
from telecine.pipeline.catalog.conditions import columns_named
from telecine.pipeline.catalog.dataset import CAPTION_COLUMNS
from telecine.pipeline.catalog.scores import TEXT_SIMILARITY
from telecine.pipeline.catalog.selection import create_selected_clips
from telecine.pipeline.catalog.stills import Stills, with_stills
from telecine.pipeline.commit import Commits
from telecine.pipeline.models import Needs
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run

BATCH_CLIPS = 512
BATCH_CLIPS_WITH_STILLS = 32  # of at most 64 stills of some 15 kB; what a kill may cost
BATCH_STILL_BYTES = 16 * 2**20


@dataclass
class CaptionOutcome:
    """What a run got of a captioner."""

    captioner: str  # as the spec names it
    outcomes: dict[str, int] = field(default_factory=dict)  # captions by outcome: ok, empty, ...
    chosen: bool = False  # it is the one in force since this run
    in_force: bool = True
    score_first: bool = False  # the selection compares clips with their captions
    clips: int = 0  # current clips ...
    with_text: int = 0  # ... of which so many have a text of this captioner now
    waiting: int = 0  # ... and so many of those that the build takes have none yet, but may get one

    @property
    def useless(self) -> bool:
        """Whoever was asked about got no answer, and nobody has a text."""
        return not self.with_text and self.outcomes.keys() == {"failed"}

    def add(self, captions: Iterable[Caption]) -> None:
        for caption in captions:
            self.outcomes[caption.outcome] = self.outcomes.get(caption.outcome, 0) + 1


def caption_clips(run: Run, needs: Needs, only: pa.Table | None = None) -> CaptionOutcome:
    """Ask once about every pending clip and commit what comes back, as it comes.

    `only` names the clips that are asked about, in a column `clip_id`; None: all. `needs` is asked
    what a worker gets, where there is one to start.
    """
    dataset, spec, retry = run.dataset, run.dataset.spec.caption, run.options.retry_rejected
    outcome = CaptionOutcome(spec.captioner)
    captioner = load_captioner(spec)
    total = count_pending(dataset.tables, captioner, retry_failed=retry, only=only)
    resources, runtime = needs(run) if total else (Resources(), ModelRuntime())
    batches: Iterable[list[CaptionTask]] = ()
    if total:
        # Of a server's answers a batch waits for the last: small ones, and several beside it.
        most = min(2 * runtime.concurrency, BATCH_CLIPS_WITH_STILLS) if runtime.url else None
        batches = pending(
            dataset.tables, captioner, batch_clips=most, retry_failed=retry, only=only
        )
    make_worker = make_caption_worker(spec, dataset.storage, runtime)
    commits = Commits(dataset.tables, ["captions"], run.options.commit_seconds)
    with commits, Step(run.progress, "caption", "clips", total, total) as step:
        for end in run_batches(run.cluster, batches, make_worker, resources=resources):
            if isinstance(end, Lost):
                rows = accept(captioner, end.item, [], missing=end.detail)
            elif isinstance(end.result, Partial):
                commits.add("captions", _answered(captioner, end.item, end.result))
                raise end.result.error
            else:
                rows = accept(captioner, end.item, end.result)
            outcome.add(rows)
            commits.add("captions", rows)
            commits.flush_if_due()
            step.advance(done=len(rows), weight=len(rows))
    with connect(dataset.tables) as con:
        _count_texts(con, dataset, outcome)
    return outcome


def _answered(captioner: Captioner, batch: list[CaptionTask], partial: Partial) -> list[Caption]:
    """Rows of those clips alone that got a reply: the others were not at fault."""
    told = {(reply.clip_id, reply.stills_digest) for reply in partial.replies}
    asked = [t for t in batch if (t.request.clip_id, t.request.stills_digest) in told]
    return accept(captioner, asked, partial.replies)


def _count_texts(con: duckdb.DuckDBPyConnection, dataset: Dataset, outcome: CaptionOutcome) -> None:
    con.execute(f"CREATE TEMP TABLE said AS {captions_of(dataset.spec.caption)}")
    ((outcome.clips,),) = con.sql("SELECT count(*) FROM current_clips").fetchall()
    ((outcome.with_text,),) = con.sql("SELECT count(*) FROM said WHERE said.text <> ''").fetchall()
    # A selection by captions, or similarity to them, may take a clip once it has one: all may be
    # waited for.
    selection = "current_clips"
    named = columns_named(dataset.spec.select.where)
    outcome.score_first = TEXT_SIMILARITY in named
    if named.isdisjoint({TEXT_SIMILARITY, *CAPTION_COLUMNS}):
        create_selected_clips(con, dataset.spec)
        selection = "selected_clips"
    waiting = con.sql(f"SELECT count(*) FROM {selection} ANTI JOIN said USING (clip_id)")
    ((outcome.waiting,),) = waiting.fetchall()


# ── which clips ──────────────────────────────────────────────────────────────────────────────────


def count_pending(
    tables: Tables,
    captioner: Captioner,
    *,
    retry_failed: bool = False,
    only: pa.Table | None = None,
) -> int:
    query = f"SELECT count(*) FROM ({_pending(captioner, retry_failed, only)})"
    ((count,),) = _connect(tables, only).sql(query).fetchall()
    return int(count)


def pending(
    tables: Tables,
    captioner: Captioner,
    *,
    batch_clips: int | None = None,
    retry_failed: bool = False,
    only: pa.Table | None = None,
) -> Iterator[list[CaptionTask]]:
    """Batches of the clips that were pending when the first one was asked for.

    Commits made meanwhile change nothing of it, so a clip that fails is not asked about twice.
    A clip of a captioner that uses stills comes with them, or without any if they are incomplete.
    """
    query = _pending(captioner, retry_failed, only)
    # A connection of its own: an open result blocks it.
    con = _connect(tables, only)
    if Input.STILLS in captioner.uses:
        con.execute(f"CREATE TEMP TABLE pending AS {query}")  # it is asked of file by file
        tasks = with_stills(tables, con, "pending")
        yield from _batches(map(_task_of, tasks), batch_clips or BATCH_CLIPS_WITH_STILLS)
    else:
        reader = con.sql(query).to_arrow_reader(8192)
        rows = (row for batch in reader for row in batch.to_pylist())
        yield from _batches(map(_task, rows), batch_clips or BATCH_CLIPS)


def _batches(tasks: Iterable[CaptionTask], most: int) -> Iterator[list[CaptionTask]]:
    """In order; of long clips, with their many stills, fewer together."""
    batch: list[CaptionTask] = []
    size = 0
    for task in tasks:
        batch.append(task)
        size += sum(len(jpeg) for _, jpeg in task.request.stills)
        if len(batch) == most or size >= BATCH_STILL_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _connect(tables: Tables, only: pa.Table | None) -> duckdb.DuckDBPyConnection:
    con = connect(tables)
    if only is not None:
        con.register("only_clips", only)
    return con


def _pending(captioner: Captioner, retry_failed: bool, only: pa.Table | None) -> str:
    limit = "" if retry_failed else f"OR count_if(outcome = 'failed') >= {MAX_ATTEMPTS}"
    return f"""
        FROM ({inputs(captioner.uses)})
        {"" if only is None else "SEMI JOIN only_clips USING (clip_id)"}
        ANTI JOIN (
            SELECT clip_id, input_digest FROM captions
            WHERE {by_speakers(captioner)}
            GROUP BY clip_id, input_digest
            HAVING bool_or({usable(captioner)}) {limit}
        ) USING (clip_id, input_digest)
    """


def _task_of(found: tuple[dict[str, Any], Stills]) -> CaptionTask:
    return _task(*found)


def _task(row: dict[str, Any], stills: Stills = ()) -> CaptionTask:
    def seconds(pts: int) -> float:
        ticks = pts - row["source_start_pts"]
        return float(ticks * row["time_base_num"] / row["time_base_den"])

    facts = {name: row[name] for name in FACTS}
    facts["dominant_colors"] = tuple(facts["dominant_colors"])
    start = seconds(row["start_pts"])
    request = CaptionRequest(
        clip_id=row["clip_id"],
        stills_digest=row["stills_digest"],
        input_digest=row["input_digest"],
        facts=ClipFacts(**facts),
        start_seconds=start,
        end_seconds=start if row["kind"] == "image" else seconds(row["end_pts"]),
        stills=stills,
    )
    return CaptionTask(request, row["sidecar_uri"], row["sidecar_version"])
