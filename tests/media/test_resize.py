"""Pictures made smaller (docs/pixels.md): against a float resampler, and what must not change."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from telecine.encoders.frames import FrameBlock
from telecine.pipeline.media.facts import Picture
from telecine.pipeline.media.geometry import Crop, crop_to_grid, reduced_size
from telecine.pipeline.media.open import open_media
from telecine.pipeline.media.pixels import PictureReader, picture_block
from telecine.pipeline.media.resize import smaller_plane
from tests.support.movies import (
    PIXELS,
    SCAN,
    UNTAGGED,
    Movie,
    Planes,
    open_video,
    set_display_matrix,
    write_movie,
)
from tests.support.pictures import leaves, levels

Float = npt.NDArray[np.float64]


@pytest.mark.parametrize(
    ("native", "short_side", "made"),
    [
        ((1920, 1080), 256, (456, 256)),  # 455.1
        ((1080, 1920), 256, (256, 456)),
        ((853, 480), 480, (853, 480)),  # its own size, odd or not
        ((1921, 1081), 480, (852, 480)),  # 853.0
        ((300, 300), 256, (256, 256)),
        ((455, 257), 256, (454, 256)),
        ((640, 240), 256, None),  # never enlarged
        ((640, 240), None, (640, 240)),
    ],
)
def test_the_short_side_is_exact_and_the_other_even(
    native: tuple[int, int], short_side: int | None, made: tuple[int, int] | None
) -> None:
    assert reduced_size(*native, short_side) == made


def test_no_side_of_a_smaller_picture_is_longer_or_off_by_more_than_one() -> None:
    for width in range(256, 700, 7):
        for height in (256, 257, 300, 431):
            made = reduced_size(width, height, 256)
            assert made is not None
            assert min(made) == 256
            assert made[0] <= width
            assert made[1] <= height
            exact = Fraction(256 * max(width, height), min(width, height))
            assert abs(max(made) - exact) <= 1


def read(path: Path, short_side: int, grid: int = 2) -> FrameBlock:
    """The file's first frame as an encoder of that grid sees it in a build of that short side."""
    with open_video(path) as video:
        facts = video.facts
        size = reduced_size(facts.width, facts.height, short_side)
        assert size is not None
        crop = crop_to_grid(*size, grid)
        assert crop is not None
        return PictureReader(facts, crop, reduced=size).block(video.frames(), 1)


# ── against a float resampler ─────────────────────────────────────────────────────────────────────


def lanczos_3(x: Float) -> Float:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def cubic(x: Float) -> Float:
    """B = 0, C = 0.6 (Mitchell and Netravali, Reconstruction filters in computer graphics, 1988)"""
    x = np.abs(x)
    near, far = 1.4 * x**3 - 2.4 * x**2 + 1, -0.6 * x**3 + 3 * x**2 - 4.8 * x + 2.4
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def weights(native: int, made: int, kernel: Callable[[Float], Float]) -> Float:
    """[made, native]: the kernel, widened by the ratio; centres of pixels kept, edges repeated."""
    ratio, beyond = native / made, math.ceil(3 * native / made)
    centres = (np.arange(made) + 0.5) * ratio - 0.5
    taps = kernel((np.arange(-beyond, native + beyond) - centres[:, None]) / ratio)
    inner = taps[:, beyond:-beyond].copy()
    inner[:, 0] += taps[:, :beyond].sum(axis=1)
    inner[:, -1] += taps[:, -beyond:].sum(axis=1)
    return np.asarray(inner / inner.sum(axis=1, keepdims=True))


def resampled(
    picture: npt.NDArray[Any], size: tuple[int, int], kernel: Callable[[Float], Float]
) -> Float:
    (height, width), (across, down) = picture.shape, size
    return np.asarray(weights(height, down, kernel) @ picture @ weights(width, across, kernel).T)


def psnr(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return 10 * math.log10(255**2 / float(np.square(one.astype(float) - other).mean()))


def luma_movie(path: Path, luma: npt.NDArray[np.uint8]) -> Path:
    grey = np.full((-(-luma.shape[0] // 2), -(-luma.shape[1] // 2)), 128, np.uint8)
    return write_movie(path, [(luma, grey, grey)])


def test_it_is_the_cubic_filter_near_lanczos_and_skips_no_pixel(tmp_path: Path) -> None:
    picture = levels(leaves(540, 960, seed=3, least=1.5))
    made = read(luma_movie(tmp_path / "leaves.mp4", picture), 128).planes[0][0]
    assert psnr(made, resampled(picture, (228, 128), cubic)) > 55
    lanczos = resampled(picture, (228, 128), lanczos_3)
    assert psnr(made, lanczos) > 35
    skipped = picture[np.ix_(np.arange(128) * 540 // 128, np.arange(228) * 960 // 228)]
    assert psnr(made, lanczos) > psnr(skipped, lanczos) + 10


def test_images_are_made_smaller_as_films_are(tmp_path: Path) -> None:
    picture = levels(leaves(300, 400, seed=4))
    made = smaller_plane(picture, (170, 128))
    assert psnr(made, resampled(picture, (170, 128), cubic)) > 55
    film = luma_movie(tmp_path / "same.mp4", picture)
    assert np.array_equal(read(film, 128).planes[0][0], made)
    rgb = [picture, picture[::-1], picture[:, ::-1]]  # stored as green, blue, red
    path = write_movie(
        tmp_path / "rgb.avi", [tuple(rgb)], Movie("gbrp", (0, 2, 1, 1), "utvideo", options=())
    )
    for plane, native in zip(read(path, 128).planes, (rgb[2], rgb[0], rgb[1]), strict=True):
        assert psnr(plane[0], resampled(native, (170, 128), cubic)) > 55


# ── what must not change ──────────────────────────────────────────────────────────────────────────

LAYOUTS = [("yuv420p", 2, 2, 8), ("yuv422p", 2, 1, 8), ("yuv444p", 1, 1, 8),
           ("yuv420p10le", 2, 2, 10)]  # fmt: skip


def ramp(low: float, high: float, samples: int) -> Float:
    """From edge to edge, at the centres of so many samples."""
    return np.asarray(low + (high - low) * (np.arange(samples) + 0.5) / samples)


@pytest.mark.parametrize("across", [True, False], ids=["across", "down"])
@pytest.mark.parametrize(("layout", "sx", "sy", "depth"), LAYOUTS, ids=[n for n, *_ in LAYOUTS])
def test_nothing_shifts(
    tmp_path: Path, layout: str, sx: int, sy: int, depth: int, across: bool
) -> None:
    """A ramp stays the ramp: half a native pixel would be seen, of chroma as of luma."""
    width, height, unit = 480, 432, 1 << (depth - 8)
    planes = []
    for x, y in ((1, 1), (sx, sy), (sx, sy)):
        shape = (height // y, width // x)
        line = ramp(40, 197, shape[1])[None] if across else ramp(40, 197, shape[0])[:, None]
        values = np.rint(np.broadcast_to(line, shape) * unit)
        planes.append(values.astype(np.uint8 if depth == 8 else np.uint16))
    movie = Movie(layout, codec="ffv1", options=())
    block = read(write_movie(tmp_path / "ramp.mkv", [tuple(planes)], movie), 144)
    assert block.shape == (1, 144, 160)
    for plane in block.planes:
        rows, columns = plane[0].shape
        made = plane[0][rows // 2] if across else plane[0][:, columns // 2]
        rounded_up = 0.125 if depth > 8 else 0  # in the mean, where two bits are rounded away
        errors = made.astype(float) - ramp(40, 197, len(made)) - rounded_up
        inner = errors[len(made) // 8 : -len(made) // 8]
        assert abs(inner.mean()) < 0.08  # half a native pixel: 0.16 and more
        assert np.abs(inner).max() <= 1.1


@pytest.mark.parametrize("level", [16, 77, 128, 235])
@pytest.mark.parametrize(("layout", "sx", "sy", "depth"), LAYOUTS, ids=[n for n, *_ in LAYOUTS])
def test_flat_stays_flat(
    tmp_path: Path, layout: str, sx: int, sy: int, depth: int, level: int
) -> None:
    shapes = [(214, 380), (214 // sy, 380 // sx), (214 // sy, 380 // sx)]
    kind = np.uint8 if depth == 8 else np.uint16
    planes = tuple(np.full(shape, level << (depth - 8), kind) for shape in shapes)
    movie = Movie(layout, codec="ffv1", options=())
    block = read(write_movie(tmp_path / "flat.mkv", [planes], movie), 96)
    assert all((plane == level).all() for plane in block.planes)


def quadrants(width: int, height: int) -> Planes:
    """Another luma in each quarter."""
    luma = np.full((height, width), 40, np.uint8)
    luma[: height // 2, width // 2 :] = 90
    luma[height // 2 :, : width // 2] = 140
    luma[height // 2 :, width // 2 :] = 200
    grey = np.full((height // 2, width // 2), 128, np.uint8)
    return luma, grey, grey


def middle_lumas(block: FrameBlock) -> list[int]:
    luma = block.planes[0][0]
    rows, columns = luma.shape
    at = [(rows // 4, columns // 4), (rows // 4, 3 * columns // 4),
          (3 * rows // 4, columns // 4), (3 * rows // 4, 3 * columns // 4)]  # fmt: skip
    return [int(luma[place]) for place in at]


def test_a_portrait_film_is_turned_after_it_is_made_smaller(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "turned.mp4", [quadrants(320, 200)])
    set_display_matrix(path, 0, 1, -1, 0)
    block = read(path, 96, grid=16)
    assert block.shape == (1, 144, 96)  # 96 × 153.6 → 154, cut to the grid
    assert middle_lumas(block) == [140, 40, 200, 90]


def test_pixels_become_square_and_fewer_in_one_step(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "pal.mkv", [quadrants(360, 288)], Movie(sar=Fraction(16, 11)))
    block = read(path, 144)
    assert block.shape == (1, 144, 262)  # 523.6 → 524 × 288, so 262 × 144
    assert middle_lumas(block) == [40, 90, 140, 200]


def test_colours_that_nobody_sees_do_not_run(tmp_path: Path) -> None:
    """Transparent green beside red: white beside red, whatever the size."""
    left = np.arange(160)[None] < np.full((120, 1), 81)
    green, red = (145, 54, 34, 0), (81, 90, 240, 255)  # BT.601, and opacity
    planes = tuple(np.where(left, a, b).astype(np.uint8) for a, b in zip(green, red, strict=True))
    movie = Movie("yuva444p", UNTAGGED, "ffv1", options=())
    rgb = read(write_movie(tmp_path / "cut.mkv", [planes], movie), 48).rgb()[0].astype(int)
    assert (rgb[:, :28] == 255).all()
    assert np.abs(rgb[:, 38:] - (255, 0, 0)).max() <= 2
    assert rgb[..., 0].min() >= 240  # from white to red, and never through green


def test_an_image_is_made_smaller(tmp_path: Path) -> None:
    picture = np.dstack([levels(leaves(210, 280, seed=seed)) for seed in range(3)])
    Image.fromarray(picture).save(tmp_path / "leaves.png")
    with (tmp_path / "leaves.png").open("rb") as file:
        media = open_media(file, SCAN, PIXELS)
    assert isinstance(media, Picture)
    block = picture_block(media, Crop(0, 0, 128, 96), reduced_size(280, 210, 96))
    for channel, plane in enumerate(block.planes):
        assert psnr(plane[0], resampled(picture[..., channel], (128, 96), cubic)) > 55


def test_a_picture_of_that_size_is_not_touched(tmp_path: Path) -> None:
    planes = quadrants(190, 96)
    block = read(write_movie(tmp_path / "own.mkv", [planes]), 96)
    assert all(np.array_equal(a[0], b) for a, b in zip(block.planes, planes, strict=True))
