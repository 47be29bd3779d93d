"""Two versions of a dataset, or two builds: what came, went and changed, by name and number."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from deltalake import DeltaTable
from rich.console import Console
from typer.testing import CliRunner

from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.buckets import bucket_of
from telecine.manifests.builds import find_build
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.history import find_version, split
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Sample
from telecine.manifests.specs import BucketSpec, DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.cli import diff as cli_clips
from telecine.pipeline.cli.diff import print_versions
from telecine.pipeline.lifecycle.gc import collect, delete
from telecine.pipeline.look.diff import diff
from telecine.pipeline.look.movement import Dropped, Move, Movement, Some
from telecine.pipeline.look.summary import summary
from telecine.pipeline.look.versions import Fate, VersionDiff, diff_versions
from tests.support import inline
from tests.support.lab import Lab
from tests.support.rows import make_build, make_clip, make_sample, make_source
from tests.support.s3 import S3Server, put

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@dataclass(frozen=True)
class Made:
    lab: Lab
    old: dict[str, str]  # clip_ids by file name, before
    new: dict[str, str]  # and after


def clips(lab: Lab) -> dict[str, str]:
    rows = lab.connect().sql(
        "SELECT split_part(uri, '/', -1), clip_id FROM current_clips "
        "JOIN current_sources USING (source_id)"
    )
    return dict(rows.fetchall())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Events 0, 1, 2: three images, a broken and a small one. 3, 4: one replaced, one retold, one
    new. 5, 6, 7: another build of the wide ones.
    """
    lab = Lab(tmp_path_factory.mktemp("lab"))
    for seed, (name, width) in enumerate({"a": 160, "b": 160, "c": 336, "small": 90}.items()):
        lab.image(name, seed, (width, 160))
    lab.text("b", "A caption.")
    lab.image("broken", seed=7)
    whole = (lab.footage / "broken.png").read_bytes()
    (lab.footage / "broken.png").write_bytes(whole[: len(whole) // 2])
    inline.ingest(str(lab.footage), str(lab.dataset))
    old = clips(lab)
    lab.image("a", seed=20, size=(200, 160))
    lab.text("b", "Another caption.")
    lab.image("d", seed=21, size=(320, 160))
    inline.ingest(str(lab.footage), str(lab.dataset))
    inline.recaption(str(lab.dataset), {"caption": {"captioner": "signal"}})
    inline.rebuild(
        str(lab.dataset), {"select": {"where": "width > 300"}, "vae": {"patch": 4}}, name="wide"
    )
    return Made(lab, old, clips(lab))


def dataset_of(lab: Lab) -> Dataset:
    return open_dataset(str(lab.dataset), Storage())


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Lab:
    shutil.copytree(made.lab.dataset, tmp_path / "dataset")
    return Lab(tmp_path)


def some(*names: str) -> Some:
    return Some(len(names), tuple(sorted(names)))


def there(found: Mapping[Any, Some]) -> dict[Any, Some]:
    return {sort: some for sort, some in found.items() if some.count}


def shown(found: VersionDiff, as_json: bool = False) -> str:
    out = io.StringIO()
    print_versions(found, as_json, Console(file=out, width=150))
    return out.getvalue()


# ── versions by name ─────────────────────────────────────────────────────────────────────────────


def test_the_events_are_those_that_inspect_lists(made: Made) -> None:
    rows = made.lab.connect().sql("SELECT sequence, event FROM builds ORDER BY sequence")
    events = ["planned", "completed", "promoted", "planned", "completed", *("planned",) * 1]
    assert rows.fetchall() == list(enumerate([*events, "completed", "promoted"]))


def test_at_an_event_the_tables_are_as_it_left_them(made: Made) -> None:
    dataset = dataset_of(made.lab)
    builds = DeltaTable(made.lab.dataset / "tables" / "builds").to_pyarrow_dataset()
    for sequence in range(8):
        version = find_version(dataset, str(sequence))
        row = duckdb.sql(f"FROM builds WHERE sequence = {sequence}").to_arrow_table()
        (event,) = row.to_pylist()
        seen = connect(dataset.tables, version.tables).sql("SELECT max(sequence) FROM builds")
        assert seen.fetchall() == [(sequence,)]
        for name in ("sources", "clips", "captions"):
            assert version.tables[name] == event[f"{name}_version"], (sequence, name)
        samples = event["samples_version"]
        later = event["event"] != "planned"  # the plan's samples are committed before its end
        assert (version.tables["samples"] > samples) is later
    assert builds.count_rows() == 8
    now = find_version(dataset, "now")
    assert now.tables == {name: dataset.tables.version(name) for name in now.tables}
    assert now.tables["captions"] == find_version(dataset, "7").tables["captions"]


def test_a_time_is_as_good_as_an_event(made: Made) -> None:
    dataset = dataset_of(made.lab)
    for sequence in (2, 4, 7):
        event = find_version(dataset, str(sequence))
        assert event.at is not None
        for text in (event.at.isoformat(), event.at.replace(tzinfo=None).isoformat()):
            assert find_version(dataset, text).tables == event.tables
        tables = find_version(dataset, (event.at - timedelta(milliseconds=1)).isoformat()).tables
        assert tables["builds"] == event.tables["builds"] - 1


def test_a_day_is_meant_to_its_end(made: Made) -> None:
    dataset = dataset_of(made.lab)
    last = find_version(dataset, "7").at
    assert last is not None
    assert find_version(dataset, f"{last:%Y-%m-%d}").tables == find_version(dataset, "now").tables
    before = find_version(dataset, "2001-02-03")
    assert before.at == datetime(2001, 2, 3, 23, 59, 59, 999999, UTC)
    assert set(before.tables.values()) == {-1}
    east = find_version(dataset, "2001-02-03T01:00+02:00")
    assert east.at == datetime(2001, 2, 2, 23, tzinfo=UTC)


def test_a_clock_that_ran_ahead_hides_nothing_that_a_plan_was_made_from(copy: Lab) -> None:
    dataset = dataset_of(copy)
    expected = find_version(dataset, "3").tables["captions"]
    path = copy.dataset / "tables" / "captions" / "_delta_log" / f"{expected:020d}.json"
    text = path.read_text()
    (stamp,) = re.findall(r'"commitInfo":\{"timestamp":(\d+)', text)
    path.write_text(text.replace(stamp, str(int(stamp) + 3_600_000)))
    version = find_version(dataset_of(copy), "3")
    assert version.tables["captions"] == expected
    assert version.at is not None
    by_time = find_version(dataset_of(copy), version.at.isoformat()).tables["captions"]
    assert by_time == expected - 1


def test_events_that_were_committed_together(copy: Lab) -> None:
    """gc deletes several builds in one commit; its events are one version."""
    inline.rebuild(str(copy.dataset), {"select": {"where": "width < 300"}}, name="narrow")
    opened = dataset_of(copy)
    delete(opened, collect(opened))
    dataset = dataset_of(copy)
    events = dict(connect(dataset.tables).sql("SELECT sequence, event FROM builds").fetchall())
    assert [events[n] for n in (10, 11, 12)] == ["promoted", "deleted", "deleted"]
    assert find_version(dataset, "11").tables == find_version(dataset, "12").tables
    assert find_version(dataset, "12").tables["builds"] == dataset.tables.version("builds")
    assert find_version(dataset, "10").tables["builds"] == dataset.tables.version("builds") - 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("8", r"@8: the dataset has no such event of a build, its last is 7; write DATASET@N"),
        ("yesterday", "@yesterday is no version of a dataset: write DATASET@N"),
        ("2026-13-01", "@2026-13-01 is no version"),
        ("", "@ is no version"),
        ("9" * 5000, "is no version"),
        ("0001-01-01T00:00+14:00", "is no time"),
    ],
)
def test_what_is_no_version_is_explained(made: Made, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find_version(dataset_of(made.lab), name)


def test_a_name_is_taken_apart_at_its_last_sign(made: Made) -> None:
    assert split("s3://bucket/a@b/c@now") == ("s3://bucket/a@b/c", "now")
    for text in ("s3://bucket/a@b/c", "folder", "@now", "folder@"):
        with pytest.raises(UsageError, match="names no version"):
            split(text)


def test_versions_whose_files_gc_removed_are_refused(copy: Lab) -> None:
    dataset = dataset_of(copy)
    dataset.tables._compact("captions")
    assert diff_versions(dataset_of(copy), "2", "now").b.captions == 8  # still there
    opened = dataset_of(copy)
    delete(opened, collect(opened, ["wide"], retention_hours=0))
    with pytest.raises(
        UsageError, match=r"@2 can no longer be read: . of the . files of table captions .* gc"
    ):
        diff_versions(dataset_of(copy), "2", "now")
    assert diff_versions(dataset_of(copy), "now", "now").a.captions == 8


# ── between two versions ─────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def found(made: Made) -> VersionDiff:
    """From the first build to the present."""
    return diff_versions(dataset_of(made.lab), "2", "now")


def test_sources_that_came_were_replaced_or_retold(made: Made, found: VersionDiff) -> None:
    folder = made.lab.footage
    assert there(found.sources) == {
        Fate.CAME: some(f"{folder}/d.png"),
        Fate.REPLACED: some(f"{folder}/a.png"),
        Fate.SIDECAR: some(f"{folder}/b.png"),
        Fate.SAME: some(*(f"{folder}/{name}.png" for name in ("c", "small", "broken"))),
    }
    standings = {(s.status, s.reason): (s.a, s.b) for s in found.standings}
    assert standings == {("scanned", ""): (4, 5), ("rejected", "corrupt"): (1, 1)}


def test_clips_that_came_and_went(made: Made, found: VersionDiff) -> None:
    assert found.clips_came == some(made.new["a.png"], made.new["d.png"])
    assert found.clips_went == some(made.old["a.png"])
    counts = {p.bucket.folder: (p.clips_a, p.clips_b, p.came, p.went) for p in found.clips}
    assert counts == {
        "144/1x1/image": (2, 1, 0, 1), "144/4x3/image": (0, 1, 1, 0),
        "144/16x9/image": (0, 1, 1, 0), "144/21x9/image": (1, 1, 0, 0),
    }  # fmt: skip
    assert found.clips_without_bucket == (1, 1)


def test_captions_that_came_by_captioner_and_outcome(found: VersionDiff) -> None:
    counts = {(p.names[0], p.names[2]): (p.a, p.b) for p in found.captions}
    assert counts == {("sidecar", "ok"): (1, 2), ("signal", "ok"): (3, 6)}
    assert found.scores == ()


def test_samples_are_those_of_the_builds_that_were_current(made: Made, found: VersionDiff) -> None:
    assert found.a.build.startswith("dct-")
    assert found.b.build == "wide"
    assert there(found.movement.moves) == {
        Move.CAME: some(made.new["d.png"]),
        Move.WENT: some(made.old["a.png"], made.old["b.png"]),
        Move.REENCODED: some(made.old["c.png"]),  # another crop
    }
    assert found.movement.dropped == (Dropped("no_bucket", 1, 0),)  # not selected any more


def test_the_sides_are_counted_as_the_tables_have_them(made: Made, found: VersionDiff) -> None:
    """Also by deltalake at the versions that are told."""
    assert (found.a.sources, found.a.clips, found.a.samples) == (5, 4, 3)
    assert (found.b.sources, found.b.clips, found.b.samples) == (6, 5, 2)
    for side in (found.a, found.b):
        table = DeltaTable(made.lab.dataset / "tables" / "captions", side.tables["captions"])
        assert table.to_pyarrow_dataset().count_rows() == side.captions
    assert found.a.event.startswith("2 promoted dct-")
    assert found.b.event == "7 promoted wide"
    assert found.b.at == ""


def test_the_other_way_round_what_came_went(made: Made, found: VersionDiff) -> None:
    back = diff_versions(dataset_of(made.lab), "now", "2")
    assert (back.a, back.b) == (found.b, found.a)
    assert back.sources[Fate.WENT] == found.sources[Fate.CAME]
    assert back.clips_went == found.clips_came
    assert back.movement.moves[Move.CAME] == found.movement.moves[Move.WENT]
    assert [(p.clips_a, p.came) for p in back.clips] == [(p.clips_b, p.went) for p in found.clips]


def test_a_version_is_equal_to_itself(made: Made) -> None:
    same = diff_versions(dataset_of(made.lab), "4", "4")
    assert same.a == same.b
    assert {*there(same.sources)} == {Fate.SAME}
    assert {*there(same.movement.moves)} == {Move.SAME}
    text = shown(same)
    assert "0 came\n0 went\nwithout a bucket: 1 in A, 1 in B\n" in text
    assert text.count("buckets that changed\nnone\n") == 2
    assert "4 samples in one or both, 4 of them the same in both" in text


def test_only_retold_samples(made: Made) -> None:
    """From one plan of a build to the next."""
    step = diff_versions(dataset_of(made.lab), "2", "4").movement
    assert step.moves[Move.RETOLD] == some(made.new["b.png"])
    assert step.moves[Move.REENCODED].count == 0
    assert step.moves[Move.SAME] == some(made.new["c.png"])
    assert step.moves[Move.CAME] == some(made.new["a.png"], made.new["d.png"])


def test_from_nothing_everything_came(made: Made) -> None:
    found = diff_versions(dataset_of(made.lab), "2001-01-01", "now")
    assert (found.a.sources, found.a.build, found.a.event) == (0, "", "")
    assert found.sources[Fate.CAME].count == 6
    assert found.clips_came.count == 5
    assert "current build  none" in shown(found)


def test_on_a_terminal(found: VersionDiff) -> None:
    text = shown(found)
    assert re.search(r"A: @2 +B: @now", text)
    assert re.search(r"at +\d{4}-\d\d-\d\dT[\d:.]+Z +now", text)
    assert re.search(r"1 came: \S+/d\.png\n", text)
    assert re.search(r"1 replaced: \S+/a\.png\n", text)
    assert re.search(r"1 with another caption file: \S+/b\.png\n", text)
    assert re.search(r"scanned +4 +5 +\+1", text)
    assert re.search(r"signal +[0-9a-f]{8} +ok +3 +6 +\+3", text)
    assert "without a bucket: 1 in A, 1 in B" in text
    assert re.search(r"no_bucket +1 +0 +-1", text)
    assert "1 re-encoded: " in text


def test_as_json(found: VersionDiff) -> None:
    told = json.loads(shown(found, as_json=True))
    assert told["sources"]["came"]["count"] == 1
    assert told["movement"]["moves"]["reencoded"]["count"] == 1
    assert told["clips"][0]["bucket"]["resolution"] == 144
    assert told["b"]["tables"]["builds"] == found.b.tables["builds"]


def test_clips_are_in_the_buckets_that_the_planner_gives_them(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    made = [
        make_clip(
            clip_id=f"{n:032x}", kind="image" if not n % 9 else "video", num_frames=10 + 7 * n,
            width=100 + 37 * (n % 11), height=90 + 53 * (n % 7), time_base_num=1 + n % 2,
            time_base_den=(24, 30, 7)[n % 3],
        )
        for n in range(99)
    ]  # fmt: skip
    tables.append("sources", [make_source()])
    tables.append("clips", made)
    spec = DatasetSpec(buckets=BucketSpec(durations=(0.1, 1, 1.5, 4, 16)))
    dataset = Dataset(tables.uri, Storage(), spec, tables)
    found = diff_versions(dataset, "2001-01-01", "now")
    buckets = {clip.clip_id: bucket_of(clip, spec.buckets) for clip in made}
    counted = Counter(filter(None, buckets.values()))
    assert {p.bucket: p.came for p in found.clips} == counted
    assert len(counted) > 20
    assert found.clips_without_bucket == (0, sum(b is None for b in buckets.values()))
    seconds = sum(clip.duration_seconds for clip in made if buckets[clip.clip_id])
    assert sum(p.hours_b for p in found.clips) == pytest.approx(seconds / 3600, abs=1e-4)


@pytest.mark.slow
def test_in_a_store(made: Made, found: VersionDiff, s3: S3Server) -> None:
    dataset = open_dataset(put(made.lab.dataset, s3.uri("dataset")), Storage())
    there = diff_versions(dataset, "2", "now")
    assert (there.sources, there.clips) == (found.sources, found.clips)
    assert (there.a, there.b) == (found.a, found.b)
    path = dataset.tables.files("captions", there.a.tables["captions"])[0]
    dataset.storage.delete([path], dataset.uri)
    with pytest.raises(UsageError, match=r"1 of the \d files of table captions"):
        find_version(dataset, "2")


# ── between two builds ───────────────────────────────────────────────────────────────────────────

A, B = "a" * 32, "b" * 32


def moved(tmp_path: Path, old: list[Sample], new: list[Sample]) -> Movement:
    tables = Tables(str(tmp_path))
    tables.append("samples", old + new)
    tables.append(
        "builds",
        [
            make_build(sequence=n, event="completed", build_id=build_id, name=name)
            for n, (build_id, name) in enumerate(((A, "old"), (B, "new")))
        ],
    )
    con = connect(tables)
    return diff(con, find_build(con, "old"), find_build(con, "new")).movement


def row(clip_id: str, build_id: str, **facts: Any) -> Sample:
    usual = {"latent_sha256": "l", "shard_id": f"shard {clip_id[0]}"}
    return make_sample(clip_id=clip_id, build_id=build_id, **usual | facts)


def test_what_became_of_each_sample(tmp_path: Path) -> None:
    dropped = {"outcome": "dropped", "shard_id": "", "reason": "undecodable"}
    found = moved(
        tmp_path,
        [row(c, A) for c in ("same", "told", "more", "code", "ship", "went")]
        + [row("lost", A, **dropped), row("back", A, **dropped)],
        [
            row("same", B),
            row("told", B, text_digest="u", shard_id="other"),
            row("more", B, captions_digest="u"),
            row("code", B, latent_sha256="m", text_digest="u"),
            row("ship", B, shard_id="other"),
            row("came", B, duration="1s", encoded_frames=90, fps_num=30),
            row("lost", B, **dropped | {"reason": "source_missing"}),
            row("back", B),
        ],
    )
    assert there(found.moves) == {
        Move.SAME: some("same"), Move.RETOLD: some("told", "more"), Move.REENCODED: some("code"),
        Move.MOVED: some("ship"), Move.CAME: some("came", "back"), Move.WENT: some("went"),
    }  # fmt: skip
    assert found.dropped == (Dropped("source_missing", 0, 1), Dropped("undecodable", 2, 0))
    one, two = found.buckets
    assert (one.bucket.folder, one.clips_a, one.clips_b, one.came, one.went) == (
        "360/16x9/1s", 0, 1, 1, 0,
    )  # fmt: skip
    assert (two.bucket.folder, two.clips_a, two.clips_b, two.came, two.went) == (
        "360/16x9/2s", 6, 6, 1, 1,
    )  # fmt: skip
    assert (one.hours_a, one.hours_b) == (0.0, round(3 / 3600, 6))


def test_buckets_are_counted_as_inspect_counts_them(made: Made) -> None:
    dataset = dataset_of(made.lab)
    con = connect(dataset.tables)
    reports = summary(con, dataset.uri, dataset.spec).builds
    a, b = (find_build(con, report.name) for report in reports)
    found = diff(con, a, b).movement
    for report, clips_of, hours_of in (
        (reports[0], "clips_a", "hours_a"), (reports[1], "clips_b", "hours_b"),
    ):  # fmt: skip
        told = {
            (p.bucket.resolution, p.bucket.aspect, p.bucket.duration): (
                getattr(p, clips_of), getattr(p, hours_of),
            )
            for p in found.buckets if getattr(p, clips_of)
        }  # fmt: skip
        buckets = report.buckets
        assert told == {(k.resolution, k.aspect, k.duration): (k.clips, k.hours) for k in buckets}
    assert {d.reason: d.a for d in found.dropped if d.a} == reports[0].dropped


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def run(*words: str) -> str:
    app = typer.Typer()
    app.command()(cli_clips.diff)
    app.command()(cli_clips.explain)
    done = CliRunner().invoke(app, ["diff", *words])
    if isinstance(done.exception, UsageError):
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


def test_the_command_compares_builds_and_versions(made: Made) -> None:
    folder = str(made.lab.dataset)
    first = diff_versions(dataset_of(made.lab), "2", "2").a.build
    assert "A: " + first in run(folder, first, "wide")
    moves = json.loads(run(folder, first, "wide", "--json"))["movement"]["moves"]
    assert {move: some["count"] for move, some in moves.items() if some["count"]} == {
        "went": 2, "reencoded": 1, "moved": 1,
    }  # fmt: skip
    told = json.loads(run(f"{folder}@2", f"{folder}@7", "--json"))
    assert (told["a"]["name"], told["b"]["name"]) == ("@2", "@7")
    with pytest.raises(UsageError, match="two versions of one dataset"):
        run(f"{folder}@2", "elsewhere@7")
    with pytest.raises(UsageError, match=r"name two builds, .* or two versions"):
        run(folder, "wide")
    with pytest.raises(UsageError, match="names no version"):
        run(folder, f"{folder}@2")
