"""What the container cuts off is not shown, and Dolby Vision without a base layer is refused."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.infra.errors import MediaError, Reason
from telecine.pipeline.media.geometry import Crop
from telecine.pipeline.media.pixels import PictureReader
from telecine.pipeline.media.stills.items import Property
from telecine.pipeline.media.stills.properties import transformed
from telecine.pipeline.media.tracks.boxes import TrackNotes, track_notes
from tests.support.cases import case
from tests.support.containers import (
    TRACK_ELEMENT,
    clap,
    dolby_box,
    dolby_configuration,
    element,
    put_box,
    put_elements,
)
from tests.support.movies import (
    Movie,
    Planes,
    open_video,
    random_planes,
    read_blocks,
    read_facts,
    write_movie,
)
from tests.support.scans import clip_pixels, scan_file

LEFT, TOP, RIGHT, BOTTOM = 0x54CC, 0x54BB, 0x54DD, 0x54AA
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
HDR_TAGS = (9, 1, 16, 9)


def barred(margins: tuple[int, int, int, int], high: int = 64, wide: int = 96) -> Planes:
    """Grey, with a black margin and a white corner within it."""
    left, top, right, bottom = margins
    luma = np.full((high, wide), 16, np.uint8)
    luma[top : high - bottom, left : wide - right] = 126
    luma[top : top + 8, left : left + 8] = 235
    chroma = np.full((high // 2, wide // 2), 128, np.uint8)
    return luma, chroma, chroma


def cut_off(path: Path, margins: tuple[int, int, int, int]) -> Path:
    """Frames whose margins the container cuts."""
    write_movie(path, [barred(margins)] * 3)
    left, top, right, bottom = margins
    if path.suffix == ".mkv":
        crops = zip((LEFT, TOP, RIGHT, BOTTOM), margins, strict=True)
        return put_elements(path, b"".join(element(kind, px) for kind, px in crops))
    # The centre of what is left, from that of the whole, in halves of a pixel
    centre = clap(96 - left - right, 64 - top - bottom)
    halves = ((left - right), 2, (top - bottom), 2)
    return put_box(path, centre[:24] + b"".join(n.to_bytes(4, "big", signed=True) for n in halves))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize(
    "margins", [(0, 12, 0, 12), (16, 0, 16, 0), (8, 4, 24, 10), (3, 5, 2, 0)], ids=str
)
def test_what_the_container_cuts_is_not_shown(
    tmp_path: Path, name: str, margins: tuple[int, int, int, int]
) -> None:
    path = cut_off(tmp_path / name, margins)
    left, top, right, bottom = margins
    facts = read_facts(path)
    assert (facts.width, facts.height) == (96 - left - right, 64 - top - bottom)
    assert (facts.coded_width, facts.coded_height) == (96, 64)
    assert (facts.sample_aspect_num, facts.sample_aspect_den) == (1, 1)
    rgb = read_blocks(path, 3).rgb()
    assert rgb.min() > 100
    np.testing.assert_array_equal(rgb[:, :8, :8], 255)
    assert (rgb[:, 8:, 8:] < 140).all()


def test_stamps_and_flags_of_cropped_frames_are_their_own(tmp_path: Path) -> None:
    stamps = [0, 512, 1100]
    path = tmp_path / "a.mp4"
    write_movie(path, [random_planes(k, 64, 96) for k in range(3)], stamps=stamps)
    with open_video(path) as video:
        durations = [frame.duration for frame in video.frames()]
    put_box(path, clap(64, 32))
    with open_video(path) as video:
        frames = list(video.frames())
        assert [frame.pts for frame in frames] == stamps
        assert [frame.duration for frame in frames] == durations
        assert [frame.key_frame for frame in frames] == [True, False, False]
        assert {video.facts_of(frame) for frame in frames} == {video.facts}
        video.seek(0)
        block = PictureReader(video.facts, Crop(0, 0, 64, 32)).block(video.frames(), 3)
    np.testing.assert_array_equal(block.planes[0][2], random_planes(2, 64, 96)[0][16:48, 16:80])


@pytest.mark.parametrize(
    ("shown", "own", "expected"),
    [
        ((96, 64), Fraction(1), (96, 32)),  # of the whole, by a writer that forgot the margins
        ((96, 32), Fraction(1), (96, 32)),
        ((192, 32), Fraction(1), (192, 32)),  # of what is left, as the standard says
        ((128, 64), Fraction(4, 3), (128, 32)),
    ],
)
def test_a_display_size_is_understood_with_margins(
    tmp_path: Path, shown: tuple[int, int], own: Fraction, expected: tuple[int, int]
) -> None:
    path = write_movie(tmp_path / "a.mkv", [barred((0, 16, 0, 16))] * 3, Movie(sar=own))
    display = element(DISPLAY_WIDTH, shown[0]) + element(DISPLAY_HEIGHT, shown[1])
    display += element(DISPLAY_UNIT, 0)
    put_elements(path, element(TOP, 16) + element(BOTTOM, 16) + display)
    facts = read_facts(path)
    assert (facts.width, facts.height) == expected


def test_margins_wider_than_the_picture_are_none(tmp_path: Path) -> None:
    for path, put in ((tmp_path / "a.mp4", clap(97, 64)), (tmp_path / "b.mp4", clap(0, 0))):
        write_movie(path, [barred((0, 0, 0, 0))])
        assert read_facts(put_box(path, put)).width == 96


@pytest.mark.parametrize(
    "wide", [Fraction(93), Fraction(187, 2), Fraction(96), Fraction(97)], ids=str
)
@pytest.mark.parametrize("right", [Fraction(0), Fraction(-1, 2), Fraction(3, 2)], ids=str)
def test_films_and_photographs_are_cut_alike(
    tmp_path: Path, wide: Fraction, right: Fraction
) -> None:
    numbers = wide.numerator, wide.denominator, 64, 1, right.numerator, right.denominator, 0, 1
    body = struct.pack(">IIIIiIiI", *numbers)
    path = write_movie(tmp_path / "a.mp4", [random_planes(1, 64, 96)])
    put_box(path, struct.pack(">I4s", 40, b"clap") + body)
    with path.open("rb") as file:
        left, _, cut, _ = track_notes(file, "mov,mp4", 1, 0).margins
    picture = np.arange(96).repeat(64).reshape(96, 64).T.astype(np.uint8)[..., None]
    shown, _ = transformed(picture, [Property(b"clap", body, essential=True)])
    assert (shown[0, 0, 0], shown[0, -1, 0]) == (left, 95 - cut)


# --- Dolby Vision ----------------------------------------------------------------------------


def dolby(path: Path, profile: int, compatible: int) -> Path:
    planes = [np.full(shape, 512, np.uint16) for shape in ((64, 96), (32, 48), (32, 48))]
    write_movie(path, [tuple(planes)] * 3, Movie("yuv420p10le", HDR_TAGS))
    if path.suffix == ".mp4":
        kind = b"dvcC" if profile < 8 else b"dvvC"
        return put_box(path, dolby_box(profile, compatible, kind))
    configuration = dolby_configuration(profile, compatible)
    kind = int.from_bytes(b"dvcC", "big")
    mapping = element(0x41E4, element(0x41E7, kind) + element(0x41ED, configuration))
    return put_elements(path, mapping, TRACK_ELEMENT)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("profile", "compatible"), [(5, 0), (10, 0)])
def test_dolby_vision_without_a_base_layer_is_refused(
    tmp_path: Path, name: str, profile: int, compatible: int
) -> None:
    with (
        pytest.raises(MediaError) as caught,
        open_video(dolby(tmp_path / name, profile, compatible)),
    ):
        pass
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "Dolby Vision" in caught.value.detail


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("profile", "compatible"), [(7, 6), (8, 1), (8, 4), (10, 1)])
def test_dolby_vision_with_a_base_layer_is_that_layer(
    tmp_path: Path, name: str, profile: int, compatible: int
) -> None:
    facts = read_facts(dolby(tmp_path / name, profile, compatible))
    assert (facts.color_transfer, facts.width) == ("pq", 96)


# --- hostile bytes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("described")
    margins = (8, 4, 24, 10)
    return [cut_off(folder / name, margins).read_bytes() for name in ("a.mp4", "a.mkv")]


@settings(max_examples=200)
@given(st.data())
def test_damaged_descriptions_raise_nothing(described: list[bytes], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([0, 1]))
    damaged = bytearray(described[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file = io.BytesIO(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    number = data.draw(st.sampled_from([1, -1, -(1 << 31)]))
    notes = track_notes(file, ("mov,mp4", "matroska,webm")[kind], number, 0)
    assert min(notes.margins) >= 0
    assert not any(notes.margins) or min(notes.clean) > 0


def test_a_description_is_read_where_nothing_else_is(described: list[bytes]) -> None:
    for number, name in enumerate(("mov,mp4", "matroska,webm")):
        notes = track_notes(io.BytesIO(described[number]), name, 1, 0)
        assert (notes.size, notes.margins) == ((96, 64), (8, 4, 24, 10))
        assert track_notes(io.BytesIO(described[number]), name, 2, 1) == TrackNotes()


# --- files that failed once ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["crop.mkv", "clap.mp4"])
def test_case_cut_by_the_container(name: str) -> None:
    path = case(name)
    scanned = scan_file(path)
    assert [(c.width, c.height) for c in scanned.clips] == [(320, 180)]
    shown = clip_pixels(path, scanned)[0]
    assert shown[0].max() > 60  # no bar at the top
    assert shown[-1].max() > 60


@pytest.mark.parametrize("name", ["dovi5.mp4", "video__hevc__dovi-p5.mp4"])
def test_case_dolby_vision_without_a_base_layer(name: str) -> None:
    source = scan_file(case(name)).source
    assert (source.status, source.reason) == ("rejected", Reason.UNSUPPORTED)
    assert "Dolby Vision" in source.detail
