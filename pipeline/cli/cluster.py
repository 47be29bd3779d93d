"""The cluster that a command works on: Ray, or with --workers 0 this very process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from telecine.infra import machines
from telecine.infra.cluster import Cluster


@contextlib.contextmanager
def open_cluster(workers: int | None, ray_address: str | None) -> Iterator[Cluster]:
    """While Ray's is open, what is written to standard output goes to standard error: Ray reports
    deaths there, amid what other programs are to read.
    """
    with contextlib.ExitStack() as stack:
        if workers != 0:
            logging.getLogger("ray").setLevel(logging.ERROR)  # it greets and advises
            stack.enter_context(stdout_to_stderr())
        yield stack.enter_context(machines.open_cluster(workers, ray_address))


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
