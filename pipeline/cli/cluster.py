"""The cluster that a command works on: Ray, or with --workers 0 this very process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from telecine.infra.cluster import Cluster, check_machines
from telecine.infra.inline import InlineCluster


@contextlib.contextmanager
def open_cluster(workers: int | None, ray_address: str | None) -> Iterator[Cluster]:
    """While it is open, whatever is written to standard output goes to standard error: Ray reports
    deaths there, amid what other programs are to read.
    """
    check_machines(workers, ray_address)
    if workers == 0:
        yield InlineCluster()
        return
    from telecine.infra.ray import RayCluster

    logging.getLogger("ray").setLevel(logging.ERROR)  # it greets and advises
    with stdout_to_stderr(), RayCluster(ray_address, workers) as cluster:
        yield cluster


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Of the descriptor, so that it holds for libraries in C++ and for child processes too."""
    try:
        saved = os.dup(1)
    except OSError:  # the process was started without one: nobody reads it
        yield
        return
    _flush_stdout()
    os.dup2(2, 1)
    try:
        yield
    finally:
        _flush_stdout()
        os.dup2(saved, 1)
        os.close(saved)


def _flush_stdout() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()
