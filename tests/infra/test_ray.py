"""The pool with Ray really started: workers that finish, raise, die and hang."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from telecine.infra.cluster import Done, Lost, Resources
from telecine.infra.errors import ClusterError, Reason
from telecine.infra.pulse import beat
from telecine.infra.ray import RayCluster
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster(workers=2) as running:
        yield running


class Worker:
    """Doubles numbers; some items are traps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: int | str) -> int:
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "die once" and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "hang":
            threading.Event().wait()
        if item == "hold":  # the interpreter, as native code may: no other thread gets on
            re.match("(a+)+$", "a" * 99 + "b")
        while item == "get on" and not (self.folder / "enough").exists():
            beat()
            threading.Event().wait(0.01)
        if item == "raise":
            raise ValueError("no such frame")
        return 2 * item if isinstance(item, int) else -1


def make(folder: Path) -> Callable[[], Callable[[int | str], int]]:
    return lambda: Worker(folder)


class TestPool:
    def test_a_death_costs_its_item_alone(self, cluster: RayCluster, tmp_path: Path) -> None:
        items: list[int | str] = [1, "die", 2, "die once", 3, "raise", 4]
        ends = list(cluster.run(items, make(tmp_path), resources=Resources(workers=2)))
        done = {e.item: e.result for e in ends if isinstance(e, Done)}
        lost = {e.item: e for e in ends if isinstance(e, Lost)}
        assert done == {1: 2, 2: 4, 3: 6, 4: 8, "die once": -1}
        assert lost["die"].reason == Reason.CRASHED
        assert lost["raise"].reason == Reason.INTERNAL
        assert len(ends) == len(items)

    def test_who_stands_still_is_ended_and_who_gets_on_is_not(
        self, cluster: RayCluster, tmp_path: Path
    ) -> None:
        items: list[int | str] = ["get on", "hang", "hold", 1]
        ends: list[Done[int | str, int] | Lost[int | str]] = []
        stalls = {"get on": 3.0, "hang": 3.0, "hold": 3.0}
        for end in cluster.run(
            items,
            make(tmp_path),
            resources=Resources(workers=2),
            stall_seconds=lambda item: stalls.get(str(item), PATIENCE),
        ):
            ends.append(end)
            if {"hang", "hold"} <= {e.item for e in ends}:
                (tmp_path / "enough").touch()
        lost = {e.item: e for e in ends if isinstance(e, Lost)}
        assert {item: e.reason for item, e in lost.items()} == {
            "hang": Reason.TIMEOUT,
            "hold": Reason.TIMEOUT,
        }
        assert lost["hang"].detail == "no progress for 3 s"
        assert {e.item for e in ends if isinstance(e, Done)} == {"get on", 1}

    def test_a_worker_that_finds_no_place_holds_nothing_up(
        self, cluster: RayCluster, tmp_path: Path
    ) -> None:
        cpus = cluster.size(Resources(cpus=1))
        halves = Resources(cpus=cpus / 4, workers=2)
        holding = cluster.run([1, "hang"], make(tmp_path), resources=halves)
        next(holding)  # half of the cores are taken until this is closed
        thirds = Resources(cpus=cpus / 3, workers=3)
        assert len(list(cluster.run(range(6), make(tmp_path), resources=thirds))) == 6
        holding.close()

    def test_it_knows_its_gpus(self, cluster: RayCluster) -> None:
        assert cluster.gpus() == torch.cuda.device_count()


class TestStart:
    def test_workers_that_die_as_they_start_end_the_run(self, cluster: RayCluster) -> None:
        def start() -> Callable[[int], int]:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        with pytest.raises(ClusterError, match="3 workers in a row died as they started"):
            list(cluster.run(range(4), start))

    def test_a_worker_whose_replacement_hangs_ends_the_run(
        self, cluster: RayCluster, tmp_path: Path
    ) -> None:
        def start() -> Callable[[int], int]:
            if (tmp_path / "started").exists():
                threading.Event().wait()
            (tmp_path / "started").touch()
            return lambda item: os.kill(os.getpid(), signal.SIGKILL) or item

        ready_seconds = 1.5
        while not (tmp_path / "started").exists():  # a slow machine starts no worker so soon
            ready_seconds *= 2
            with pytest.raises(ClusterError, match=f"started within {ready_seconds:.0f} s"):
                list(cluster.run([1], start, ready_seconds=ready_seconds))

    @pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}"])
    def test_an_address_of_nothing_is_said_at_once(self, form: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = form.format(free.getsockname()[1])
        with RayCluster(address) as nowhere, pytest.raises(ClusterError, match="nobody answers at"):
            list(nowhere.run([1], lambda: abs))


KILL_RAYLET = """
import os, signal, subprocess, time
from telecine.infra.errors import ClusterError
from telecine.infra.cluster import Done
from telecine.pipeline.cli.cluster import open_cluster

def slowly(item):
    time.sleep(0.2)
    return item

with open_cluster(2, None) as cluster:
    ends = cluster.run(range(10_000), lambda: slowly)
    next(ends)
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "raylet/raylet"], capture_output=True, check=True
    )
    os.kill(int(found.stdout), signal.SIGKILL)
    try:
        assert all(isinstance(end, Done) for end in ends)
    except ClusterError as error:
        print("ended:", error)  # to standard error, while Ray runs
print("the end")
"""


def test_a_dead_raylet_ends_the_run() -> None:
    """Its workers die with it: that costs no item its attempts, and nobody waits for ever."""
    done = subprocess.run(
        [sys.executable, "-c", KILL_RAYLET],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ended: Ray died on this machine" in done.stderr
    assert done.stdout == "the end\n"


LEFT_IN_THE_MIDDLE = """
from telecine.infra.ray import RayCluster

with RayCluster(workers=1) as cluster:
    ends = cluster.run(range(10_000), lambda: abs)
    next(ends)
ends.close()  # as the garbage collector does after an interrupt
print("the end")
"""


def test_a_run_left_in_the_middle_ends_quietly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_IN_THE_MIDDLE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
