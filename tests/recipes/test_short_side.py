"""A build of smaller pictures: its clips, its seats, what is left out, and what it says of them."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.schemas import Sample
from telecine.manifests.specs import VaeSpec
from telecine.pipeline.look.decode import View, decode
from telecine.pipeline.look.explain import explain
from telecine.pipeline.look.verdict import Why
from tests.support import inline
from tests.support.lab import Lab
from tests.support.movies import Movie, numbered, write_movie

# webdataset leaves its files for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SMALL = {"vae": {"short_side": 160}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A native build that is current, and one of 160 px beside it."""
    made = Lab(tmp_path_factory.mktemp("short-side"))
    made.image("a", 1, (320, 480))
    made.image("b", 2, (240, 180))
    made.image("small", 3, (200, 150))
    films = [numbered(k, 400, 256) for k in range(26)]
    write_movie(made.footage / "film.mp4", films, Movie(rate=25))
    made.ingest()
    made.rebuild(SMALL, name="small", promote=False)
    return made


def named(lab: Lab, rows: list[Sample]) -> dict[str, Sample]:
    """Samples by the name of their source's file, without its end."""
    clips = lab.connect().sql("SELECT clip_id, uri FROM clips JOIN sources USING (source_id)")
    names = {clip_id: Path(uri).stem for clip_id, uri in clips.fetchall()}
    return {names[row.clip_id]: row for row in rows}


def test_the_short_side_is_as_asked_and_smaller_clips_are_left_out(lab: Lab) -> None:
    _, small = lab.builds()
    rows = named(lab, lab.live(small))
    assert {name: (row.encoded_width, row.encoded_height) for name, row in rows.items()} == {
        "a": (160, 240), "b": (208, 160), "film": (240, 160), "small": (0, 0),
    }  # fmt: skip
    dropped = rows["small"]
    assert (dropped.outcome, dropped.reason) == ("dropped", "too_small")
    assert dropped.detail == "200×150, its short side is to be 160 px"
    assert {row.resolution for row in rows.values() if row.outcome == "kept"} == {144}
    native = named(lab, lab.live())
    assert {name: row.resolution for name, row in native.items()} == {
        "a": 240, "b": 144, "film": 240, "small": 144,
    }  # fmt: skip


def test_seats_are_those_of_the_native_build(lab: Lab) -> None:
    native, small = lab.builds()
    theirs = {path.rsplit("/", 1)[1]: keys for path, keys in lab.layout(native).items()}
    left_out = {row.clip_id for row in lab.live(small) if row.outcome == "dropped"}
    assert {path.rsplit("/", 1)[1]: keys for path, keys in lab.layout(small).items()} == {
        name: kept
        for name, keys in theirs.items()
        if (kept := [key for key in keys if key not in left_out])
    }


def sample_json(lab: Lab, row: Sample) -> dict[str, Any]:
    with tarfile.open(lab.dataset / row.shard_path) as tar:
        member = tar.extractfile(f"{row.clip_id}.json")
        assert member is not None
        return dict(json.load(member))


def test_a_sample_says_what_its_picture_was_made(lab: Lab) -> None:
    native, small = (named(lab, lab.live(build)) for build in lab.builds())
    said = sample_json(lab, small["film"])
    assert said["reduced"] == {"width": 250, "height": 160, "filter": "bicubic"}
    assert (said["native_width"], said["native_height"]) == (400, 256)
    assert (said["width"], said["height"], said["crop"]) == (240, 160, {"x": 4, "y": 0})
    assert "reduced" not in sample_json(lab, native["film"])


def test_what_is_decoded_is_laid_beside_the_smaller_picture(lab: Lab, tmp_path: Path) -> None:
    row = named(lab, lab.live(lab.builds()[1]))["film"]
    view = View(row.clip_id, build="small", side_by_side=True)
    shown = decode(open_dataset(str(lab.dataset), Storage()), view, tmp_path / "film.mp4")
    assert (shown.width, shown.height, shown.rate) == (480, 160, Fraction(25))
    assert min(shown.psnr_db) > 15  # hard edges, coded poorly; where they are


def test_explain_says_that_it_is_too_small(lab: Lab) -> None:
    dataset = open_dataset(str(lab.dataset), Storage())
    asked = dataclasses.replace(dataset, spec=dataset.spec.overlaid(SMALL))
    found = explain(asked, "small.png")
    assert found.clips[0].steps[-3].name == "planned"
    said = found.clips[0].steps[-3].text
    assert "its short side of 150 px is below vae.short_side, 160 px" in said
    assert found.verdict.why is Why.IN_BUILD  # of the native one, which is current


def test_older_specs_keep_their_fingerprint() -> None:
    assert "short_side" not in VaeSpec().canonical()
    assert VaeSpec(short_side=160).canonical()["short_side"] == 160
    for wrong in (15, 161, 0):
        with pytest.raises(ValidationError):
            VaeSpec(short_side=wrong)


def test_a_build_of_native_pictures_does_not_follow_one_of_smaller(tmp_path: Path) -> None:
    """Its shards would be of several rungs."""
    lab = Lab(tmp_path)
    lab.image("a", 1, (480, 480))
    lab.image("b", 2, (240, 240))
    inline.ingest(str(lab.footage), str(lab.dataset), SMALL)
    lab.rebuild({"vae": {"short_side": None}})
    small, native = lab.builds()
    assert [len(lab.layout(build)) for build in (small, native)] == [1, 2]
    assert native.last.follows == ""
