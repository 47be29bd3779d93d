"""Signs of life of the work in this process: whoever waits for it sees whether it gets on.

    frame ─ frame ─ frame ─ ··············· ─▶ ended
      ▲       ▲       ▲     no beat for `stall_seconds` (infra/cluster.py)
      └───────┴───────┴──── beat()

Work beats for what it does a bounded number of times: a frame decoded, bytes seen for the first
time, a part uploaded. So work that runs in a circle, or hangs, does not beat, and work on a busy
machine or over a slow line does.
"""

from __future__ import annotations

from itertools import count

_beats = count(1)
_last = 0


def beat() -> None:
    """The work got on by a step."""
    global _last
    _last = next(_beats)  # one step even where two threads beat at once


def beats() -> int:
    """How many times this process beat so far."""
    return _last
