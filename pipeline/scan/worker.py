"""Scan: one decode pass over one source finds its shots, measures them and takes their stills.

    decode ──▶ every frame's sparse grid ──▶ chunk ──▶ cuts, measurements
         └──▶ frames that may become stills ─────────▶ small RGB ──▶ JPEG, measurements

Memory does not depend on how long a source is but for some forty bytes per frame and the stills.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, BinaryIO, cast

import numpy as np

from telecine.infra.bugs import telecine_version
from telecine.infra.errors import (
    MediaError,
    Reason,
    StorageError,
    TelecineError,
    concerns_one_object,
)
from telecine.infra.faults import kill_point
from telecine.infra.pulse import beat
from telecine.infra.store.storage import Storage
from telecine.manifests.schemas import Clip, FrameTimes, Source, Still
from telecine.manifests.specs import DatasetSpec, ScanSpec
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.faults.blame import blamed
from telecine.pipeline.media.faults.sizes import check_size
from telecine.pipeline.media.open import Video, hdr_refused, open_media
from telecine.pipeline.media.pixels import Decoded, PlaneLayout, luma_view, still
from telecine.pipeline.media.resize import PICK, Scaler, plane_view
from telecine.pipeline.scan.camera.pairs import PAIR, CameraMeter
from telecine.pipeline.scan.clips import (
    FALLBACK_RATE,
    Accounted,
    Picked,
    Run,
    Seen,
    Stamps,
    account,
    header_rate,
    image_clip,
    pick,
    stamp,
)
from telecine.pipeline.scan.discover import ScanTask
from telecine.pipeline.scan.grid import LONG_SIDE, Grid, Plane, middle, stride
from telecine.pipeline.scan.looks.detail import examine
from telecine.pipeline.scan.measure import FRAME, Meter, Rows
from telecine.pipeline.scan.pace.clock import Clock
from telecine.pipeline.scan.pace.repeats import Steps
from telecine.pipeline.scan.second_opinion import make_detector
from telecine.pipeline.scan.stills import StillPicker
from telecine.pipeline.scan.transitions import Transition
from telecine.pipeline.side.formats import UnusableTrack
from telecine.pipeline.side.lerobot import episodes_of, is_lerobot
from telecine.pipeline.side.times import frame_times

CHUNK_FRAMES = 32
SMALL_CHUNK_FRAMES = 8  # of frames so large that waiting ones would fill the memory
LARGE_PIXELS = 2**22
HELD_STILLS = 1024  # of a source: so many stills' luma is held at half size, some 70 MB


@dataclass(frozen=True)
class Scanned:
    """What a scan leaves: one source row, and where it could be read its clips and stills."""

    source: Source
    clips: list[Clip]
    stills: list[Still]
    bytes_read: int
    frame_times: tuple[FrameTimes, ...] = ()


@dataclass(frozen=True)
class ScanWorker:
    """For the pool: scans a batch of objects, one after the other."""

    storage: Storage
    spec: DatasetSpec

    def __call__(self, batch: list[ScanTask]) -> list[Scanned]:
        return [self._scan(task) for task in batch]

    def _scan(self, task: ScanTask) -> Scanned:
        beat()
        kill_point("scan", task.found.uri)
        return scan_source(task, self.storage, self.spec)


def scan_source(task: ScanTask, storage: Storage, spec: DatasetSpec) -> Scanned:
    """Never raises for bad footage: what cannot be used is a rejected row with its reason.

    Raises StorageError where the store itself fails, or refuses its caller: no other source would
    fare better, and each is still to be scanned when it is back.
    """
    try:
        cuts = _episode_starts(task, storage)
        with storage.open(task.found.info) as reader:
            scanned = _examine(cast(BinaryIO, reader), task, spec, cuts)
            source = dataclasses.replace(scanned.source, content_digest=reader.content_digest())
            return dataclasses.replace(scanned, source=source, bytes_read=reader.bytes_read)
    except StorageError as error:
        if not concerns_one_object(error):
            raise
        return rejected(task, spec, Reason.UNREADABLE, str(error))
    except UnusableTrack as error:  # without its episodes, clips would run from one into the next
        return rejected(task, spec, Reason.UNREADABLE, f"its episodes: {error}")


def _episode_starts(task: ScanTask, storage: Storage) -> list[float]:
    """Seconds from the first frame where a shot must begin."""
    found = task.found
    if not is_lerobot(found.tracks_uri):
        return []
    return [e.start_seconds for e in episodes_of(storage, found.tracks_uri, found.uri)]


def _examine(file: BinaryIO, task: ScanTask, spec: DatasetSpec, cuts: Sequence[float]) -> Scanned:
    facts: MediaFacts | None = None
    try:
        media = open_media(file, spec.scan, spec.pixels)
        facts = media.facts
        if isinstance(media, Picture):
            return _scan_picture(media, task, spec)
        with media:
            return _scan_video(media, task, spec, cuts)
    except TelecineError:
        raise
    except Exception as error:  # whatever comes up costs this source alone
        why = blamed(error)
        return rejected(task, spec, why.reason, why.detail, facts)


def rejected(
    task: ScanTask, spec: DatasetSpec, reason: Reason, detail: str, facts: MediaFacts | None = None
) -> Scanned:
    columns = _columns(task, spec, facts) | {"status": "rejected", "kind": ""}
    return Scanned(Source(**columns, reason=reason, detail=detail), [], [], 0)


def _columns(task: ScanTask, spec: DatasetSpec, facts: MediaFacts | None) -> dict[str, Any]:
    found = task.found
    return {
        "uri": found.uri,
        "revision": task.revision,
        "source_id": found.source_id,
        "version": found.version,
        "size_bytes": found.size_bytes,
        "status": "scanned",
        "sidecar_uri": found.sidecar_uri,
        "sidecar_version": found.sidecar_version,
        "tracks_uri": found.tracks_uri,
        "tracks_version": found.tracks_version,
        "scan_fingerprint": spec.scan_fingerprint,
        "telecine_version": telecine_version(),
        "tries": task.tries + 1,
        **({} if facts is None else dataclasses.asdict(facts)),
    }


def _scan_picture(picture: Picture, task: ScanTask, spec: DatasetSpec) -> Scanned:
    clip, shot = image_clip(picture, task.found.source_id, spec)
    source = Source(
        **_columns(task, spec, picture.facts),
        kind="image",
        num_frames=1,
        frames_kept=1,
        num_shots=1,
        num_clips=1,
        timing="ordinal",
        time_base_num=1,
        fps_num=1,
        end_pts=1,
    )
    return Scanned(source, [clip], [shot], 0)


def _scan_video(video: Video, task: ScanTask, spec: DatasetSpec, cuts: Sequence[float]) -> Scanned:
    walk = Pass(video, spec, cuts)
    for frame in video.frames():
        walk.take(frame)
    seen = walk.finish(task.found.source_id)
    if spec.pixels.hdr == "reject" and all(run.is_hdr for run in seen.runs):
        raise hdr_refused(video.facts.color_transfer)
    accounted = account(seen, spec)
    columns = _columns(task, spec, video.facts) | _content(seen, accounted)
    columns["interlaced"] = video.interlaced  # which may begin late
    source = Source(**columns, kind="video", decode_errors=video.decode_errors)
    times = tuple(_frame_times(accounted.clips, seen.stamps))
    return Scanned(source, accounted.clips, accounted.stills, 0, times)


def _frame_times(clips: Sequence[Clip], stamps: Stamps) -> Iterator[FrameTimes]:
    """Of the clips that need a row."""
    for clip in clips:
        end = clip.start_frame + clip.num_frames
        row = frame_times(clip, stamps.starts[clip.start_frame : end])
        if row is not None:
            yield row


def _content(seen: Seen, accounted: Accounted) -> dict[str, Any]:
    """What decoding showed."""
    stamps: Stamps = seen.stamps
    start, end = int(stamps.starts[0]), int(stamps.starts[-1])
    left_out = sum(span.num_frames for span in accounted.dropped)
    return {
        "num_frames": seen.num_frames,
        "frames_kept": sum(clip.num_frames for clip in accounted.clips),
        "frames_dropped": left_out,
        "dropped": accounted.dropped,
        "num_shots": accounted.num_shots,
        "num_clips": len(accounted.clips),
        "timing": stamps.timing,
        "time_base_num": stamps.time_base.numerator,
        "time_base_den": stamps.time_base.denominator,
        "fps_num": stamps.rate.numerator,
        "fps_den": stamps.rate.denominator,
        "start_pts": start,
        "end_pts": end,
        "duration_seconds": stamps.seconds(end - start),
    }


class Pass:
    """One walk over the frames of a video. `take` each frame, then `finish`.

    `cuts`: seconds from the first frame where shots begin whatever the pictures say.
    """

    def __init__(self, video: Video, spec: DatasetSpec, cuts: Sequence[float] = ()) -> None:
        self._forced = deque(cuts)
        self._facts_of, self._is_damaged, self._spec = video.facts_of, video.is_damaged, spec
        self._time_base = video.time_base
        self._hint = header_rate(video.facts)
        self._rate = self._hint or FALLBACK_RATE  # until the stamps tell the true one
        limits = spec.scan.min_seconds, spec.scan.max_seconds
        self._clock = Clock(video.time_base, float(1 / self._rate), *limits)
        self._scaler, self._native = Scaler(), Scaler()
        self._picker: StillPicker[Decoded, Picked] = StillPicker(spec.scan, self._develop)
        self._pts: list[int | None] = []
        self._last_duration = 0
        self._runs: list[Run] = []
        self._run: _Run | None = None
        self._cuts: list[int] = []
        self._transitions: list[Transition] = []
        self._gaps: set[int] = set()
        self._damaged: list[int] = []
        self._frames: list[Rows] = []
        self._pairs: list[Rows] = []

    def take(self, frame: Decoded) -> None:
        ordinal = len(self._pts)
        self._pts.append(frame.pts)
        self._last_duration = frame.duration or 0
        if self._clock.advance(frame.pts):
            self._gaps.add(ordinal)
        if self._is_damaged(frame):
            self._damaged.append(ordinal)
        facts = self._facts_of(frame)
        forced = self._is_forced(frame.pts)
        if self._run is None or not self._run.fits(facts) or ordinal in self._gaps or forced:
            self._begin(ordinal, frame, facts)
        assert self._run is not None
        self._picker.offer(ordinal, self._clock.seconds, frame)
        if self._run.take(frame):
            self._settle(self._run.chunk())

    def _is_forced(self, pts: int | None) -> bool:
        """Whether it is the first frame at or after a forced cut, to half a frame."""
        first = self._pts[0]
        if not self._forced or pts is None or first is None:
            return False
        until = (pts - first) * self._time_base + 1 / (2 * self._rate)
        passed = [self._forced.popleft() for _ in takewhile(lambda t: t < until, [*self._forced])]
        return bool(passed)

    def _begin(self, ordinal: int, frame: Decoded, facts: MediaFacts) -> None:
        """A new size or new colours, or a hole in the stamps: frames are not compared across it."""
        self._end_run()
        if ordinal:
            self._cuts.append(ordinal)
        # The decoder bounds the stored size alone.
        check_size(facts.width, facts.height, self._spec.scan.max_pixels)
        self._runs.append(Run(ordinal, facts))
        self._run = _Run(ordinal, frame, facts, self._spec.scan, float(self._rate))

    def _end_run(self) -> None:
        if self._run is not None:
            self._settle(self._run.chunk(), last=True)
            self._picker.finish()
            pairs = self._run.camera.finish()
            pairs["first"] += self._run.start
            pairs["last"] += self._run.start
            self._pairs.append(pairs)
            self._transitions += [
                one.moved(self._run.start) for one in self._run.detector.transitions
            ]

    def _settle(self, grid: Grid, last: bool = False) -> None:
        """Takes what a chunk tells: measurements at once, cuts as far as they are decided."""
        run = self._run
        assert run is not None
        cuts = run.detector.push(grid) if len(grid) else []
        if len(grid):
            run.camera.push(grid)
            frames = run.meter.push(grid)
            run.look_closer(frames)
            self._frames.append(frames)
        if last:
            cuts = cuts + run.detector.finish()
        cuts = [run.start + cut for cut in cuts]
        self._cuts += cuts
        self._picker.decide(cuts, run.start + run.detector.decided)
        for one in run.detector.take_news():
            if one.is_sure:
                self._picker.leave_out(run.start + one.start, run.start + one.end)

    def _develop(self, frame: Decoded, closely: bool) -> Picked:
        stills, facts = self._spec.scan.stills, self._facts_of(frame)
        small = still(frame, facts, stills.short_side, self._scaler)
        detail = examine(*luma_view(frame, facts, self._native)) if closely else None
        hold = len(self._picker.developed) < HELD_STILLS
        return pick(small, stills.quality, detail, hold)

    def finish(self, source_id: str) -> Seen:
        if not self._pts:
            raise MediaError(Reason.NO_FRAMES, "a video stream without a single frame")
        self._end_run()
        stamps = stamp(self._pts, self._last_duration, self._time_base, self._hint)
        return Seen(
            source_id=source_id,
            stamps=stamps,
            runs=self._runs,
            cuts=self._cuts,
            gaps=frozenset(self._gaps),
            frames=np.concatenate([np.zeros(0, FRAME), *self._frames]),
            pairs=np.concatenate([np.zeros(0, PAIR), *self._pairs]),
            picked=self._picker.developed,
            transitions=self._transitions,
            damaged=self._damaged,
        )


class _Run:
    """Frames of one size, layout and colours: their grids, the detector and meters over them."""

    def __init__(
        self, start: int, frame: Decoded, facts: MediaFacts, spec: ScanSpec, rate: float
    ) -> None:
        self.start = start
        self.detector = make_detector(spec, facts)
        self.meter = Meter(facts.color_range == "full")
        self.camera = CameraMeter(rate)
        self.facts = facts
        self._sampler = Sampler(frame, facts)
        large = frame.width * frame.height > LARGE_PIXELS
        self._size = SMALL_CHUNK_FRAMES if large else CHUNK_FRAMES
        self._count = 0
        self._grid = self._sampler.empty(self._size)
        self._lines = self._sampler.steps.empty(self._size)

    def fits(self, facts: MediaFacts) -> bool:
        return facts is self.facts or facts == self.facts

    def take(self, frame: Decoded) -> bool:
        """Whether the chunk is full."""
        self._sampler.sample(frame, self._grid, self._count, self._lines)
        self._count += 1
        return self._count == self._size

    def chunk(self) -> Grid:
        """The frames since the last chunk."""
        full, count = self._grid, self._count
        self._grid, self._count = self._sampler.empty(self._size), 0
        return full[:count]

    def look_closer(self, frames: Rows) -> None:
        """Writes into the last chunk's FRAME rows what its whole lines tell."""
        frames["step"], same = self._sampler.steps.measure(self._lines[: len(frames)])
        frames["equal"] &= same


class Sampler:
    """Copies a frame's sparse grid and a few whole lines out of the decoder's memory.

    Of layouts whose planes cannot be read as they are, swscale picks the pixels; YUV keeps its
    values, RGB becomes BT.709 of full range.
    """

    def __init__(self, frame: Decoded, facts: MediaFacts) -> None:
        self._facts = facts
        self._scaler = None if _has_plain_planes(frame.format) else Scaler()
        if self._scaler is not None:
            long_side = max(frame.width, frame.height)
            most = min(LONG_SIDE, long_side)
            self._small = (
                max(1, frame.width * most // long_side),
                max(1, frame.height * most // long_side),
            )
            frame = self._shrink(frame)
        depth = frame.format.components[0].bits
        self._shift = max(0, depth - 8)
        step = stride(frame.width, frame.height)
        self._sizes: list[tuple[int, int]] = []
        self._places: list[tuple[slice, slice]] = []  # rows and columns of each plane's samples
        for index, plane in enumerate(frame.planes[:3]):
            wide, high = (step, step) if index == 0 else _chroma_steps(frame, step)
            rows, columns = middle(plane.height, high), middle(plane.width, wide)
            self._places.append((rows, columns))
            self._sizes.append((_length(rows), _length(columns)))
        self.steps = Steps(frame.planes[0].height, frame.planes[0].width, self._shift)

    def empty(self, frames: int) -> Grid:
        """Grey has chroma of one neutral sample."""
        sizes = [*self._sizes, (1, 1), (1, 1)][:3]
        luma, cb, cr = (np.full((frames, *size), 128, np.uint8) for size in sizes)
        return Grid(luma, cb, cr)

    def sample(self, frame: Decoded, grid: Grid, place: int, lines: Plane | None = None) -> None:
        """Into that place of the grid, and of what `steps` made empty."""
        if self._scaler is not None:
            frame = self._shrink(frame)
        shift, targets = self._shift, (grid.luma, grid.cb, grid.cr)
        for index, (part, target) in enumerate(zip(self._places, targets, strict=False)):
            plane = plane_view(frame, index)
            few = plane[part]
            target[place] = few >> shift if shift else few
            if index == 0 and lines is not None:
                self.steps.copy(plane, lines[place])

    def _shrink(self, frame: Decoded) -> Decoded:
        assert self._scaler is not None
        return self._scaler(frame, self._facts, self._small, "yuv444p", PICK)


def _chroma_steps(frame: Decoded, step: int) -> tuple[int, int]:
    """Samples across and down, half as many as of luma."""
    plane = frame.planes[1]
    across = round(2 * step * plane.width / frame.width)
    return max(1, across), max(1, round(2 * step * plane.height / frame.height))


def _length(part: slice) -> int:
    return len(range(part.start, part.stop, part.step))


def _has_plain_planes(layout: PlaneLayout) -> bool:
    """Planar luma and chroma (or luma alone) of 8 to 16 bits in this machine's byte order."""
    parts = layout.components
    return (
        layout.name.startswith(("yuv", "gray"))
        and [part.plane for part in parts] in ([0], [0, 1, 2])
        and 8 <= parts[0].bits <= 16
        and not (parts[0].bits > 8 and layout.is_big_endian)
        and "msb" not in layout.name
        and not layout.is_rgb
    )
