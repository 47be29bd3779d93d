"""Buckets: which one a clip is of, how one is written, and in which order they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from telecine.manifests.specs import BucketSpec

IMAGE = "image"  # the duration of a still image's bucket

# SQL over columns of `samples`: how long one is as encoded; 0 of an image.
ENCODED_SECONDS = f"if(duration <> '{IMAGE}', encoded_frames * fps_den / fps_num, 0)"


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """Their own order is by name, which a plan's digest is made over; see `by_size` for people."""

    resolution: int  # px of the short side, the rung
    aspect: str  # as in 16x9
    duration: str  # image, or seconds as in 4s

    @property
    def folder(self) -> str:
        return f"{self.resolution}/{self.aspect}/{self.duration}"


class Sized(Protocol):
    """What of a clip its bucket depends on: the columns of schemas.Clip of the same names."""

    @property
    def kind(self) -> str: ...
    @property
    def start_pts(self) -> int: ...
    @property
    def end_pts(self) -> int: ...
    @property
    def time_base_num(self) -> int: ...
    @property
    def time_base_den(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def bucket_of(clip: Sized, spec: BucketSpec, short_side: int | None = None) -> Bucket | None:
    """Largest rung ≤ the clip for resolution and duration, nearest aspect; None below a rung.

    `short_side`: px that a larger clip is made before it is encoded. Only the rung of resolution
    follows from it: so what shares a bucket at its native size shares one at any other.
    """
    return bucket_of_shape(clip.width, clip.height, _duration_rung(clip, spec), spec, short_side)


def bucket_of_shape(
    width: int,
    height: int,
    duration: str | None,
    spec: BucketSpec,
    short_side: int | None = None,
) -> Bucket | None:
    """The same where the rung of the duration is known; None or empty: below the first."""
    side = min(width, height, short_side or width)
    resolution = max((r for r in spec.resolutions if r <= side), default=None)
    if resolution is None or not duration:
        return None
    return Bucket(resolution, nearest_aspect(width, height, spec.aspects), duration)


def _duration_rung(clip: Sized, spec: BucketSpec) -> str | None:
    if clip.kind == "image":
        return IMAGE
    ticks = clip.end_pts - clip.start_pts
    seconds = Fraction(ticks * clip.time_base_num, clip.time_base_den)
    rung = max((d for d in spec.durations if d <= seconds), default=None)
    return None if rung is None else f"{rung:g}s"


def duration_rung_sql(durations: Sequence[float]) -> str:
    """The same rung as SQL over columns of `clips`, in whole numbers; '' below the first.

    `durations` in seconds, ascending.
    """
    rungs = ["WHEN kind = 'image' THEN 'image'"]
    for seconds in reversed(durations):
        exact = Fraction(seconds)
        rungs.append(
            f"WHEN (end_pts - start_pts)::HUGEINT * time_base_num * {exact.denominator} "
            f">= {exact.numerator}::HUGEINT * time_base_den THEN '{seconds:g}s'"
        )
    return f"CASE {' '.join(rungs)} ELSE '' END"


def nearest_aspect(width: int, height: int, aspects: Iterable[str]) -> str:
    """The aspect whose logarithm is nearest, the first of equals, as in 16x9."""

    def distance(aspect: str) -> float:
        w, h = map(int, aspect.split(":"))
        return abs(math.log(width * h / (height * w)))

    return min(aspects, key=distance).replace(":", "x")


class Bucketed(Protocol):
    """A Bucket, or what is known of one."""

    @property
    def resolution(self) -> int: ...
    @property
    def aspect(self) -> str: ...
    @property
    def duration(self) -> str: ...


def by_size(bucket: Bucketed) -> tuple[int, Fraction, float]:
    """A key to sort by: from small to large, from tall to wide, images first, then by length."""
    width, _, height = bucket.aspect.partition("x")
    seconds = 0.0 if bucket.duration == IMAGE else float(bucket.duration.removesuffix("s"))
    return bucket.resolution, Fraction(int(width), int(height)), seconds
