"""What rate a row of stamps means, and whether frames are evenly spaced at it. Exact rationals.

constant   |0   |1   |2   |3   |4       one distance, but for rounding to ticks
cadence    |0  |1    |2  |3    |4       distances in turn: film on another display's clock
drops      |0   |1   |2       |3        a clock with empty ticks: variable, at the clock's rate
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ticks: TypeAlias = npt.NDArray[np.int64]
Stamped: TypeAlias = Sequence[int] | Ticks

# What cameras, broadcasters and screen recorders mean when stamps are rounded to ticks.
STANDARD_RATES: tuple[Fraction, ...] = tuple(
    sorted(
        {Fraction(r) for r in (1, 2, 5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60)}
        | {Fraction(r) for r in (72, 90, 100, 120, 144, 200, 240)}
        | {Fraction(r * 1000, 1001) for r in (12, 15, 24, 30, 48, 60, 120, 240)}
        | {Fraction(25, 2)}
    )
)
LEAST_CADENCE = 4  # distances that a pattern is told from
MOST_DISTANCES = 3  # different ones in a pattern
LONGEST_TURN = 12  # distances until a pattern comes again: 24 on 25
MOSTLY = 0.75  # of a pattern's turns last alike
CLOCK_SHARE = 0.45  # of the distances are single ticks of a clock, at least
MOST_JITTER = 1.9  # median distances between two frames of which none is missing in between
EVEN_ENOUGH = 0.9  # of a period: frames that only jitter lie within it about their even places
ROUNDING = 2  # ticks by which a stamp may be off, rounded twice
SNAP = Fraction(1, 100)  # of a broken pattern's period: near enough to a standard rate


def nominal_rate(
    stamps: Stamped, time_base: Fraction, hint: Fraction | None, *, evenly: bool = False
) -> Fraction:
    """Frames per second that most neighbouring frames are apart. Needs two rising stamps.

    Where distances take turns (2, 3, 2, 3: a 24 fps film on a 60 Hz clock), their mean. Where they
    are single ticks of a clock and a few doubled ones, the clock's rate: ticks are empty where a
    frame was dropped. Both can be the same stamps (1, 1, 1, 1, 2: every sixth frame dropped, or 25
    on 30), so `evenly` says what the pictures tell: as much new in each frame, so a cadence.

    The mean of the regular deltas (those near the median) is known to within the rounding of the
    stamps, which telescopes: one tick, or the jitter, over the number of frames. Of the rates that
    fit in there the header's is taken if it is a standard one, then the nearest standard one, then
    the header's, then the mean itself: so 33, 33, 34 ms with a header that says 30000/1001 is
    30000/1001, though 30 fits as well.
    """
    rising = np.asarray(stamps, dtype=np.int64)
    deltas = np.diff(rising)
    if not (deltas > 0).any():
        raise ValueError(f"a rate needs two rising stamps, given {len(stamps)} stamps")
    pattern = None if (deltas <= 0).any() else _pattern(deltas)
    if pattern is not None and (evenly or not pattern.is_clock):
        period = _turn(deltas, pattern)
        if period is not None:
            return _cadence_rate(rising, pattern, period, time_base, hint)
    if pattern is not None and pattern.is_clock:
        ticks = int(np.round(deltas / pattern.low).sum())
        period = Fraction(int(deltas.sum()), ticks)
        return _settled(period, Fraction(ROUNDING, ticks), time_base, hint)
    return _constant_rate(deltas[deltas > 0], time_base, hint)


def is_variable(stamps: Stamped, time_base: Fraction, rate: Fraction) -> bool:
    """Whether frames are unevenly spaced. Give the span's end as the last stamp.

    Even where any two neighbours are one nominal period apart to 10 % or 1.5 ticks, the more:
    stamps rounded to milliseconds (33, 34, 33) are constant. The ticks count for 0.4 periods at
    most, so that a dropped frame is seen where a tick is a frame.

    Even as well where up to three distances take turns regularly, for that is a constant rate shown
    on another clock (2, 3, 2, 3): no frame is further from its even place than the clock's ticks
    are apart, so never half a frame. Such a clip is encoded frame for frame. A distance that is
    there once must be within half a period of the others: else it is a drop. The last frame may be
    shorter than the others, but not longer.
    """
    rising = np.asarray(stamps, dtype=np.int64)
    period = 1 / (rate * time_base)
    deltas = np.diff(rising)
    if not len(deltas):
        return False
    shortest = int(deltas[:-1].min(initial=math.ceil(period)))
    if max(int(deltas.max()) - period, period - shortest) <= _tolerance(period):
        return False
    pattern = _pattern(deltas[:-1]) if deltas.min() > 0 else None
    if pattern is None or deltas[-1] > pattern.high + pattern.rounding:
        return True
    if not pattern.recurs and pattern.room > period / 2:
        return True
    return not pattern.fits(rising[:-1], period)


def _tolerance(period: Fraction) -> Fraction:
    """Ticks by which a delta may miss the nominal period and still be regular."""
    return max(min(Fraction(3, 2), period * Fraction(2, 5)), period / 10)


# ── one distance ─────────────────────────────────────────────────────────────────────────────────


def _constant_rate(deltas: Ticks, time_base: Fraction, hint: Fraction | None) -> Fraction:
    median = Fraction(int(np.sort(deltas)[(len(deltas) - 1) // 2]))
    regular = deltas[np.abs(deltas - int(median)) <= float(_tolerance(median))]
    if len(regular) < len(deltas) and _merely_jitters(deltas, median):
        regular = deltas
    period = Fraction(int(regular.sum()), len(regular))
    spread = max(1, int(regular.max() - regular.min()))
    doubt = Fraction(spread * (1 + len(deltas) - len(regular)), len(regular))
    return _settled(period, min(doubt, _tolerance(median) / 2, median / 10), time_base, hint)


def _merely_jitters(deltas: Ticks, median: Fraction) -> bool:
    """Whether every frame is near an even place, and none is missing: the plain mean is true."""
    if deltas.max() > MOST_JITTER * median:
        return False
    mean = deltas.mean()
    places = np.cumsum(deltas - mean)
    return bool(max(places.max(), 0) - min(places.min(), 0) < EVEN_ENOUGH * mean)


def _settled(
    period: Fraction, doubt: Fraction, time_base: Fraction, hint: Fraction | None
) -> Fraction:
    """The likeliest rate within `doubt` ticks of a period; the period's own where none is."""
    for rate in _candidates(period, time_base, hint):
        if _misfit(rate, time_base, period) <= doubt:
            return rate
    measured = 1 / (period * time_base)
    exact = period.denominator == 1 and doubt < 1
    return measured if exact else measured.limit_denominator(1001)


def _candidates(period: Fraction, time_base: Fraction, hint: Fraction | None) -> Iterator[Fraction]:
    """The header's rate if it is a standard one, the nearest standard ones, then the header's."""
    if hint in STANDARD_RATES:
        yield hint
    yield from sorted(STANDARD_RATES, key=lambda rate: _misfit(rate, time_base, period))[:3]
    if hint is not None and hint > 0:
        yield hint


def _misfit(rate: Fraction, time_base: Fraction, period: Fraction) -> Fraction:
    """Ticks between a rate's period and another."""
    return abs(1 / (rate * time_base) - period)


# ── distances in turn ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Pattern:
    """Two or three distances, each sharp but for rounding to ticks."""

    low: float  # mean of the shortest distances, ticks
    high: float  # of the longest
    is_clock: bool  # most are the shortest, and the others whole multiples of it
    recurs: bool  # each is there more than once, and in both halves of the span

    @property
    def rounding(self) -> float:
        """Ticks by which a stamp may be off; where they are coarse, less than one."""
        return min(ROUNDING, 0.4 * self.low)

    @property
    def room(self) -> float:
        """Ticks between the earliest and the latest place of a frame against even ones."""
        return self.high - self.low + self.rounding

    def fits(self, stamps: Ticks, period: Fraction) -> bool:
        """Whether all frames are at even places but for the pattern, and for less than a period."""
        places = (stamps - stamps[0]).astype(np.float64) - np.arange(len(stamps)) * float(period)
        apart = float(places.max() - places.min())
        return apart <= self.room and apart < period


def _pattern(deltas: Ticks) -> _Pattern | None:
    if len(deltas) < LEAST_CADENCE:
        return None
    kinds = np.sort(deltas)
    if kinds[0] <= 0:
        return None
    # Of one kind is what lies within the rounding: less than half of the shortest distance.
    sharp = min(ROUNDING, (int(kinds[0]) - 1) // 2)
    starts = np.flatnonzero(np.diff(kinds, prepend=kinds[0]) > sharp)
    if not 1 <= len(starts) < MOST_DISTANCES:
        return None
    groups = np.split(kinds, starts)
    if any(group[-1] - group[0] > 2 * ROUNDING for group in groups):
        return None
    means = np.array([group.mean() for group in groups])
    sizes = np.array([len(group) for group in groups])
    ratios = means / means[0]
    whole = np.abs(ratios - np.round(ratios)) <= max(0.1, min(0.3, 1 / means[0]))
    whole &= np.round(ratios) >= np.arange(1, len(ratios) + 1)
    return _Pattern(
        low=float(means[0]),
        high=float(means[-1]),
        is_clock=bool(whole.all() and sizes[0] >= CLOCK_SHARE * len(deltas)),
        recurs=_recurs(deltas, groups),
    )


def _recurs(deltas: Ticks, groups: Sequence[Ticks]) -> bool:
    half = len(deltas) // 2
    return all(
        ((part >= group[0]) & (part <= group[-1])).any()
        for part in (deltas[:half], deltas[half:])
        for group in groups
    )


def _turn(deltas: Ticks, pattern: _Pattern) -> Fraction | None:
    """The mean distance over whole turns of the pattern: those most of which last alike."""
    total = np.concatenate([[0], np.cumsum(deltas)])
    best, share = None, MOSTLY
    for length in range(2, min(LONGEST_TURN, len(deltas)) + 1):
        sums = total[length:] - total[:-length]
        middle = np.sort(sums)[len(sums) // 2]
        alike = sums[np.abs(sums - middle) <= min(ROUNDING, (pattern.high - pattern.low) / 2)]
        if len(alike) > share * len(sums) * (1.02 if best else 1):
            best = Fraction(int(alike.sum()), len(alike) * length)
            share = len(alike) / len(sums)
    return best


def _cadence_rate(
    stamps: Ticks, pattern: _Pattern, period: Fraction, time_base: Fraction, hint: Fraction | None
) -> Fraction:
    """A rate at which each frame keeps its place; after a break in the pattern, what turns last."""
    mean = Fraction(int(stamps[-1] - stamps[0]), len(stamps) - 1)
    doubt = Fraction(pattern.room).limit_denominator(1000) / (len(stamps) - 1)
    near = [
        *_candidates(period, time_base, hint),
        *sorted(STANDARD_RATES, key=lambda rate: _misfit(rate, time_base, mean))[:2],
    ]
    for rate in near:
        near_enough = _misfit(rate, time_base, mean) <= doubt
        if near_enough and pattern.fits(stamps, 1 / (rate * time_base)):
            return rate
    for ticks in (period, mean):
        if pattern.fits(stamps, ticks):
            return (1 / (ticks * time_base)).limit_denominator(1001)
    for rate in near:
        if _misfit(rate, time_base, period) <= SNAP * period:
            return rate
    return (1 / (period * time_base)).limit_denominator(1001)
