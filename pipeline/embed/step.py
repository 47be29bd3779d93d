"""embed: texts of a build's clips → `text_embeddings`, and tars of them beside the build's shards.

    texts without an embedding ─▶ parts ─▶ model ─▶ text_embeddings
    shards without their texts ─▶ jobs  ─▶ copy  ─▶ column_samples ─▶ index.json, column-….arrow

A text that clips share is encoded once. What a caption changed is encoded, and the tars that hold
it are written anew; of the others nothing is read. No shard of latents is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb

from telecine.encoders.load import load_text_encoder
from telecine.encoders.text.interface import TextEncoder
from telecine.infra.cluster import Done, Lost
from telecine.infra.errors import ClusterError, NotFound
from telecine.manifests.builds import completed_build
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.columns import column_folder
from telecine.manifests.queries import connect
from telecine.manifests.schemas import TextEmbedding
from telecine.manifests.specs import EmbedSpec
from telecine.pipeline.commit import Commits
from telecine.pipeline.embed.index import write_column
from telecine.pipeline.embed.plan import (
    PartJob,
    Target,
    column_jobs,
    count,
    create_lacking,
    create_tars,
    part_job,
    part_jobs,
    written_rows,
)
from telecine.pipeline.embed.worker import ColumnWorker, EmbedWorker, failed
from telecine.pipeline.models import Needs
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run


@dataclass
class EmbedOutcome:
    """What a run made of a column, and what there is of it now."""

    column: str
    encoder: str  # as the spec names it
    build: str
    encoded: int = 0  # texts, in this run
    tokens: int = 0  # of these
    failed: int = 0  # texts, in this run
    tars_written: int = 0
    tars: int = 0
    samples: int = 0  # of the column, now
    embedded: int = 0  # of them
    truncated: int = 0  # of them
    uncaptioned: int = 0  # of them: no caption is in force yet


def column_name(spec: EmbedSpec) -> str:
    kind = str(spec.encoder).partition(":")[0]
    return spec.name or ("text" if kind == "none" else kind)


def target_of(dataset: Dataset, build: str | None) -> Target:
    """The column that the spec asks for beside a build (None: the current one).

    Raises UsageError where there is no such build.
    """
    encoder = load_text_encoder(dataset.spec.embed)
    chosen = completed_build(connect(dataset.tables), build)
    return Target(
        column_name(dataset.spec.embed),
        encoder.fingerprint,
        encoder.dimensions,
        chosen.build_id,
        chosen.name,
    )


def embed_texts(run: Run, needs: Needs, build: str | None = None) -> EmbedOutcome:
    """Bring the column that the spec asks for in step with a build (None: the current one).

    `needs` is asked what a worker gets, where there is one to start.
    """
    target, spec = target_of(run.dataset, build), run.dataset.spec.embed
    outcome = EmbedOutcome(target.column, str(spec.encoder), target.build)
    retry = run.options.retry_rejected
    con = _lacking(run.dataset, target, retry=retry)
    if lacking := count(con, "lacking"):
        _encode(run, needs, target, part_jobs(con, target), lacking, outcome)
        con = _lacking(run.dataset, target)
    create_tars(con, target)
    if todo := count(con, "unwritten"):
        _write(run, con, target, todo, outcome)
        con = _lacking(run.dataset, target)
        create_tars(con, target)
    _index(run.dataset, con, target, load_text_encoder(spec), outcome)
    return outcome


def _lacking(dataset: Dataset, target: Target, *, retry: bool = False) -> duckdb.DuckDBPyConnection:
    con = connect(dataset.tables)
    create_lacking(con, dataset.spec, target, stored(dataset, target.column), retry=retry)
    return con


def stored(dataset: Dataset, column: str) -> set[str]:
    """Paths of what there is of a column, relative to the dataset: what is gone is made again."""
    folder = column_folder(column)
    try:
        found = dataset.storage.list(dataset.path(folder.rstrip("/")), follow_links=False)
        start = len(dataset.path(""))
        return {info.uri[start:] for info in found}
    except NotFound:
        return set()


def _encode(
    run: Run,
    needs: Needs,
    target: Target,
    jobs: Iterable[PartJob],
    texts: int,
    outcome: EmbedOutcome,
) -> None:
    commits = Commits(run.dataset.tables, ["text_embeddings"], run.options.commit_seconds)
    with commits, Step(run.progress, "embed", "texts", texts, texts) as step:
        for rows in _embedded(run, needs, target, jobs):
            commits.add("text_embeddings", rows)
            commits.flush_if_due()
            outcome.encoded += sum(row.outcome == "ok" for row in rows)
            outcome.failed += sum(row.outcome != "ok" for row in rows)
            outcome.tokens += sum(row.tokens for row in rows)
            step.advance(done=len(rows), weight=len(rows))


def _embedded(
    run: Run, needs: Needs, target: Target, jobs: Iterable[PartJob]
) -> Iterator[list[TextEmbedding]]:
    """Rows of each part; of one that kills its worker, text by text."""
    resources, runtime = needs(run)
    dataset, spec = run.dataset, run.dataset.spec.embed

    def work(todo: Iterable[PartJob]) -> Iterator[Done[PartJob, Any] | Lost[PartJob]]:
        return run.cluster.run(
            todo,
            partial(EmbedWorker, dataset.uri, spec, dataset.storage, runtime),
            resources=resources,
        )

    suspects: list[PartJob] = []
    for end in work(jobs):
        if isinstance(end, Done):
            yield end.result
        else:
            suspects += [part_job(target, (text,)) for text in end.item.texts]
    for end in work(suspects) if suspects else ():
        if isinstance(end, Done):
            yield end.result
        else:
            yield [failed(end.item, end.item.texts[0][0], end.detail)]


def _write(
    run: Run, con: duckdb.DuckDBPyConnection, target: Target, tars: int, outcome: EmbedOutcome
) -> None:
    dataset = run.dataset
    commits = Commits(dataset.tables, ["column_samples"], run.options.commit_seconds)
    with commits, Step(run.progress, "column", "tars", tars, tars) as step:
        ends = run.cluster.run(
            column_jobs(con, target), partial(ColumnWorker, dataset.uri, dataset.storage)
        )
        for end in ends:
            if isinstance(end, Lost):
                raise ClusterError(
                    f"{end.item.path} could not be written: {end.detail}. Run again to go on"
                )
            commits.add("column_samples", end.result.rows)
            commits.flush_if_due()
            outcome.tars_written += 1
            step.advance()


def _index(
    dataset: Dataset,
    con: duckdb.DuckDBPyConnection,
    target: Target,
    encoder: TextEncoder,
    outcome: EmbedOutcome,
) -> None:
    rows = written_rows(con, target)
    empty = "text_digest = sha256('') AND outcome = 'ok'"
    null = con.sql(f"SELECT * FROM encoded WHERE {empty}").to_arrow_table().to_pylist()
    index = write_column(dataset, target, encoder, rows, null[0] if null else {})
    con.register("said", index.rows)
    ((outcome.samples, outcome.tars, outcome.embedded, outcome.truncated, none),) = con.sql(
        "SELECT count(*), count(DISTINCT shard), count_if(size_bytes > 0), count_if(truncated), "
        "count_if(text_digest IS NULL) FROM said"
    ).fetchall()
    outcome.uncaptioned = none
