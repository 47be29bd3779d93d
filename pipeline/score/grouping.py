"""group: near-duplicates among the clips that have an embedding → `duplicates`.

    embeddings ─▶ a file of float16 vectors ─▶ duplicates.py ─▶ group, rank ─▶ rows that changed

A grouping is over all clips, so it is made again when a clip came, came back or is gone. Of each
group the longest clip is kept, or the largest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from telecine.encoders.load import load_scorer
from telecine.infra.faults import kill_point
from telecine.infra.text import literal
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Duplicate
from telecine.manifests.specs import ScoreSpec
from telecine.pipeline.catalog.scores import grouping
from telecine.pipeline.progress import Progress, Step
from telecine.pipeline.score.duplicates import Vectors, group_duplicates

ROWS_AT_ONCE = 8192
COMMIT_ROWS = 500_000

_KEEP = {
    "longest": "duration_seconds DESC, width * height DESC, clip_id",
    "largest": "width * height DESC, duration_seconds DESC, clip_id",
}


@dataclass(frozen=True)
class Grouping:
    """How clips are grouped now."""

    threshold: float
    clips: int  # with an embedding
    groups: int  # of two clips and more
    duplicates: int  # clips for which another one is kept
    changed: int  # rows written by this run


def group_clips(dataset: Dataset, progress: Progress) -> Grouping | None:
    """Group the clips as the spec asks, where it does and the tables have not got it already."""
    spec = dataset.spec.score
    if spec.scorer is None or spec.duplicate_threshold is None:
        return None
    con = connect(dataset.tables)
    _create_tables(con, spec)
    changed = 0
    if _is_stale(con, grouping(spec)) and not _is_empty(con):
        _regroup(con, spec, progress)
        changed = _append(dataset, con, grouping(spec))
        _create_tables(con := connect(dataset.tables), spec)
    ((clips, groups, duplicates),) = con.sql(
        """
        SELECT count(*), count(DISTINCT duplicate_group) FILTER (duplicate_rank > 0),
            count(*) FILTER (duplicate_rank > 0)
        FROM embedded JOIN grouped USING (clip_id)
        """
    ).fetchall()
    return Grouping(spec.duplicate_threshold, clips, groups, duplicates, changed)


def _create_tables(con: duckdb.DuckDBPyConnection, spec: ScoreSpec) -> None:
    """`embedded`: clips in order of preference; `grouped`: what the table says of them."""
    con.execute(f"""
        CREATE TEMP TABLE embedded AS
        SELECT clip_id, stills_digest,
            row_number() OVER (ORDER BY {_KEEP[spec.duplicate_keep]}) - 1 AS preference
        FROM current_clips SEMI JOIN ({_vectors(spec)}) USING (clip_id, stills_digest)
    """)
    con.execute(f"""
        CREATE TEMP TABLE grouped AS
        SELECT clip_id, arg_max(duplicate_group, round) AS duplicate_group,
            arg_max(duplicate_rank, round) AS duplicate_rank, max(round) AS round
        FROM duplicates WHERE grouping = {literal(grouping(spec))} GROUP BY clip_id
    """)


def _vectors(spec: ScoreSpec) -> str:
    return f"""
        SELECT clip_id, stills_digest, embedding FROM embeddings
        WHERE scorer_fingerprint = {literal(load_scorer(spec).fingerprint)}
        AND octet_length(embedding) > 0
    """


def _clips(con: duckdb.DuckDBPyConnection) -> str:
    """Which clips there are to group, by their stills: their number and a sum of hashes."""
    query = """
        SELECT count(*), coalesce(bit_xor(
            ('0x' || left(sha256(clip_id || ' ' || stills_digest), 15))::BIGINT
        ), 0) FROM embedded
    """
    ((count, hashes),) = con.sql(query).fetchall()
    return f"{count} {hashes:015x}"


def _is_empty(con: duckdb.DuckDBPyConnection) -> bool:
    return not con.sql("FROM embedded LIMIT 1").fetchall()


def _is_stale(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Other clips were grouped, or a run was killed before it wrote all that it had found."""
    last = f"""
        SELECT grouped FROM duplicates WHERE grouping = {literal(name)} AND grouped <> ''
        AND round = (SELECT max(round) FROM duplicates WHERE grouping = {literal(name)})
    """
    return [_clips(con)] != [grouped for (grouped,) in con.sql(last).fetchall()]


def _regroup(con: duckdb.DuckDBPyConnection, spec: ScoreSpec, progress: Progress) -> None:
    """Make the table `regrouped`: clip_id, duplicate_group, duplicate_rank."""
    assert spec.duplicate_threshold is not None
    ((count,),) = con.sql("SELECT count(*) FROM embedded").fetchall()
    with (
        tempfile.TemporaryDirectory(prefix="telecine-") as folder,
        Step(progress, "group", "clips", count, count) as step,
    ):
        ids: list[pa.Array] = []
        preference: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        with Vectors(Path(folder), _dimensions(con, spec)) as vectors:
            for batch in _batches(con, spec):
                ids.append(batch["clip_id"])
                preference.append(batch["preference"].to_numpy())
                data = batch["embedding"].to_pylist()
                vectors.append(np.frombuffer(b"".join(data), "<f2").reshape(len(data), -1))
            found = group_duplicates(
                vectors.array,
                np.concatenate(preference),
                spec.duplicate_threshold,
                progress=lambda rows: step.advance(done=rows, weight=rows),
            )
    clip_ids = pa.chunked_array(ids)
    table = {
        "clip_id": clip_ids,
        "duplicate_group": clip_ids.take(pa.array(found.group)),
        "duplicate_rank": pa.array(found.rank, pa.int64()),
    }
    con.register("regrouped", pa.table(table))


def _batches(con: duckdb.DuckDBPyConnection, spec: ScoreSpec) -> Iterator[pa.RecordBatch]:
    joined = f"({_vectors(spec)}) JOIN embedded USING (clip_id, stills_digest)"
    query = f"SELECT clip_id, preference, embedding FROM {joined}"
    yield from con.sql(query).to_arrow_reader(ROWS_AT_ONCE)


def _dimensions(con: duckdb.DuckDBPyConnection, spec: ScoreSpec) -> int:
    query = f"SELECT octet_length(embedding) // 2 FROM ({_vectors(spec)}) LIMIT 1"
    return int(con.sql(query).fetchall()[0][0])


def _append(dataset: Dataset, con: duckdb.DuckDBPyConnection, name: str) -> int:
    """Commit what is not in the table so. The last row says which clips were grouped: without it
    the grouping counts as stale, so that a run that was killed is made again.
    """
    ((number,),) = con.sql("SELECT coalesce(max(round) + 1, 0) FROM grouped").fetchall()
    changed = con.sql("""
        FROM regrouped ANTI JOIN grouped USING (clip_id, duplicate_group, duplicate_rank)
        ORDER BY clip_id
    """)
    (last,) = con.sql("FROM regrouped ORDER BY clip_id LIMIT 1").to_arrow_table().to_pylist()
    count = 0
    for batch in changed.to_arrow_reader(COMMIT_ROWS):
        rows = [Duplicate(grouping=name, round=number, **row) for row in batch.to_pylist()]
        dataset.tables.append("duplicates", rows)
        kill_point("committed", "duplicates")
        count += len(rows)
    sealed = Duplicate(grouping=name, round=number, grouped=_clips(con), **last)
    dataset.tables.append("duplicates", [sealed])
    return count
