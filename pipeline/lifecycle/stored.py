"""What the store holds of a dataset's shards, and what of it the tables or trainers have a use for.

tars      those that live rows name, or that a plan in progress names or may copy
samples   a build's index of them; for a week after the build grew or was mended also older
ones with the tars that those name: a trainer that began before reads on by them
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

import duckdb
import pyarrow as pa

from telecine.infra.errors import NotFound, UsageError
from telecine.infra.store.storage import ObjectInfo
from telecine.manifests.builds import BuildState, pinned, shards_of
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.samples import read_samples, samples_file
from telecine.manifests.queries import connect
from telecine.manifests.shards import SHARDS, build_folder, is_samples
from telecine.manifests.tables import RETENTION_HOURS
from telecine.pipeline.build.index import shards_digest


def stored(dataset: Dataset) -> dict[str, ObjectInfo]:
    """Every object under shards/, by its path relative to the dataset; what is linked is not ours.

    To be asked before the tables are read: what a run adds in between is then named by them, or
    belongs to a plan that they show in progress.
    """
    return objects_under(dataset, SHARDS)


def objects_under(dataset: Dataset, name: str) -> dict[str, ObjectInfo]:
    """Every object in a folder of the dataset, by its path relative to that; not what is linked."""
    folder = dataset.path(name)
    try:
        found = list(dataset.storage.list(folder, follow_links=False))
    except NotFound:
        return {}
    return {name + info.uri.removeprefix(folder): info for info in found}


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


# ── what trainers read by ────────────────────────────────────────────────────────────────────────


def samples_path(con: duckdb.DuckDBPyConnection, build: BuildState) -> str:
    """Of the index of the build's live samples, as the tables have them."""
    live = shards_of(con, build.build_id)
    return build_folder(build.name) + samples_file(shards_digest(live, build.name))


def trained_on(
    dataset: Dataset,
    builds: Iterable[BuildState],
    there: Mapping[str, ObjectInfo],
    hours: int = RETENTION_HOURS,
) -> set[str]:
    """Paths of these builds' indexes of samples, and of the tars that superseded ones name.

    One that was superseded longer ago than these hours is left out.
    """
    con, in_need = connect(dataset.tables), set[str]()
    for build in builds:
        present = samples_path(con, build)
        in_need.add(present)
        own = [p for p in there if is_samples(p) and p.startswith(build_folder(build.name))]
        for path in in_force_since(time.time() - hours * 3600.0, own, there):
            if path != present:
                in_need |= {path, *_named(dataset, build, path)}
    return in_need


def in_force_since(
    since: float, indexes: Iterable[str], there: Mapping[str, ObjectInfo]
) -> list[str]:
    """Of the indexes of one thing those that were in force after `since`: each until the next was
    written.
    """
    ordered = sorted(indexes, key=lambda path: there[path].modified)
    ends = [*(there[path].modified for path in ordered[1:]), math.inf]
    return [path for path, ended in zip(ordered, ends, strict=False) if ended > since]


def _named(dataset: Dataset, build: BuildState, path: str) -> set[str]:
    """None by one that cannot be read: nobody trains by it either."""
    try:
        data = dataset.storage.read_bytes(dataset.path(path))
        shards = read_samples(pa.py_buffer(data), path).rows["shard"]
    except (NotFound, UsageError):
        return set()
    return {build_folder(build.name) + name for name in shards.unique().to_pylist()}
