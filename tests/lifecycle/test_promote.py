"""promote and rollback: which build is current, and the spec in force with it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from telecine.encoders.load import load_encoder
from telecine.infra.errors import CheckFailed, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.builds import find_build, promotions
from telecine.manifests.dataset import (
    Dataset,
    create_dataset,
    open_dataset,
    parse_spec,
    replace_spec,
)
from telecine.manifests.fingerprint import canonical_json
from telecine.manifests.schemas import Build, Sample
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.cli.main import app
from telecine.pipeline.cli.rebuild import print_built, refuse_failed
from telecine.pipeline.lifecycle.gates import Failure, gates
from telecine.pipeline.lifecycle.promote import Settled, promote, rollback, settle, spec_of
from telecine.pipeline.recipes import Built
from tests.support.lab import Lab

FPS = {"vae": {"fps": "12"}}  # of images it changes nothing but the build's identity
SIZE = {"shards": {"target_bytes": 2_000_000}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Build `first` is current; `second` and `third` are whole."""
    lab = Lab(tmp_path_factory.mktemp("promote"))
    lab.image("a", 0)
    lab.ingest()
    lab.rebuild(FPS, name="second", promote=False)
    lab.rebuild(SIZE, name="third", promote=False)
    return lab


@pytest.fixture
def lab(made: Lab, tmp_path: Path) -> Lab:
    """A copy of the dataset; the footage is that of all tests."""
    copy = Lab(tmp_path)
    copy.footage = made.footage
    shutil.copytree(made.dataset, copy.dataset)
    return copy


def opened(lab: Lab) -> Dataset:
    return open_dataset(str(lab.dataset), Storage())


def events(lab: Lab) -> list[tuple[str, str]]:
    rows = sorted(opened(lab).tables.rows(Build), key=lambda row: row.sequence)
    promotions = ("promoted", "rolled_back")
    return [(row.event, row.name) for row in rows if row.event in promotions]


def follow(lab: Lab) -> str:
    """The name that trainers follow; the tables agree."""
    name = json.loads((lab.dataset / "shards" / "current.json").read_text())["name"]
    assert lab.current().name == name
    return str(name)


def test_a_promotion_puts_the_builds_spec_in_force(lab: Lab) -> None:
    first = lab.current().name
    assert str(promote(opened(lab), "second")) == f"build second is current now (before: {first})"
    assert follow(lab) == "second"
    assert opened(lab).spec.vae.fps == "12"
    assert lab.ingest().samples == 0  # what is current is what is asked for
    assert promote(opened(lab), find_build(lab.connect(), "third").build_id[:12])
    assert follow(lab) == "third"
    assert opened(lab).spec == opened(lab).spec.overlaid({"vae": {"fps": None}, **SIZE})


def test_the_current_build_stays(lab: Lab) -> None:
    before, name = events(lab), lab.current().name
    assert str(promote(opened(lab), name)) == f"build {name} is current already"
    spec = opened(lab).spec
    replace_spec(opened(lab), spec.overlaid(FPS))
    assert "asks for it again" in str(promote(opened(lab), name))
    assert opened(lab).spec == spec
    assert events(lab) == before


def test_a_build_that_is_not_there_or_not_whole_is_refused(lab: Lab) -> None:
    lab.killed("committed:samples", "rebuild", given={"vae": {"patch": 4}}, name="half")
    for name, words in [("half", "half is not finished"), ("nonesuch", "no build 'nonesuch'")]:
        spec = opened(lab).spec
        with pytest.raises(UsageError, match=words):
            promote(opened(lab), name, force=True)
        assert opened(lab).spec == spec


BAD = {
    "canary": {"psnr_db": 3.0},
    "statistics": {"channel_means": (2.0,) * 16},  # beside the current build's alone
}


def spoil(lab: Lab, name: str, gate: str = "canary") -> list[Failure]:
    """What the gates say of the build from now on: its encoder did badly."""
    build = find_build(lab.connect(), name).build_id
    tables = opened(lab).tables
    rows = [
        dataclasses.replace(row, **BAD[gate]) if row.build_id == build else row
        for row in tables.rows(Sample)
    ]
    shutil.rmtree(lab.dataset / "tables" / "samples")
    opened(lab).tables.append("samples", rows)
    failures = gates(lab.connect(), build, lab.current().build_id)
    assert {failure.gate for failure in failures} == {gate}
    return failures


@pytest.mark.parametrize("gate", BAD)
def test_a_gate_that_says_no(gate: str, lab: Lab) -> None:
    failures = spoil(lab, "second", gate)
    spec, before = opened(lab).spec, events(lab)
    with pytest.raises(CheckFailed, match=r"(?s)second is not made current.*--force") as refused:
        promote(opened(lab), "second")
    assert all(str(failure) in str(refused.value) for failure in failures)
    assert (opened(lab).spec, events(lab)) == (spec, before)
    said = str(promote(opened(lab), "second", force=True))
    assert all(str(failure) in said for failure in failures)
    assert follow(lab) == "second"


def test_a_rollback_goes_to_the_build_before(lab: Lab) -> None:
    first = lab.current().name
    spec = opened(lab).spec
    with pytest.raises(UsageError, match=f"no other build was current before {first}"):
        rollback(opened(lab))
    promote(opened(lab), "second")
    promote(opened(lab), "third")
    assert str(rollback(opened(lab))) == "build second is current again (before: third)"
    assert (follow(lab), opened(lab).spec) == ("second", spec.overlaid(FPS))
    assert str(rollback(opened(lab))) == f"build {first} is current again (before: second)"
    assert (follow(lab), opened(lab).spec) == (first, spec)
    with pytest.raises(UsageError, match="no other build was current before"):
        rollback(opened(lab))
    assert lab.ingest().samples == 0
    assert follow(lab) == first
    promote(opened(lab), "third")
    rollback(opened(lab))
    assert [name for _, name in events(lab)] == [
        first, "second", "third", "second", first, "third", first
    ]  # fmt: skip


def test_nothing_to_go_back_from(tmp_path: Path) -> None:
    dataset = create_dataset(str(tmp_path), Storage(), None)
    with pytest.raises(UsageError, match="no build is current yet"):
        rollback(dataset)


def killed(lab: Lab, command: str) -> None:
    """A promotion or rollback that ends between the spec and the event."""
    code = (
        "from telecine.infra.store.storage import Storage; "
        "from telecine.manifests.dataset import open_dataset; "
        "from telecine.pipeline.lifecycle.promote import promote, rollback; "
        f"dataset = open_dataset({str(lab.dataset)!r}, Storage()); {command}"
    )
    environment = os.environ | {"TELECINE_KILL_AT": "committed:spec"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -9


def test_a_promotion_that_was_killed_is_finished_by_the_next_run(lab: Lab) -> None:
    first = lab.current().name
    killed(lab, "promote(dataset, 'second')")
    assert follow(lab) == first
    assert lab.ingest().samples == 0
    assert follow(lab) == "second"


def test_a_rollback_that_was_killed_is_finished_as_one(lab: Lab) -> None:
    first = lab.current().name
    promote(opened(lab), "second")
    promote(opened(lab), "third")
    killed(lab, "rollback(dataset)")
    assert follow(lab) == "third"
    assert lab.ingest().samples == 0
    assert follow(lab) == "second"
    rollback(opened(lab))  # further back, not forward again
    assert follow(lab) == first


def test_a_forced_promotion_that_was_killed_is_not_forced_by_the_next_run(lab: Lab) -> None:
    first, spec = lab.current().name, opened(lab).spec
    spoil(lab, "second")
    killed(lab, "promote(dataset, 'second', force=True)")
    built = lab.ingest()
    assert follow(lab) == first
    with pytest.raises(CheckFailed, match=f"no to second: {first} stays current") as raised:
        refuse_failed(built, str(lab.dataset))
    # Both ways out that the message names lead out.
    assert f"telecine promote {lab.dataset} {first}," in str(raised.value)
    promote(opened(lab), first)
    assert opened(lab).spec == spec
    refuse_failed(lab.ingest(), str(lab.dataset))
    assert str(raised.value).endswith(f"telecine promote {lab.dataset} second --force")
    promote(opened(lab), "second", force=True)
    refuse_failed(lab.ingest(), str(lab.dataset))


def test_a_build_whose_spec_says_another_place_keeps_that(lab: Lab) -> None:
    """As of weights that were moved: the identity, so the build, is the same."""
    first = lab.current()
    before = [b.build_id for b in promotions(lab.connect())]
    spec = opened(lab).spec
    generation = Generation.of(opened(lab), load_encoder(spec.vae))
    asked = spec.overlaid({"vae": {"dtype": "float32"}})
    moved = dataclasses.replace(generation, spec=canonical_json(asked.canonical()))
    settle(dataclasses.replace(opened(lab), spec=asked), [moved], wanted=True, force=False)
    assert opened(lab).spec == asked
    found = find_build(lab.connect(), first.build_id)
    assert (found.state, json.loads(found.last.spec)["vae"]["dtype"]) == ("current", "float32")
    assert [b.build_id for b in promotions(lab.connect())] == before
    after = events(lab)
    assert str(promote(opened(lab), first.name)) == f"build {first.name} is current already"
    assert opened(lab).spec == asked
    promote(opened(lab), "second")
    rollback(opened(lab))
    assert (follow(lab), opened(lab).spec) == (first.name, asked)
    assert events(lab)[: len(after)] == after == [("promoted", first.name)] * 2


def test_a_builds_spec_is_the_datasets(tmp_path: Path) -> None:
    given = parse_spec(
        '[scan]\nmin_seconds = 2\n[pixels]\nhdr = "reject"\n[caption]\ncaptioner = "signal"\n'
        '[vae]\nfps = "30000/1001"\npatch = 1\n[select]\nwhere = "motion > 0.1"\n'
        "[buckets]\ndurations = [1, 2.5]\n[shards]\ntarget_bytes = 1000000\n",
        "x",
    )
    dataset = create_dataset(str(tmp_path), Storage(), given)
    generation = Generation.of(dataset, load_encoder(given.vae))
    assert spec_of(dataset, generation) == given


# ── the command's words ──────────────────────────────────────────────────────────────────────────

FAILURE = Failure("canary", "c" * 32, 3.0, "at least 20 dB", "PSNR of a clip is 3.0 dB; " * 9)


def test_lines_are_not_broken(lab: Lab) -> None:
    failures = list(map(str, spoil(lab, "second")))
    assert len(max(failures, key=len)) > 80  # columns, where the output is no terminal
    done = CliRunner().invoke(app, ["promote", str(lab.dataset), "second", "--force"])
    assert done.output.splitlines()[1:] == [f"  {failure}" for failure in failures]


@pytest.mark.parametrize("command", ["ingest", "rebuild"])
def test_a_run_whose_build_a_gate_refuses_ends_with_6(command: str, lab: Lab) -> None:
    first, failures = lab.current().name, spoil(lab, "second")
    killed(lab, "promote(dataset, 'second', force=True)")
    where = [str(lab.footage), "--dataset"] if command == "ingest" else []
    words = [command, *where, str(lab.dataset), "--json", "--workers", "0"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, CheckFailed)
    assert done.exception.exit_code == 6
    said = json.loads(done.stdout)
    settled = (said["build"] if command == "ingest" else said)["settled"]
    assert (settled["current"], settled["before"]) == (False, first)
    assert settled["failures"] == json.loads(json.dumps([dataclasses.asdict(f) for f in failures]))
    assert f"{first} stays current" in str(done.exception)
    assert "second --force" in str(done.exception)


def test_where_none_is_current_none_stays() -> None:
    built = Built(build="new", settled=Settled(False, (FAILURE,)))
    with pytest.raises(CheckFailed, match=r"^a gate says no to new: make it current all the same"):
        refuse_failed(built, "d")
    for settled in (Settled(True, (FAILURE,)), Settled(False)):
        refuse_failed(Built(build="new", settled=settled), "d")


def test_clips_that_wait_for_a_caption_come_with_advice() -> None:
    out = io.StringIO()
    print_built(Built(uncaptioned=9), "a b", False, Console(file=out, width=40))
    advice = "9 clips without a caption left out: telecine caption 'a b' --retry-failed"
    assert advice in out.getvalue()
