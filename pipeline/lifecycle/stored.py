"""What the store holds of a dataset's shards, and what of it the tables have a use for."""

from __future__ import annotations

import pyarrow as pa

from telecine.infra.errors import NotFound
from telecine.infra.store.storage import ObjectInfo
from telecine.manifests.builds import BuildState, pinned
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.shards import SHARDS


def stored(dataset: Dataset) -> dict[str, ObjectInfo]:
    """Every object under shards/, by its path relative to the dataset; what is linked is not ours.

    To be asked before the tables are read: what a run adds in between is then named by them, or
    belongs to a plan that they show in progress.
    """
    folder = dataset.path(SHARDS)
    try:
        found = list(dataset.storage.list(folder, follow_links=False))
    except NotFound:
        return {}
    return {SHARDS + info.uri.removeprefix(folder): info for info in found}


def needed(dataset: Dataset, builds: list[BuildState]) -> set[str]:
    """Paths of the tars that these builds need.

    Those that live rows name, or rows of a plan in progress; and those with latents that such a
    plan may copy, which are what was live when it was made.
    """
    columns = {
        "build_id": pa.array([b.build_id for b in builds], pa.string()),
        "plan": pa.array([b.in_progress and b.in_progress.plan for b in builds], pa.int64()),
    }
    con = connect(dataset.tables)
    con.register("asked", pa.table(columns))
    rows = con.sql("""
        SELECT shard_path FROM live_samples SEMI JOIN asked USING (build_id) UNION
        SELECT shard_path FROM samples SEMI JOIN asked USING (build_id, plan)
    """).fetchall()
    for plan in (b.in_progress for b in builds if b.in_progress):
        rows += (
            connect(dataset.tables, pinned(plan))
            .sql(
                "SELECT DISTINCT shard_path FROM live_samples SEMI JOIN (SELECT build_id "
                "FROM known_events WHERE latents_fingerprint = ?) USING (build_id)",
                params=[plan.latents_fingerprint],
            )
            .fetchall()
        )
    return {path for (path,) in rows if path}
