"""gc: what goes is what nothing needs; killed in between it goes on; what stays is whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pytest
from rich.console import Console

from telecine.infra.errors import CommitError, UsageError
from telecine.infra.store.disk import PART_PREFIX
from telecine.infra.store.storage import Storage, join
from telecine.manifests.builds import State, builds, find_build
from telecine.manifests.dataset import open_dataset
from telecine.manifests.index.samples import read_samples
from telecine.manifests.queries import connect
from telecine.manifests.tables import Tables
from telecine.pipeline.cli.builds import print_garbage
from telecine.pipeline.lifecycle.gc import Garbage, collect, delete
from telecine.pipeline.lifecycle.promote import rollback
from tests.support import inline
from tests.support.damage import draw, verify
from tests.support.lab import Lab
from tests.support.s3 import put
from tests.support.snapshot import assert_same, shards_of

# webdataset leaves its files for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OTHER_VAE = {"vae": {"patch": 4}}  # latents of their own
OTHER_TEXTS = {"caption": {"captioner": "signal"}}  # equal latents
STRAY = f"144/1x1/image/{'0' * 32}.tar"  # under a build's folder, named by no row


Happens: TypeAlias = Callable[[Sequence[str]], None]


def nobody(uris: Sequence[str]) -> None:
    pass


def offered(dataset: Path | str, *keep: str, unfinished: bool = False, hours: int = 168) -> Garbage:
    return collect(open_dataset(str(dataset), Storage()), keep, unfinished, hours)


def gc(dataset: Path | str, *keep: str, unfinished: bool = False) -> Garbage:
    opened = open_dataset(str(dataset), Storage())
    garbage = collect(opened, keep, unfinished)
    delete(opened, garbage)
    return garbage


def nothing(garbage: Garbage) -> bool:
    return not garbage.groups()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two builds, the second one current, and a copy of all."""
    folder = tmp_path_factory.mktemp("rebuilt")
    lab = draw(folder)
    lab.ingest()
    lab.rebuild(OTHER_VAE, name="second")
    shutil.copytree(folder / "dataset", folder / "kept")
    return folder


@pytest.fixture
def lab(rebuilt: Path) -> Lab:
    shutil.rmtree(rebuilt / "dataset", ignore_errors=True)
    shutil.copytree(rebuilt / "kept", rebuilt / "dataset")
    return Lab(rebuilt)


# ── builds ───────────────────────────────────────────────────────────────────────────────────────


def test_a_build_that_is_not_current_goes(lab: Lab, root: str) -> None:
    """On disk and in a store: listed, then deleted, and made anew when it is asked for again."""
    storage, first = Storage(), lab.builds()[0].name
    put(lab.dataset, root)
    before = {info.uri for info in storage.list(root)}
    garbage = offered(root)
    assert {info.uri for info in storage.list(root)} == before  # listing deletes nothing
    (dead,) = garbage.builds
    assert dead.build.name == first
    own = {uri for uri in before if f"/shards/{first}/" in uri}
    assert {info.uri for info in dead.files} == own
    assert garbage.size_bytes == sum(storage.stat(uri).size_bytes for uri in own)
    assert [what for what, _, _ in garbage.groups()] == ["build"]
    assert garbage.left_alone == ()

    gc(root)
    after = {info.uri for info in storage.list(root)}
    assert before - after == own
    assert nothing(offered(root))
    assert verify(root).sound
    opened = open_dataset(root, storage)
    assert [b.state for b in builds(connect(opened.tables))] == [State.DELETED, State.CURRENT]
    with pytest.raises(UsageError, match=f"there is no build '{first}'"):
        find_build(connect(opened.tables), first)
    with pytest.raises(UsageError, match="or it was deleted"):
        rollback(opened)

    built = inline.rebuild(root, {"vae": {"patch": 2}})
    assert (built.frames_encoded, built.samples) == (3, 3)
    assert verify(root).sound
    assert [dead.build.name for dead in offered(root).builds] == ["second"]


def test_copied_latents_outlive_the_build_they_came_from(lab: Lab) -> None:
    lab.rebuild(OTHER_VAE | OTHER_TEXTS)
    assert {s.copied_from.split("/")[1] for s in lab.live()} == {"second"}
    assert len(gc(lab.dataset).builds) == 2
    assert verify(lab.dataset).sound
    assert [p.name for p in (lab.dataset / "shards").iterdir() if p.is_dir()] == [
        lab.current().name
    ]
    lab.check()


def test_what_is_kept_stays(lab: Lab) -> None:
    first, _ = lab.builds()
    garbage = gc(lab.dataset, first.build_id[:8])
    assert nothing(garbage)
    assert garbage.left_alone == ((first.name, "kept, as asked"),)
    assert verify(lab.dataset, first.name).sound
    with pytest.raises(UsageError, match="there is no build 'thrid'"):
        gc(lab.dataset, "thrid")


def test_where_no_build_is_current_none_is_offered(tmp_path: Path) -> None:
    lab = draw(tmp_path)
    lab.killed("commit:promoted")
    (build,) = lab.builds()
    assert build.state is State.COMPLETED
    garbage = offered(lab.dataset, unfinished=True)
    assert nothing(garbage)
    assert garbage.left_alone == ((build.name, "no build is current"),)


# ── a plan in progress ───────────────────────────────────────────────────────────────────────────


def test_a_build_in_progress_is_left_alone(lab: Lab) -> None:
    """With the tars that its rows do not name yet, and with what its plan may copy."""
    given = OTHER_TEXTS | {"vae": {"patch": 2}}
    lab.killed("commit:samples", "rebuild", given=given, name="third")
    first = lab.builds()[0].name
    assert len(list((lab.dataset / "shards/third").rglob("*.tar"))) == 1
    garbage = gc(lab.dataset)
    assert nothing(garbage)
    assert dict(garbage.left_alone) == {
        "third": "its plan is in progress",
        first: "third, in progress, may copy its latents",
    }
    shutil.copytree(lab.dataset, lab.dataset.with_name("other"), dirs_exist_ok=True)
    assert lab.rebuild(given, name="third").frames_encoded == 0
    # Or it goes too, where that is asked for, and what it copied from with it.
    garbage = gc(lab.dataset.with_name("other"), unfinished=True)
    assert [dead.build.name for dead in garbage.builds] == [first, "third"]
    shutil.rmtree(lab.dataset)
    lab.dataset.with_name("other").rename(lab.dataset)
    assert [p.name for p in (lab.dataset / "shards").iterdir() if p.is_dir()] == ["second"]
    built = lab.rebuild(given, name="third")
    assert (built.frames_encoded, built.samples) == (3, 3)
    assert verify(lab.dataset).sound


def test_what_a_plan_in_progress_copies_from_stays(lab: Lab) -> None:
    """Although the build it is of needs it no more, and the footage is gone."""
    given = OTHER_VAE | OTHER_TEXTS
    inline.recaption(str(lab.dataset), given)
    lab.killed("committed:planned", "rebuild", given=given, name="third")
    before = {s.shard_path for s in lab.live()}
    lab.text("a", "another text")
    try:
        lab.ingest()
    finally:
        (lab.footage / "a.txt").unlink()
    (replaced,) = before - {s.shard_path for s in lab.live()}
    garbage = gc(lab.dataset)
    assert (len(garbage.builds), garbage.orphans) == (1, ())
    assert verify(lab.dataset).findings == ()
    away = lab.footage.rename(lab.footage.with_name("away"))
    try:
        lab.rebuild(given, name="third")
    finally:
        away.rename(lab.footage)
    assert {s.outcome for s in lab.live()} == {"kept"}
    now, later = (
        {info.uri for info in offered(lab.dataset, "second", hours=hours).orphans}
        for hours in (1, 0)
    )
    assert str(lab.dataset / replaced) in later - now  # a trainer may read by the index before


def test_the_current_build_is_never_offered(lab: Lab) -> None:
    lab.text("a", "another text")
    try:
        lab.killed("commit:samples")
        garbage = offered(lab.dataset, unfinished=True)
    finally:
        (lab.footage / "a.txt").unlink()
    assert {dead.build.name for dead in garbage.builds} == {lab.builds()[0].name}
    assert garbage.orphans == ()
    assert garbage.left_alone == (("second", "its plan is in progress"),)


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_orphans_go_and_what_is_not_ours_stays(lab: Lab) -> None:
    first, second = (build.name for build in lab.builds())
    kept = lab.dataset / "shards" / second
    orphans = {kept / STRAY, lab.dataset / "shards/gone/index.json"}
    others = {kept / "note.txt", lab.dataset / "shards" / first / "note.txt"}
    others |= {kept / name for name in ("160/x.tar", "160/index.json", f"more/{STRAY}")}
    others |= {lab.dataset / "shards" / name for name in ("x.tar", "index.json")}
    for path in orphans | others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    garbage = gc(lab.dataset)
    assert {Path(info.uri) for info in garbage.orphans} == orphans
    left = {path for path in (lab.dataset / "shards").rglob("*") if path.is_file()}
    assert others < left
    assert not orphans & left
    assert not (lab.dataset / "shards/gone").exists()
    assert verify(lab.dataset).sound


def test_what_is_linked_stays(lab: Lab, tmp_path: Path) -> None:
    """Another dataset's shards, read through a link in this one's folder."""
    other = tmp_path / "other"
    shutil.copytree(lab.dataset, other)
    before = shards_of(other)
    first, second = (build.name for build in lab.builds())
    link = lab.dataset / "shards/borrowed"
    link.symlink_to(other / "shards" / first)
    (lab.dataset / "shards" / first / "32").symlink_to(other / "shards" / second)
    garbage = gc(lab.dataset)
    assert garbage.orphans == ()
    assert shards_of(other) == before
    assert link.is_symlink()
    assert verify(lab.dataset).sound


def test_what_a_trainer_reads_by_outlives_a_top_up_by_a_week(lab: Lab) -> None:
    """Until then neither gc nor verify calls it garbage, and every sample is where it says."""
    (pinned,) = (lab.dataset / "shards/second").glob("samples-*.arrow")
    lab.text("a", "another text")
    try:
        lab.ingest()
    finally:
        (lab.footage / "a.txt").unlink()
    (present,) = {*(lab.dataset / "shards/second").glob("samples-*.arrow")} - {pinned}
    os.utime(pinned, (time.time(), time.time() - 30 * 24 * 3600))  # in force until a moment ago
    assert verify(lab.dataset).findings == ()
    gc(lab.dataset, lab.builds()[0].name)
    for row in read_samples(pa.memory_map(str(pinned)), pinned.name).rows.to_pylist():
        with (pinned.parent / row["shard"]).open("rb") as shard:
            shard.seek(row["offset"])
            assert hashlib.sha256(shard.read(row["size_bytes"])).digest() == row["sha256"]

    live = {str(lab.dataset / sample.shard_path) for sample in lab.live()}
    named = {str(path) for path in pinned.parent.rglob("*.tar")}
    os.utime(present, (time.time(), time.time() - 8 * 24 * 3600))  # so that the other one ended
    garbage = gc(lab.dataset, lab.builds()[0].name)
    assert {info.uri for info in garbage.orphans} == {str(pinned), *(named - live)}
    assert present.exists()
    assert verify(lab.dataset).findings == ()


def test_part_files_go_after_a_day(lab: Lab) -> None:
    folder = lab.dataset / "shards" / "second"
    young, old = folder / f"{PART_PREFIX}1", folder / f"{PART_PREFIX}2"
    for path in (young, old):
        path.write_bytes(b"half a shard")
    os.utime(old, (time.time(), time.time() - 25 * 3600))
    garbage = gc(lab.dataset)
    assert [info.uri for info in garbage.uploads] == [str(old)]
    assert (young.exists(), old.exists()) == (True, False)
    assert nothing(offered(lab.dataset))


def test_old_table_files_go_but_for_those_a_plan_needs(lab: Lab) -> None:
    assert offered(lab.dataset, hours=0).table_files == ()
    given = {"vae": {"patch": 8}}
    lab.killed("committed:planned", "rebuild", given=given, name="third")
    tables = Tables(str(lab.dataset))
    pinned = {name: set(tables.files(name)) for name in ("clips", "samples")}
    for name in pinned:
        tables._compact(name)
    assert offered(lab.dataset).table_files == ()  # younger than a week
    assert offered(lab.dataset, hours=0).table_files == ()  # the plan was made from them
    lab.rebuild(given, name="third")
    old = {info.uri for info in offered(lab.dataset, hours=0).table_files}
    assert old == {uri for files in pinned.values() for uri in files} - {
        uri for name in pinned for uri in Tables(str(lab.dataset)).files(name)
    }
    assert old
    opened = open_dataset(str(lab.dataset), Storage())
    delete(opened, collect(opened, retention_hours=0))
    assert not any(Path(uri).exists() for uri in old)
    assert verify(lab.dataset).sound
    lab.check()


# ── killed, and beside others ────────────────────────────────────────────────────────────────────

_CHILD = """
import sys
from tests.lifecycle.test_gc import gc
gc(sys.argv[1])
"""


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("commit:deleted", marks=pytest.mark.slow),
        "committed:deleted",
        "deleted:build",
    ],
)
def test_killed_and_run_again(lab: Lab, tmp_path: Path, point: str) -> None:
    (lab.dataset / f"shards/second/{STRAY}").write_bytes(b"x")
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(lab.dataset, undisturbed)
    gc(undisturbed)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, lab.dataset],
        env=os.environ | {"TELECINE_KILL_AT": point},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()
    assert verify(lab.dataset).sound
    gc(lab.dataset)
    assert_same(undisturbed, lab.dataset)
    assert nothing(offered(lab.dataset))


def test_nothing_is_deleted_beside_another_writer(lab: Lab) -> None:
    """A build that became current since is not lost, nor a tar that came to be named."""
    before = shards_of(lab.dataset)
    opened = open_dataset(str(lab.dataset), Storage())
    garbage = collect(opened)
    rollback(open_dataset(str(lab.dataset), Storage()))
    assert lab.current().name == garbage.builds[0].build.name
    with pytest.raises(CommitError, match="another run"):
        delete(opened, garbage)
    stray = lab.dataset / f"shards/second/{STRAY}"
    stray.write_bytes(b"x")
    opened = open_dataset(str(lab.dataset), Storage())
    garbage = collect(opened, ["second"])
    assert [info.uri for info in garbage.orphans] == [str(stray)]
    lab.rebuild(OTHER_VAE)
    with pytest.raises(CommitError, match="another run"):
        delete(opened, garbage)
    assert stray.exists()
    assert set(shards_of(lab.dataset)) == {*before, f"shards/second/{STRAY}"}


class Beside(Storage):
    """Storage beside which something happens as files are deleted: before, and after."""

    def __init__(self, before: Happens = nobody, after: Happens = nobody) -> None:
        super().__init__()
        self._before, self._after = before, after

    def delete(self, uris: Sequence[str], within: str) -> None:
        self._before(uris)
        super().delete(uris, within)
        self._after(uris)


def test_a_build_made_again_while_it_is_deleted_is_whole(lab: Lab) -> None:
    def again(uris: Sequence[str]) -> None:
        if uris[0].endswith(".tar"):
            lab.rebuild({"vae": {"patch": 2}})

    first, before = lab.builds()[0], set(shards_of(lab.dataset))
    opened = open_dataset(str(lab.dataset), Beside(before=again))
    garbage = collect(opened)
    delete(opened, garbage)
    assert lab.current().build_id == first.build_id
    assert verify(lab.dataset).sound
    lab.check()
    made = {s.shard_path for s in lab.live()}
    assert made
    assert not made & before


def test_what_another_run_began_meanwhile_stops_it(lab: Lab) -> None:
    gone: list[str] = []

    def begins(uris: Sequence[str]) -> None:
        gone.extend(uris)
        lab.rebuild({"vae": {"patch": 2}})

    opened = open_dataset(str(lab.dataset), Beside(after=begins))
    garbage = collect(opened)
    with pytest.raises(CommitError, match="No more is deleted"):
        delete(opened, garbage)
    assert len(gone) == 1 < len(garbage.builds[0].files)
    assert verify(lab.dataset).sound
    lab.check()


@pytest.mark.parametrize("point", ["committed:promoted", "committed:completed"])
def test_trainers_are_shown_no_file_that_goes(lab: Lab, point: str) -> None:
    """Where a run was killed before it could write index.json and current.json."""
    if point == "committed:promoted":
        lab.killed(point, "rebuild", given={"vae": {"patch": 8}}, name="third")
    else:
        lab.text("a", "another text")
        try:
            lab.killed(point)
        finally:
            (lab.footage / "a.txt").unlink()
    assert gc(lab.dataset).size_bytes > 0
    pointer = json.loads((lab.dataset / "shards/current.json").read_text())
    assert pointer["name"] == lab.current().name
    index = lab.dataset / "shards" / pointer["index"]
    listed = {
        str(index.parent / shard["path"]) for shard in json.loads(index.read_text())["shards"]
    }
    assert listed <= {str(p) for p in (lab.dataset / "shards").rglob("*.tar")}


# ── printing ─────────────────────────────────────────────────────────────────────────────────────


def printed(garbage: Garbage, *, deleted: bool, as_json: bool) -> str:
    file = io.StringIO()
    print_garbage(garbage, deleted=deleted, as_json=as_json, console=Console(file=file, width=30))
    return file.getvalue()


def test_what_goes_is_printed(lab: Lab) -> None:
    first = lab.builds()[0]
    (lab.dataset / f"shards/second/{STRAY}").write_bytes(b"x" * 1500)
    garbage = offered(lab.dataset)
    text = printed(garbage, deleted=False, as_json=False)
    assert f"build       {first.name}: 4 files, " in text
    assert "orphans     1 file, 1.5 kB\n" in text
    assert "nothing is deleted without --yes\n" in text
    assert "\ndeleted     " in printed(garbage, deleted=True, as_json=False)
    said = json.loads(printed(garbage, deleted=False, as_json=True))
    assert [b["build_id"] for b in said["builds"]] == [first.build_id]
    assert said["orphans"] == [
        {"uri": join(str(lab.dataset), f"shards/second/{STRAY}"), "size_bytes": 1500}
    ]
    assert (said["deleted"], said["size_bytes"]) == (False, garbage.size_bytes)
    kept = printed(offered(lab.dataset, first.name), deleted=False, as_json=False)
    assert f"left alone  {first.name}: kept, as asked\n" in kept
    gc(lab.dataset)
    assert printed(offered(lab.dataset), deleted=False, as_json=False) == "nothing to delete\n"
