"""What a run met of our own mistakes, said at its end as something to report."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from telecine.infra.bugs import Bug, Bugs
from telecine.infra.text import counted, one_line

MOST = 3  # different ones; the tables have all

REPORT = (
    "This is a mistake of Telecine, or of the plug-in that the lines above name, and no fault of "
    "the footage. Please report it: attach these lines, and the file, or what "
    "`ffprobe -show_format -show_streams FILE` says of it. The rest went on without it; "
    "an upgraded Telecine tries it again."
)


def say_bugs(*found: Bugs) -> None:
    """On standard error."""
    met = Bugs()
    for bugs in found:
        met.add(bugs)
    for text in _lines(list(met.values())):
        print(text, file=sys.stderr)


def _lines(bugs: list[Bug]) -> Iterator[str]:
    for bug in bugs[:MOST]:
        yield f"bug      {one_line(bug.what)}"
        yield f"         met {counted(bug.times, 'time')}, first in {one_line(bug.first)}"
        for call in bug.detail.splitlines()[1:]:
            yield f"         {one_line(call)}"
    if len(bugs) > MOST:
        yield f"bug      and {len(bugs) - MOST} more: inspect sources and samples, reason internal"
    if bugs:
        yield REPORT
