"""Clips to blocks of frames: seek, decode, pick frames at the rate, convert, in bounded memory.

    key frame ─▶ ··· ─▶ start_pts ─▶ frames ─▶ last one needed ─▶ tail ─▶ end_pts
    ▏ decoded, left out ▏ shown                               ▏ counted

The tail is counted where it is short, and where frames are picked by time: to say how many of a
clip's frames no output shows, all of its span is decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, dropwhile, islice
from typing import BinaryIO, Protocol

from av.video.frame import VideoFrame

from telecine.encoders.frames import FrameBlock
from telecine.infra.errors import MediaError, Reason
from telecine.manifests.schemas import Clip, Source
from telecine.manifests.specs import PixelSpec, ScanSpec
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.geometry import Crop
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.media.pixels import PictureReader, picture_block
from telecine.pipeline.media.timing import Shown, at_rate, first_output, is_resampled

BACK_OFF_SECONDS = (0, 2, 10)  # how far before the clip to seek, one try after the other
COUNTED_TAIL = 16  # frames beyond the last one needed that are decoded only to be counted

Stamped = tuple[int, VideoFrame]


class Beside(Protocol):
    """What is shown the frames of a clip as they are decoded (media/aside.py)."""

    @property
    def wants(self) -> bool: ...
    def begin(self, facts: MediaFacts) -> None: ...
    def take(self, stamp: int, frame: VideoFrame) -> None: ...
    def end(self) -> None: ...
    def picture(self, picture: Picture) -> None: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a clip is decoded: its first frames at a rate, a part of each, and how handed out."""

    rate: Fraction  # frames per second; 0 for an image
    frames: int
    crop: Crop
    block_sizes: Iterator[int]  # frames of each block; read once
    left_out: int = 0  # frames after these that the clip has at its rate: counted, not handed out
    shown: Shown = field(default_factory=Shown)  # of all these, where they are picked by time
    size: tuple[int, int] | None = None  # px that each is made, as displayed; None: its own
    asides: tuple[Beside, ...] = ()  # other cuts of the clip, made of the same decoded frames


def decode_clip(
    file: BinaryIO,
    source: Source,
    clip: Clip,
    cut: Cut,
    pixels: PixelSpec,
    from_start: bool = False,
) -> Iterator[FrameBlock]:
    """The frames of the clip that `cut` names, as displayed and in blocks of its sizes.

    Holds one block and two frames. The clip must begin with a frame at `start_pts`; if it does not
    after a seek, the source is decoded from its beginning. Native frames are counted as they are
    decoded, and the count is checked before the last block is given out: it must be
    `clip.num_frames` where at most COUNTED_TAIL frames are left over, as the encoder's temporal
    grid does, or where frames are picked by time (`cut.shown`); else what is left over is not
    decoded and the count may only not be above it.

    Raises MediaError: FRAMES_MISMATCH, or UNDECODABLE with the decoder's words. Blocks given out
    before a mismatch cannot be taken back: who consumes them may ask again with `from_start`, which
    trusts no index.
    """
    seeks = not from_start and clip.timing == "pts" and clip.start_frame > 0
    try:
        for seek in (True, False) if seeks else (False,):
            media = open_media(file, _bounds(source), pixels)
            if isinstance(media, Picture):
                yield _image(media, clip, cut)
                return
            with media:
                span = _find(media, source, clip, seek)
                if span is not None:
                    span.show(cut.asides)
                    native = clip.width, clip.height
                    reader = PictureReader(span.facts, cut.crop, native, cut.size)
                    yield from _blocks(span, reader, _at_rate(span, clip, cut), cut)
                    return
        raise _mismatch(f"no frame at pts {clip.start_pts}, where the clip begins")
    except MediaError as error:
        if error.reason is Reason.FRAMES_MISMATCH:
            raise
        raise MediaError(Reason.UNDECODABLE, f"{error.reason}: {error.detail}") from error


class Span:
    """The native frames of a clip in output order, counted as they are taken."""

    def __init__(self, frames: Iterator[Stamped], clip: Clip, facts: MediaFacts) -> None:
        self._frames, self._clip = frames, clip
        self.facts = facts  # of its frames, all of them: the scan ends a clip where they change
        self._ended = False
        self._asides: tuple[Beside, ...] = ()
        self.count = 0

    def show(self, asides: tuple[Beside, ...]) -> None:
        """Every frame to these too, from the first on."""
        self._asides = asides
        for one in asides:
            one.begin(self.facts)

    def __iter__(self) -> Iterator[Stamped]:
        return self

    def __next__(self) -> Stamped:
        stamped = None if self._ended else next(self._frames, None)
        if stamped is None or stamped[0] >= self._clip.end_pts:
            self._ended = True
            raise StopIteration
        self.count += 1
        for one in self._asides:
            one.take(*stamped)
        return stamped

    def end(self) -> None:
        """The frames that others want, the check, and that it is over."""
        while not self._ended and any(one.wants for one in self._asides):
            next(self, None)
        self.check()
        for one in self._asides:
            one.end()

    def check(self) -> None:
        """Raises MediaError if there are not as many frames as the scan saw."""
        expected = self._clip.num_frames
        if 0 <= expected - self.count <= COUNTED_TAIL:
            for _ in islice(self, expected - self.count + 1):
                pass
        if self.count > expected or (self._ended and self.count < expected):
            raise _mismatch(f"{self.count} frames in the clip's span; the scan saw {expected}")


def _bounds(source: Source) -> ScanSpec:
    """What the scan let through, which may have been more than the defaults."""
    default = ScanSpec()
    largest = max(source.coded_width * source.coded_height, source.width * source.height)
    longest = int(source.duration_seconds) + 1
    return ScanSpec(
        max_pixels=max(default.max_pixels, largest),
        max_source_seconds=max(default.max_source_seconds, longest),
    )


def _image(picture: Picture, clip: Clip, cut: Cut) -> FrameBlock:
    if (picture.facts.width, picture.facts.height) != (clip.width, clip.height):
        size = f"{picture.facts.width} x {picture.facts.height}"
        raise _mismatch(f"an image of {size} px; the scan saw {clip.width} x {clip.height} px")
    for one in cut.asides:
        one.picture(picture)
    return picture_block(picture, cut.crop, cut.size)


def _find(video: Video, source: Source, clip: Clip, seek: bool) -> Span | None:
    """The clip's frames; None if the first of them is not where it should be."""
    tick = Fraction(clip.time_base_num, clip.time_base_den)
    if clip.timing == "pts" and video.time_base != tick:
        raise _mismatch(f"a tick of {video.time_base} s; the scan saw {tick} s")
    frames = _seek(video, source, clip) if seek else _stamped(video, clip)
    frames = dropwhile(lambda stamped: stamped[0] < clip.start_pts, frames)
    first = next(frames, None)
    if first is None or first[0] != clip.start_pts:
        return None
    return Span(chain([first], frames), clip, video.facts_of(first[1]))


def _seek(video: Video, source: Source, clip: Clip) -> Iterator[Stamped]:
    """Frames from a key frame at or before the clip's start; none if there is no way there.

    Deinterlacing looks at the frame before, so there a key frame at the start itself is too late.
    """
    interlaced = source.interlaced or video.facts.interlaced
    latest = clip.start_pts - (1 if interlaced else 0)
    shown_from = None if interlaced else clip.start_pts
    for seconds in BACK_OFF_SECONDS:
        if not video.seek(latest - int(seconds / video.time_base), shown_from):
            break
        frames = _stamped(video, clip)
        first = next(frames, None)
        if first is not None and first[0] <= latest:
            return chain([first], frames)
    return iter(())


def _stamped(video: Video, clip: Clip) -> Iterator[Stamped]:
    for ordinal, frame in enumerate(video.frames()):
        stamp = ordinal if clip.timing == "ordinal" else frame.pts
        if stamp is not None:
            yield stamp, frame


def _at_rate(span: Span, clip: Clip, cut: Cut) -> Iterator[VideoFrame]:
    if not is_resampled(clip, cut.rate):
        return (frame for _, frame in span)
    tick = Fraction(clip.time_base_num, clip.time_base_den)
    first, step = first_output(clip, cut.rate), 1 / (cut.rate * tick)
    return at_rate(span, first, step, cut.frames + cut.left_out, cut.shown)


def _blocks(
    span: Span, reader: PictureReader, shown: Iterator[VideoFrame], cut: Cut
) -> Iterator[FrameBlock]:
    made = 0
    for size in cut.block_sizes:
        block = reader.block(shown, size)
        made += size
        if made >= cut.frames:
            if cut.shown.outputs:  # by time: what the frames left out would have shown counts too
                deque(shown, maxlen=0)
            span.end()
        yield block


def _mismatch(detail: str) -> MediaError:
    return MediaError(Reason.FRAMES_MISMATCH, detail)
