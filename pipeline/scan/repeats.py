"""Repeats: which frames show the picture before them again, and how many pictures a second do not.

A frame repeats where its picture is the one before it, bit for bit or but for coding noise. Noise
has no size of its own: what tells is the company. Where every new picture differs by 20 levels, one
that differs by 0.3 is a repeat; where all differ by 0.3, the scene is still and none is.

    difference   · ▆ · · ▇ · ▆ · · ▇        a 24 fps film in a 60 fps file
    repeated     r   r r   r   r r
    difference   ▂ ▁ ▂ ▂ ▁ ▂ ▁ ▂ ▂ ▁        sensor noise over a still scene: none
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REACH = 16  # frames on either side that a frame is compared with
RATIO = 0.25  # of a new picture's difference: what differs by less repeats
LEAST_MOTION = 0.05  # 8-bit levels: below, new pictures cannot be told from noise
LEAST_SIDE = 8  # frames that one side must have to be asked


def repeated(differences: npt.NDArray[np.floating], equal: Flags) -> Flags:
    """Whether each frame repeats the one before it. [n] bool.

    `differences` [n] from the frame before, in 8-bit levels, by any measure of the whole picture
    (the first frame's is not looked at); `equal` [n] where no sample differs at all. A frame
    repeats where it is equal, or differs by less than RATIO × what new pictures differ by here.
    That is, of the REACH frames on each side, the second largest difference (a cut says nothing),
    and of the two sides the smaller: a scene that comes to rest is not measured by its motion
    before. Near an end, where one side has fewer than LEAST_SIDE frames, it is the third largest of
    the other (nor does a flash). Where new pictures differ by less than LEAST_MOTION, only what is
    equal repeats.

    A frame's answer depends on the differences of REACH frames either side and on no others: who
    streams gives REACH + 1 frames before those asked about, and REACH after them.
    """
    values = np.asarray(differences, np.float64)
    scale = _new_pictures(values)
    found = (values < RATIO * scale) & (scale >= LEAST_MOTION) | equal
    found[:1] = False
    return np.asarray(found)


def _new_pictures(values: Doubles) -> Doubles:
    """What new pictures differ by around each frame; the first frame's difference is none."""
    count = len(values)
    known = values.copy()
    known[:1] = np.nan
    padded = np.concatenate([np.full(REACH, np.nan), known, np.full(REACH, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, REACH)
    before, after = _largest(windows[:count]), _largest(windows[REACH + 1 :])
    places = np.arange(count)
    few_before, few_after = places - 1 < LEAST_SIDE, count - 1 - places < LEAST_SIDE
    scale = np.minimum(before[:, 1], after[:, 1])
    scale[few_before] = after[few_before, 2]
    scale[few_after] = before[few_after, 2]
    neither = few_before & few_after
    scale[neither] = np.maximum(before[neither, 1], after[neither, 1])
    return scale


def _largest(windows: Doubles) -> Doubles:
    """[n, 3]: the three largest values of each row, from the largest on; 0 where there are none."""
    known = np.nan_to_num(windows)
    return np.asarray(-np.sort(-np.partition(known, -3, axis=1)[:, -3:], axis=1))
