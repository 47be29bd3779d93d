"""Cadence: how many different pictures a second there are, and where they lie.

frames     | | | | | | | | | |      60 a second
new        x   x     x   x          where the picture is another one (repeats.py)
a film of  |   |    |    |          24 a second, laid over it in the phase that agrees best
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from telecine.pipeline.media.rates import STANDARD_RATES
from telecine.pipeline.media.timing import MOST_PARTS
from telecine.pipeline.scan.pace.repeats import (
    LEAST_MOTION,
    Doubles,
    Flags,
    repeated,
    usual_step,
)

LEAST_MOVING = 12  # frames that must move for their rate to be known
FITS = 0.9  # of the frames must be as a cadence has them
BETTER = 0.02  # more of them than if all were new
NEAR = 2.0  # times by which a film may be off what was counted
PHASES = 32  # in which a film is laid over a clip


@dataclass(frozen=True)
class Cadence:
    """Distinct frames per second, and where they lie if they come regularly."""

    rate: Fraction
    first: float | None = None  # seconds until the middle of a picture is shown, below 1 / rate


def effective_rate(
    steps: Doubles, equal: Flags, seconds: Doubles, coded: Fraction
) -> Cadence | None:
    """Distinct frames per second where the picture moves. None where too little of it does.

    `steps`, `equal` as for `repeated`; `seconds` [n] when each frame is shown. Where new pictures
    come as those of a film of a standard rate, or of a whole part of the coded one, would come,
    shown on this clock, it is that rate: the one whose frames and repeats agree best with those
    found, in FITS of the frames at least. Where nearly all frames are new it is the coded rate. Of
    an irregular mix (animation on ones and twos) it is what was counted.
    """
    scale = usual_step(np.asarray(steps, np.float64))
    moving = scale >= LEAST_MOTION
    moving[:1] = False
    new = ~repeated(steps, equal)
    if moving.sum() < LEAST_MOVING or not new[moving].any():
        return None
    counted = float(new[moving].sum()) / float(np.diff(seconds, prepend=seconds[:1])[moving].sum())
    plain = float(new[moving].mean())
    fits = [
        (round(agreement, 3), -(rate / coded).denominator, Cadence(rate, first))
        for rate in _films(coded)
        if counted / NEAR < rate < counted * NEAR
        for agreement, first in [_agreement(seconds, rate, new, moving)]
    ]
    best = max(fits, key=lambda fit: fit[:2], default=(0.0, 0, Cadence(coded)))
    if best[0] >= FITS and best[0] > plain + BETTER:
        return best[2]
    irregular = Fraction(counted).limit_denominator(10_000)
    return Cadence(coded if plain >= FITS else irregular)


def _films(coded: Fraction) -> set[Fraction]:
    rates = {*STANDARD_RATES, *(coded / part for part in range(2, MOST_PARTS + 1))}
    return {rate for rate in rates if rate < coded * Fraction(99, 100)}


def _agreement(seconds: Doubles, rate: Fraction, new: Flags, moving: Flags) -> tuple[float, float]:
    """Share of the moving frames that are new where a film's would be, in the best phase, and when
    that film is in the middle of a picture for the first time.
    """
    phases = (np.arange(PHASES) + 0.5) / PHASES
    places = (seconds - seconds[0]) * float(rate) + phases[:, None]
    agreement = ((np.diff(np.floor(places), axis=1) > 0) == new[1:])[:, moving[1:]].mean(axis=1)
    phase = phases[_middle_of_best(agreement)]
    return float(agreement.max()), float((0.5 - phase) % 1 / float(rate))


def _middle_of_best(values: Doubles) -> int:
    """The place in the middle of the longest stretch of the largest values, in a circle."""
    best = np.flatnonzero(values >= values.max() - 1e-9)
    gaps = np.diff(best, append=best[:1] + len(values))
    ends = np.flatnonzero(gaps > 1) if (gaps > 1).any() else np.array([len(best) - 1])
    starts = (np.roll(ends, 1) + 1) % len(best)
    lengths = (best[ends] - best[starts]) % len(values)
    longest = int(lengths.argmax())
    return int((best[starts[longest]] + lengths[longest] // 2) % len(values))
