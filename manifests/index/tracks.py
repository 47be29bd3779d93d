"""Tracks in samples: which rules there are, and which of their values belong to a latent frame.

A rule says what a number of a track is true of. AT rules: of the moment of a frame (where the hand
is). DURING rules: of the time from a frame until the next one (which key was pressed).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

AT = ("linear", "hold", "nearest", "slerp")
DURING = ("sum", "any", "last", "mean")

# A sample's members are called <clip_id>.<track>.npy: these names are taken.
RESERVED = ("latent", "text", "frames", "json", "txt")

Values = npt.NDArray[np.float32]  # [frames, numbers]


def group(values: Values, temporal_stride: int, causal: bool, rule: str) -> Values:
    """What belongs to each latent frame: [T, D] by encoded frame → [T', temporal_stride, D].

    Causal (the first latent frame is of frame 0 alone; T = 1 + s·(T' - 1)), latent frame k ≥ 1 has

        AT      frames s·(k-1)+1 … s·k      the moments of the frames that it is made of
        DURING  frames s·(k-1) … s·k-1      what led to those frames, from the one before them on

    Latent frame 0 has frame 0, s times over, of an AT rule. Nothing that a clip knows of led to
    frame 0: of a DURING rule it has zeros. What happened from the last frame on leads to no frame
    of the clip and is left out. Not causal (T = s·T'), latent frame k has frames s·k … s·k+s-1.

    Raises ValueError where T frames are no whole number of latent frames, or the rule is none.
    """
    if rule not in (*AT, *DURING):
        raise ValueError(f"{rule!r} is no rule of a track: {', '.join((*AT, *DURING))}")
    frames, numbers = values.shape
    if (frames - causal) % temporal_stride or frames < 1:
        raise ValueError(
            f"{frames} frames are no whole number of latent frames of {temporal_stride} frames"
            + (" after a first one" if causal else "")
        )
    if not causal:
        return values.reshape(-1, temporal_stride, numbers)
    at = rule in AT
    first = np.repeat(values[:1], temporal_stride, axis=0)
    first = first if at else np.zeros_like(first)
    rest = values[1:] if at else values[:-1]
    return np.concatenate([first, rest]).reshape(-1, temporal_stride, numbers)
