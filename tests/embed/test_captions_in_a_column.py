"""[shards] captions = "column": another caption costs text alone, and no clip waits for one."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.pipeline import recipes
from telecine.pipeline.embed.state import column_states
from tests.support import inline
from tests.support.lab import Lab

SPEC = {"shards": {"captions": "column"}, "embed": {"encoder": "none"}}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    for number in range(3):
        lab.image(f"{number}", seed=number)
        lab.text(f"{number}", f"Picture number {number}.")
    inline.ingest(str(lab.footage), str(lab.dataset), SPEC)
    return lab


def shards(lab: Lab) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (lab.dataset / "shards").rglob("*.tar")
    }


def texts(lab: Lab) -> set[bytes]:
    """Of the column that is in force."""
    folder = lab.dataset / "columns" / "text"
    said = json.loads((folder / lab.current().name / "index.json").read_text())
    found = set()
    for shard in said["shards"]:
        with tarfile.open(folder / shard["path"]) as tar:
            found |= {file.read() for name in tar if (file := tar.extractfile(name))}
    return found


def test_shards_hold_no_captions_and_stay_as_they_are_when_those_change(lab: Lab) -> None:
    before = shards(lab)
    (tar,) = (lab.dataset / "shards").rglob("*.tar")
    with tarfile.open(tar) as file:
        assert {name.partition(".")[2] for name in file.getnames()} == {"latent.npy", "json"}
        (facts, *_) = [n for n in file.getnames() if n.endswith(".json")]
        said = file.extractfile(facts)
        assert said is not None
        assert not {"caption", "captions", "captioner"} & json.load(said).keys()
    run = inline.run_of(open_dataset(str(lab.dataset), Storage()))
    assert recipes.embed(run).uncaptioned == 0
    assert texts(lab) == {f"Picture number {n}.".encode() for n in range(3)}

    lab.text("1", "Another text.")
    assert inline.ingest(str(lab.footage), str(lab.dataset)).build.shards == 0
    recipes.caption(inline.run_of(inline.asked(str(lab.dataset), None)))
    (state,) = column_states(open_dataset(str(lab.dataset), Storage()))
    assert (state.fresh, state.stale) == (2, 1)
    run = inline.run_of(open_dataset(str(lab.dataset), Storage()))
    assert recipes.embed(run).tars_written == 1
    assert b"Another text." in texts(lab)
    assert shards(lab) == before
    assert len(lab.builds()) == 1


def test_another_captioner_is_no_other_build(lab: Lab) -> None:
    before = shards(lab)
    run = inline.run_of(inline.asked(str(lab.dataset), {"caption": {"captioner": "signal"}}))
    recipes.caption(run)
    built = inline.rebuild(str(lab.dataset))
    assert (built.shards, built.settled.current) == (0, True)
    assert open_dataset(str(lab.dataset), Storage()).spec.caption.captioner == "signal"
    assert shards(lab) == before
    assert len(lab.builds()) == 1


def test_verify_finds_such_shards_whole_and_makes_one_again(lab: Lab) -> None:
    before = shards(lab)
    run = inline.run_of(open_dataset(str(lab.dataset), Storage()))
    assert recipes.verify(run).sound
    shutil.rmtree(next((lab.dataset / "shards").rglob("*.tar")).parent)
    assert recipes.verify(run, repair=True).sound
    assert shards(lab) == before
