"""The command, each time in a process of its own. What hangs is ended by pytest's `timeout`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "from telecine.pipeline.cli.main import main; main()"]


def telecine(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def inspect(*args: str | Path) -> Any:
    done = telecine("inspect", *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def killed_at(point: str, *command: str | Path) -> None:
    """Runs it until it kills itself there."""
    done = subprocess.run(
        command, env=os.environ | {"TELECINE_KILL_AT": point}, capture_output=True, check=False
    )
    assert done.returncode == -9, f"{point} was not reached: {done.stderr.decode()}"
