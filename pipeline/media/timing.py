"""When frames are shown: rates, and which native frame each output frame is. Exact rationals.

native   |0   |1  |2     |3 |4      stamps in ticks, unevenly spaced
output   |0   |1   |2   |3   |4     start + k / rate: the native frame nearest in time
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Frame = TypeVar("Frame")

MAX_RATE = Fraction(1000)

# What cameras, broadcasters and screen recorders mean when stamps are rounded to ticks.
STANDARD_RATES: tuple[Fraction, ...] = tuple(
    sorted(
        {Fraction(r) for r in (1, 2, 5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60)}
        | {Fraction(r) for r in (72, 90, 100, 120, 144, 200, 240)}
        | {Fraction(r * 1000, 1001) for r in (12, 15, 24, 30, 48, 60, 120, 240)}
        | {Fraction(25, 2)}
    )
)


class Timed(Protocol):
    """What of a clip its timing depends on: the columns of schemas.Clip of the same names."""

    @property
    def kind(self) -> str: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def start_pts(self) -> int: ...
    @property
    def end_pts(self) -> int: ...
    @property
    def time_base_num(self) -> int: ...
    @property
    def time_base_den(self) -> int: ...
    @property
    def fps_num(self) -> int: ...
    @property
    def fps_den(self) -> int: ...
    @property
    def variable_rate(self) -> bool: ...


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def encoded_rate(clip: Timed, fps: Fraction | None) -> Fraction:
    """Frames per second that the clip is encoded at: `fps` if asked for, else its own."""
    return fps if fps is not None else Fraction(clip.fps_num, clip.fps_den)


def is_resampled(clip: Timed, rate: Fraction) -> bool:
    """Whether output frames are picked by time rather than being the native ones, one to one."""
    if clip.kind == "image":
        return False
    return clip.variable_rate or rate != Fraction(clip.fps_num, clip.fps_den)


def encoded_frames(clip: Timed, rate: Fraction) -> int:
    """Frames that the clip has at `rate`, before the encoder's temporal grid. At least one."""
    if clip.kind == "image":
        return 1
    if not is_resampled(clip, rate):
        return clip.num_frames
    ticks = clip.end_pts - clip.start_pts
    duration = ticks * Fraction(clip.time_base_num, clip.time_base_den)
    return max(1, round_half_up(duration * rate))


def at_rate(
    frames: Iterable[tuple[int, Frame]], start_pts: int, ticks_per_output: Fraction, count: int
) -> Iterator[Frame]:
    """`count` output frames at a constant rate; output k is the frame nearest to its time.

    `frames` are (stamp in ticks, frame) with rising stamps. Output k is shown at
    start_pts + k × ticks_per_output; a tie goes to the earlier frame. Looks one frame ahead and no
    further, and takes nothing more from `frames` once the last output is known.
    """
    source = iter(frames)
    held = next(source, None)
    made = 0
    while held is not None and made < count:
        following = next(source, None)
        while made < count and (
            following is None or 2 * (start_pts + made * ticks_per_output) <= held[0] + following[0]
        ):
            yield held[1]
            made += 1
        held = following


def nominal_rate(
    stamps: Sequence[int] | npt.NDArray[np.int64], time_base: Fraction, hint: Fraction | None
) -> Fraction:
    """Frames per second that most neighbouring frames are apart. Needs two rising stamps.

    The mean of the regular deltas (those near the median) is known to within the rounding of the
    stamps, which telescopes: one tick, or the jitter, over the number of frames. Of the rates that
    fit in there the header's is taken if it is a standard one, then the nearest standard one, then
    the header's, then the mean itself: so 33, 33, 34 ms with a header that says 30000/1001 is
    30000/1001, though 30 fits as well.
    """
    deltas = np.diff(np.asarray(stamps, dtype=np.int64))
    deltas = deltas[deltas > 0]
    if not len(deltas):
        raise ValueError(f"a rate needs two rising stamps, given {len(stamps)} stamps")
    median = Fraction(int(np.sort(deltas)[len(deltas) // 2]))
    slack = float(_tolerance(median))
    regular = deltas[np.abs(deltas - int(median)) <= slack]
    period = Fraction(int(regular.sum()), len(regular))
    spread = max(1, int(regular.max() - regular.min()))
    doubt = Fraction(spread * (1 + len(deltas) - len(regular)), len(regular))
    doubt = min(doubt, _tolerance(median) / 2)

    def misfit(rate: Fraction) -> Fraction:
        return abs(1 / (rate * time_base) - period)

    nearest = min(STANDARD_RATES, key=misfit)
    candidates = [hint] if hint in STANDARD_RATES else []
    candidates += [nearest] + ([hint] if hint else [])
    for rate in candidates:
        if rate is not None and rate > 0 and misfit(rate) <= doubt:
            return rate
    measured = 1 / (period * time_base)
    return measured if spread == 1 and period.denominator == 1 else measured.limit_denominator(1001)


def is_variable(
    stamps: Sequence[int] | npt.NDArray[np.int64], time_base: Fraction, rate: Fraction
) -> bool:
    """Whether any two neighbours are not one nominal period apart: by 10 % or 1.5 ticks, the more.

    Stamps rounded to milliseconds (33, 34, 33) are constant. Give the span's end as the last stamp,
    so that the last frame's length counts too.
    """
    period = 1 / (rate * time_base)
    deltas = np.diff(np.asarray(stamps, dtype=np.int64))
    if not len(deltas):
        return False
    worst = max(abs(int(deltas.max()) - period), abs(int(deltas.min()) - period))
    return worst > _tolerance(period)


def _tolerance(period: Fraction) -> Fraction:
    """Ticks by which a delta may miss the nominal period and still be regular."""
    return max(Fraction(3, 2), period / 10)
