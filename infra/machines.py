"""The cluster that a run asks for: Ray's, or with 0 workers this very process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from telecine.infra.cluster import Cluster
from telecine.infra.errors import UsageError
from telecine.infra.inline import InlineCluster


@contextlib.contextmanager
def open_cluster(workers: int | None, ray_address: str | None) -> Iterator[Cluster]:
    """`workers` processes at most; None: one per core. Ray is imported where it is asked for.

    Raises UsageError for what no cluster can be opened with.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"workers: {workers} was given; a number from 0 on is expected")
    if workers == 0 and ray_address is not None:
        raise UsageError(
            f"0 workers do all in this process, and the Ray cluster at {ray_address} was asked for "
            "too: leave one of them out"
        )
    if workers == 0:
        yield InlineCluster()
        return
    from telecine.infra.ray import RayCluster

    with RayCluster(ray_address, workers) as cluster:
        yield cluster
