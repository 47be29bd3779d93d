"""Bandwidth: up to which frequency a frame holds any detail, as a share of what its pixels could.

    dB │▔▔▔──__                        power of the busiest tiles times f², mean over rows and
       │       ╲                       columns: edges alone make it level
       │        ╲______________        what a codec, or rounding, leaves of noise
       └────────┼────────────── f
       0       true            1       of half the sampling rate

The break is that of the best pair of lines, one from the first to it and one on from it (least
squares, in dB), where the first is steep, and the second flat and far below. A picture that was
made larger N times breaks at about 1/N, and so does one that is as blurred: after a codec nothing
is left that would tell them apart, since the periodic trace of interpolation (Gallagher, Detection
of linear and cubic interpolation in JPEG compressed images, 2005) drowns in its noise. Either way,
a picture with N times fewer pixels across and down would hold all that is there.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FIRST, LOW = 3, 6  # bins: the first that is fitted, and the end of those that say what is much
DEPTH = 24.0  # dB below that: nothing, so that what was never coded is as what was
FLOOR = 14.0  # dB below that: the second line's mean, at most
STEEP = 12.0  # dB per full band that the first line falls, at least
FLAT = 0.4  # of that, the most that the second line does
MIN_LEVEL = 20.0  # dB: tiles with less have no detail to tell a bandwidth by


def bandwidth(tiles: Floats) -> float | None:
    """Highest frequency with detail, 0..1 of Nyquist's; None where there is too little detail.

    `tiles` are float32 [n, side, side] in 8-bit levels.
    """
    if not len(tiles):
        return None
    power = spectrum(tiles)
    level = float(power[FIRST:LOW].mean())
    if level < MIN_LEVEL:
        return None
    breaks, solve, design = _fits(len(power))
    power = np.maximum(power[FIRST:], level - DEPTH)
    fitted = power + 20 * np.log10(np.arange(FIRST, FIRST + len(power)))
    lines = solve @ fitted  # [breaks, 3]: offset, first slope, second slope
    errors = np.square(np.einsum("bfk,bk->bf", design, lines) - fitted).sum(1)
    best = int(errors.argmin())
    _, first, second = lines[best]
    beyond = power[design[best][:, 2] > 0]
    falls = first <= -STEEP and second >= FLAT * first and beyond.mean() <= level - FLOOR
    return float(breaks[best]) if falls else 1.0


def spectrum(tiles: Floats) -> npt.NDArray[np.float64]:
    """Power in dB by frequency, 0 to Nyquist's: of Hann-windowed rows and of columns, averaged."""
    side = tiles.shape[-1]
    level = tiles - tiles.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    lines = np.stack([level, level.swapaxes(1, 2)]) * window
    power = np.square(np.abs(np.fft.rfft(lines, axis=3))).mean(axis=(1, 2)).astype(np.float64)
    return np.asarray(10 * np.log10(power + 1e-3).mean(axis=0))


@cache
def _fits(bins: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Breaks, and for each what makes two lines of a spectrum and a spectrum of two lines."""
    frequency = np.arange(bins) / (bins - 1)
    fitted = frequency[FIRST:]
    breaks = frequency[FIRST + 6 : -3]
    design = np.stack(
        [
            np.stack([np.ones_like(fitted), np.minimum(fitted, b), np.maximum(fitted - b, 0)], 1)
            for b in breaks
        ]
    )
    return breaks, np.linalg.pinv(design), design
