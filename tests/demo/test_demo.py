"""The demo's footage is what its names say, whoever opens it."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from telecine.pipeline.demo.footage import FILMS, Film, render


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_every_kind_of_file_is_there(demo_footage: Path) -> None:
    names = {path.name for path in demo_footage.iterdir()}
    assert names == {
        *(film.name for film in FILMS),
        "broken.mp4", "photo.jpg", "picture.png", "square with caption.txt", "subtitled.srt",
    }  # fmt: skip
    sizes = {(film.width, film.height) for film in FILMS}
    assert any(width < height for width, height in sizes)
    assert any(width == height for width, height in sizes)
    assert any(width > height for width, height in sizes)
    assert len({film.fps for film in FILMS}) == 2


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_a_film_has_its_size_rate_depth_and_turn(demo_footage: Path, film: Film) -> None:
    frames = frames_of(demo_footage / film.name)
    assert len(frames) == sum(round(shot.seconds * film.fps) for shot in film.shots)
    first = frames[0]
    turned = film.rotation == 90
    shown = (first.height, first.width) if turned else (first.width, first.height)
    assert shown == (film.width, film.height)
    assert first.rotation == film.rotation
    assert first.format.components[0].bits == (10 if film.ten_bit else 8)
    seconds = [frame.time for frame in frames if frame.time is not None]
    assert np.allclose(seconds, np.arange(len(frames)) / film.fps, atol=1e-3)


def test_cuts_are_hard_and_shots_move(demo_footage: Path) -> None:
    film = FILMS[0]
    gray = [
        f.to_ndarray(format="gray").astype(np.int16) for f in frames_of(demo_footage / film.name)
    ]
    steps = np.array([np.abs(b - a).mean() for a, b in itertools.pairwise(gray)])
    lengths = [round(shot.seconds * film.fps) for shot in film.shots]
    cuts = np.cumsum(lengths)[:-1] - 1  # step k leads from frame k to k + 1
    inside = np.delete(steps, cuts)
    assert inside.min() > 0.2
    assert steps[cuts].min() > 3 * inside.max()


def test_ten_bit_footage_uses_its_ten_bits(demo_footage: Path) -> None:
    film = next(film for film in FILMS if film.ten_bit)
    luma = frames_of(demo_footage / film.name)[0].to_ndarray()[: film.height].astype(np.int64)
    assert len(np.unique(luma % 4)) == 4


def test_turned_files_stand_upright_once_turned(demo_footage: Path) -> None:
    """The sky is above: smoother than the hills below it."""
    film = next(film for film in FILMS if film.rotation)
    coded = frames_of(demo_footage / film.name)[0].to_ndarray(format="gray").astype(np.float64)
    photo = ImageOps.exif_transpose(Image.open(demo_footage / "photo.jpg"))
    for upright in (np.rot90(coded, film.rotation // 90), np.asarray(photo.convert("L"), float)):
        height, width = upright.shape
        assert height > width
        roughness = np.abs(np.diff(upright, axis=0)).mean(axis=1)
        assert roughness[: height // 4].mean() * 2 < roughness[-height // 4 :].mean()


def test_the_broken_file_does_not_open(demo_footage: Path) -> None:
    data = (demo_footage / "broken.mp4").read_bytes()
    assert b"ftyp" in data[:16]
    with pytest.raises(av.error.InvalidDataError):
        av.open(io.BytesIO(data))


def test_a_second_rendering_touches_nothing(demo_footage: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo_footage.iterdir()}
    assert sorted(render(demo_footage)) == sorted(before)
    assert {path: path.stat().st_mtime_ns for path in demo_footage.iterdir()} == before
