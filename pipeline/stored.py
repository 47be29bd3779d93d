"""What the store holds of a dataset's shards, and what of it the tables name."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from infra.errors import NotFound
from infra.storage import ObjectInfo
from manifests.dataset import Dataset
from manifests.queries import BuildState

SHARDS = "shards"


def stored(dataset: Dataset) -> dict[str, ObjectInfo]:
    """Every object under shards/, by its path relative to the dataset.

    To be asked before the tables are read: what a run adds in between is then named by them, or
    belongs to a plan that they show in progress.
    """
    folder = dataset.path(SHARDS)
    try:
        found = list(dataset.storage.list(folder))
    except NotFound:
        return {}
    return {SHARDS + info.uri.removeprefix(folder): info for info in found}


def named(con: duckdb.DuckDBPyConnection, builds: list[BuildState]) -> set[str]:
    """Paths of the tars that live rows of these builds name, or rows of their plans in progress."""
    columns = {
        "build_id": pa.array([b.build_id for b in builds], pa.string()),
        "plan": pa.array([b.in_progress and b.in_progress.plan for b in builds], pa.int64()),
    }
    con.register("asked", pa.table(columns))
    rows = con.sql("""
        SELECT shard_path FROM live_samples SEMI JOIN asked USING (build_id) UNION
        SELECT shard_path FROM samples SEMI JOIN asked USING (build_id, plan)
    """).fetchall()
    return {path for (path,) in rows if path}
