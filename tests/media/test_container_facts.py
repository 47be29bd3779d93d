"""What frames do not say of themselves, their container says; and metadata costs no picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from telecine.infra.errors import Reason
from telecine.manifests.specs import DatasetSpec, PixelSpec
from telecine.pipeline.media.color import pq_to_nits
from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS
from telecine.pipeline.media.pixels import still
from telecine.pipeline.media.resize import Scaler
from tests.support.cases import case
from tests.support.movies import Movie, Planes, open_video, read_blocks, read_facts, write_movie
from tests.support.scans import clip_pixels, scan_file

GREY = 90  # in 255ths of a signal
REJECTING = DatasetSpec(pixels=PixelSpec(hdr="reject"))
UNSAID = "colorprim=undef:transfer=undef:colormatrix=undef"


def grey(matrix_bits: int = 10) -> Planes:
    code = round((16 + GREY / 255 * 219) * 2 ** (matrix_bits - 8))
    luma, chroma = np.full((64, 96), code, np.uint16), np.full((32, 48), 512, np.uint16)
    return luma, chroma, chroma


def sdr_of(nits: float) -> float:
    return float(255 * (nits / 203) ** (1 / 2.4))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mov", "prores_ks"), ("a.mkv", "prores_ks")],
)
def test_hdr_that_only_the_container_names_is_tone_mapped(
    tmp_path: Path, name: str, codec: str
) -> None:
    if codec == "prores_ks":
        movie, planes = Movie("yuv422p10le", (9, 1, 16, 9), codec, options=()), grey()
        planes = (planes[0], *(np.full((64, 48), 512, np.uint16),) * 2)
    else:
        options = (("qp", "0"), ("x264-params", UNSAID))
        movie, planes = Movie("yuv420p10le", (9, 1, 16, 9), codec, options=options), grey()
    path = write_movie(tmp_path / name, [planes] * 3, movie)
    facts = read_facts(path)
    assert (facts.color_matrix, facts.color_transfer, facts.color_primaries) == (
        "bt2020", "pq", "bt2020",
    )  # fmt: skip
    expected = sdr_of(float(pq_to_nits(np.array(GREY / 255))))
    assert abs(read_blocks(path).rgb()[0].mean() - expected) <= 2
    assert scan_file(path, REJECTING).source.reason == Reason.HDR


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_range_that_hevc_leaves_unsaid_is_the_container_s(tmp_path: Path, name: str) -> None:
    """HEVC decoders call a range limited that nothing named."""
    options = (("x265-params", f"{UNSAID}:lossless=1:log-level=none"),)
    movie = Movie("yuv420p10le", (9, 2, 16, 9), "libx265", options=options)
    facts = read_facts(write_movie(tmp_path / name, [grey()] * 3, movie))
    assert (facts.color_range, facts.color_transfer) == ("full", "pq")


def test_a_frame_that_speaks_is_believed_before_its_container(tmp_path: Path) -> None:
    options = (("qp", "0"), ("x264-params", "colorprim=bt709:transfer=bt709:colormatrix=bt709"))
    movie = Movie("yuv420p10le", (9, 1, 16, 9), options=options)
    facts = read_facts(write_movie(tmp_path / "a.mkv", [grey()], movie))
    assert (facts.color_matrix, facts.color_transfer, facts.color_primaries) == (
        "bt709", "sdr", "bt709",
    )  # fmt: skip


@pytest.mark.parametrize(("codec", "depth"), [("libx265", 8), ("ffv1", 10)])
@pytest.mark.parametrize("limited", [True, False])
def test_rgb_is_read_in_its_range(tmp_path: Path, codec: str, depth: int, limited: bool) -> None:
    red = (200, 30, 30)
    scale = 2.0 ** (depth - 8) if limited else (2**depth - 1) / 255
    stored = [round(scale * (16 + c * 219 / 255 if limited else c)) for c in red]
    dtype = np.uint8 if depth == 8 else np.uint16
    planes = tuple(np.full((64, 96), stored[i], dtype) for i in (1, 2, 0))
    options = (("x265-params", "lossless=1:log-level=none"),) if depth == 8 else ()
    layout = "gbrp" if depth == 8 else "gbrp10le"
    movie = Movie(layout, (0, 1 if limited else 2, 2, 2), codec, options=options)
    path = write_movie(tmp_path / "a.mkv", [planes] * 3, movie)
    np.testing.assert_allclose(read_blocks(path).rgb()[0].mean(axis=(0, 1)), red, atol=1)
    with open_video(path) as video:
        small = still(next(video.frames()), video.facts, 32, Scaler())
    np.testing.assert_allclose(small[..., :3].mean(axis=(0, 1)), red, atol=1)


def jpeg_of(orientation: int, shade: int) -> bytes:
    """A grey picture of 96 x 64 px, white in the stored upper left, with an EXIF orientation."""
    pixels = np.full((64, 96, 3), shade, np.uint8)
    pixels[:16, :16] = 255
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", list(EXIF_ORIENTATIONS))
def test_side_data_without_a_name_hides_no_orientation(tmp_path: Path, orientation: int) -> None:
    """EXIF in the frames of Motion JPEG: FFmpeg gives it as side data that PyAV does not know."""
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(jpeg_of(orientation, 60 + 10 * k) for k in range(4)))
    turned = EXIF_ORIENTATIONS[orientation]
    with open_video(path) as video:
        assert video.facts.orientation == turned
        assert sum(1 for _ in video.frames()) == 4
    rgb = read_blocks(path).rgb()[0]
    marks = np.zeros((64, 96), np.uint8)
    marks[:16, :16] = 1
    marks = np.rot90(marks[:, ::-1] if turned.mirrored else marks, turned.quarter_turns)
    assert rgb[marks == 1].mean() > 240
    assert rgb[marks == 0].mean() < 80


# --- files that failed once ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hdr_colr.mp4", "hdr_colr.mkv"])
def test_case_hdr_that_only_the_container_names(name: str) -> None:
    path = case(name)
    greys = clip_pixels(path, scan_file(path))[0][96, 20::80, 0]
    np.testing.assert_allclose(greys, (73, 142, 189, 230), atol=3)
    assert scan_file(path, REJECTING).source.reason == Reason.HDR


def test_case_rgb_of_limited_range() -> None:
    path = case("rgb_limited.mp4")
    np.testing.assert_allclose(clip_pixels(path, scan_file(path))[0][4, 4], (200, 30, 30), atol=1)


@pytest.mark.parametrize(
    ("name", "frames"), [("exif_mjpeg.avi", 36), ("video__hevc__multiview.mp4", 11)]
)
def test_case_side_data_without_a_name(name: str, frames: int) -> None:
    source = scan_file(case(name)).source
    assert (source.status, source.num_frames) == ("scanned", frames)
