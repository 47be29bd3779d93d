"""What a stream says of its pixels may change in mid-stream: each frame is read as it says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from telecine.infra.errors import Reason
from telecine.manifests.specs import DatasetSpec, PixelSpec
from telecine.pipeline.media.color import color_map, pq_to_nits
from telecine.pipeline.scan.worker import Scanned
from tests.support.cases import case
from tests.support.movies import BT709, Movie, Planes
from tests.support.scans import clip_pixels, scan_file, still_pixels, write_parts

RED = (200, 30, 30)
BT601 = (6, 1, 6, 6)
HDR_TAGS = (9, 1, 16, 9)
REJECTING = DatasetSpec(pixels=PixelSpec(hdr="reject"))
INTERLACED = Movie(tags=BT709, options=(("qp", "0"), ("x264-params", "tff=1")))


def moving(
    color: tuple[float, ...], matrix: str, color_range: str, depth: int = 8, frames: int = 26
) -> list[Planes]:
    """4:2:0 frames of the colour with a grey block that moves, coded in that matrix and range."""
    colors = color_map(matrix, color_range)
    inverse = np.linalg.inv(np.array(colors.matrix).reshape(3, 3))
    code = inverse @ (np.array(color, np.float64) - colors.offset)
    scale = 2.0 ** (depth - 8)
    dtype = np.uint8 if depth == 8 else np.uint16
    made: list[Planes] = []
    for k in range(frames):
        planes = [
            np.full((64 // s, 96 // s), round(c * scale), dtype)
            for s, c in zip((1, 2, 2), code, strict=True)
        ]
        planes[0][8:24, 2 * k : 2 * k + 16] = round(120 * scale)
        planes[1][4:12, k : k + 8] = planes[2][4:12, k : k + 8] = round(128 * scale)
        made.append(tuple(planes))
    return made


def part(
    tags: tuple[int, int, int, int], matrix: str, color_range: str
) -> tuple[Movie, list[Planes]]:
    return Movie(tags=tags), moving(RED, matrix, color_range)


def corner(rgb: np.ndarray) -> np.ndarray:
    return rgb[-8:, -8:].reshape(-1, 3).mean(axis=0)


def check_red(path: Path, scanned: Scanned, clips: int) -> None:
    assert len(scanned.clips) == clips
    for clip in range(clips):
        for seen in (clip_pixels(path, scanned, clip)[0], still_pixels(scanned, clip)):
            np.testing.assert_allclose(corner(seen), RED, atol=3)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (part((1, 1, 1, 1), "bt709", "limited"), part((6, 1, 6, 6), "bt601", "limited")),
        (part((1, 1, 1, 1), "bt709", "limited"), part((1, 2, 1, 1), "bt709", "full")),
        (part((2, 0, 2, 2), "bt601", "limited"), part((5, 2, 5, 5), "bt601", "full")),
        (part((7, 1, 7, 7), "smpte240m", "limited"), part((4, 1, 4, 4), "fcc", "limited")),
    ],
    ids=["matrix", "range", "from untagged", "rare"],
)
def test_colours_that_change_are_read_on_both_sides(
    tmp_path: Path,
    first: tuple[Movie, list[Planes]],
    second: tuple[Movie, list[Planes]],
) -> None:
    path = write_parts(tmp_path / "a.ts", [first, second])
    check_red(path, scan_file(path), clips=2)


def test_tags_that_come_late_and_say_what_was_assumed_part_nothing(tmp_path: Path) -> None:
    parts = [part((2, 0, 2, 2), "bt601", "limited"), part((6, 1, 2, 2), "bt601", "limited")]
    scanned = scan_file(write_parts(tmp_path / "a.ts", parts))
    assert len(scanned.source.dropped) == 0
    assert [clip.num_frames for clip in scanned.clips] in ([52], [26, 26])


def test_pixels_that_change_their_shape_become_square_on_both_sides(tmp_path: Path) -> None:
    pictures = moving(RED, "bt709", "limited")
    parts = [(Movie(sar=sar), pictures) for sar in (Fraction(1), Fraction(4, 3), Fraction(2))]
    path = write_parts(tmp_path / "a.ts", parts)
    scanned = scan_file(path)
    assert [(c.start_frame, c.width, c.height) for c in scanned.clips] == [
        (0, 96, 64), (26, 128, 64), (52, 192, 64),
    ]  # fmt: skip
    assert scanned.source.width == 96
    check_red(path, scanned, clips=3)


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
def test_a_shape_of_pixels_belongs_to_its_frames_and_not_to_the_decoder(
    tmp_path: Path, codec: str
) -> None:
    """With B-frames the decoder has read the next header before the last frames come out."""
    options = (("bf", "2"), ("g", "12"), ("qmin", "2"), ("qmax", "3"))
    narrow, wide = (
        Movie(codec=codec, tags=BT601, sar=sar, options=options, time_base=Fraction(1, 25))
        for sar in (Fraction(8, 9), Fraction(32, 27))  # 4:3 and 16:9
    )
    pictures = moving(RED, "bt601", "limited")
    path = write_parts(tmp_path / "a.ts", [(movie, pictures) for movie in (narrow, wide, narrow)])
    scanned = scan_file(path)
    assert [(c.start_frame, c.width) for c in scanned.clips] == [(0, 86), (26, 114), (52, 86)]
    check_red(path, scanned, clips=3)


@pytest.mark.parametrize("first", [3, 26])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_colours_that_come_late_are_of_their_frames_alone(
    tmp_path: Path, codec: str, first: int
) -> None:
    """Not of earlier ones: FFmpeg looks ahead for streams, and decoders for frames."""
    options = (("x265-params", "lossless=1:log-level=none"), ("qp", "0"))
    untagged, tagged = (
        Movie("yuv420p10le", tags, codec, options=options[codec == "libx264" :][:1])
        for tags in ((2, 0, 2, 2), HDR_TAGS)
    )
    pictures = moving((90, 90, 90), "bt2020", "limited", 10)
    path = write_parts(tmp_path / "a.ts", [(untagged, pictures[:first]), (tagged, pictures)])
    source = scan_file(path, REJECTING).source
    assert source.color_transfer == "sdr"
    assert (source.dropped[-1].start_frame, source.dropped[-1].reason) == (first, Reason.HDR)


def hdr_late(path: Path) -> Path:
    sdr = Movie("yuv420p10le", BT709), moving(RED, "bt709", "limited", 10)
    hdr = Movie("yuv420p10le", HDR_TAGS), moving((90, 90, 90), "bt2020", "limited", 10)
    return write_parts(path, [sdr, hdr])


def test_hdr_that_begins_late_is_tone_mapped(tmp_path: Path) -> None:
    path = hdr_late(tmp_path / "a.ts")
    scanned = scan_file(path)
    first, second = (corner(clip_pixels(path, scanned, clip)[0]) for clip in (0, 1))
    np.testing.assert_allclose(first, RED, atol=3)
    grey = 255 * (pq_to_nits(np.array(90 / 255)) / 203) ** (1 / 2.4)  # dark: below the curve's knee
    np.testing.assert_allclose(second, [grey] * 3, atol=2)
    np.testing.assert_allclose(corner(still_pixels(scanned, 1)), second, atol=3)


def test_hdr_that_begins_late_is_dropped_where_the_spec_says_so(tmp_path: Path) -> None:
    scanned = scan_file(hdr_late(tmp_path / "a.ts"), REJECTING)
    assert [(d.start_frame, d.num_frames, d.reason) for d in scanned.source.dropped] == [
        (26, 26, Reason.HDR)
    ]
    assert [clip.num_frames for clip in scanned.clips] == [26]


def test_a_source_of_hdr_alone_is_rejected_where_the_spec_says_so(tmp_path: Path) -> None:
    movie = Movie("yuv420p10le", HDR_TAGS), moving((90, 90, 90), "bt2020", "limited", 10)
    scanned = scan_file(write_parts(tmp_path / "a.ts", [movie]), REJECTING)
    assert (scanned.source.status, scanned.source.reason) == ("rejected", Reason.HDR)


def combed(frames: int) -> list[Planes]:
    """A bar that moves between the two fields of a frame, over grey."""
    made: list[Planes] = []
    for k in range(frames):
        luma = np.full((64, 96), 60, np.uint8)
        for field in (0, 1):
            left = (4 * k + 2 * field) % 80
            luma[field::2, left : left + 16] = 200
        made.append((luma, np.full((32, 48), 128, np.uint8), np.full((32, 48), 128, np.uint8)))
    return made


def combing(rgb: np.ndarray) -> float:
    """How much each row differs from both its neighbours in the same direction."""
    rows = rgb[..., 1].astype(int)
    up, down = rows[..., 1:-1, :] - rows[..., :-2, :], rows[..., 1:-1, :] - rows[..., 2:, :]
    return float(np.where(up * down > 0, np.minimum(abs(up), abs(down)), 0).mean())


@pytest.mark.parametrize("progressive", [0, 26])
def test_lines_are_made_whole_wherever_interlacing_begins(tmp_path: Path, progressive: int) -> None:
    parts = [(INTERLACED, combed(26))]
    if progressive:
        parts.insert(0, (Movie(), moving(RED, "bt709", "limited", frames=progressive)))
    path = write_parts(tmp_path / "a.ts", parts)
    scanned = scan_file(path)
    assert scanned.source.interlaced
    assert scanned.source.num_frames == progressive + 26
    assert not any(clip.variable_rate for clip in scanned.clips)
    last = scanned.clips[-1]
    shown = clip_pixels(path, scanned, len(scanned.clips) - 1, last.num_frames)
    assert last.num_frames == 26
    assert (
        combing(shown[2:-2])
        < combing(np.stack([p[0] for p in combed(26)])[..., None].repeat(3, -1)) / 6
    )
    again = clip_pixels(path, scanned, len(scanned.clips) - 1, 26, from_start=True)
    np.testing.assert_array_equal(shown, again)  # a seek changes no pixel


# --- files that failed once ------------------------------------------------------------------


def test_case_color_switch() -> None:
    path = case("color_switch.ts")
    scanned = scan_file(path)
    for clip in (0, 1):
        np.testing.assert_allclose(clip_pixels(path, scanned, clip)[0][4, 4], RED, atol=3)


def test_case_hdr_late() -> None:
    path = case("hdr_late.ts")
    scanned = scan_file(path)
    greys = clip_pixels(path, scanned, 1)[0][96, 20::80]
    np.testing.assert_allclose(greys[:, 0], (73, 142, 189, 230), atol=3)
    rejected = scan_file(path, REJECTING).source.dropped
    assert [(d.start_frame, d.reason) for d in rejected] == [(25, Reason.HDR)]


def test_case_interlace_late() -> None:
    path = case("interlace_late.ts")
    scanned = scan_file(path)
    assert [(c.start_frame, c.num_frames) for c in scanned.clips] == [(0, 30), (30, 60)]
    assert scanned.source.interlaced
    assert combing(clip_pixels(path, scanned, 1, 8)) < 3


def test_case_interlaced() -> None:
    path = case("interlaced.ts")
    scanned = scan_file(path)
    assert [(c.num_frames, c.variable_rate) for c in scanned.clips] == [(60, False)]
    assert combing(clip_pixels(path, scanned, 0, 8)) < 3
