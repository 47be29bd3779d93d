"""Renditions: several builds of one corpus, made of one decode, in one order, current together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine.infra.errors import CheckFailed, Reason
from telecine.infra.store.storage import Storage
from telecine.manifests.builds import BuildState, State, find_build, promotions
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.schemas import Build, Sample
from telecine.pipeline.lifecycle.gc import collect, delete
from telecine.pipeline.lifecycle.promote import promote, rollback
from telecine.pipeline.lifecycle.verify import verify
from telecine.pipeline.look.explain import explain
from telecine.pipeline.look.summary import summary
from telecine.pipeline.look.verdict import Why
from telecine.pipeline.recipes import Built
from tests.support import inline
from tests.support.lab import Lab
from tests.support.movies import Movie, write_movie
from tests.support.snapshot import assert_same, shards_of

# webdataset leaves its files for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FAMILY = {"renditions": {"draft": {"short_side": 160, "fps": "8"}, "final": {}}}
DRAFT = {"vae": {"short_side": 160, "fps": "8"}}


BUILT: list[Built] = []  # what came of the ingest that made the dataset


def footage(lab: Lab) -> None:
    lab.image("a", 1, (320, 480))
    lab.image("b", 2, (240, 180))
    lab.image("small", 3, (200, 150))
    shade = np.random.default_rng(4).integers(40, 200, (16, 20), np.uint8)
    scene, grey = np.kron(shade, np.ones((16, 16), np.uint8)), np.full((128, 160), 128, np.uint8)
    for name, variable in (("even", False), ("variable", True)):
        films = [(np.roll(scene, 2 * k + 80 * variable, 1), grey, grey) for k in range(30)]
        ticks = [512 * (k + (k > 9) + 2 * (k > 20)) for k in range(30)] if variable else None
        write_movie(lab.footage / f"{name}.mp4", films, Movie(rate=25), ticks)


def opened(lab: Lab) -> Dataset:
    return open_dataset(str(lab.dataset), Storage())


def states(lab: Lab) -> list[tuple[str, State]]:
    return [(build.rendition, build.state) for build in lab.builds()]


def pointer(lab: Lab) -> dict[str, Any]:
    return dict(json.loads((lab.dataset / "shards" / "current.json").read_text()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A dataset ingested with renditions; to be looked at, and copied."""
    lab = Lab(tmp_path_factory.mktemp("renditions"))
    footage(lab)
    BUILT[:] = [inline.ingest(str(lab.footage), str(lab.dataset), FAMILY).build]
    lab.check()
    return lab


@pytest.fixture
def lab(made: Lab) -> Lab:
    """A copy of it, of the same footage."""
    copy = Lab(made.footage.parent, "copy")
    shutil.rmtree(copy.dataset, ignore_errors=True)
    shutil.copytree(made.dataset, copy.dataset)
    return copy


def named(lab: Lab, rendition: str) -> BuildState:
    return find_build(lab.connect(), rendition)


def test_current_json_names_all_of_them(made: Lab) -> None:
    final, draft = named(made, "final"), named(made, "draft")
    assert states(made) == [("final", State.CURRENT), ("draft", State.RENDITION)]
    there = pointer(made)
    assert (there["name"], there["build_id"]) == (final.name, final.build_id)
    assert {name: one["build_id"] for name, one in there["renditions"].items()} == {
        "final": final.build_id, "draft": draft.build_id,
    }  # fmt: skip
    assert list(there["renditions"]) == ["final", "draft"]
    for one in there["renditions"].values():
        assert (made.dataset / "shards" / one["index"]).is_file()


def test_clips_seats_and_order_are_equal_but_for_what_is_too_small(made: Lab) -> None:
    final, draft = named(made, "final"), named(made, "draft")
    dropped = [row for row in made.live(draft) if row.outcome == "dropped"]
    assert [row.reason for row in dropped] == [str(Reason.TOO_SMALL)]
    gone = {row.clip_id for row in dropped}
    seats = {path.rsplit("/", 1)[1]: keys for path, keys in made.layout(final).items()}
    mine = {path.rsplit("/", 1)[1]: keys for path, keys in made.layout(draft).items()}
    assert mine == {
        name: kept for name, keys in seats.items() if (kept := [k for k in keys if k not in gone])
    }
    assert {row.resolution for row in made.live(draft) if row.outcome == "kept"} == {144}


def test_explain_and_inspect_tell_of_each_rendition(made: Lab) -> None:
    found = explain(opened(made), "small.png")
    assert found.verdict.why is Why.IN_BUILD
    assert "; rendition draft: left out as too_small (200×150" in found.clips[0].steps[-1].text
    dataset = opened(made)
    report = summary(made.connect(), dataset.uri, dataset.spec)
    assert [(b.rendition, b.current) for b in report.builds] == [("final", True), ("draft", False)]
    assert report.builds[1].dropped == {"too_small": 1}


def said(row: Sample) -> dict[str, Any]:
    """All but whose build and plan it is."""
    apart = {"build_id", "plan", "shard_path"}
    return {name: value for name, value in vars_of(row).items() if name not in apart}


def test_bytes_are_those_of_each_build_made_alone(made: Lab, tmp_path: Path) -> None:
    alone = Lab(made.footage.parent, "alone")
    inline.ingest(str(made.footage), str(alone.dataset))
    alone.rebuild(DRAFT, promote=False)
    theirs = {build.build_id: build for build in alone.builds()}
    for build in made.builds():
        assert made.index(build)["shards"] == alone.index(theirs[build.build_id])["shards"]
        rows = alone.live(theirs[build.build_id])
        assert [said(row) for row in made.live(build)] == [said(row) for row in rows]


def test_a_clip_is_decoded_once(made: Lab) -> None:
    """Only the first one read bytes of the footage."""
    draft = BUILT[0].renditions["draft"]
    assert draft.samples == BUILT[0].samples - 1 == 4
    assert draft.frames_encoded > 0
    assert draft.bytes_read == 0 < BUILT[0].bytes_read


def test_what_is_new_goes_to_all(lab: Lab) -> None:
    lab.image("late", 9, (300, 300))
    built = lab.ingest()
    assert (built.samples, built.renditions["draft"].samples) == (1, 1)
    keys = [{row.clip_id for row in lab.live(b) if row.outcome == "kept"} for b in lab.builds()]
    assert len(keys[0] ^ keys[1]) == 1
    assert lab.ingest().renditions["draft"].shards == 0
    (lab.footage / "late.png").unlink()


def test_one_more_rendition_builds_only_that(lab: Lab) -> None:
    more = {"renditions": {**FAMILY["renditions"], "mid": {"short_side": 180}}}
    before = shards_of(lab.dataset)
    built = lab.rebuild(more)
    assert (built.samples, built.renditions["draft"].samples) == (0, 0)
    assert built.renditions["mid"].samples == 4
    assert list(pointer(lab)["renditions"]) == ["final", "draft", "mid"]
    after = shards_of(lab.dataset)
    assert {path: after[path] for path in before if path.endswith(".tar")}.items() <= before.items()
    assert opened(lab).spec.renditions.keys() == {"final", "draft", "mid"}
    rollback(opened(lab))
    assert list(pointer(lab)["renditions"]) == ["final", "draft"]
    assert opened(lab).spec.renditions.keys() == {"final", "draft"}


def test_a_missing_shard_of_one_is_made_alone(lab: Lab) -> None:
    before = shards_of(lab.dataset)
    lost = next(path for path in before if "draft" in path and path.endswith(".tar"))
    (lab.dataset / lost).unlink()
    found = verify(inline.run_of(opened(lab)), "draft", repair=True)
    assert found.repaired is not None
    assert found.repaired.put_back == (lost,)
    assert shards_of(lab.dataset) == before


POINTS = ["encode:even", "commit:samples", "committed:samples", "committed:planned",
          "commit:completed", "committed:completed", "committed:spec", "committed:promoted",
          "committed:index"]  # fmt: skip


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=() if n == 2 else pytest.mark.slow)
              for n, p in enumerate(POINTS)]
)  # fmt: skip
def test_a_run_that_is_killed_and_run_again_leaves_the_same(made: Lab, point: str) -> None:
    again = Lab(made.footage.parent, "killed")
    shutil.rmtree(again.dataset, ignore_errors=True)
    again.killed(point, spec=FAMILY)
    inline.ingest(str(again.footage), str(again.dataset), FAMILY)
    assert_same(again.dataset, made.dataset)


def test_a_family_goes_back_and_forth_as_a_whole(lab: Lab) -> None:
    final, draft = named(lab, "final"), named(lab, "draft")
    lab.rebuild({"vae": {"patch": 4}})
    assert states(lab) == [
        ("final", State.COMPLETED), ("draft", State.COMPLETED),
        ("final", State.CURRENT), ("draft", State.RENDITION),
    ]  # fmt: skip
    assert final.build_id not in str(pointer(lab))
    other = {one["build_id"] for one in pointer(lab)["renditions"].values()}
    assert rollback(opened(lab)).build == final.name
    assert pointer(lab)["renditions"]["draft"]["build_id"] == draft.build_id
    assert opened(lab).spec.vae.patch == 2
    assert promote(opened(lab), next(b.name for b in lab.builds() if b.build_id in other)).build
    assert {one["build_id"] for one in pointer(lab)["renditions"].values()} == other
    assert promote(opened(lab), draft.name).build == final.name  # of the first one
    assert len(promotions(lab.connect())) == 1


@pytest.mark.slow
def test_one_that_a_gate_refuses_keeps_all_of_them_back(lab: Lab) -> None:
    lab.rebuild({"vae": {"patch": 4}}, promote=False)
    draft = next(b for b in lab.builds() if b.state is State.COMPLETED and "draft" in b.name)
    bad = [
        {**vars_of(row), "reason": "not_finite", "outcome": "dropped"}
        for row in lab.live(draft)
        if row.outcome == "kept"
    ][:1]
    assert bad
    tables = opened(lab).tables
    row = Sample(**bad[0] | {"plan": 1, "shard_id": "", "shard_path": ""})
    event = draft.completed
    assert event is not None
    tables.append("samples", [row])
    replaced = {**vars_of(event), "plan": 1, "sequence": 99, "replaces": (), "num_shards": 0}
    tables.append("builds", [Build(**replaced | {"event": "planned"}),
                             Build(**replaced | {"sequence": 100})])  # fmt: skip
    before = pointer(lab)
    with pytest.raises(CheckFailed, match="rendition draft: the encoder returned NaN"):
        promote(opened(lab), draft.name)
    assert pointer(lab) == before


def vars_of(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in type(row).__slots__}


@pytest.mark.slow
def test_gc_keeps_the_whole_current_family(lab: Lab) -> None:
    lab.rebuild({"vae": {"patch": 4}})
    garbage = collect(opened(lab), retention_hours=0)
    dead = {one.build.rendition for one in garbage.builds}
    assert dead == {"final", "draft"}
    kept = {one["name"] for one in pointer(lab)["renditions"].values()}
    assert not kept & {one.build.name for one in garbage.builds}
    delete(opened(lab), garbage)
    lab.check()
    assert all(verify(inline.run_of(opened(lab)), name).sound for name in kept)


@pytest.mark.slow
def test_renditions_that_are_no_longer_asked_for_leave_the_first(lab: Lab) -> None:
    final = named(lab, "final")
    lab.rebuild({"renditions": {}})
    assert (pointer(lab)["build_id"], "renditions" in pointer(lab)) == (final.build_id, False)
    assert rollback(opened(lab)).build == final.name
    assert list(pointer(lab)["renditions"]) == ["final", "draft"]
