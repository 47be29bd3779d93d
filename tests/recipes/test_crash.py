"""SIGKILL at random times: the driver, a worker, the raylet. Then run again, and compare."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.inline import ingesting
from tests.support.snapshot import assert_same

ROUNDS = 3
# By a part of the command line; Ray gives its workers the name of the class that they host.
VICTIMS = {"driver": "", "worker": "ray::_Host", "raylet": "raylet/raylet"}


def descendants(root: int) -> dict[int, str]:
    """Command lines of a process's descendants."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                commands[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
                parents[int(entry.name)] = int(stat[1])
            except OSError:
                continue
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor > 1 and ancestor != root:
            ancestor = parents.get(ancestor, 0)
        if ancestor == root and pid != root:
            found[pid] = commands.get(pid, "")
    return found


def kill(victim: str, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """Waits for a victim where there is none: workers come and go. False if the run ended."""
    while driver.poll() is None:
        found = [
            pid for pid, command in descendants(driver.pid).items() if VICTIMS[victim] in command
        ]
        targets = [driver.pid] if victim == "driver" else sorted(found)
        with contextlib.suppress(ProcessLookupError):  # it ended in this very moment
            if targets:
                os.kill(rng.choice(targets), signal.SIGKILL)
                return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
@pytest.mark.timeout(15_000)
@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_at_random_times_and_run_again(
    victim: str, demo_footage: Path, tmp_path: Path
) -> None:
    footage = tmp_path / "footage"
    shutil.copytree(demo_footage, footage)
    undisturbed = tmp_path / "undisturbed"
    began = time.monotonic()
    subprocess.run(ingesting(footage, undisturbed, 2), check=True)
    length = time.monotonic() - began
    rng = random.Random(victim)
    killed = 0
    for number in range(ROUNDS):
        disturbed = tmp_path / f"disturbed-{number}"
        driver = subprocess.Popen(ingesting(footage, disturbed, 2))
        time.sleep(length * rng.uniform(0.3, 0.9))
        killed += kill(victim, driver, rng)
        # A run whose worker died goes on; one whose raylet died must end by itself.
        driver.wait()
        subprocess.run(ingesting(footage, disturbed, 2), check=True)
        assert_same(undisturbed, disturbed)
    assert killed, "every run had ended before it could be killed"
