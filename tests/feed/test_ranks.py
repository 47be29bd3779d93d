"""Real ranks train by the feed: equally many packs each, killed and gone on in other numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telecine.feed import Feed
from tests.support import feed_trainer
from tests.support.waiting import until


def ranks(
    fed: Path, folder: Path, world: int, steps: int, kind: str = "ddp"
) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen(
            [sys.executable, feed_trainer.__file__, str(fed), str(folder), str(rank), str(world),
             str(steps), kind]
        )
        for rank in range(world)
    ]  # fmt: skip


def lines(folder: Path) -> list[Any]:
    log = folder / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def dealt(line: Any) -> list[Any]:
    """A step's packs in their order: rank, then rank + world, ..."""
    return [pack for of_all in zip(*line["given"], strict=True) for pack in of_all]


def planned(fed: Path, steps: int) -> list[list[Any]]:
    feed = Feed(fed, tokens=40, packs_per_step=feed_trainer.PACKS, split="windows")
    found: list[list[Any]] = [[] for _ in range(steps)]
    for pack in feed:
        if pack.step == steps:
            return found
        pieces = [list(one) for one in zip(pack.keys, pack.start_latent, strict=True)]
        found[pack.step].append([pack.step, pieces])
    return found


@pytest.mark.slow
def test_two_ranks_train_on_the_steps_that_were_planned(fed: Path, tmp_path: Path) -> None:
    for process in ranks(fed, tmp_path, 2, 5):
        assert process.wait() == 0
    found = lines(tmp_path)
    assert [dealt(line) for line in found] == planned(fed, 5)
    assert all(len(set(line["states"])) == 1 for line in found)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "first", "second"), [("ddp", 4, 2), ("fsdp", 2, 4)])
def test_killed_ranks_go_on_in_another_number(
    fed: Path, tmp_path: Path, kind: str, first: int, second: int
) -> None:
    killed = ranks(fed, tmp_path, first, 10_000, kind)
    try:
        until(lambda: len(lines(tmp_path)) >= 5, killed[0])
    finally:
        for process in killed:
            process.kill()
            process.wait()
    done = json.loads((tmp_path / "state").read_text())["at"]["step"]
    before = [dealt(line) for line in lines(tmp_path)][:done]
    (tmp_path / "log").rename(tmp_path / "killed")
    for process in ranks(fed, tmp_path, second, done + 5, kind):
        assert process.wait() == 0
    after = [dealt(line) for line in lines(tmp_path)]
    whole = planned(fed, done + 5)
    assert before == whole[: len(before)]
    assert after == whole[done:]
