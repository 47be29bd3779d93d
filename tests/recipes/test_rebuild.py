"""Rebuilds: what another VAE, text, selection or shard size costs, and what they leave in place."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from telecine.encoders.load import load_encoder
from telecine.infra.errors import CommitError, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.builds import State, find_build, last_plan, next_sequence, promotions
from telecine.manifests.dataset import replace_spec, resolve_dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build
from telecine.manifests.specs import DatasetSpec, SelectSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.build.events import complete, plan_builds
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.preview import preview_builds
from telecine.pipeline.cli.rebuild import print_foreseen
from telecine.pipeline.recipes import Built, build, ingest, preview
from telecine.pipeline.run import RunOptions
from tests.support import inline
from tests.support.lab import Lab
from tests.support.snapshot import assert_same, shards_of

# webdataset leaves its files for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OTHER_VAE = {"vae": {"patch": 4}}  # latents of their own: the crop grid is in their fingerprint
SIZES = {"a": (160, 160), "b": (160, 160), "c": (320, 160), "d": (160, 160), "e": (320, 160)}


def ingested(folder: Path) -> Lab:
    made = Lab(folder)
    for seed, (name, size) in enumerate(SIZES.items()):
        made.image(name, seed, size)
    made.ingest()
    return made


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and its footage; and copies of both."""
    folder = tmp_path_factory.mktemp("kept")
    ingested(folder)
    for name in ("footage", "dataset"):
        shutil.copytree(folder / name, folder / "copies" / name)
    return folder


@pytest.fixture
def lab(kept: Path) -> Lab:
    """The dataset and its footage as they were, under the names that the tables know."""
    for copy in (kept / "copies").iterdir():
        shutil.rmtree(kept / copy.name, ignore_errors=True)
        shutil.copytree(copy, kept / copy.name)
    return Lab(kept)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """For tests that leave it as it is, and work on copies of its dataset."""
    return ingested(tmp_path_factory.mktemp("shared"))


def copied(lab: Lab, name: str) -> Lab:
    copy = Lab(lab.footage.parent, name)
    shutil.copytree(lab.dataset, copy.dataset)
    return copy


@pytest.fixture(scope="module")
def undisturbed(shared: Lab) -> Lab:
    copy = copied(shared, "undisturbed")
    copy.rebuild(OTHER_VAE)
    return copy


def encoded(built: Built) -> tuple[int, int]:
    return built.frames_encoded, built.samples_copied


def test_another_vae_encodes_again_in_the_same_layout(lab: Lab) -> None:
    old = lab.current()
    before = shards_of(lab.dataset)
    assert encoded(lab.rebuild(OTHER_VAE, name="grid-32")) == (5, 0)
    new = lab.current()
    assert (new.name, lab.builds()[0].state) == ("grid-32", State.COMPLETED)
    assert lab.layout(new) == lab.layout(old)
    assert len(lab.layout(old)) == 2
    after = shards_of(lab.dataset)
    assert {p: d for p, d in after.items() if p in before and "current" not in p} == {
        p: d for p, d in before.items() if "current" not in p
    }
    changed = shards_of(lab.dataset)
    assert lab.rebuild() == lab.rebuild(OTHER_VAE) == Built()
    assert shards_of(lab.dataset) == changed


@pytest.mark.parametrize(
    "given",
    [
        {"caption": {"captioner": "signal"}},
        {"select": {"where": "width = height"}},
        {"shards": {"target_bytes": 2_000_000}},
    ],
)
def test_what_leaves_the_latents_as_they_are_copies_them(lab: Lab, given: dict[str, Any]) -> None:
    lab.text("a", "a text that the signal captioner does not use")
    lab.ingest()
    inline.recaption(str(lab.dataset), given)
    wanted = 3 if "width = height" in str(given) else 5
    assert encoded(lab.rebuild(given)) == (0, wanted)
    assert encoded(lab.rebuild(given)) == (0, 0)
    sources = {s.copied_from.split("/")[1] for s in lab.live()}
    assert sources == {lab.builds()[0].name}


def test_texts_change_and_the_layout_stays(lab: Lab) -> None:
    old = lab.current()
    inline.recaption(str(lab.dataset), given := {"caption": {"captioner": "sidecar"}})
    lab.rebuild(given)
    assert lab.layout(lab.current()) == lab.layout(old)


def test_what_the_other_encoder_has_no_grid_for_is_left_out(lab: Lab) -> None:
    lab.image("large", 9, (480, 480))
    lab.ingest()
    old = lab.current()
    lab.rebuild({"vae": {"patch": 30}})  # a grid of 240 px
    assert sorted(s.reason for s in lab.live()) == ["", *["no_bucket"] * 5]
    (path,) = lab.layout(lab.current())
    assert lab.layout(lab.current())[path] == lab.layout(old)[path]


def test_a_build_that_is_not_current_catches_up_with_the_current_one(lab: Lab) -> None:
    lab.rebuild(OTHER_VAE, promote=False)
    lab.image("f", 7)
    lab.text("a", "another text")
    lab.ingest()
    assert encoded(lab.rebuild(OTHER_VAE, promote=False)) == (1, 3)
    old, new = lab.builds()
    assert (old.state, new.state) == (State.CURRENT, State.COMPLETED)
    assert lab.layout(new) == lab.layout(old)
    assert len(lab.layout(new)) == 2
    # Once more, a shard that both have: its text changes, so does its name, in both alike.
    lab.text("c", "another text")
    lab.ingest()
    assert encoded(lab.rebuild(OTHER_VAE)) == (0, 2)
    assert lab.layout(new) == lab.layout(old)
    # And back: the build that was current follows the one that is.
    lab.image("g", 8)
    lab.ingest()
    assert encoded(lab.rebuild({"vae": {"patch": 2}})) == (1, 4)
    assert lab.layout(new) == lab.layout(old)
    assert lab.rebuild({"vae": {"patch": 2}}) == Built()


def test_a_name_that_the_build_has_used_is_not_used_again(lab: Lab) -> None:
    """A clip that one build dropped comes back: same members again, another shard."""
    lab.rebuild(OTHER_VAE, promote=False)
    hidden = lab.footage.parent / "c.png"
    third = {"vae": {"patch": 1}}
    (lab.footage / "c.png").rename(hidden)
    assert lab.rebuild(third, promote=False).dropped == 1
    hidden.rename(lab.footage / "c.png")
    old, _, new = lab.builds()
    before = lab.layout(new)
    assert encoded(lab.rebuild(third, promote=False, retry=True)) == (1, 1)
    after = lab.layout(new)
    assert sorted(after.values()) == sorted(lab.layout(old).values())
    assert len(after.keys() - before.keys()) == 1
    assert lab.rebuild(third, promote=False, retry=True) == Built()


def test_footage_that_is_gone_or_another_leaves_its_samples_out(lab: Lab) -> None:
    old = lab.current()
    (lab.footage / "a.png").unlink()
    lab.image("b", 99)
    built = lab.rebuild(OTHER_VAE)
    assert (built.frames_encoded, built.dropped) == (3, 2)
    dropped = {s.clip_id: s.reason for s in lab.live() if s.outcome == "dropped"}
    assert sorted(dropped.values()) == ["source_changed", "source_missing"]
    for path, keys in lab.layout(old).items():
        assert lab.layout(lab.current())[path] == [k for k in keys if k not in dropped]
    # The old latents are still there: what only copies them needs no footage.
    lab.rebuild({"vae": {"patch": 2}})
    assert encoded(lab.rebuild({"shards": {"target_bytes": 2_000_000}})) == (0, 5)


POINTS = [
    "committed:planned",
    "encode:b.png",
    "commit:samples",
    "committed:samples",
    "commit:completed",
    "committed:completed",
    "committed:spec",
    "commit:promoted",
    "committed:promoted",
    "committed:index",
    "committed:current",
]


def rarely(point: str) -> bool:
    """Before a commit nothing differs from after the step before it, but for files in the store.

    What ends a rebuild is told from what ends an ingest by the spec alone.
    """
    return point in {
        "commit:completed",
        "committed:completed",
        "commit:promoted",
        "committed:index",
        "committed:current",
    }


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=[pytest.mark.slow] * rarely(p)) for p in POINTS]
)
def test_killed_anywhere_and_run_again(shared: Lab, undisturbed: Lab, point: str) -> None:
    lab = copied(shared, point.replace(":", "-"))
    lab.killed(point, "rebuild", given=OTHER_VAE)
    lab.rebuild(OTHER_VAE)
    assert_same(undisturbed.dataset, lab.dataset)
    spec = "telecine.toml"
    assert (lab.dataset / spec).read_bytes() == (undisturbed.dataset / spec).read_bytes()


def test_killed_then_another_becomes_current_then_run_again(lab: Lab, tmp_path: Path) -> None:
    """A plan goes on as it was made, whichever build is current by then."""
    first = lab.current()
    lab.rebuild({"vae": {"patch": 1}}, promote=False)
    lab.killed("committed:planned", "rebuild", given=OTHER_VAE)
    lab.rebuild({"vae": {"patch": 1}})
    lab.image("f", 7)
    lab.ingest()
    assert encoded(lab.rebuild(OTHER_VAE)) == (6, 3)
    plans = [e for e in Tables(str(lab.dataset)).rows(Build) if e.name == lab.current().name]
    followed = {e.plan: e.follows for e in plans}
    assert followed == {0: first.build_id, 1: lab.builds()[1].build_id}


def test_a_preview_says_what_the_run_then_does(lab: Lab) -> None:
    tables = shards_of(lab.dataset)
    for given in (OTHER_VAE, {"shards": {"target_bytes": 2_000_000}}):
        dataset = inline.asked(str(lab.dataset), given)
        generation = Generation.of(dataset, load_encoder(dataset.spec.vae))
        said = preview_builds(dataset, [generation], retry=False)[0]
        assert shards_of(lab.dataset) == tables
        built = lab.rebuild(given, promote=False)
        done = (built.shards, built.frames_encoded, built.samples_copied, built.dropped)
        assert (said.shards, said.frames_to_encode, said.copied, said.dropped) == done
        assert said.bytes_of_footage == built.bytes_of_footage
        assert said.bytes_to_copy == (0 if said.encoded else built.bytes_read)
        assert built.bytes_written <= said.bytes_to_write + 10_240 * said.shards
        after = preview_builds(inline.asked(str(lab.dataset), given), [generation], retry=False)[0]
        assert (after.fresh, after.shards, after.bytes_to_write) == (said.shards, 0, 0)
        tables = shards_of(lab.dataset)


def test_a_preview_of_an_interrupted_plan_counts_what_is_left(lab: Lab) -> None:
    lab.killed("committed:samples", "rebuild", given=OTHER_VAE)
    dataset = inline.asked(str(lab.dataset), OTHER_VAE)
    generation = Generation.of(dataset, load_encoder(dataset.spec.vae))
    said = preview_builds(dataset, [generation], retry=False)[0]
    assert (said.resumed, said.shards) == (True, 1)
    assert said.encoded in (2, 3)
    assert said.frames_to_decode == said.frames_to_encode == said.encoded


def test_a_preview_says_what_becomes_current(lab: Lab) -> None:
    def said(given: dict[str, Any], **options: bool) -> Any:
        out = io.StringIO()
        dataset = inline.asked(str(lab.dataset), given)
        print_foreseen(preview(dataset, RunOptions(**options)), True, Console(file=out))
        return json.loads(out.getvalue())["current"]

    old = lab.current().name
    assert said({}) is None
    gated = {"from": old, "to": "second", "if_gates_allow": True}
    assert said(OTHER_VAE) == gated | {"to": said(OTHER_VAE)["to"]}
    lab.rebuild(OTHER_VAE, name="second", promote=False)
    assert said(OTHER_VAE) == gated  # there is nothing to write
    assert said(OTHER_VAE, force=True) == gated | {"if_gates_allow": False}
    assert said(OTHER_VAE, promote=False) is None
    # Nothing can be built, so nothing becomes current.
    assert said({"caption": {"captioner": "sidecar"}}) is None


# ── names, promotions, deletions ─────────────────────────────────────────────────────────────────


def commit(lab: Lab, event: str, name: str) -> None:
    tables = Tables(str(lab.dataset))
    con = connect(tables)
    last = find_build(con, name).last
    tables.append("builds", [dataclasses.replace(last, event=event, sequence=next_sequence(con))])


def test_a_build_keeps_its_name_and_has_it_alone(lab: Lab) -> None:
    lab.rebuild(OTHER_VAE, name="second")
    with pytest.raises(UsageError, match="is named 'second', not 'third'"):
        lab.rebuild(OTHER_VAE, name="third")
    with pytest.raises(UsageError, match="another build named 'second'"):
        lab.rebuild({"vae": {"patch": 1}}, name="second")
    for name in ("", "Capital", "a/b", "../a", ".hidden", "current.json", "x" * 65):
        with pytest.raises(UsageError, match="--name"):
            lab.rebuild({"vae": {"patch": 1}}, name=name)
    assert lab.rebuild(OTHER_VAE, name="second") == Built()


def test_a_deleted_build_is_made_again_from_nothing(lab: Lab) -> None:
    lab.rebuild(OTHER_VAE, name="second", promote=False)
    commit(lab, "deleted", "second")
    shutil.rmtree(lab.dataset / "shards" / "second")
    assert [b.state for b in lab.builds()] == [State.CURRENT, State.DELETED]
    # What is gone is no source of latents either: a build with other shards encodes them.
    aside = OTHER_VAE | {"shards": {"target_bytes": 2_000_000}}
    assert encoded(lab.rebuild(aside, promote=False)) == (5, 0)
    assert encoded(lab.rebuild(OTHER_VAE, name="second", promote=False)) == (0, 5)
    old, new, _ = lab.builds()
    assert (new.state, new.plans, new.completed.plan) == (State.COMPLETED, 1, 1)  # type: ignore[union-attr]
    # The same members in the same order, under names that the deleted plan did not use.
    assert sorted(lab.layout(new).values()) == sorted(lab.layout(old).values())
    assert not lab.layout(new).keys() & lab.layout(old).keys()


def test_a_build_deleted_while_it_is_written_is_not_completed(lab: Lab) -> None:
    dataset = inline.asked(str(lab.dataset), OTHER_VAE)
    generation = Generation.of(dataset, load_encoder(dataset.spec.vae))
    (work,) = works = plan_builds(dataset, [generation], retry=False)
    gone = dataclasses.replace(work.event, event="deleted", sequence=work.event.sequence + 1)
    dataset.tables.append("builds", [gone])
    with pytest.raises(CommitError, match="was deleted while it was written"):
        complete(dataset, works)
    assert last_plan(lab.connect(), generation.build_id) is None
    assert encoded(lab.rebuild(OTHER_VAE)) == (5, 0)


def test_a_captioner_chosen_meanwhile_stays_chosen(lab: Lab) -> None:
    """`telecine caption --captioner` beside a run that began before it."""
    running = inline.asked(str(lab.dataset), {})
    signal = running.spec.overlaid({"caption": {"captioner": "signal"}})
    replace_spec(running, signal)
    generation = Generation.of(running, load_encoder(running.spec.vae))
    with pytest.raises(CommitError, match=r"has 'signal', given 'auto'"):
        build(inline.run_of(running), [generation])
    assert inline.asked(str(lab.dataset), {}).spec == signal


def test_a_plan_that_no_run_would_make_is_done_away_with(lab: Lab) -> None:
    """Of an earlier version, say: with nothing else to do, it is in nobody's way for ever."""
    completed = lab.current().completed
    assert completed is not None
    stale = dataclasses.replace(
        completed, event="planned", plan=9, plan_digest="x", sequence=next_sequence(lab.connect())
    )
    Tables(str(lab.dataset)).append("builds", [stale])
    assert lab.current().in_progress == stale
    before = lab.live()
    assert lab.rebuild() == Built()
    assert lab.current().in_progress is None
    assert lab.live() == before
    rows = len(Tables(str(lab.dataset)).rows(Build))
    lab.rebuild()
    assert len(Tables(str(lab.dataset)).rows(Build)) == rows


def test_a_selection_is_a_condition_over_clips(shared: Lab) -> None:
    lab = shared
    with pytest.raises(UsageError, match=r"(?s)where 'colour = 1'.*columns clip_id, source_id"):
        lab.rebuild({"select": {"where": "colour = 1"}})
    with pytest.raises(UsageError, match="Could not convert string"):
        lab.rebuild({"select": {"where": "clip_id::INT > 1"}})


@pytest.mark.parametrize("where", ["moton > 1", "clip_id IN (SELECT clip_id FROM stills LIMIT 9)"])
def test_a_selection_is_refused_before_footage_is_scanned(
    where: str, shared: Lab, tmp_path: Path
) -> None:
    spec = DatasetSpec(select=SelectSpec(where=where))
    dataset = resolve_dataset(str(tmp_path / "new"), Storage(), spec)
    with pytest.raises(UsageError, match="cannot select clips where"):
        ingest(inline.run_of(dataset), [str(shared.footage)])
    assert not (tmp_path / "new").exists()


def test_promotions_are_a_stack(lab: Lab) -> None:
    lab.rebuild(OTHER_VAE, name="second")
    lab.rebuild({"vae": {"patch": 1}}, name="third")
    names = [e.name for e in promotions(lab.connect())]
    assert names[1:] == ["second", "third"]
    commit(lab, "rolled_back", "second")
    assert [e.name for e in promotions(lab.connect())] == names[:2]
    assert lab.current().name == "second"
