"""Tracks to frames: what of a track belongs to each encoded frame, by true time. Pure.

rows     ×   ×  ×    ×      ×  ×   ×        a track's own stamps, at any rate
frames  |0     |1     |2     |3     |end    edges: the frames' true stamps, and when the last ends

AT rules give what is true at |k. DURING rules give what the rows in [|k, |k+1) make together: each
row in one frame of one clip, since a clip ends where the next one begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from telecine.manifests.index.tracks import AT, Values
from telecine.manifests.specs import TrackSpec

Times: TypeAlias = npt.NDArray[np.float64]  # seconds from the source's first frame, or frames
Numbers: TypeAlias = npt.NDArray[np.float64]  # [rows, numbers]

SNAP_SECONDS = 1e-3  # stamps are written to the millisecond, or as float32
SNAP_SHARE = 0.25  # of a frame, at most: no row passes from one frame to another by more


@dataclass(frozen=True, slots=True)
class Rows:
    """A track as it was recorded: rising times, and a row of numbers at each."""

    times: Times
    values: Numbers
    unit: float = 1.0  # seconds of 1 in `times`: 1, or a frame's where rows are counted by frame
    by_time: bool = True  # else by frame

    @property
    def step(self) -> float:
        """The usual distance of two rows, in units of `times`; 0 of a single one."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Aligned:
    """A track on the frames of one clip."""

    values: Values  # float32 [frames, numbers]; NaN where not valid
    valid: npt.NDArray[np.bool_]  # [frames]
    gap_seconds: float  # the longest time inside the clip without a row

    @property
    def coverage(self) -> float:
        """Share of the frames that are valid, 0..1"""
        return float(self.valid.mean())


def align(rows: Rows, edges: Times, spec: TrackSpec) -> Aligned:
    """The track on the frames whose times are `edges[:-1]`; the last of them ends at `edges[-1]`.

    `edges` are in the unit of the rows' times and do not fall; equal ones (a frame that is shown
    again) stand for no time at all: nothing happens between them.

    A frame is valid where its moment (AT), or all of its time (DURING), lies between two rows that
    are no further apart than `max_gap`, or within `tolerance` of a row. The values are:

        linear   between the rows before and after, in proportion; slerp: likewise on the sphere of
                 unit quaternions, four columns each, the shorter way round
        hold     the last row until now; nearest: the nearest in time, of two the earlier
        sum, any of the frame's rows; 0 where there is none
        last, mean  of the frame's rows; where there is none, the last row before

    A row that is early by less than SNAP_SECONDS counts as of the frame that it just misses.
    Raises ValueError of a quaternion without a direction.
    """
    frame = _frame(edges)
    tolerance = frame / 2 if spec.tolerance is None else spec.tolerance / rows.unit
    snap = min(SNAP_SECONDS / rows.unit, SNAP_SHARE * frame)
    at = spec.rule in AT
    values = _at(rows, edges[:-1], spec.rule, snap) if at else _during(rows, edges, spec.rule, snap)
    ends = edges[:-1] if at else edges[1:]
    max_gap = np.inf if spec.max_gap is None else spec.max_gap / rows.unit
    last = rows.times[-1] + (0.0 if at else rows.step)
    valid = _valid(rows.times, edges[:-1], ends, last, tolerance, max_gap)
    result = values.astype(np.float32)
    result[~valid] = np.nan
    return Aligned(result, valid, rows.unit * _gap(rows.times, edges[0], ends[-1], last))


def _frame(edges: Times) -> float:
    """The usual length of a frame; of an image, which has none, 0."""
    steps = np.diff(edges)
    shown = steps[steps > 0]
    return float(np.median(shown)) if len(shown) else 0.0


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def _at(rows: Rows, times: Times, rule: str, snap: float) -> Numbers:
    most = len(rows.times) - 1
    if rule == "hold":
        return rows.values[np.clip(np.searchsorted(rows.times, times + snap, "right") - 1, 0, most)]
    after = np.clip(np.searchsorted(rows.times, times, "left"), 0, most)
    before = np.maximum(after - 1, 0)
    low, high = rows.times[before], rows.times[after]
    span = np.where(high > low, high - low, 1.0)
    share = np.clip((times - low) / span, 0.0, 1.0)[:, None]
    if rule == "nearest":
        return np.where(share <= 0.5, rows.values[before], rows.values[after])
    if rule == "slerp":
        return _slerp(rows.values[before], rows.values[after], share)
    return rows.values[before] + share * (rows.values[after] - rows.values[before])


def _slerp(low: Numbers, high: Numbers, share: Numbers) -> Numbers:
    """K. Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985."""
    count, numbers = low.shape
    if numbers % 4:
        raise ValueError(f"slerp is of quaternions, four numbers each; the columns have {numbers}")
    a, b = (_units(q.reshape(count, numbers // 4, 4)) for q in (low, high))
    cosine = (a * b).sum(axis=-1, keepdims=True)
    b = np.where(cosine < 0, -b, b)  # q and -q are one rotation
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    near = angle < 1e-6
    sine = np.where(near, 1.0, np.sin(angle))
    t = share[:, :, None]
    mixed = np.where(
        near,
        (1 - t) * a + t * b,
        (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / sine,
    )
    return _units(mixed).reshape(count, numbers)


def _units(quaternions: Numbers) -> Numbers:
    lengths = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    if (lengths < 1e-6).any():
        raise ValueError("a quaternion of length 0 is no rotation")
    result: Numbers = quaternions / lengths
    return result


def _during(rows: Rows, edges: Times, rule: str, snap: float) -> Numbers:
    # The first row of each frame, and of what comes after the last.
    starts = np.searchsorted(rows.times, edges - snap, "left")
    begin, end = starts[:-1], starts[1:]
    count = end - begin
    if rule == "last":
        return rows.values[np.clip(end - 1, 0, len(rows.times) - 1)]
    per_row = (rows.values != 0).astype(np.float64) if rule == "any" else rows.values
    # Summed by frame: a running total over hours would lose the small ones' digits.
    sums = np.array([per_row[a:b].sum(axis=0) for a, b in zip(begin, end, strict=True)])
    if rule == "sum":
        return sums
    if rule == "any":
        return (sums > 0).astype(np.float64)
    held = rows.values[np.clip(end - 1, 0, len(rows.times) - 1)]
    return np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], held)


# ── validity ─────────────────────────────────────────────────────────────────────────────────────


def _valid(
    times: Times, starts: Times, ends: Times, last: float, tolerance: float, max_gap: float
) -> npt.NDArray[np.bool_]:
    """Which of the spans from starts to ends touch no hole of the track."""
    epsilon = 1e-9 * max(1.0, abs(float(times[-1])))
    inner = np.flatnonzero(np.diff(times) > max_gap + epsilon)
    holes_from = np.concatenate([[-np.inf], times[inner] + tolerance, [last + tolerance]])
    holes_to = np.concatenate([[times[0] - tolerance], times[inner + 1] - tolerance, [np.inf]])
    real = holes_to - holes_from > epsilon
    holes_from, holes_to = holes_from[real] + epsilon, holes_to[real] - epsilon
    # Holes rise and do not overlap: the first that ends after a span's start is the one to meet.
    first = np.searchsorted(holes_to, starts, "right")
    return np.append(holes_from, np.inf)[first] >= ends


def _gap(times: Times, start: float, end: float, last: float) -> float:
    """The longest distance of two rows between which a part of the clip lies; at its ends, to it.

    In units of the times. `last` is when the last row ends.
    """
    inside = np.diff(times)[(times[1:] > start) & (times[:-1] < end)]
    return float(max([*inside, times[0] - start, end - last, 0.0], default=0.0))
