"""The pool with Ray really started: workers that finish, raise, die and hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import Reason, UsageError
from infra.ray import Cluster, Done, Lost, Resources


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=2) as running:
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
            time.sleep(600)
        if item == "raise":
            raise ValueError("no such frame")
        if item == "usage":
            raise UsageError("the spec is wrong")
        return 2 * item if isinstance(item, int) else -1


def make(folder: Path) -> Callable[[], Callable[[int | str], int]]:
    return lambda: Worker(folder)


class TestPool:
    def test_every_item_ends_once(self, cluster: Cluster, tmp_path: Path) -> None:
        ends = list(cluster.run(range(20), make(tmp_path)))
        assert sorted(e.result for e in ends if isinstance(e, Done)) == list(range(0, 40, 2))

    def test_nothing_to_do(self, cluster: Cluster, tmp_path: Path) -> None:
        assert list(cluster.run([], make(tmp_path))) == []

    def test_a_death_costs_its_item_alone(self, cluster: Cluster, tmp_path: Path) -> None:
        items: list[int | str] = [1, "die", 2, "die once", 3, "raise", 4]
        ends = list(cluster.run(items, make(tmp_path), resources=Resources(workers=2)))
        done = {e.item: e.result for e in ends if isinstance(e, Done)}
        lost = {e.item: e for e in ends if isinstance(e, Lost)}
        assert done == {1: 2, 2: 4, 3: 6, 4: 8, "die once": -1}
        assert lost["die"].reason == Reason.CRASHED
        assert "no such frame" in lost["raise"].detail
        assert len(ends) == len(items)

    def test_a_hang_is_ended(self, cluster: Cluster, tmp_path: Path) -> None:
        ends = list(
            cluster.run(
                ["hang", 1, 2], make(tmp_path), limit_seconds=lambda i: 3 if i == "hang" else 60
            )
        )
        lost = [e for e in ends if isinstance(e, Lost)]
        assert [(e.item, e.reason) for e in lost] == [("hang", Reason.TIMEOUT)]
        assert len(ends) == 3

    def test_a_users_mistake_ends_the_run(self, cluster: Cluster, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the spec is wrong"):
            list(cluster.run(["usage", 1], make(tmp_path)))
