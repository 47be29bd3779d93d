"""score: stills and texts of clips → `embeddings`, `scores`, and groups of `duplicates`.

    current clips ─┬─ without an embedding ─▶ stills ─▶ model ─▶ embedding ─┬─▶ · caption
                   └─ with one, without a score that is asked for ──────────┴─▶ · prompts, head

An embedding is the mean over a clip's stills of their embeddings of length 1, so its product with
a text's embedding is the mean of the stills' cosine similarities. Scores are made from it as it is
stored, in float16: the same whether at once or in a later run. Work left is what the tables lack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from telecine.encoders.load import load_scorer
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.interface import Scorer
from telecine.infra.cluster import Cluster, Done, Resources, run_batches
from telecine.infra.text import literal
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Embedding, Score
from telecine.manifests.specs import DatasetSpec, ScoreSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.catalog.scores import (
    TEXT_SIMILARITY,
    score_inputs,
    scores_wanted,
)
from telecine.pipeline.catalog.stills import Stills, with_stills
from telecine.pipeline.commit import Commits
from telecine.pipeline.models import Needs
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run
from telecine.pipeline.score.grouping import Grouping, group_clips
from telecine.pipeline.score.worker import Scored, ScoreTask, ScoreWorker, Wanted, failed

BATCH_CLIPS = 64  # with their stills
BATCH_EMBEDDINGS = 2048  # clips whose embeddings are there


@dataclass
class ScoreOutcome:
    """What a run got of a scorer, and what there is now."""

    scorer: str = ""  # as the spec names it; empty: none is in force
    embedded: int = 0
    failed: int = 0  # clips that have no embedding, or got no score, in this run
    scores: dict[str, int] = field(default_factory=dict)  # made in this run, by name
    grouping: Grouping | None = None
    in_force: bool = True
    waiting: int = 0  # current clips without an embedding


def score_clips(run: Run, needs: Needs, only: pa.Table | None = None) -> ScoreOutcome:
    """Make the embeddings and scores that are asked for and not there, then group duplicates.

    `only` names the clips that are looked at, in a column `clip_id`; None: all. Grouping is over
    all that have an embedding. `needs` is asked what a worker gets, where there is one to start.
    Where the spec names no scorer, nothing is done.
    """
    dataset, spec = run.dataset, run.dataset.spec.score
    if spec.scorer is None:
        return ScoreOutcome()
    outcome = ScoreOutcome(spec.scorer)
    work = _Work(dataset.tables, dataset.spec, only, run.options.retry_rejected)
    total = work.count()
    resources, runtime = needs(run) if total else (Resources(), ModelRuntime())
    commits = Commits(dataset.tables, ["embeddings", "scores"], run.options.commit_seconds)
    with commits, Step(run.progress, "score", "clips", total, total) as step:
        for batch, results in _run(run.cluster, work, spec, resources, runtime):
            embeddings, scores = accept(load_scorer(spec), batch, results)
            commits.add("embeddings", embeddings, sum(len(e.embedding) for e in embeddings))
            commits.add("scores", scores)
            commits.flush_if_due()
            _count(outcome, batch, embeddings, scores)
            step.advance(done=len(batch), weight=len(batch))
    outcome.grouping = group_clips(dataset, run.progress)
    with connect(dataset.tables) as con:
        seen = f"scorer_fingerprint = {literal(load_scorer(spec).fingerprint)}"
        query = f"FROM current_clips ANTI JOIN (FROM embeddings WHERE {seen})"
        found = con.sql(f"SELECT count(*) {query} USING (clip_id, stills_digest)").fetchall()
        ((outcome.waiting,),) = found
    return outcome


def _run(
    cluster: Cluster,
    work: _Work,
    spec: ScoreSpec,
    resources: Resources,
    runtime: ModelRuntime,
) -> Iterator[tuple[list[ScoreTask], list[Scored]]]:
    """Each batch with its results; one that kills its worker costs the clip that did it."""
    ends = run_batches(
        cluster, work.batches(), lambda: ScoreWorker(spec, runtime), resources=resources
    )
    for end in ends:
        if isinstance(end, Done):
            yield end.item, end.result
        else:
            yield end.item, [failed(task, end.detail) for task in end.item]


def _count(
    outcome: ScoreOutcome,
    batch: Sequence[ScoreTask],
    embeddings: Sequence[Embedding],
    scores: Sequence[Score],
) -> None:
    outcome.embedded += sum(bool(e.embedding) for e in embeddings)
    for score in scores:
        outcome.scores[score.name] = outcome.scores.get(score.name, 0) + 1
    scored = {s.clip_id for s in scores} | {e.clip_id for e in embeddings if e.embedding}
    outcome.failed += sum(task.clip_id not in scored for task in batch)


# ── what is left ─────────────────────────────────────────────────────────────────────────────────


class _Work:
    """What the tables lack, as they are when it is made."""

    def __init__(
        self, tables: Tables, spec: DatasetSpec, only: pa.Table | None, retry_failed: bool
    ) -> None:
        self._tables = tables
        self._names = scores_wanted(spec.score)
        self._con = connect(tables)
        if only is not None:
            self._con.register("only_clips", only)
        for statement in _statements(spec, only is not None, retry_failed):
            self._con.execute(statement)

    def count(self) -> int:
        query = "SELECT (SELECT count(*) FROM unseen) + (SELECT count(*) FROM unscored)"
        ((count,),) = self._con.sql(query).fetchall()
        return int(count)

    def batches(self) -> Iterator[list[ScoreTask]]:
        found = with_stills(self._tables, self._con, "unseen")
        tasks = (self._task(row, stills=stills) for row, stills in found)
        while batch := list(islice(tasks, BATCH_CLIPS)):
            yield batch
        reader = self._con.sql("FROM unscored").to_arrow_reader(BATCH_EMBEDDINGS)
        rows = (row for part in reader for row in part.to_pylist())
        known = (self._task(row, embedding=row["embedding"]) for row in rows)
        while batch := list(islice(known, BATCH_EMBEDDINGS)):
            yield batch

    def _task(self, row: dict[str, Any], stills: Stills = (), embedding: bytes = b"") -> ScoreTask:
        wanted = tuple(
            Wanted(name, row[name], row["text"] if name == TEXT_SIMILARITY else "")
            for name in self._names
            if row[name] is not None
        )
        return ScoreTask(row["clip_id"], row["stills_digest"], wanted, stills, embedding)


def _statements(spec: DatasetSpec, only: bool, retry_failed: bool) -> list[str]:
    """SQL: `unseen` clips without an embedding, and `unscored` ones that have theirs.

    A column for each score: the input digest of one that the clip lacks, else NULL.
    """
    scorer = literal(load_scorer(spec.score).fingerprint)
    there = "octet_length(embedding) > 0" if retry_failed else "true"
    names = scores_wanted(spec.score)
    lacking = " ".join(
        f"""
        LEFT JOIN (
            SELECT clip_id, input_digest AS {name}{", text" if name == TEXT_SIMILARITY else ""}
            FROM ({score_inputs(spec, name)}) ANTI JOIN (
                SELECT clip_id, input_digest FROM scores
                WHERE name = {literal(name)} AND scorer_fingerprint = {scorer}
            ) USING (clip_id, input_digest)
        ) USING (clip_id)
        """
        for name in names
    )
    columns = ", ".join(("clip_id", "stills_digest", "num_stills", "text", *names))
    return [
        "CREATE TEMP VIEW meant AS SELECT clip_id, stills_digest, num_stills FROM current_clips"
        + (" SEMI JOIN only_clips USING (clip_id)" if only else ""),
        f"CREATE TEMP VIEW lacking AS SELECT {columns} FROM meant {lacking}",
        f"""
        CREATE TEMP TABLE unseen AS FROM lacking ANTI JOIN (
            SELECT clip_id, stills_digest FROM embeddings
            WHERE scorer_fingerprint = {scorer} AND {there}
        ) USING (clip_id, stills_digest)
        """,
        f"""
        CREATE TEMP VIEW unscored AS SELECT lacking.*, embedding
        FROM embeddings JOIN lacking USING (clip_id, stills_digest)
        WHERE scorer_fingerprint = {scorer} AND octet_length(embedding) > 0
        AND coalesce({", ".join(names)}) IS NOT NULL
        """,
    ]


def accept(
    scorer: Scorer, batch: Sequence[ScoreTask], results: Sequence[Scored]
) -> tuple[list[Embedding], list[Score]]:
    """Rows of a batch. A result counts where it bears both keys of a task and its wanted scores."""
    found = {(r.clip_id, r.stills_digest): r for r in results}
    embeddings: list[Embedding] = []
    scores: list[Score] = []
    for task in batch:
        result = found.get((task.clip_id, task.stills_digest)) or failed(task, "no result")
        if not task.embedding:
            embeddings.append(
                Embedding(
                    clip_id=task.clip_id,
                    scorer=scorer.name,
                    scorer_fingerprint=scorer.fingerprint,
                    stills_digest=task.stills_digest,
                    embedding=result.embedding,
                    detail=result.detail,
                )
            )
        scores += [
            Score(
                clip_id=task.clip_id,
                name=wanted.name,
                scorer_fingerprint=scorer.fingerprint,
                input_digest=wanted.input_digest,
                value=value,
            )
            for wanted, value in result.values
            if wanted in task.wanted
        ]
    return embeddings, scores
