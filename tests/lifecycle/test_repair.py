"""verify over builds, and its repair: what is damaged is found, and mended from what is left."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from telecine.infra.errors import CheckFailed, UsageError
from telecine.infra.store.storage import Storage, join
from telecine.manifests.index.samples import narrowed, read_samples
from telecine.manifests.schemas import Build
from telecine.manifests.tables import Tables
from telecine.pipeline.cli.builds import print_verified
from telecine.pipeline.lifecycle.check import Kind
from telecine.pipeline.lifecycle.verify import Verified
from telecine.pipeline.recipes import Built
from tests.support import inline
from tests.support.commands import telecine
from tests.support.damage import draw, verify
from tests.support.lab import Lab
from tests.support.s3 import put
from tests.support.snapshot import assert_same, shards_of, tables_of

# webdataset leaves its files for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OTHER_TEXTS = {"caption": {"captioner": "signal"}}  # equal latents


def found(verified: Verified) -> list[tuple[str, Kind]]:
    return [(finding.shard_path, finding.kind) for finding in verified.findings]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two shards, of two images and of one, and its footage; and copies of both."""
    folder = tmp_path_factory.mktemp("ingested")
    draw(folder).ingest()
    for name in ("footage", "dataset"):
        shutil.copytree(folder / name, folder / "kept" / name)
    return folder


@pytest.fixture
def lab(ingested: Path) -> Lab:
    """The dataset and its footage as they were, under the names that the tables know."""
    for kept in (ingested / "kept").iterdir():
        shutil.rmtree(ingested / kept.name, ignore_errors=True)
        shutil.copytree(kept, ingested / kept.name)
    return Lab(ingested)


def tars(lab: Lab) -> list[str]:
    """Live shards of the current build, that of two images first."""
    counts = {s.shard_path: s.shard_samples for s in lab.live() if s.outcome == "kept"}
    return sorted(counts, key=lambda path: -counts[path])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], Kind]] = {
    "gone": (Path.unlink, Kind.MISSING),
    "a bit flipped": (flip, Kind.DAMAGED),
    "cut short": (lambda p: p.write_bytes(p.read_bytes()[:-1000]), Kind.DAMAGED),
    "empty": (lambda p: p.write_bytes(b""), Kind.DAMAGED),
}


# ── finding ──────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_build_is_sound(lab: Lab) -> None:
    verified = verify(lab.dataset)
    assert (verified.shards, verified.samples, verified.findings) == (2, 3, ())
    assert verified.size_bytes == sum((lab.dataset / p).stat().st_size for p in tars(lab))
    assert verified.sound
    assert verify(lab.dataset, lab.current().name).sound
    with pytest.raises(UsageError, match="there is no build 'nonesuch'"):
        verify(lab.dataset, "nonesuch")


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_found_and_mended_in_place(how: str, lab: Lab) -> None:
    damage, kind = DAMAGE[how]
    before, tables = shards_of(lab.dataset), tables_of(lab.dataset)
    path = tars(lab)[0]
    damage(lab.dataset / path)
    verified = verify(lab.dataset)
    assert found(verified) == [(path, kind)]
    assert not verified.sound
    assert f"1 of 2 shards of {verified.name} are wrong ({kind} 1)" in verified.verdict
    mended = verify(lab.dataset, repair=True)
    assert mended.sound
    assert mended.repaired is not None
    assert mended.repaired.put_back == (path,)
    assert (shards_of(lab.dataset), tables_of(lab.dataset)) == (before, tables)


@pytest.mark.parametrize("data", [None, b"", b"of another build"])
def test_an_index_of_samples_that_is_wrong_is_written_anew(lab: Lab, data: bytes | None) -> None:
    (index,) = (lab.dataset / "shards").glob("*/samples-*.arrow")
    whole = index.read_bytes()
    if data == b"of another build":
        said = read_samples(pa.py_buffer(whole), index.name)
        data = bytes(narrowed(said, said.rows.slice(1)).to_bytes())
    index.unlink() if data is None else index.write_bytes(data)
    verified = verify(lab.dataset)
    assert found(verified) == [(str(index.relative_to(lab.dataset)), Kind.INDEX)]
    assert not verified.sound
    assert verify(lab.dataset, repair=True).sound
    assert index.read_bytes() == whole


def test_in_a_store(lab: Lab, root: str) -> None:
    """The same on S3 as on disk."""
    storage = Storage()
    put(lab.dataset, root)
    assert verify(root).sound
    (one, two) = [i.uri for i in storage.list(join(root, "shards")) if i.uri.endswith(".tar")]
    whole = storage.read_bytes(one)
    storage.delete([one], root)
    storage.write_bytes(two, storage.read_bytes(two)[:-512] + b"x" * 512)
    storage.write_bytes(join(one.rpartition("/")[0], "0" * 32 + ".tar"), b"")
    kinds = [finding.kind for finding in verify(root).findings]
    assert kinds == [Kind.MISSING, Kind.DAMAGED, Kind.ORPHANED]
    mended = verify(root, repair=True)
    assert mended.sound
    assert [finding.kind for finding in mended.findings] == [Kind.ORPHANED]
    assert storage.read_bytes(one) == whole


def test_orphans_are_told_and_no_fault(lab: Lab) -> None:
    stray = (lab.dataset / tars(lab)[0]).with_name("0" * 32 + ".tar")
    stray.write_bytes(b"")
    for name in ("note.txt", "x.tar"):
        (stray.parent / name).write_bytes(b"not ours")
    verified = verify(lab.dataset)
    assert found(verified) == [(str(stray.relative_to(lab.dataset)), Kind.ORPHANED)]
    assert verified.sound
    # While a plan is in progress it may be a shard whose row is on its way.
    lab.text("a", "another text")
    lab.killed("commit:samples")
    verified = verify(lab.dataset)
    assert (verified.findings, verified.in_progress) == ((), True)


# ── mending ──────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_made_again_is_replaced(lab: Lab) -> None:
    """One image of a shard of two is gone: the shard is replaced, the other shard stays."""
    before = shards_of(lab.dataset)
    path, other = tars(lab)
    (lab.dataset / path).unlink()
    (lab.footage / "a.png").unlink()
    mended = verify(lab.dataset, repair=True)
    assert mended.sound
    assert mended.repaired is not None
    assert mended.repaired.replaced == (path,)
    assert mended.repaired.dropped == {"source_missing": 1}
    (added,) = mended.repaired.added
    assert (mended.shards, mended.samples) == (2, 2)
    assert sorted(s.reason for s in lab.live()) == ["", "", "source_missing"]
    after = shards_of(lab.dataset)
    assert after[other] == before[other]
    assert {p for p in after if p.endswith(".tar")} == {added, other}
    lab.check()
    assert lab.ingest() == Built()
    assert verify(lab.dataset).sound
    assert "; dropped 1 sample (source_missing 1)\n" in printed(mended, as_json=False)
    said = json.loads(printed(mended, as_json=True))["repaired"]
    assert (said["replaced"], said["dropped"]) == ([path], {"source_missing": 1})


def test_changed_footage_is_not_taken_for_the_old(lab: Lab) -> None:
    """A build that is not current is repaired too, with its own spec and superseded rows."""
    old = lab.current()
    lab.rebuild({"vae": {"patch": 4}})
    lab.image("b", 7)
    lab.ingest()
    path = next(s.shard_path for s in lab.live(old) if s.shard_samples == 2)
    flip(lab.dataset / path)
    assert verify(lab.dataset).sound
    mended = verify(lab.dataset, old.name, repair=True)
    assert mended.sound
    assert mended.repaired is not None
    assert mended.repaired.dropped == {"source_changed": 1}
    # The damaged tar is what no row names now; a trainer's pinned index does, for a week.
    assert found(mended) == []
    assert (lab.dataset / path).exists()
    assert lab.current().name != old.name
    lab.check()


@pytest.fixture
def twice(lab: Lab) -> Lab:
    """With another build of equal latents current, and no footage left."""
    lab.rebuild(OTHER_TEXTS)
    shutil.rmtree(lab.footage)
    return lab


def test_latents_are_copied_from_a_sound_shard(twice: Lab) -> None:
    before, tables = shards_of(twice.dataset), tables_of(twice.dataset)
    for path in tars(twice):
        (twice.dataset / path).unlink()
    mended = verify(twice.dataset, repair=True)
    assert mended.sound
    assert (shards_of(twice.dataset), tables_of(twice.dataset)) == (before, tables)


def test_latents_are_not_copied_from_a_damaged_shard(twice: Lab) -> None:
    old, new = twice.builds()
    path, _ = tars(twice)
    (twice.dataset / path).unlink()
    flip(twice.dataset / path.replace(new.name, old.name))
    mended = verify(twice.dataset, repair=True)
    assert mended.sound
    assert mended.repaired is not None
    assert mended.repaired.dropped == {"source_missing": 2}
    assert (mended.repaired.added, mended.shards) == ((), 1)
    assert twice.index(new)["num_samples"] == 1


def test_rows_that_disagree_are_replaced(lab: Lab) -> None:
    """The bytes are those that were written, and not what the rows say: new rows, new shard."""
    path = tars(lab)[0]
    tables = Tables(str(lab.dataset))
    # As a fault in what wrote them would have left them.
    wrong = [
        dataclasses.replace(s, latent_offset=s.latent_offset + 512) if s.shard_path == path else s
        for s in lab.live()
    ]
    shutil.rmtree(lab.dataset / "tables" / "samples")
    rewritten = Tables(str(lab.dataset))
    rewritten.append("samples", wrong)
    assert tables.uri == rewritten.uri
    index = next(str(p.relative_to(lab.dataset)) for p in lab.dataset.glob("shards/*/samples-*"))
    assert found(verify(lab.dataset)) == [*[(path, Kind.SHAPE)] * 2, (index, Kind.INDEX)]
    mended = verify(lab.dataset, repair=True)
    assert mended.sound
    assert mended.repaired is not None
    assert (mended.repaired.put_back, mended.repaired.replaced) == ((), (path,))
    assert mended.samples == 3
    lab.check()


_CHILD = """
import sys
from tests.support.damage import verify
verify(sys.argv[1], repair=True)
"""


def killed(dataset: Path, point: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, dataset],
        env=os.environ | {"TELECINE_KILL_AT": point},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()


BOUNDARIES = [
    f"{point}:{name}"
    for name in ("planned", "samples", "completed")
    for point in ("commit", "committed")
]


FEW = ["repaired", "committed:planned", "committed:samples"]


@pytest.mark.parametrize(
    "boundaries",
    [FEW, pytest.param(["repaired", *BOUNDARIES, "committed:index"], marks=pytest.mark.slow)],
    ids=["few", "every"],
)
def test_killed_at_boundaries_and_run_again(
    lab: Lab, tmp_path: Path, boundaries: list[str]
) -> None:
    """Of three shards one is put back and two are replaced, whatever comes in between."""
    lab.image("d", 9, (160, 320))
    lab.ingest()
    (lab.footage / "b.png").unlink()
    (lab.footage / "c.png").unlink()
    for path in tars(lab):
        flip(lab.dataset / path)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(lab.dataset, undisturbed)
    assert verify(undisturbed, repair=True).sound
    for boundary in boundaries:
        killed(lab.dataset, boundary)
    mended = verify(lab.dataset, repair=True)
    assert mended.sound
    assert_same(undisturbed, lab.dataset)


def test_a_plan_in_progress_is_finished_first(lab: Lab) -> None:
    lab.text("a", "another text")
    lab.killed("committed:planned")
    begun: list[Build] = Tables(str(lab.dataset)).rows(Build)
    path = tars(lab)[1]
    (lab.dataset / path).unlink()
    (lab.footage / "c.png").unlink()
    with pytest.raises(CheckFailed, match="run again what was interrupted"):
        verify(lab.dataset, repair=True)
    assert Tables(str(lab.dataset)).rows(Build) == begun
    inline.ingest(str(lab.footage), str(lab.dataset))
    assert verify(lab.dataset, repair=True).sound
    lab.check()


# ── printing ─────────────────────────────────────────────────────────────────────────────────────


def printed(verified: Verified, *, as_json: bool) -> str:
    file = io.StringIO()
    print_verified(verified, "/a b", as_json, Console(file=file, width=40))
    return file.getvalue()


def test_findings_are_printed(lab: Lab) -> None:
    path = tars(lab)[0]
    (lab.dataset / path).unlink()
    verified = verify(lab.dataset)
    text = printed(verified, as_json=False)
    assert f"missing  {path}: no such object\n" in text
    assert f"telecine verify '/a b' {verified.name} --repair\n" in text
    said = json.loads(printed(verified, as_json=True))
    assert (said["sound"], said["counts"], said["repaired"]) == (False, {"missing": 1}, None)
    assert said["findings"] == [
        {"shard_path": path, "kind": "missing", "detail": "no such object", "clip_id": ""}
    ]
    text = printed(mended := verify(lab.dataset, repair=True), as_json=False)
    assert "repaired 1 shard put back as they were\n" in text
    assert f"verified {mended.name} is whole\n" in text
    assert json.loads(printed(mended, as_json=True))["repaired"]["put_back"] == [path]


def test_the_command_and_its_exit_codes(lab: Lab) -> None:
    """With Ray really started for what is repaired."""
    path = tars(lab)[0]
    before = shards_of(lab.dataset)
    flip(lab.dataset / path)
    done = telecine("verify", lab.dataset, "--json", "--workers", "0")
    assert done.returncode == 6, done.stderr
    assert json.loads(done.stdout)["counts"] == {"damaged": 1}
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 2 shards of ")
    done = telecine("verify", lab.dataset, lab.current().name, "--repair", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert shards_of(lab.dataset) == before
    done = telecine("gc", lab.dataset, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["size_bytes"] == 0
