"""When frames are shown: which native frame each output frame is. Exact rationals.

native   |0   |1  |2     |3 |4      stamps in ticks, unevenly spaced
output   |0   |1   |2   |3   |4     start + k / rate: the native frame nearest in time
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

from telecine.manifests.specs import VaeSpec
from telecine.pipeline.media.rates import standard_rate

Frame = TypeVar("Frame")

# What an effective rate must be below the coded one, to be another: as rates are measured.
LOWER = Fraction(99, 100)
SNAP = 0.005  # share by which a measured rate may miss the standard one that it means


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
    @property
    def effective_fps(self) -> float | None: ...


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def encoded_rate(clip: Timed, vae: VaeSpec) -> Fraction:
    """Frames per second that the clip is encoded at: `vae.fps` if asked for, else its own.

    Its own is the coded rate or, where `vae.rate` says so and it is known and lower, the effective
    one, as the standard rate that it is within half a per cent of. An image has 0 or 1: no matter.
    """
    if vae.fps is not None:
        return Fraction(vae.fps)
    coded = Fraction(clip.fps_num, clip.fps_den)
    if vae.rate == "coded" or clip.effective_fps is None:
        return coded
    effective = standard_rate(clip.effective_fps, SNAP)
    return effective if effective < LOWER * coded else coded


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


def first_output(clip: Timed, rate: Fraction) -> Fraction:
    """The time, in ticks, whose nearest native frame is output 0.

    The clip's start. At a rate that leaves repeated frames out it is what is shown in the middle of
    output 0, so that a picture that is held for 2 or 3 frames (a film on another clock) is met
    wherever in its turn the clip begins: half an output later, and half a native frame earlier, for
    a frame is shown from its stamp on.
    """
    coded = Fraction(clip.fps_num, clip.fps_den)
    if clip.effective_fps is None or not rate < LOWER * coded:
        return Fraction(clip.start_pts)
    if standard_rate(clip.effective_fps, SNAP) != rate:
        return Fraction(clip.start_pts)
    tick = Fraction(clip.time_base_num, clip.time_base_den)
    return clip.start_pts + (1 / rate - 1 / coded) / 2 / tick


@dataclass(slots=True)
class Shown:
    """How native frames became outputs."""

    outputs: int = 0
    repeated: int = 0  # outputs that show again the frame that the output before showed

    @property
    def native(self) -> int:
        """Different frames that are shown."""
        return self.outputs - self.repeated


def at_rate(
    frames: Iterable[tuple[int, Frame]],
    first: Fraction | int,
    ticks_per_output: Fraction,
    count: int,
    shown: Shown | None = None,
) -> Iterator[Frame]:
    """`count` output frames at a constant rate; output k is the frame nearest to its time.

    `frames` are (stamp in ticks, frame) with rising stamps. Output k is shown at
    first + k × ticks_per_output; a tie goes to the earlier frame. Looks one frame ahead and no
    further, and takes nothing more from `frames` once the last output is known. What was made of
    them is counted in `shown` as outputs are given out.
    """
    shown = Shown() if shown is None else shown
    source = iter(frames)
    held = next(source, None)
    made = 0
    while held is not None and made < count:
        following = next(source, None)
        times = 0
        while made < count and (
            following is None or 2 * (first + made * ticks_per_output) <= held[0] + following[0]
        ):
            made += 1
            shown.outputs += 1
            shown.repeated += times > 0
            times += 1
            yield held[1]
        held = following
