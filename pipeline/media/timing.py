"""When frames are shown: which native frame each output frame is. Exact rationals.

native   |0   |1  |2     |3 |4      stamps in ticks, unevenly spaced
output   |0   |1   |2   |3   |4     start + k / rate: the native frame nearest in time
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from telecine.manifests.schemas import Clip
from telecine.manifests.specs import VaeSpec
from telecine.pipeline.media.rates import STANDARD_RATES

Frame = TypeVar("Frame")
Stampable = TypeVar("Stampable", bound="Stamped")

# What an effective rate must be below the coded one, to be another: as rates are measured.
LOWER = Fraction(99, 100)
SIX_DIGITS = 2e-6  # share by which a stored rate may miss the one that it means
MOST_PARTS = 8  # frames for which a picture may be held


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

    Its own is the coded rate or, where `vae.rate` says so, the effective one: if that is known,
    lower, and of a regular cadence, so a standard rate or a whole part of the coded one. Pictures
    that come irregularly (animation on ones and twos) have no rate that shows each of them once.
    """
    if vae.fps is not None:
        return Fraction(vae.fps)
    coded = Fraction(clip.fps_num, clip.fps_den)
    if vae.rate == "coded" or clip.effective_fps is None:
        return coded
    effective = _regular(clip.effective_fps, coded)
    return effective if effective is not None and effective < LOWER * coded else coded


def _regular(measured: float, coded: Fraction) -> Fraction | None:
    """The standard rate, or whole part of the coded one, that a measured rate is to six digits."""
    parts = (coded / part for part in range(2, MOST_PARTS + 1))
    for rate in (*STANDARD_RATES, *parts):
        if abs(float(rate) / measured - 1) < SIX_DIGITS:
            return rate
    return None


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


def first_output(clip: Clip, rate: Fraction) -> Fraction:
    """The time, in ticks, whose nearest native frame is output 0: the clip's start.

    At the clip's effective rate output k is what is shown in the middle of its picture k: so each
    picture that is held for 2 or 3 frames is met once, wherever in its turn the clip begins. That
    is `effective_start` on, and half a native frame earlier, as a frame is shown from its stamp on.
    """
    if clip.effective_start is None or encoded_rate(clip, VaeSpec(rate="effective")) != rate:
        return Fraction(clip.start_pts)
    tick = Fraction(clip.time_base_num, clip.time_base_den)
    middle = Fraction(clip.effective_start) - Fraction(clip.fps_den, clip.fps_num) / 2
    return clip.start_pts + middle / tick


class Stamped(Protocol):
    pts: int | None


def rising(frames: Iterable[Stampable]) -> Iterator[Stampable]:
    """The same frames; a stamp that alone breaks their order is put halfway between its neighbours.

    It is such a one where it does not lie between the stamp before and the one after, and those
    rise without it, as in 1 2 9 4 and in 1 2 0 4. Looks one frame ahead; missing stamps, and orders
    that are broken for longer, stay as they are.
    """
    before: int | None = None
    held: Stampable | None = None
    for frame in frames:
        if held is not None:
            held.pts = before = _between(before, held.pts, frame.pts)
            yield held
        held = frame
    if held is not None:
        yield held


def _between(low: int | None, pts: int | None, high: int | None) -> int | None:
    if low is None or pts is None or high is None or low < pts < high or high - low < 2:
        return pts
    return (low + high) // 2


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
        after = following and following[0]
        while made < count and _is_nearest(first + made * ticks_per_output, held[0], after):
            made += 1
            shown.outputs += 1
            shown.repeated += times > 0
            times += 1
            yield held[1]
        held = following


def _is_nearest(time: Fraction, stamp: int, after: int | None) -> bool:
    """Whether a frame is nearer to the time than the one after it, if any; a tie goes to it."""
    return after is None or 2 * time <= stamp + after


class Picker(Generic[Frame]):
    """`at_rate` for frames that are given one by one: which output each of them is."""

    def __init__(
        self, first: Fraction | int, ticks_per_output: Fraction, count: int, shown: Shown
    ) -> None:
        self._first, self._step, self._count = first, ticks_per_output, count
        self._held: tuple[int, Frame] | None = None
        self._shown = shown

    @property
    def done(self) -> bool:
        return self._shown.outputs >= self._count

    def take(self, stamp: int, frame: Frame) -> tuple[Frame | None, int]:
        """The frame before this one, and how many outputs show it."""
        before = self._outputs(stamp)
        self._held = stamp, frame
        return before

    def flush(self) -> tuple[Frame | None, int]:
        """The last frame, and how many outputs show it."""
        before = self._outputs(None)
        self._held = None
        return before

    def _outputs(self, after: int | None) -> tuple[Frame | None, int]:
        if self._held is None:
            return None, 0
        stamp, frame = self._held
        times = 0
        while not self.done and _is_nearest(self._time, stamp, after):
            self._shown.outputs += 1
            self._shown.repeated += times > 0
            times += 1
        return frame, times

    @property
    def _time(self) -> Fraction:
        """Of the next output."""
        return self._first + self._shown.outputs * self._step


def output_edges(
    clip: Clip, stamps: Sequence[int], rate: Fraction, frames: int
) -> tuple[list[int], list[int]]:
    """Of the clip's first `frames` outputs at a rate: stamps and ordinals of the native frames that
    they show, and after these when the last one ends. Each has frames + 1 elements.

    `stamps` are of its native frames, with the end of the last. Ordinals count in the source. An
    image is of one moment and lasts no time.
    """
    if clip.kind == "image":
        return [clip.start_pts] * 2, [clip.start_frame] * 2
    if is_resampled(clip, rate):
        tick = Fraction(clip.time_base_num, clip.time_base_den)
        first, step = first_output(clip, rate), 1 / (rate * tick)
        native = ((int(stamp), number) for number, stamp in enumerate(stamps[:-1]))
        chosen = list(at_rate(native, first, step, encoded_frames(clip, rate)))
    else:
        chosen = list(range(clip.num_frames))
    ends = [*chosen, clip.num_frames][: frames + 1]
    return [int(stamps[n]) for n in ends], [clip.start_frame + n for n in ends]
