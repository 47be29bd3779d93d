"""Waits end when what they wait for comes, or when whoever would bring it is gone.

A wait that may run outside the main thread, where pytest's `timeout` cannot reach it, ends after
PATIENCE as well: that is a hang, on a machine ten times slower than the slowest one seen too.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 1200.0  # seconds
STEP = 0.02  # seconds between two looks at what nobody announces

T = TypeVar("T")


def until(found: Callable[[], T], process: subprocess.Popen[bytes] | None = None) -> T:
    """What `found` gives as soon as that is true of it; `process` must not end before."""
    while not (value := found()):
        if process is not None and process.poll() is not None:
            _, said = process.communicate()
            raise AssertionError(f"ended with {process.returncode} before: {said!r}")
        time.sleep(STEP)
    return value
