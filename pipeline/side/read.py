"""The tracks of a clip: its source's track file, read and aligned, for the shard that it goes into.

A track that cannot be had costs the clip that track alone, with the reason in its JSON, unless
the spec requires it: then it costs the clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from telecine.infra.errors import MediaError, Reason, StorageError, concerns_one_object
from telecine.infra.store.storage import Storage
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.index.tracks import Values
from telecine.manifests.schemas import Clip, Source
from telecine.manifests.specs import TrackSpec
from telecine.pipeline.side.align import Aligned, Rows, Times, align
from telecine.pipeline.side.formats import MAX_BYTES, UnusableTrack, read_track
from telecine.pipeline.side.lerobot import is_lerobot, read_rows
from telecine.pipeline.side.times import native_stamps

HELD = 4  # files whose rows are held: the clips of a source often stand together


def tracks_digest(source: Source) -> str:
    """Of the track file that a sample is made from, as the catalog's SQL has it; empty of none."""
    if not source.tracks_uri:
        return ""
    return hashlib.sha256(f"{source.tracks_uri}\n{source.tracks_version}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Edges:
    """When a clip's encoded frames are shown, and when the last one ends: one more than frames."""

    stamps: Sequence[int]  # source time base
    ordinals: Sequence[int]  # in the source, from 0


def native_edges(clip: Clip, stamps: bytes | None) -> Edges | None:
    """Of all of the clip's frames; `stamps` and None as `native_stamps` has them."""
    if clip.kind == "image":
        return Edges([clip.start_pts] * 2, [clip.start_frame] * 2)
    known = native_stamps(clip, stamps)
    if known is None:
        return None
    first = clip.start_frame
    return Edges(known.tolist(), range(first, first + clip.num_frames + 1))


@dataclass(frozen=True, slots=True)
class Without:
    """Samples that a track which was asked for is not in."""

    samples: int
    problem: str  # of one of them

    def __add__(self, other: Without) -> Without:
        return Without(self.samples + other.samples, self.problem)


def add_without(found: dict[str, Without], more: Mapping[str, Without]) -> None:
    """Both by the track's name."""
    for name, without in more.items():
        found[name] = found[name] + without if name in found else without


@dataclass(frozen=True, slots=True)
class Tracks:
    """The tracks of one clip."""

    values: dict[str, Values] = field(default_factory=dict)  # of the usable ones
    said: dict[str, JsonValue] = field(default_factory=dict)  # of each one, for the sample's JSON
    problems: dict[str, str] = field(default_factory=dict)  # why there is none, of the others


class TrackReader:
    """Reads track files as a spec says. Holds the rows of a few."""

    def __init__(self, storage: Storage, specs: Mapping[str, TrackSpec]) -> None:
        self._storage, self._specs = storage, specs
        self._held: dict[tuple[str, ...], Rows | UnusableTrack] = {}

    def __call__(self, clip: Clip, source: Source, edges: Edges | None) -> Tracks:
        """Raises MediaError TRACK_MISSING or TRACK_GAP where a required one is not there or does
        not cover the clip; StorageError where the store itself fails.
        """
        tracks = Tracks()
        for name, spec in self._specs.items():
            try:
                aligned = self.aligned(clip, source, edges, spec)
            except UnusableTrack as error:
                if spec.required:
                    raise MediaError(Reason.TRACK_MISSING, f"{name}: {error}") from error
                tracks.problems[name] = str(error)
                tracks.said[name] = _said(spec) | {"problem": str(error)}
                continue
            if spec.required and not aligned.valid.all():
                raise MediaError(Reason.TRACK_GAP, f"{name}: {gap_said(aligned)}")
            tracks.values[name] = aligned.values
            tracks.said[name] = _said(spec) | _aligned_said(aligned)
        return tracks

    def aligned(self, clip: Clip, source: Source, edges: Edges | None, spec: TrackSpec) -> Aligned:
        """One track on the clip's frames. Raises UnusableTrack."""
        if edges is None:
            raise UnusableTrack(
                "when its frames are shown is not known: it is of a variable rate, and an older "
                "version scanned it. Put it into a new dataset"
            )
        rows = self._rows(source, spec)
        tick = clip.time_base_num / clip.time_base_den
        since = [tick * (stamp - source.start_pts) for stamp in edges.stamps]
        times: Times = np.array(since if rows.by_time else edges.ordinals, dtype=np.float64)
        try:
            return align(rows, times, spec)
        except ValueError as error:
            raise UnusableTrack(str(error)) from error

    def _rows(self, source: Source, spec: TrackSpec) -> Rows:
        key = (source.uri, source.tracks_uri, source.tracks_version, *spec.columns)
        if key not in self._held:
            while len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            try:
                self._held[key] = self._read(source, spec)
            except UnusableTrack as error:
                self._held[key] = error
        found = self._held[key]
        if isinstance(found, UnusableTrack):
            raise found
        return found

    def _read(self, source: Source, spec: TrackSpec) -> Rows:
        uri = source.tracks_uri
        if not uri:
            raise UnusableTrack("there is no track file beside the footage")
        if is_lerobot(uri):
            return read_rows(self._storage, uri, source.uri, spec.columns)
        name = uri.rpartition("/")[2]
        try:
            info = self._storage.stat(uri)
            if info.version != source.tracks_version:
                raise UnusableTrack(f"{name} was replaced since it was found: ingest again")
            if info.size_bytes > MAX_BYTES:
                raise UnusableTrack(
                    f"{name} has {info.size_bytes} bytes, more than {MAX_BYTES}: split the footage"
                )
            with self._storage.open(info) as file:
                data = file.read() or b""
        except StorageError as error:
            if not concerns_one_object(error):
                raise
            raise UnusableTrack(str(error)) from error
        frame_seconds = source.fps_den / source.fps_num if source.fps_num else 1.0
        return read_track(name, data, spec.columns, frame_seconds)


def gap_said(aligned: Aligned) -> str:
    missing = int((~aligned.valid).sum())
    return (
        f"{missing} of {len(aligned.valid)} frames without it; the longest gap is "
        f"{aligned.gap_seconds:.3f} s"
    )


def _said(spec: TrackSpec) -> dict[str, JsonValue]:
    return {"columns": list(spec.columns), "rule": spec.rule, "unit": spec.unit}


def _aligned_said(aligned: Aligned) -> dict[str, JsonValue]:
    return {
        "shape": list(aligned.values.shape),
        "coverage": round(aligned.coverage, 6),
        "gap_seconds": round(aligned.gap_seconds, 6),
        # A bit a frame, the first one highest, as numpy.packbits has it.
        "valid": np.packbits(aligned.valid).tobytes().hex(),
    }
