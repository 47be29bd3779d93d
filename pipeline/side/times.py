"""When a clip's frames are shown: kept for those clips alone whose frames are not evenly spaced.

Even to a millisecond, as most are, they follow from the clip's row; what rounds to milliseconds
(Matroska) is even.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from telecine.manifests.schemas import Clip, FrameTimes

Stamps: TypeAlias = npt.NDArray[np.int64]  # source time base

EVEN_SECONDS = 1e-3


def frame_times(clip: Clip, starts: Stamps) -> FrameTimes | None:
    """The row of a clip whose frames begin at `starts`; None where they are evenly spaced."""
    tick = clip.time_base_num / clip.time_base_den
    if np.abs(starts - _even(clip)[:-1]).max(initial=0) * tick <= EVEN_SECONDS:
        return None
    steps = np.diff(starts, prepend=clip.start_pts).astype("<i8")
    return FrameTimes(clip_id=clip.clip_id, stamps=zlib.compress(steps.tobytes(), 9))


def native_stamps(clip: Clip, stamps: bytes | None) -> Stamps | None:
    """When each frame of a clip begins, and when the last one ends: num_frames + 1 stamps.

    `stamps` is its row's; None: it has none. Returns None where they are not known: of a clip of a
    variable rate that an older version scanned, which kept no such rows.
    """
    if stamps is None:
        return None if clip.variable_rate else _even(clip)
    steps = np.frombuffer(zlib.decompress(stamps), "<i8")
    return np.append(clip.start_pts + np.cumsum(steps), clip.end_pts).astype(np.int64)


def _even(clip: Clip) -> Stamps:
    ticks = Fraction(clip.end_pts - clip.start_pts, clip.num_frames)
    whole = np.arange(clip.num_frames + 1, dtype=np.int64)
    # Half a tick up, in whole numbers: exact at any length.
    up = whole * (2 * ticks.numerator) + ticks.denominator
    return clip.start_pts + up // (2 * ticks.denominator)
