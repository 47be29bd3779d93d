"""Clock: when each frame is shown, as its stamp comes, and where stamps leave a hole.

| | | | | | | | | |            | | | | | |     evenly, then nothing: a hole, and a new shot
| ||| |   |    | ||       |  | |     ||||      unevenly all along: the picture is held
"""

from __future__ import annotations

from fractions import Fraction

LEAST_HOLE = 0.5  # seconds
HOLE_PERIODS = 5  # of the distance that frames had before
MAX_HOLE_SHARE = 0.25  # of max_seconds: longer is a hole whatever was before
UNEVEN = 2.5  # times the usual distance, or a part of it: frames do not come evenly
FORGETS = 0.2  # share that the last distance has in the usual one


class Clock:
    """Seconds since the first frame. By the stamps, but each frame at least a nominal period on:
    stamps may be missing, stand still or fall.
    """

    def __init__(
        self, time_base: Fraction, period: float, min_seconds: float, max_seconds: float
    ) -> None:
        """`period` in seconds, as the header has it; `min_seconds` that frames must have come
        evenly for a hole to be told from a picture that is held.
        """
        self.seconds = 0.0
        self._tick, self._period = float(time_base), period
        self._min_seconds, self._longest = min_seconds, MAX_HOLE_SHARE * max_seconds
        self._before: int | None = None
        self._begun = False
        self._usual, self._even = 0.0, 0.0  # distance of frames, and for how long it has been so

    def advance(self, pts: int | None) -> bool:
        """To the next frame. Whether it stands after a hole in the stamps.

        A hole is longer than half a second and five of the frames' distances, where they had come
        evenly for `min_seconds` before; a recorder of screens, which stores a frame when something
        changes, leaves none. A quarter of `max_seconds` is one in any case.
        """
        before, self._before = self._before, pts
        if not self._begun:
            self._begun = True
            return False
        step = 0.0 if pts is None or before is None else (pts - before) * self._tick
        self.seconds += max(step, self._period)
        hole = step > self._longest or (
            step > max(LEAST_HOLE, HOLE_PERIODS * self._usual) and self._even >= self._min_seconds
        )
        self._learn(0.0 if hole else step)
        return hole

    def _learn(self, step: float) -> None:
        if self._usual / UNEVEN <= step <= UNEVEN * self._usual:
            self._even += step
            self._usual += FORGETS * (step - self._usual)
        else:
            self._even, self._usual = 0.0, max(step, 0.0)
