"""Views and questions over the tables, and what a WHERE clause cannot do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage, StoreOptions
from telecine.manifests.builds import (
    builds,
    current_build,
    find_build,
    last_plan,
    next_plan,
    next_sequence,
    promotions,
)
from telecine.manifests.queries import Orphans, connect, orphans
from telecine.manifests.schemas import TABLES, Build, Clip, Sample, Source
from telecine.manifests.tables import NO_TABLE, Tables
from tests.support.rows import make_build, make_clip, make_sample, make_source, make_still
from tests.support.s3 import S3Server


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def ask(tables: Tables, query: str) -> list[tuple[object, ...]]:
    return connect(tables).sql(query).fetchall()


# ── views ────────────────────────────────────────────────────────────────────────────────────────


def test_the_source_in_force_has_the_highest_revision(tables: Tables) -> None:
    tables.append("sources", [make_source(uri="/a", version="1"), make_source(uri="/b")])
    tables.append("sources", [make_source(uri="/a", version="2", revision=1)])
    tables.append("sources", [make_source(uri="/a", version="3", revision=2)])
    found = ask(tables, "SELECT uri, version FROM current_sources ORDER BY uri")
    assert found == [("/a", "3"), ("/b", "1")]


def test_current_clips_are_those_of_scanned_sources_in_force(tables: Tables) -> None:
    tables.append(
        "clips",
        [
            make_clip(clip_id="now", source_id="s"),
            make_clip(clip_id="cut by other rules", source_id="s", scan_fingerprint="old"),
            make_clip(clip_id="of a replaced object", source_id="r"),
            make_clip(clip_id="of no source yet", source_id="t"),
            make_clip(clip_id="of a rejected source", source_id="u"),
        ],
    )
    tables.append(
        "sources",
        [
            make_source(uri="/s", source_id="s"),
            make_source(uri="/r", source_id="r"),
            make_source(uri="/r", source_id="r2", revision=1),
            make_source(uri="/u", source_id="u", status="rejected"),
        ],
    )
    assert ask(tables, "SELECT clip_id FROM current_clips") == [("now",)]


def samples_by_rule(samples: list[Sample], builds: list[Build]) -> set[tuple[str, int, str, str]]:
    """What live means, row by row: the slow way to say it."""
    completed = [b for b in builds if b.event == "completed"]
    plans = {(b.build_id, b.plan) for b in completed}
    replaced = {(b.build_id, shard) for b in completed for shard in b.replaces}
    done = [s for s in samples if (s.build_id, s.plan) in plans]

    def live(row: Sample) -> bool:
        if row.outcome == "kept":
            return (row.build_id, row.shard_id) not in replaced
        same = [s.plan for s in done if (s.build_id, s.clip_id) == (row.build_id, row.clip_id)]
        return row.plan == max(same)

    return {(s.build_id, s.plan, s.clip_id, s.shard_id) for s in done if live(s)}


letters = st.sampled_from("xyz")
any_samples = st.lists(
    st.builds(
        make_sample,
        build_id=letters,
        plan=st.integers(0, 2),
        clip_id=letters,
        outcome=st.sampled_from(["kept", "dropped"]),
        shard_id=letters,
    ),
    max_size=12,
    unique_by=lambda s: (s.build_id, s.plan, s.clip_id),
)
any_builds = st.lists(
    st.builds(
        make_build,
        build_id=letters,
        plan=st.integers(0, 2),
        event=st.sampled_from(["planned", "completed", "completed", "promoted"]),
        replaces=st.lists(letters, max_size=2).map(tuple),
    ),
    max_size=8,
).map(lambda builds: [dataclasses.replace(b, sequence=n) for n, b in enumerate(builds)])


@settings(max_examples=20, deadline=None)
@given(samples=any_samples, builds=any_builds)
def test_live_samples_are_of_completed_plans_and_not_replaced(
    samples: list[Sample], builds: list[Build], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tables = Tables(str(tmp_path_factory.mktemp("dataset")))
    tables.append("samples", samples)
    tables.append("builds", builds)
    columns = "build_id, plan, clip_id, shard_id"
    expected = samples_by_rule(samples, builds)
    assert sorted(ask(tables, f"SELECT {columns} FROM live_samples")) == sorted(expected)
    promoted = [b.build_id for b in builds if b.event == "promoted"]
    current = {row for row in expected if promoted and row[0] == promoted[-1]}
    assert sorted(ask(tables, f"SELECT {columns} FROM current_samples")) == sorted(current)


def test_views_show_the_versions_asked_for(tables: Tables) -> None:
    tables.append("sources", [make_source(uri="/a")])
    tables.append("sources", [make_source(uri="/b")])
    counts = [
        connect(tables, {"sources": version}).sql("FROM current_sources").shape[0]
        for version in (NO_TABLE, 0, 1, 2)
    ]
    assert counts == [0, 0, 1, 2]


# ── questions ────────────────────────────────────────────────────────────────────────────────────


def test_builds_are_asked_for_their_last_events(tables: Tables) -> None:
    con = connect(tables)
    assert (next_sequence(con), last_plan(con, "x"), current_build(con)) == (0, None, None)
    events = [
        make_build(build_id="x", sequence=0),
        make_build(build_id="x", sequence=1, event="completed"),
        make_build(build_id="x", sequence=2, event="promoted"),
        make_build(build_id="x", sequence=3, plan=1, replaces=("s",)),
        make_build(build_id="y", sequence=4),
    ]
    tables.append("builds", events)
    con = connect(tables)
    assert next_sequence(con) == 5
    assert last_plan(con, "x") == events[3]
    assert last_plan(con, "y") == events[4]
    assert current_build(con) == events[2]


def history(*events: str) -> list[Build]:
    """`x planned 0`, ...: a build's id is its letter many times, its name `dct-` and the letter."""
    made = []
    for sequence, words in enumerate(events):
        build, event, plan = words.split()
        made.append(
            make_build(
                build_id=build * 32, name=f"dct-{build}", sequence=sequence, event=event,
                plan=int(plan),
            )
        )  # fmt: skip
    return made


def test_a_build_is_what_its_events_leave(tables: Tables) -> None:
    events = history(
        "x planned 0", "x completed 0", "x promoted 0",
        "y planned 0", "y completed 0", "y planned 1", "y planned 2",
        "z planned 0",
        "v planned 0", "v completed 0", "v deleted 0",
        "w planned 0", "w completed 0", "w deleted 0", "w planned 1", "w completed 1",
        "x planned 1", "x completed 1", "y promoted 0", "x rolled_back 1",
    )  # fmt: skip
    tables.append("builds", events)
    con = connect(tables)
    found = {b.name.removeprefix("dct-"): b for b in builds(con)}
    assert list(found) == ["x", "y", "z", "v", "w"]
    assert {n: str(b.state) for n, b in found.items()} == {
        "x": "current", "y": "completed", "z": "in_progress", "v": "deleted", "w": "completed",
    }  # fmt: skip
    assert {n: b.plans for n, b in found.items()} == {"x": 2, "y": 1, "z": 0, "v": 0, "w": 1}
    assert {n: b.in_progress.plan for n, b in found.items() if b.in_progress} == {"y": 2, "z": 0}
    assert {n: b.promoted for n, b in found.items() if b.promoted} == {"x": 19, "y": 18}
    assert found["w"].completed == events[15]
    assert found["v"].last == events[10]
    assert [next_plan(con, build * 32) for build in "xyzvwu"] == [2, 3, 1, 1, 2, 0]
    assert last_plan(con, "v" * 32) is None
    assert last_plan(con, "w" * 32) == events[15]


def test_a_deleted_builds_samples_are_gone_and_stay_gone(tables: Tables) -> None:
    tables.append("samples", [make_sample(plan=0), make_sample(plan=1, clip_id="d" * 32)])
    build = "b" * 32
    events = [("planned", 0), ("completed", 0), ("deleted", 0), ("planned", 1)]
    for sequence, (event, plan) in enumerate(events):
        row = make_build(build_id=build, sequence=sequence, event=event, plan=plan)
        tables.append("builds", [row])
        count = int(event == "completed")
        assert ask(tables, "SELECT count(*) FROM live_samples") == [(count,)]
    tables.append("builds", [make_build(build_id=build, sequence=4, event="completed", plan=1)])
    assert ask(tables, "SELECT clip_id FROM live_samples") == [("d" * 32,)]


def test_a_build_is_found_by_the_beginning_of_its_name_or_id(tables: Tables) -> None:
    with pytest.raises(UsageError, match="this dataset has no build yet"):
        find_build(connect(tables), "x")
    tables.append("builds", history("x planned 0", "y planned 0", "v planned 0", "v deleted 0"))
    tables.append("builds", [make_build(build_id="xy" * 16, name="y" * 6, sequence=4)])
    con = connect(tables)
    for text, build_id in (("dct-x", "x" * 32), ("xx", "x" * 32), ("xy", "xy" * 16)):
        assert find_build(con, text).build_id == build_id
    assert find_build(con, "y" * 6).build_id == "xy" * 16  # a name before the beginning of an id
    with pytest.raises(
        UsageError, match=r"begins the names or ids of 2 builds(?s:.*)dct-x (?s:.*)yyyyyy "
    ):
        find_build(con, "x")
    for text in ("dct-v", "v", "", "x-dct"):
        with pytest.raises(UsageError, match=r"(?s)there is no build.*dct-x .*dct-y "):
            find_build(con, text)


@pytest.mark.parametrize(
    ("events", "stack"),
    [
        ("", ""),
        ("+x", "x"),
        ("+x +y +v", "xyv"),
        ("+x +y <x", "x"),
        ("+x +y <x +v <x", "x"),
        ("+x +y +x <y", "xy"),
        ("+x +y +v -y", "xv"),
        ("+x +y +v -y <x", "x"),
        ("+x +y +x -y", "x"),
        ("+x +y <x -y +y", "xy"),
    ],
)
def test_promotions_are_a_stack(events: str, stack: str, tables: Tables) -> None:
    words = {"+": "promoted", "<": "rolled_back", "-": "deleted"}
    tables.append("builds", history(*(f"{e[1]} {words[e[0]]} 0" for e in events.split())))
    in_force = promotions(connect(tables))
    assert [e.build_id[0] for e in in_force] == list(stack)
    assert {e.event for e in in_force} <= {"promoted"}


# ── a scan killed between its commits ────────────────────────────────────────────────────────────


def scanned(name: str, clips: int = 2) -> dict[str, list[object]]:
    """The rows of one source, by table, in the order of their commits."""
    ids = [f"{name}{n}" for n in range(clips)]
    return {
        "stills": [
            make_still(clip_id=c, source_id=name, position=p) for c in ids for p in range(3)
        ],
        "clips": [make_clip(clip_id=c, source_id=name) for c in ids],
        "sources": [make_source(uri=f"/{name}", source_id=name, num_clips=clips)],
    }


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_rows_that_a_killed_scan_left_are_known(commits: int, tables: Tables) -> None:
    for name, rows in scanned("whole").items():
        tables.append(name, rows)  # type: ignore[arg-type]
    for name, rows in list(scanned("killed").items())[:commits]:
        tables.append(name, rows)  # type: ignore[arg-type]
    both = frozenset({"killed0", "killed1"})
    none = frozenset[str]()
    expected = [
        Orphans(none, none),
        Orphans(none, both),
        Orphans(both, both),
        Orphans(none, none),
    ]
    assert orphans(connect(tables)) == expected[commits]
    visible = ask(tables, "SELECT DISTINCT source_id FROM current_clips ORDER BY 1")
    assert visible == [("killed",), ("whole",)][commits < 3 :]


def test_a_source_put_back_is_no_orphan(tables: Tables) -> None:
    """The same object in force again: another row, the same clips."""
    for name, rows in scanned("s").items():
        tables.append(name, rows)  # type: ignore[arg-type]
    between = make_source(uri="/s", revision=1, source_id="t", status="rejected", num_clips=0)
    tables.append("sources", [between])
    tables.append("sources", [make_source(uri="/s", revision=2, source_id="s", num_clips=2)])
    assert orphans(connect(tables)) == Orphans(frozenset(), frozenset())
    assert ask(tables, "SELECT count(*) FROM current_clips") == [(2,)]


# ── walls ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "expression",
    [
        "(SELECT count(*) FROM read_text('{secret}')) > 0",
        "(SELECT count(*) FROM read_csv('{secret}')) > 0",
        "(SELECT count(*) FROM '{secret}') > 0",
        "(SELECT count(*) FROM glob('{folder}/*')) > 0",
        "(SELECT count(*) FROM read_text('{tables}/../secret.csv')) > 0",
        "(SELECT count(*) FROM secret_frame) > 0",
    ],
)
def test_a_where_clause_reads_no_file_and_no_variable(
    expression: str, tmp_path: Path, tables: Tables
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    secret_frame = tables.arrow("clips")
    tables.append("sources", [make_source()])
    clause = expression.format(secret=secret, folder=tmp_path, tables=f"{tables.uri}/tables")
    with pytest.raises((duckdb.PermissionException, duckdb.CatalogException)):
        connect(tables).table("sources").filter(clause).fetchall()
    assert secret_frame.num_rows == 0


def test_the_walls_cannot_be_taken_down(tables: Tables) -> None:
    con = connect(tables)
    for statement in (
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "COPY (SELECT 1) TO '/tmp/telecine-test.csv'",
    ):
        with pytest.raises(duckdb.Error):
            con.execute(statement)


# ── only what is needed is read ──────────────────────────────────────────────────────────────────


def test_columns_and_filters_reach_the_reader(tables: Tables) -> None:
    tables.append("stills", [make_still(position=n) for n in range(3)])
    con = connect(tables)
    ((_, plan),) = con.sql("EXPLAIN SELECT clip_id FROM stills WHERE position = 1").fetchall()
    assert "jpeg" not in plan
    assert "position" in plan.partition("Filters:")[2]


def test_columns_are_chosen_in_a_store_too(s3: S3Server) -> None:
    uri = s3.uri("dataset")
    tables = Tables(uri, Storage(StoreOptions()).delta_options(uri))
    tables.append("stills", [make_still(position=n) for n in range(3)])
    con = connect(tables)
    ((_, plan),) = con.sql("EXPLAIN SELECT clip_id FROM stills WHERE position = 1").fetchall()
    assert "jpeg" not in plan
    assert "READ_PARQUET" in plan
    assert con.sql("SELECT count(*) FROM stills WHERE position > 0").fetchall() == [(2,)]


_SPILL = """
import resource, sys
from telecine.manifests.queries import connect
from telecine.manifests.tables import Tables
con = connect(Tables(sys.argv[1]))
rows = con.sql('''
    SELECT count(*) FROM (
        SELECT repeat(md5(i::VARCHAR), 8) AS h, count(*) FROM range(10000000) t(i) GROUP BY h
    )
''').fetchall()
assert rows == [(10000000,)], rows
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_what_does_not_fit_in_memory_spills_to_disk(tables: Tables) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SPILL, tables.uri], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 3_000_000  # KiB; the groups alone are 3 GB


def test_every_row_type_can_be_asked_for(tables: Tables) -> None:
    con = connect(tables)
    for name in TABLES:
        assert con.sql(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]
    assert {Source, Clip, Sample, Build} <= set(TABLES.values())
