"""A film in a file of 60 frames a second: built as it is coded, and at its own rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from telecine.manifests.schemas import Sample
from telecine.pipeline.cli.main import app
from telecine.pipeline.lifecycle.verify import verify
from tests.support import inline
from tests.support.movies import Movie, Planes, write_movie


def film(number: int) -> Planes:
    """A texture with a light that moves over it."""
    luma = np.random.default_rng(3).integers(40, 120, (160, 192), np.uint8)
    luma[40:90, 3 * number : 3 * number + 50] = 220
    return luma, np.full((80, 96), 120, np.uint8), np.full((80, 96), 130, np.uint8)


def test_a_film_is_built_as_it_is_coded_or_at_its_own_rate(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pictures = [film(number) for number in range(36) for _ in range(2 + number % 2)]
    write_movie(tmp_path / "in" / "film.mp4", pictures, Movie(rate=60, time_base=Fraction(1, 60)))
    dataset = str(tmp_path / "dataset")
    inline.ingest(str(tmp_path / "in"), dataset)
    inline.rebuild(dataset, {"vae": {"rate": "effective"}})
    run = inline.run_of(inline.asked(dataset, None))
    coded, effective = sorted(run.dataset.tables.rows(Sample), key=lambda row: -row.encoded_frames)
    assert (coded.fps_num, coded.encoded_frames + coded.frames_left_out) == (60, 90)
    assert (coded.frames_resampled_away, coded.frames_repeated) == (0, 0)
    assert (effective.fps_num, effective.encoded_frames + effective.frames_left_out) == (24, 36)
    assert (effective.frames_resampled_away, effective.frames_repeated) == (54, 0)
    shown = CliRunner().invoke(app, ["inspect", dataset])
    assert "frames 90 = 33 encoded + 3 left out + 54 resampled away - 0 repeated" in shown.stdout
    found = verify(run, None)
    assert found.sound
