"""The pixel contract, against files whose true pixels are known."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from telecine.infra.errors import MediaError
from telecine.pipeline.media.color import hlg_to_scene, nits_to_pq, pq_to_nits, tone_map
from telecine.pipeline.media.facts import Picture
from telecine.pipeline.media.geometry import Crop
from telecine.pipeline.media.open import open_media
from telecine.pipeline.media.pixels import (
    PictureReader,
    frame_rgb,
    image_of,
    jpeg,
    picture_block,
    still,
)
from telecine.pipeline.media.resize import Scaler
from tests.support.movies import (
    BT709,
    PIXELS,
    SCAN,
    UNTAGGED,
    Movie,
    Planes,
    open_video,
    random_planes,
    read_blocks,
    read_facts,
    set_display_matrix,
    write_movie,
)

Rgb = npt.NDArray[np.float64]

BAR = 40  # px
BARS = np.array(
    [[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0],
     [255, 0, 255], [200, 40, 30], [20, 60, 190], [0, 0, 0]], np.float64,
)  # fmt: skip
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593),
           "smpte240m": (0.212, 0.087), "fcc": (0.30, 0.11)}  # fmt: skip
TAGS = {"bt601": 6, "bt709": 1, "bt2020": 9, "smpte240m": 7, "fcc": 4}
TURNS = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}


def codes(rgb: Rgb, matrix: str, full: bool, depth: int) -> Rgb:
    """Y, Cb, Cr codes of R'G'B' in 0..255, as ITU-T H.273 (8.3) defines them."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    top, unit = (1 << depth) - 1, 1 << (depth - 8)
    if full:
        values = [luma * top, cb * top + 128 * unit, cr * top + 128 * unit]
    else:
        values = [(219 * luma + 16) * unit, (224 * cb + 128) * unit, (224 * cr + 128) * unit]
    return np.stack([np.clip(np.rint(v), 0, top) for v in values], axis=-1)


def bars(
    colors: Rgb, matrix: str, full: bool, sub: tuple[int, int], depth: int = 8, height: int = 64
) -> Planes:
    values = codes(colors, matrix, full, depth).astype(np.uint8 if depth == 8 else np.uint16)
    planes = [np.tile(values[:, i].repeat(BAR), (height, 1)) for i in range(3)]
    return planes[0], planes[1][:: sub[1], :: sub[0]], planes[2][:: sub[1], :: sub[0]]


def middles(rgb: npt.NDArray[np.uint8], count: int = len(BARS)) -> Rgb:
    """Mean colour of the middle half of each bar, of uint8 [H, W, 3]."""
    width = rgb.shape[1] / count
    return np.array(
        [rgb[:, round((k + 0.25) * width) : round((k + 0.75) * width)].mean((0, 1))
         for k in range(count)]
    )  # fmt: skip


LAYOUTS: Sequence[tuple[str, tuple[int, int], int]] = [
    ("yuv420p", (2, 2), 8), ("yuv422p", (2, 1), 8), ("yuv444p", (1, 1), 8),
    ("yuv420p10le", (2, 2), 10), ("yuv422p10le", (2, 1), 10), ("yuv444p10le", (1, 1), 10),
]  # fmt: skip


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("layout", "sub", "depth"), LAYOUTS, ids=[name for name, *_ in LAYOUTS])
def test_colour_bars_come_out_within_two_levels(
    tmp_path: Path, matrix: str, full: bool, layout: str, sub: tuple[int, int], depth: int
) -> None:
    tags = (TAGS[matrix], 2 if full else 1, 1, 1)
    path = tmp_path / "bars.mp4"
    write_movie(path, [bars(BARS, matrix, full, sub, depth)], Movie(layout, tags))
    block = read_blocks(path)
    assert block.subsampling == sub
    assert np.abs(block.rgb()[0].astype(int) - BARS.repeat(BAR, 0)).max() <= 2
    with open_video(path) as video:
        frame = next(video.frames())
        assert np.abs(middles(frame_rgb(frame, video.facts)) - BARS).max() <= 2
        for short_side in (64, 32):
            small = still(frame, video.facts, short_side, Scaler())[..., :3]
            assert small.shape == (short_side, short_side * 5, 3)
            assert np.abs(middles(small) - BARS).max() <= 2


@pytest.mark.parametrize("matrix", ["smpte240m", "fcc"])
def test_rarer_matrices_are_honoured(tmp_path: Path, matrix: str) -> None:
    path = tmp_path / "bars.mp4"
    tags = (TAGS[matrix], 1, 1, 1)
    write_movie(path, [bars(BARS, matrix, False, (2, 2))], Movie(tags=tags))
    assert np.abs(middles(read_blocks(path).rgb()[0]) - BARS).max() <= 2


@pytest.mark.parametrize(("height", "matrix"), [(718, "bt601"), (720, "bt709")])
def test_untagged_footage_is_bt709_from_720_lines_up(
    tmp_path: Path, height: int, matrix: str
) -> None:
    path = tmp_path / "bars.mp4"
    write_movie(path, [bars(BARS, matrix, False, (2, 2), height=height)], Movie(tags=UNTAGGED))
    assert read_facts(path).color_matrix == matrix
    assert np.abs(middles(read_blocks(path).rgb()[0]) - BARS).max() <= 2


def test_rgb_footage_is_taken_as_it_is(tmp_path: Path) -> None:
    planes = random_planes(1, 48, 64, (1, 1), 0, 255)
    path = tmp_path / "rgb.avi"
    write_movie(path, [planes], Movie("gbrp", (0, 2, 1, 1), "utvideo", options=()))
    green, blue, red = planes
    assert np.array_equal(read_blocks(path).rgb()[0], np.dstack([red, green, blue]))


def test_grey_footage_has_no_colour(tmp_path: Path) -> None:
    grey = random_planes(2, 48, 64)[0]
    path = tmp_path / "grey.mkv"
    write_movie(path, [(grey,)], Movie("gray", UNTAGGED, "ffv1", options=()))
    assert np.array_equal(read_blocks(path).rgb()[0], np.dstack([grey] * 3))


def test_transparent_footage_is_shown_over_white(tmp_path: Path) -> None:
    luma, cb, cr = bars(BARS, "bt601", False, (2, 2))
    alpha = np.full_like(luma, 128)
    path = tmp_path / "alpha.mkv"
    write_movie(path, [(luma, cb, cr, alpha)], Movie("yuva420p", UNTAGGED, "ffv1", options=()))
    expected = BARS * 128 / 255 + 255 * 127 / 255
    assert np.abs(middles(read_blocks(path).rgb()[0]) - expected).max() <= 2
    with open_video(path) as video:
        small = still(next(video.frames()), video.facts, 32, Scaler())[..., :3]
    assert np.abs(middles(small) - expected).max() <= 2


@pytest.mark.parametrize("mirrored", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("rotation", TURNS)
def test_a_turned_file_equals_the_upright_one(
    tmp_path: Path, rotation: int, mirrored: bool
) -> None:
    upright = random_planes(3, 80, 64)

    def stored(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        turned = np.rot90(plane, -(rotation // 90))
        return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)

    path = tmp_path / "turned.mp4"
    y, cb, cr = (stored(plane) for plane in upright)
    write_movie(path, [(y, cb, cr)])
    a, b, c, d = TURNS[rotation]
    set_display_matrix(path, *((-a, -b, c, d) if mirrored else (a, b, c, d)))
    facts = read_facts(path)
    assert (facts.width, facts.height) == (64, 80)
    assert (facts.rotation_degrees, facts.mirrored) == (rotation, mirrored)
    for plane, expected in zip(read_blocks(path).planes, upright, strict=True):
        assert np.array_equal(plane[0], expected)
    cropped = read_blocks(path, crop=Crop(14, 6, 32, 48))
    for plane, expected, step in zip(cropped.planes, upright, (1, 2, 2), strict=True):
        rows = slice(6 // step, 54 // step)
        assert np.array_equal(plane[0], expected[rows, 14 // step : 46 // step])
    with open_video(path) as video:
        small = still(next(video.frames()), video.facts, 64, Scaler())[..., :3]
    assert small.shape == (80, 64, 3)


def test_a_crop_that_splits_chroma_samples_still_shows_the_right_pixels(tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    planes = random_planes(4, 49, 65)
    write_movie(path, [planes], Movie(codec="ffv1", options=()))
    whole = read_blocks(path).rgb()[0]
    assert whole.shape == (49, 65, 3)
    part = read_blocks(path, crop=Crop(3, 5, 32, 16))
    assert part.subsampling == (1, 1)
    assert np.array_equal(part.rgb()[0], whole[5:21, 3:35])
    even = read_blocks(path, crop=Crop(2, 4, 32, 16))
    assert even.subsampling == (2, 2)
    assert np.array_equal(even.rgb()[0], whole[4:20, 2:34])


@pytest.mark.parametrize("layout", ["yuv420p", "yuv420p10le"])
def test_wide_pixels_become_square_ones(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "sar.mp4"
    depth = 10 if layout.endswith("10le") else 8
    planes = bars(BARS, "bt709", False, (2, 2), depth)
    write_movie(path, [planes], Movie(layout, sar=Fraction(3, 2)))
    facts = read_facts(path)
    assert (facts.width, facts.height) == (480, 64)
    rgb = read_blocks(path).rgb()[0]
    assert rgb.shape == (64, 480, 3)
    assert np.abs(middles(rgb) - BARS).max() <= 2
    with open_video(path) as video:
        small = still(next(video.frames()), video.facts, 32, Scaler())[..., :3]
    assert small.shape == (32, 240, 3)
    assert np.abs(middles(small) - BARS).max() <= 2


# --- light -----------------------------------------------------------------------------------


def pq_inverse(nits: float) -> float:
    """SMPTE ST 2084, equation 5.2, with the constants as the standard prints them."""
    m1, m2 = 2610 / 4096 / 4, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    y = (nits / 10000) ** m1
    return float(((c1 + c2 * y) / (1 + c3 * y)) ** m2)


def pq(signal: float) -> float:
    m1, m2 = 2610 / 4096 / 4, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    p = signal ** (1 / m2)
    return float(10000 * (max(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1))


def expected_grey(nits: float) -> float:
    """BT.2390 (5.4.1, steps 1 to 5) from 1000 to 203 nit, then BT.1886 backwards."""
    peak = pq_inverse(1000)
    e1, top = min(pq_inverse(nits) / peak, 1), pq_inverse(203) / peak
    ks = 1.5 * top - 0.5
    if e1 >= ks:
        t = (e1 - ks) / (1 - ks)
        e1 = (
            (2 * t**3 - 3 * t**2 + 1) * ks
            + (t**3 - 2 * t**2 + t) * (1 - ks)
            + (-2 * t**3 + 3 * t**2) * top
        )
    return float(255 * (pq(e1 * peak) / 203) ** (1 / 2.4))


def hlg_nits(signal: float) -> float:
    """BT.2100 table 5 for a grey: inverse OETF, then the OOTF with gamma 1.2 at 1000 nit."""
    a, b = 0.17883277, 1 - 4 * 0.17883277
    c = 0.5 - a * np.log(4 * a)
    scene = signal**2 / 3 if signal <= 0.5 else (np.exp((signal - c) / a) + b) / 12
    return float(1000 * scene**1.2)


GREYS = np.linspace(0.06, 0.94, 8)


def grey_bars(signals: Rgb) -> Planes:
    """10-bit limited 4:2:0."""
    luma = np.tile(np.rint((219 * signals + 16) * 4).astype(np.uint16).repeat(BAR), (64, 1))
    chroma = np.full((32, luma.shape[1] // 2), 512, np.uint16)
    return luma, chroma, chroma


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_greys_are_tone_mapped_as_bt2390_says(tmp_path: Path, transfer: str) -> None:
    path = tmp_path / "hdr.mp4"
    tag = {"pq": 16, "hlg": 18}[transfer]
    write_movie(path, [grey_bars(GREYS)], Movie("yuv420p10le", (9, 1, tag, 9)))
    coded = np.rint((219 * GREYS + 16) * 4)
    light = [pq(s) if transfer == "pq" else hlg_nits(s) for s in (coded / 4 - 16) / 219]
    expected = np.array([[expected_grey(nits)] * 3 for nits in light])
    assert read_facts(path).color_transfer == transfer
    assert np.abs(middles(read_blocks(path).rgb()[0]) - expected).max() <= 1.5
    with open_video(path) as video:
        small = still(next(video.frames()), video.facts, 32, Scaler())[..., :3]
    assert np.abs(middles(small) - expected).max() <= 2


def test_the_curves_pass_through_the_points_that_standards_name() -> None:
    assert pq_to_nits(np.array([0.0, 1.0])) == pytest.approx([0, 10000])
    assert float(nits_to_pq(np.array(100.0))) == pytest.approx(0.508, abs=1e-3)
    assert 1000 * float(hlg_to_scene(np.array(0.75))) ** 1.2 == pytest.approx(203, abs=1)
    assert float(hlg_to_scene(np.array(1.0))) == pytest.approx(1, abs=1e-6)
    mapped = tone_map(np.array([0.01, 1.0, 50.0, 1000.0, 4000.0]))
    assert mapped == pytest.approx([0.01, 1, 50, 203, 203], rel=1e-6)
    assert (np.diff(tone_map(np.linspace(0.1, 1000, 500))) > 0).all()


def test_hdr_colours_keep_their_hue(tmp_path: Path) -> None:
    """A bright pale orange that stays inside BT.709: the ratios of its light stay the same."""
    path = tmp_path / "hdr.mkv"
    nits = np.array([300.0, 280.0, 260.0])
    signal = np.array([pq_inverse(v) for v in nits]) * 255
    planes = bars(np.tile(signal, (8, 1)), "bt2020", False, (1, 1), 12)
    write_movie(path, [planes], Movie("yuv444p12le", (9, 1, 16, 9), "ffv1", options=()))
    shown = (middles(read_blocks(path).rgb()[0])[0] / 255) ** 2.4
    to_bt709 = np.array(  # BT.2087, M2
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    )
    light = to_bt709 @ nits
    assert shown / shown[0] == pytest.approx(light / light[0], abs=0.02)


def test_bt2020_sdr_is_brought_to_bt709_primaries(tmp_path: Path) -> None:
    to_bt2020 = np.array(  # BT.2087, M1
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    colors = 24 + BARS * 0.8  # at the very edge of BT.709 the rounding of codes is visible
    wide = ((colors / 255) ** 2.4 @ to_bt2020.T) ** (1 / 2.4) * 255
    path = tmp_path / "wide.mkv"
    planes = bars(wide, "bt2020", False, (1, 1), 12)
    movie = Movie("yuv444p12le", (9, 1, 14, 9), "ffv1", options=())
    write_movie(path, [planes], movie)
    assert np.abs(middles(read_blocks(path).rgb()[0]) - colors).max() <= 2


# --- interlace -------------------------------------------------------------------------------


def interlaced(frames: int) -> list[Planes]:
    """A white bar that moves between the two fields of a frame, over grey."""
    pictures: list[Planes] = []
    for k in range(frames):
        luma = np.full((64, 128), 60, np.uint8)
        luma[0::2, 8 * k : 8 * k + 16] = 200
        luma[1::2, 8 * k + 4 : 8 * k + 20] = 200
        chroma = np.full((32, 64), 128, np.uint8)
        pictures.append((luma, chroma, chroma))
    return pictures


def combing(luma: npt.NDArray[np.uint8]) -> float:
    """How much each row differs from both its neighbours in the same direction."""
    rows = luma.astype(int)
    up, down = rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]
    return float(np.mean(np.where(up * down > 0, np.minimum(abs(up), abs(down)), 0)))


def test_interlaced_footage_is_deinterlaced_one_frame_per_frame(tmp_path: Path) -> None:
    path = tmp_path / "interlaced.mp4"
    options = (("qp", "0"), ("x264-params", "tff=1"))
    stamps = [k * 512 + (100 if k > 4 else 0) for k in range(10)]
    write_movie(path, interlaced(10), Movie(options=options), stamps)
    with open_video(path) as video:
        assert video.facts.interlaced
        frames = list(video.frames())
        shown = [PictureReader(video.facts, Crop(0, 0, 128, 64)).block([f], 1) for f in frames]
    assert [frame.pts for frame in frames] == stamps
    assert {frame.time_base for frame in frames} == {Fraction(1, 12800)}
    before = combing(interlaced(5)[4][0])
    after = max(combing(block.planes[0][0]) for block in shown[1:-1])
    assert before > 5
    assert after < before / 8
    kept, given = shown[4].planes[0][0], interlaced(5)[4][0]
    assert any(np.array_equal(kept[row::2], given[row::2]) for row in (0, 1))  # one field whole


# --- real footage ----------------------------------------------------------------------------

REAL = [
    ("androidx__hdr10-av1.mp4", 720, 1280), ("androidx__hlg10-color-test.mp4", 1920, 1080),
    ("androidx__sample_with_color_info.mp4", 1080, 1920), ("ffmpegcore__input_hdr.mov", 640, 360),
    ("androidx__roadtrip-vp92-10bit.webm", 426, 240), ("jcodec__test.prores.mov", 192, 144),
    ("androidx__portrait_4k60.mp4", 2160, 3840), ("streamio__sideways movie.mov", 480, 640),
    ("ffmpegcore__input_3sec_rotation_90deg.mp4", 720, 1280), ("phpffmpeg__portrait.MOV", 320, 568),
    ("bad/androidx__sample_rotate_and_reflect.mp4", 720, 1080), ("openshot__test1.mp4", 660, 480),
    ("rails__video_with_rectangular_samples.mp4", 1920, 1080),
    ("androidx__sample_vvc.mp4", 320, 180),
    ("androidx__bbb_800x640_768kbps_30fps_vp9.mp4", 1138, 640),
    ("androidx__bear-vp9-odd-dimensions.webm", 161, 121),
    ("mdnshared__hand-controller-target-ray.gif", 480, 281),
]  # fmt: skip


@pytest.mark.parametrize(("name", "width", "height"), REAL)
def test_real_footage_keeps_the_contract(footage: Path, name: str, width: int, height: int) -> None:
    """Block, whole frame and still agree on the picture, at its displayed size."""
    with open_video(footage / name) as video:
        facts = video.facts
        frame = next(video.frames())
        assert (facts.width, facts.height) == (width, height)
        crop = Crop(2, 2, width // 16 * 16 - 16, height // 16 * 16 - 16)
        rgb = PictureReader(facts, crop).block([frame], 1).rgb()[0]
        whole = frame_rgb(frame, facts)
        small = still(frame, facts, 384, Scaler())[..., :3]
    assert np.array_equal(rgb, whole[2 : 2 + crop.height, 2 : 2 + crop.width])
    size = (small.shape[1], small.shape[0])
    shrunk = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX))
    assert np.abs(shrunk.astype(int) - small).mean() < 2.5
    assert np.abs(shrunk.mean((0, 1)) - small.mean((0, 1))).max() < 1


# --- still images ----------------------------------------------------------------------------


def test_a_picture_becomes_a_block_of_one_frame() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (40, 50, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    picture = open_media(buffer, SCAN, PIXELS)
    assert isinstance(picture, Picture)
    block = picture_block(picture, Crop(8, 4, 32, 32))
    assert block.shape == (1, 32, 32)
    assert np.array_equal(block.rgb()[0], pixels[4:36, 8:40])


def test_a_jpeg_of_the_same_pixels_is_the_same_bytes() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None] * 30
    data = jpeg(Image.fromarray(pixels), 87)
    assert data == jpeg(Image.fromarray(pixels), 87)
    assert data == jpeg(image_of(np.dstack([pixels, pixels[..., :1]])), 87)
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - pixels).max() < 12


def test_a_size_that_changes_is_told_and_not_scaled(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [random_planes(6, 64, 64)], Movie(tags=BT709))
    with open_video(path) as video:
        reader = PictureReader(video.facts, Crop(0, 0, 32, 32), (128, 64))
        with pytest.raises(MediaError, match="64 x 64 px"):
            reader.block(video.frames(), 1)
