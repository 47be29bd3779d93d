"""What one pass over a source saw, made into clips, stills and dropped spans. Pure.

    frames  0 1 2 3 4 5 6 7 8 9 …                every one decoded, in order
    shots   |───────|─────|─────────────|        from cut to cut
    spans   |───────|xxxxx|───|xx|──────|        kept as clips, or dropped with a reason

Shots and the transitions between them partition the frames, and spans partition each shot, so that
frames decoded = frames in kept clips + frames in dropped spans.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from telecine.infra.errors import Reason
from telecine.infra.pulse import beat
from telecine.manifests.fingerprint import short_id
from telecine.manifests.schemas import Clip, DroppedSpan, Still
from telecine.manifests.specs import DatasetSpec, StillSpec
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.geometry import fit_short_side
from telecine.pipeline.media.pixels import half_luma, image_of, jpeg
from telecine.pipeline.media.rates import Ticks, is_variable, nominal_rate
from telecine.pipeline.scan.camera.path import displayed, summarise_pairs
from telecine.pipeline.scan.grid import Grid, middle, stride
from telecine.pipeline.scan.looks.detail import Detail, examine, summarise_details
from telecine.pipeline.scan.looks.overlays import MAX_STILLS, logo_share
from telecine.pipeline.scan.looks.text import text_share
from telecine.pipeline.scan.measure import (
    BLACK_LEVEL,
    Look,
    Rows,
    look,
    measure_frames,
    spreads,
    summarise_frames,
    summarise_looks,
    tidy,
)
from telecine.pipeline.scan.pace.cadence import effective_rate
from telecine.pipeline.scan.pace.repeats import frozen_share, moves_evenly
from telecine.pipeline.scan.segment import split
from telecine.pipeline.scan.stills import choose, wanted
from telecine.pipeline.scan.transitions import Transition

FALLBACK_RATE = Fraction(25)
MAX_HEADER_RATE = 240  # headers that claim more mean the tick of a clock
MIN_LAST, MAX_LAST = Fraction(1, 2), 10  # nominal periods that the last frame may say it lasts


@dataclass(frozen=True)
class Picked:
    """One frame as a still, and what it looks like."""

    jpeg: bytes
    width: int
    height: int
    look: Look
    detail: Detail | None  # where it was looked at closely
    half: npt.NDArray[np.uint8] | None = None  # luma at half size, where it is held


@dataclass(frozen=True)
class Stamps:
    """When each frame is shown. Frame i lasts until `starts[i + 1]`; the last until the last."""

    starts: npt.NDArray[np.int64]  # one more than there are frames
    time_base: Fraction
    rate: Fraction
    timing: str  # pts or ordinal

    @property
    def period(self) -> Fraction:
        """Ticks between frames at the nominal rate."""
        return 1 / (self.rate * self.time_base)

    def seconds(self, ticks: int | Fraction) -> float:
        return float(ticks * self.time_base)


def header_rate(facts: MediaFacts) -> Fraction | None:
    if facts.header_fps_num <= 0 or facts.header_fps_den <= 0:
        return None
    rate = Fraction(facts.header_fps_num, facts.header_fps_den)
    return rate if 0 < rate <= MAX_HEADER_RATE else None


def stamp(
    pts: Sequence[int | None], last_duration: int, time_base: Fraction, hint: Fraction | None
) -> Stamps:
    """Stamps as they are where every one is there and they rise; else frames are counted."""
    known = [p for p in pts if p is not None]
    starts = np.array(known, np.int64)
    rising = len(known) == len(pts) and bool((np.diff(starts) > 0).all())
    if not rising:
        rate = hint or _measured_rate(starts, time_base) or FALLBACK_RATE
        return Stamps(np.arange(len(pts) + 1), 1 / rate, rate, "ordinal")
    rate = (nominal_rate(starts, time_base, hint) if len(pts) > 1 else hint) or FALLBACK_RATE
    last = _last(last_duration, 1 / (rate * time_base))
    return Stamps(np.append(starts, starts[-1] + last), time_base, rate, "pts")


def _last(duration: int, period: Fraction) -> int:
    """Ticks that the last frame is shown: its own word where that can be true, else a period."""
    if MIN_LAST * period <= duration <= MAX_LAST * period:
        return max(1, duration)
    return max(1, round(period))


def _measured_rate(starts: npt.NDArray[np.int64], time_base: Fraction) -> Fraction | None:
    if not (np.diff(starts) > 0).any():
        return None
    rate = nominal_rate(starts, time_base, None)
    return rate if rate <= MAX_HEADER_RATE else None


@dataclass(frozen=True)
class Run:
    """Frames of one size, layout and colours, from `start` on."""

    start: int
    facts: MediaFacts

    @property
    def width(self) -> int:
        """Displayed px."""
        return self.facts.width

    @property
    def height(self) -> int:
        return self.facts.height

    @property
    def is_hdr(self) -> bool:
        return self.facts.color_transfer != "sdr"


@dataclass(frozen=True)
class Seen:
    """Everything that the pass over one source leaves. Ordinals count from the first frame."""

    source_id: str
    stamps: Stamps
    runs: Sequence[Run]
    cuts: Sequence[int]  # first frames of new shots, runs included, ascending
    gaps: frozenset[int]  # cuts that stand after a hole in the stamps
    frames: Rows  # measure.FRAME
    pairs: Rows  # measure.PAIR
    picked: Mapping[int, Picked]  # by ordinal
    transitions: Sequence[Transition] = ()  # disjoint, ascending
    damaged: Sequence[int] = ()  # ascending

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @cached_property
    def ordinals(self) -> list[int]:
        return sorted(self.picked)

    @cached_property
    def first_of_pairs(self) -> npt.NDArray[np.int64]:
        """Ascending, in one piece."""
        return np.ascontiguousarray(self.pairs["first"])

    def shots(self) -> Iterator[tuple[int, int]]:
        """Frames [start, end) of each: from cut to cut, but for transitions that are sure."""
        for start, end in pairwise([0, *self.cuts, self.num_frames]):
            for one in self.within(start, end):
                if one.is_sure:
                    if start < one.start:
                        yield start, one.start
                    start = one.end
            if start < end:
                yield start, end

    def within(self, start: int, end: int) -> Iterator[Transition]:
        """Transitions that share frames with [start, end)."""
        first = bisect_right(self.transitions, start, key=lambda one: one.end)
        after = (self.transitions[i] for i in range(first, len(self.transitions)))
        return takewhile(lambda one: one.start < end, after)

    def end(self, after: int) -> int:
        """The stamp at which frame `after` - 1 ends: before a hole, when its own time is over."""
        starts = self.stamps.starts
        if after in self.gaps and self.stamps.timing == "pts":
            return min(int(starts[after]), int(starts[after - 1]) + round(self.stamps.period))
        return int(starts[after])

    def run(self, frame: int) -> Run:
        return self.runs[bisect_right(self.runs, frame, key=lambda run: run.start) - 1]


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of one shot."""

    shot: int
    start: int
    end: int

    def of(self, rows: Rows) -> Rows:
        return rows[self.start : self.end]


@dataclass(frozen=True)
class Accounted:
    """Every frame of a source, once."""

    clips: list[Clip]
    stills: list[Still]
    dropped: tuple[DroppedSpan, ...]
    num_shots: int


def account(seen: Seen, spec: DatasetSpec) -> Accounted:
    """Clips, their stills, and the spans that are left out."""
    clips: list[Clip] = []
    stills: list[Still] = []
    dropped: list[DroppedSpan] = []
    shots = list(seen.shots())
    for span in _spans(seen, shots, spec):
        beat()  # a source of hours has thousands, and stills of each are looked at
        chosen = _chosen(seen, span, spec.scan.stills)
        reason = _reason(seen, span, chosen, spec)
        if reason is not None:
            dropped.append(_dropped(seen, span, reason))
            continue
        clip = _clip(seen, span, chosen, spec)
        clips.append(clip)
        stills.extend(_still(seen, clip, i, ordinal) for i, ordinal in enumerate(chosen))
    for one in seen.transitions:
        if one.is_sure:
            dropped.append(_dropped(seen, Span(0, one.start, one.end), Reason.TRANSITION))
    dropped.sort(key=lambda span: span.start_frame)
    return Accounted(clips, stills, tuple(dropped), len(shots))


def _spans(seen: Seen, shots: Sequence[tuple[int, int]], spec: DatasetSpec) -> Iterator[Span]:
    stamps = seen.stamps
    # Within half a frame: 60 s of 29.97 fps are 1,798.2 frames.
    longest = float(Fraction(spec.scan.max_seconds) / stamps.time_base + stamps.period / 2)
    for number, (start, end) in enumerate(shots):
        for a, b in split(stamps.starts[start:end], seen.end(end), longest):
            yield Span(number, start + a, start + b)


def _end(seen: Seen, span: Span) -> int:
    return seen.end(span.end)


def _chosen(seen: Seen, span: Span, spec: StillSpec) -> list[int]:
    stamps = seen.stamps
    seconds = stamps.seconds(_end(seen, span) - int(stamps.starts[span.start]))
    return choose(seen.ordinals, span.start, span.end, wanted(seconds, spec))


def _reason(seen: Seen, span: Span, chosen: Sequence[int], spec: DatasetSpec) -> Reason | None:
    stamps = seen.stamps
    ticks = _end(seen, span) - int(stamps.starts[span.start]) + stamps.period / 2
    rows = span.of(seen.frames)
    if spec.pixels.hdr == "reject" and seen.run(span.start).is_hdr:
        return Reason.HDR
    # The picker leaves no clip of `min_seconds` without a still; a shorter one may have none.
    if stamps.seconds(ticks) < spec.scan.min_seconds or not chosen:
        return Reason.TOO_SHORT
    if rows["black"].all():
        return Reason.BLACK
    # The grid may miss what is small; stills average over every pixel.
    if rows["equal"][1:].all() and len({seen.picked[i].jpeg for i in chosen}) == 1:
        return Reason.FROZEN
    return None


def _dropped(seen: Seen, span: Span, reason: Reason) -> DroppedSpan:
    return DroppedSpan(
        start_frame=span.start,
        num_frames=span.end - span.start,
        start_pts=int(seen.stamps.starts[span.start]),
        end_pts=_end(seen, span),
        reason=reason.value,
    )


def _clip(seen: Seen, span: Span, chosen: Sequence[int], spec: DatasetSpec) -> Clip:
    stamps, run = seen.stamps, seen.run(span.start)
    start, end = int(stamps.starts[span.start]), _end(seen, span)
    within = np.append(stamps.starts[span.start : span.end], end)
    rate = _rate(seen, span)
    looks = [seen.picked[i].look for i in chosen]
    return Clip(
        clip_id=short_id("clip", seen.source_id, start, end, spec.scan_fingerprint),
        source_id=seen.source_id,
        scan_fingerprint=spec.scan_fingerprint,
        kind="video",
        shot=span.shot,
        start_frame=span.start,
        num_frames=span.end - span.start,
        start_pts=start,
        end_pts=end,
        time_base_num=stamps.time_base.numerator,
        time_base_den=stamps.time_base.denominator,
        timing=stamps.timing,
        fps_num=rate.numerator,
        fps_den=rate.denominator,
        variable_rate=is_variable(within, stamps.time_base, rate),
        duration_seconds=stamps.seconds(end - start),
        width=run.width,
        height=run.height,
        num_stills=len(chosen),
        stills_digest=stills_digest(seen.picked[i].jpeg for i in chosen),
        gradual_share=_gradual_share(seen, span, start, end),
        corrupt_frames=bisect_left(seen.damaged, span.end) - bisect_left(seen.damaged, span.start),
        **_moving(seen, span),
        **_repeating(span.of(seen.frames), within, stamps.time_base, rate),
        **summarise_looks(looks, run.width, run.height),
        **summarise_details(_details(seen, span)),
        **_written_over([seen.picked[i] for i in chosen]),
    )


def _details(seen: Seen, span: Span) -> list[Detail]:
    """Of all frames of the span that were looked at closely, whether they are its stills or not."""
    inside = choose(seen.ordinals, span.start, span.end, span.end - span.start)
    details = [seen.picked[i].detail for i in inside]
    return [detail for detail in details if detail is not None]


def _gradual_share(seen: Seen, span: Span, start: int, end: int) -> float:
    """Share of a clip's time, from `start` to `end`, that is suspected to be a transition."""
    starts = seen.stamps.starts
    ticks = sum(
        min(int(starts[min(one.end, span.end)]), end) - int(starts[max(one.start, span.start)])
        for one in seen.within(span.start, span.end)
        if not one.is_sure
    )
    return tidy(ticks / (end - start))


def _written_over(stills: Sequence[Picked]) -> dict[str, Any]:
    """The measurements that compare stills with each other: text and overlays."""
    places = np.linspace(0, len(stills) - 1, min(len(stills), MAX_STILLS)).round().astype(int)
    few = [stills[place] for place in places]
    halves = [half_luma(one.jpeg) if one.half is None else one.half for one in few]
    shares = {"logo_share": logo_share(halves), "text_share": text_share(halves)}
    return {name: None if share is None else tidy(share) for name, share in shares.items()}


def _rate(seen: Seen, span: Span) -> Fraction:
    """Nominal, of the span; of the source where frames are counted."""
    stamps, starts = seen.stamps, seen.stamps.starts[span.start : span.end]
    if stamps.timing != "pts" or len(starts) < 2:
        return stamps.rate
    rows = span.of(seen.frames)
    evenly = moves_evenly(rows["step"][1:], np.diff(starts), float(spreads(rows).mean()))
    return nominal_rate(starts, stamps.time_base, stamps.rate, evenly=evenly)


def _repeating(rows: Rows, within: Ticks, time_base: Fraction, rate: Fraction) -> dict[str, Any]:
    """Measurements of what is shown again; `within` are the frames' stamps, and the end."""
    seconds = (within[:-1] - within[0]) * float(time_base)
    effective = effective_rate(rows["step"], rows["equal"], seconds, rate)
    return {
        "frozen_share": tidy(frozen_share(rows["equal"], within, float(1 / (rate * time_base)))),
        "effective_fps": None if effective is None else tidy(float(effective.rate)),
        "effective_start": None if effective is None else effective.first,
    }


def _moving(seen: Seen, span: Span) -> dict[str, Any]:
    """Measurements of the frames and of the pairs that lie inside the span."""
    facts = seen.run(span.start).facts
    values = summarise_frames(span.of(seen.frames), facts.color_range == "full")
    pairs = seen.pairs[slice(*np.searchsorted(seen.first_of_pairs, (span.start, span.end)))]
    pairs = pairs[pairs["last"] < span.end]  # a copy
    pairs["near_known"] &= pairs["first"] - pairs["near"] >= span.start
    reach = span.end + int(pairs["near"].max(initial=0))
    ticks = seen.stamps.starts[span.start : reach] - seen.stamps.starts[0]
    for column in ("first", "last"):
        pairs[column] -= span.start
    starts = ticks * float(seen.stamps.time_base)
    path = summarise_pairs(pairs, starts)
    return {**values, **displayed(path, facts.orientation, values["motion"])}


def stills_digest(jpegs: Iterator[bytes] | Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for one in jpegs:
        digest.update(one)
    return digest.hexdigest()


def _still(seen: Seen, clip: Clip, position: int, ordinal: int) -> Still:
    pts = int(seen.stamps.starts[ordinal])
    seconds = seen.stamps.seconds(pts - clip.start_pts)
    return _still_of(clip, seen.picked[ordinal], position, pts, seconds)


def _still_of(clip: Clip, picked: Picked, position: int, pts: int, seconds: float) -> Still:
    return Still(
        clip_id=clip.clip_id,
        source_id=clip.source_id,
        position=position,
        pts=pts,
        seconds=seconds,
        width=picked.width,
        height=picked.height,
        jpeg=picked.jpeg,
    )


# ── still images ─────────────────────────────────────────────────────────────────────────────────


def image_clip(picture: Picture, source_id: str, spec: DatasetSpec) -> tuple[Clip, Still]:
    width, height = picture.facts.width, picture.facts.height
    detail = examine(np.asarray(Image.fromarray(picture.rgb).convert("L")))
    picked = _small(picture, spec.scan.stills, detail)
    grid = _grid(picture)
    rows = measure_frames(grid, grid, black_level=round(BLACK_LEVEL * 255))
    values = summarise_frames(rows, is_full_range=True)
    clip = Clip(
        clip_id=short_id("clip", source_id, 0, 1, spec.scan_fingerprint),
        source_id=source_id,
        scan_fingerprint=spec.scan_fingerprint,
        kind="image",
        shot=0,
        start_frame=0,
        num_frames=1,
        start_pts=0,
        end_pts=1,
        time_base_num=1,
        time_base_den=1,
        timing="ordinal",
        fps_num=1,
        fps_den=1,
        variable_rate=False,
        duration_seconds=0.0,
        width=width,
        height=height,
        num_stills=1,
        stills_digest=stills_digest([picked.jpeg]),
        corrupt_frames=0,
        subject_motion=0.0,
        frozen_share=0.0,
        **values,
        **summarise_looks([picked.look], width, height),
        **summarise_details([detail]),
    )
    return clip, _still_of(clip, picked, 0, 0, 0.0)


def _small(picture: Picture, spec: StillSpec, detail: Detail) -> Picked:
    size = fit_short_side(picture.facts.width, picture.facts.height, spec.short_side)
    image = Image.fromarray(picture.rgb)
    small = image.resize(size, Image.Resampling.BOX) if size != image.size else image
    return pick(np.asarray(small.convert("RGBX")), spec.quality, detail)


def _grid(picture: Picture) -> Grid:
    height, width = picture.rgb.shape[:2]
    step = stride(width, height)
    few = picture.rgb[middle(height, step), middle(width, step)]
    planes = np.asarray(Image.fromarray(np.ascontiguousarray(few)).convert("YCbCr"))[None]
    return Grid(planes[..., 0], planes[..., 1], planes[..., 2])


def pick(
    pixels: npt.NDArray[np.uint8], quality: int, detail: Detail | None, hold: bool = False
) -> Picked:
    """A still of uint8 RGBX [h, w, 4], and what it looks like; `detail` is its frame's.

    `hold` its luma at half size too, which is faster than to read it from the JPEG.
    """
    image = image_of(pixels)
    luma = image.convert("L")
    seen = look(pixels[..., :3], np.asarray(luma))
    half = np.asarray(luma.reduce(2)) if hold else None
    return Picked(jpeg(image, quality), image.width, image.height, seen, detail, half)
