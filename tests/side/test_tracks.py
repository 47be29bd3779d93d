"""Tracks from a file beside footage into samples: held against what the pictures show."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine.manifests.index.tracks import group
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.dataset import create_described_clips
from telecine.pipeline.cli.rebuild import built_lines
from tests.support import inline
from tests.support.lab import Lab
from tests.support.movies import Movie, write_movie
from tests.support.samples import members
from tests.support.squares import SPEED, off, square

TRACKS = {
    "place": {"columns": ["x"], "rule": "linear", "unit": "px"},
    "moved": {"columns": ["dx"], "rule": "sum", "unit": "px"},
}


def film(folder: Path, name: str, ticks: list[int]) -> list[float]:
    """A square that moves SPEED px from frame to frame; returns when each is shown, in s."""
    movie = Movie(time_base=Fraction(1, 1000), rate=25)
    write_movie(
        folder / f"{name}.mp4", [square(SPEED * k) for k in range(len(ticks))], movie, ticks
    )
    return [(t - ticks[0]) / 1000 for t in ticks]


def track(path: Path, times: list[float], late: int = 0) -> None:
    rows = ["timestamp,x,dx"]
    rows += [f"{t:.6f},{SPEED * (k - late)},{SPEED}" for k, t in enumerate(times)]
    path.write_text("\n".join(rows))


def samples(lab: Lab) -> dict[str, dict[str, Any]]:
    """By the footage's name."""
    return {Path(one["json"]["source"]["uri"]).stem: one for one in members(lab).values()}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("tracks"))
    steady = film(lab.footage, "steady", [40 * k for k in range(33)])
    jitter = np.random.default_rng(5).integers(20, 90, 37)
    uneven = film(lab.footage, "uneven", [1000, *(1000 + np.cumsum(jitter)).tolist()])
    track(lab.footage / "steady.tracks.csv", steady)
    track(lab.footage / "uneven.tracks.csv", uneven)
    film(lab.footage, "alone", [40 * k for k in range(29)])
    inline.ingest(str(lab.footage), str(lab.dataset), {"tracks": TRACKS})
    lab.check()
    return lab


@pytest.mark.parametrize("name", ["steady", "uneven"])
def test_a_track_says_what_the_frames_show(lab: Lab, name: str) -> None:
    sample = samples(lab)[name]
    assert sample["json"]["variable_rate"] == (name == "uneven")
    assert off(sample) < 1
    # One frame off is seen.
    assert off(sample, shift=1) > 2


@pytest.mark.parametrize("name", ["steady", "uneven"])
def test_what_moved_until_the_next_frame_adds_up_to_where_it_is(lab: Lab, name: str) -> None:
    sample = samples(lab)[name]
    place, moved = sample["place.npy"][:, 0], sample["moved.npy"][:, 0]
    assert np.allclose(place[0] + np.cumsum(moved[:-1]), place[1:])
    assert moved.dtype == place.dtype == np.float32
    facts = sample["json"]["tracks"]["moved"]
    assert facts["columns"] == ["dx"]
    assert (facts["rule"], facts["unit"], facts["coverage"]) == ("sum", "px", 1.0)
    assert facts["shape"] == [sample["json"]["num_frames"], 1]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(facts["valid"]), np.uint8))
    assert bits.sum() == len(place)
    grouped = group(sample["place.npy"], 4, True, "linear")
    assert len(grouped) == sample["latent.npy"].shape[1]


def test_footage_without_a_track_file_goes_on_without(lab: Lab) -> None:
    sample = samples(lab)["alone"]
    assert "place.npy" not in sample
    assert "no track file" in sample["json"]["tracks"]["place"]["problem"]


def test_a_build_says_that_its_samples_lack_a_track(lab: Lab, tmp_path: Path) -> None:
    shutil.copytree(lab.dataset, copy := tmp_path / "copy")
    asked = {"place": {"columns": ["z"], "rule": "linear"}, "moved": TRACKS["moved"]}
    built = inline.rebuild(str(copy), {"tracks": asked})
    assert {name: one.samples for name, one in built.without_track.items()} == {
        "place": 3,
        "moved": 1,
    }
    said = "\n".join(built_lines(built, str(copy)))
    assert "tracks   3 samples without place, as here: " in said
    assert "no track file" in built.without_track["moved"].problem


def test_a_corrected_track_copies_latents_and_lets_in_what_it_had_kept_out(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    times = film(lab.footage, "late", [40 * k for k in range(33)])
    film(lab.footage, "short", [40 * k for k in range(29)])
    film(lab.footage, "none", [40 * k for k in range(26)])
    track(lab.footage / "late.tracks.csv", times, late=1)
    track(lab.footage / "short.tracks.csv", times[:20])
    required = TRACKS | {"moved": TRACKS["moved"] | {"required": True}}
    first = inline.ingest(str(lab.footage), str(lab.dataset), {"tracks": required})
    assert first.build.dropped_by_reason == {"track_gap": 1, "track_missing": 1}
    assert first.build.frames_encoded == 33  # of the one that stays: known before it is encoded
    columns = "moved_coverage > 0.6, moved_gap > 0.3"
    con = lab.connect()
    create_described_clips(con, DatasetSpec.model_validate({"tracks": required}))
    told = con.sql(f"SELECT {columns} FROM described_clips ORDER BY moved_coverage").fetchall()
    assert told == [(False, None), (True, True), (True, False)]
    (gap,) = [s for s in lab.live() if s.reason == "track_gap"]
    assert gap.detail.startswith("moved: 9 of 29 frames without it")
    wrong = samples(lab)["late"]
    assert off(wrong) > 2

    track(lab.footage / "late.tracks.csv", times)
    track(lab.footage / "short.tracks.csv", times)
    again = inline.ingest(str(lab.footage), str(lab.dataset))
    assert (again.scan.scanned, again.build.samples_copied, again.build.samples) == (0, 1, 2)
    assert again.build.frames_encoded == 29  # of the one that was not there
    right = samples(lab)["late"]
    assert off(right) < 1
    assert (right["latent.npy"] == wrong["latent.npy"]).all()
    assert inline.ingest(str(lab.footage), str(lab.dataset)).build.shards == 0  # settled
    lab.check()
