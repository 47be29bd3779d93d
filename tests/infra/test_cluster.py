"""What every cluster promises, with the one in this process and with Ray really started."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telecine.infra.bugs import telecine_version
from telecine.infra.cluster import Cluster, Done, Lost, Resources, run_batches
from telecine.infra.errors import ClusterError, Reason, UsageError
from telecine.infra.inline import InlineCluster
from telecine.infra.ray import RayCluster

Doubler = Callable[[int], int]


@pytest.fixture(scope="module", params=["inline", "ray"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "inline":
        yield InlineCluster()
        return
    with RayCluster(workers=2) as running:
        yield running


def doubler(traps: dict[int, Exception], calls: Path | None = None) -> Callable[[], Doubler]:
    """Makes workers that raise of some numbers; `calls` notes every attempt, a byte for each."""

    def double(number: int) -> int:
        if calls is not None:
            with calls.open("a") as file:
                file.write("x")
        if number in traps:
            raise traps[number]
        return 2 * number

    return lambda: double


def test_every_item_ends_once(cluster: Cluster) -> None:
    ends = list(cluster.run(range(20), doubler({})))
    assert {e.item: e.result for e in ends if isinstance(e, Done)} == {n: 2 * n for n in range(20)}
    assert len(ends) == 20


def test_without_items_no_worker_is_made(cluster: Cluster) -> None:
    def none() -> Doubler:
        raise AssertionError

    assert list(cluster.run([], none)) == []


def test_items_are_taken_as_they_are_needed(cluster: Cluster) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    ends = cluster.run(numbers(), doubler({}))
    next(ends)
    ends.close()  # type: ignore[attr-defined]
    assert len(taken) < 10


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_exception_costs_its_item_alone_after_its_attempts(
    cluster: Cluster, attempts: int, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    make = doubler({2: ValueError("no such frame")}, calls)
    ends = list(cluster.run([1, 2, 3], make, attempts=attempts))
    (lost,) = [end for end in ends if isinstance(end, Lost)]
    assert (lost.item, lost.reason) == (2, Reason.INTERNAL)
    assert {e.item for e in ends if isinstance(e, Done)} == {1, 3}
    assert len(calls.read_text()) == 2 + attempts


def test_an_exception_is_told_as_a_bug_to_report(cluster: Cluster) -> None:
    def fail(number: int) -> int:
        raise Untold(threading.Lock())

    (lost,) = cluster.run([1], lambda: fail)
    assert isinstance(lost, Lost)
    what, *calls = lost.detail.splitlines()
    assert what == f"Untold: no such frame (Telecine {telecine_version()})"
    assert calls[0] == "Traceback (most recent call last):"
    assert any('File "test_cluster.py"' in call and "in fail" in call for call in calls)
    assert 'File "/' not in lost.detail, "no folder of this machine"
    assert not re.search("pid=|ip=|0x", lost.detail), "the same on every machine"


class Untold(Exception):
    """One that cannot travel from a process to another."""

    def __init__(self, lock: object) -> None:
        super().__init__(lock)

    def __str__(self) -> str:
        return "no such frame"


def test_a_lack_of_memory_is_no_bug(cluster: Cluster) -> None:
    (lost,) = cluster.run([1], doubler({1: MemoryError()}))
    assert isinstance(lost, Lost)
    assert lost.reason == Reason.OUT_OF_MEMORY


def test_a_users_mistake_ends_the_run(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="the spec is wrong"):
        list(cluster.run([1, 2], doubler({1: UsageError("the spec is wrong")})))


def test_of_a_batch_the_item_that_fails_is_lost_alone(cluster: Cluster) -> None:
    def make() -> Callable[[list[int]], int]:
        double = doubler({3: ValueError("no such frame")})()
        return lambda batch: sum(map(double, batch))

    ends = list(run_batches(cluster, [[1, 2], [3, 4]], make))
    assert [e.item for e in ends if isinstance(e, Lost)] == [[3]]
    assert {tuple(e.item): e.result for e in ends if isinstance(e, Done)} == {(1, 2): 6, (4,): 8}


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (UsageError("the spec is wrong"), UsageError, "the spec is wrong"),
        (OSError("no such library"), ClusterError, "a worker could not start.*no such library"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_run(
    cluster: Cluster, error: Exception, kind: type[Exception], words: str
) -> None:
    def make() -> Doubler:
        raise error

    with pytest.raises(kind, match=words):
        list(cluster.run([1], make))


def test_there_is_room_for_one_worker_at_least_and_no_more_than_asked(cluster: Cluster) -> None:
    assert cluster.size(Resources(cpus=1000)) == 1
    assert cluster.size(Resources(cpus=0.1, workers=1)) == 1
    assert 1 <= cluster.size(Resources(cpus=0.01, workers=50)) <= 2, "the cluster has two at most"
    assert cluster.gpus() >= 0
