"""How fast a feed really reads here: bytes a second, CPU, memory."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from telecine.pipeline.progress import Progress, Step

if TYPE_CHECKING:
    from telecine.pipeline.feed.feed import Feed

SECONDS = 20.0  # after which enough was read


@dataclass(frozen=True)
class Measured:
    """Of the first epoch, or of so much of it as was read."""

    packs: int
    size_bytes: int  # of latents
    seconds: float  # on the clock, from the first pack asked for
    cpu_seconds: float  # of all threads
    memory_bytes: int | None  # most that was held at a pack, beyond what was before; None: unknown

    @property
    def bytes_a_second(self) -> float:
        return self.size_bytes / self.seconds

    @property
    def bytes_a_cpu_second(self) -> float:
        return self.size_bytes / self.cpu_seconds


def measure(feed: Feed, packs: int, progress: Progress, seconds: float = SECONDS) -> Measured:
    """Read an epoch's packs, so many as it has, or for some seconds."""
    before, used, began = _resident(), _cpu(), time.perf_counter()
    count = size_bytes = most = 0
    with Step(progress, "read", "packs", packs, packs) as step:
        for pack in feed.epoch(0):
            count += 1
            size_bytes += pack.latents.nbytes
            most = max(most, _resident())
            step.advance()
            if time.perf_counter() - began > seconds:
                break
    took, cpu = time.perf_counter() - began, _cpu() - used
    return Measured(count, size_bytes, took, cpu, most - before if before else None)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say (/proc is Linux's)."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
