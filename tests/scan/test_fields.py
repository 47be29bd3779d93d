"""HEVC of separated fields: two make a frame, whichever comes first and whichever is lost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from telecine.manifests.specs import DatasetSpec, ScanSpec
from telecine.pipeline.media.filters import woven
from telecine.pipeline.media.resize import plane_view
from tests.support.cases import case
from tests.support.movies import Movie, Planes, write_movie
from tests.support.scans import clip_pixels, scan_file

FRAMES = 28


def interlaced(k: int) -> Planes:
    """A bar that moves between the two fields of a frame, over rows that each have a grey."""
    luma = np.repeat(np.arange(40, 104, dtype=np.uint8)[:, None], 96, axis=1)
    for field in (0, 1):
        left = (4 * k + 2 * field) % 80
        luma[field::2, left : left + 16] = 200
    return luma, np.full((32, 48), 128, np.uint8), np.full((32, 48), 128, np.uint8)


def write_fields(path: Path, top_first: bool, frames: int = FRAMES) -> Path:
    order = (0, 1) if top_first else (1, 0)
    fields = [
        tuple(plane[field::2] for plane in interlaced(k)) for k in range(frames) for field in order
    ]
    name = "tff" if top_first else "bff"
    options = f"interlace={name}:lossless=1:log-level=none:keyint=8:bframes=2"
    movie = Movie(codec="libx265", rate=50, options=(("x265-params", options),))
    return write_movie(path, fields, movie)


def fields_of(path: Path) -> list[VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.fixture(scope="module", params=[True, False], ids=["top first", "bottom first"])
def fields(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fields(tmp_path_factory.mktemp("fields") / "a.mp4", request.param)


def test_two_fields_are_a_frame_line_by_line(fields: Path) -> None:
    frames = list(woven(iter(fields_of(fields))))
    assert len(frames) == FRAMES
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(plane_view(frame, 0), interlaced(k)[0])
        assert frame.pts * frame.time_base == Fraction(k, 25)
        assert frame.duration * frame.time_base == Fraction(1, 25)
        assert frame.interlaced_frame


@given(lost=st.sets(st.integers(0, 11), max_size=6))
def test_a_lost_field_costs_no_more_than_its_frame(fields: Path, lost: set[int]) -> None:
    kept = [field for i, field in enumerate(fields_of(fields)[:12]) if i not in lost]
    frames = list(woven(iter(kept)))
    stamps = [frame.pts for frame in frames]
    assert stamps == sorted(set(stamps))
    assert {frame.height for frame in frames} <= {64}
    assert {field.pts for field in kept} >= set(stamps)
    assert len(kept) / 2 <= len(frames) <= (len(kept) + len(lost)) / 2 + 1


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
def test_separated_fields_are_scanned_as_frames(tmp_path: Path, name: str) -> None:
    path = write_fields(tmp_path / name, top_first=True)
    scanned = scan_file(path)
    source = scanned.source
    assert (source.width, source.height, source.num_frames) == (96, 64, FRAMES)
    assert Fraction(source.fps_num, source.fps_den) == 25
    assert source.interlaced
    assert [(c.num_frames, c.variable_rate) for c in scanned.clips] == [(FRAMES, False)]
    rows = clip_pixels(path, scanned, 0, FRAMES)[:, :, 90:, 1].mean(axis=(0, 2))
    assert (np.diff(rows) > 0).all()  # no line has another's place


def test_a_seek_changes_no_frame(tmp_path: Path) -> None:
    path = write_fields(tmp_path / "a.mp4", top_first=True, frames=56)
    scanned = scan_file(path, DatasetSpec(scan=ScanSpec(min_seconds=0.5, max_seconds=1.2)))
    assert len(scanned.clips) == 2
    assert scanned.clips[1].start_frame > 0
    sought = clip_pixels(path, scanned, 1, 8)
    np.testing.assert_array_equal(sought, clip_pixels(path, scanned, 1, 8, from_start=True))


def test_case_separated_fields() -> None:
    path = case("field.mp4")
    scanned = scan_file(path)
    source = scanned.source
    assert (source.width, source.height) == (320, 240)
    assert (source.num_frames, Fraction(source.fps_num, source.fps_den)) == (75, 25)
