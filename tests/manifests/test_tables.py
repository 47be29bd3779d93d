"""Tables: every row type there and back, one writer at a time, readable without this code."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import randbytes

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telecine.infra.errors import CommitError, StorageError, UsageError
from telecine.infra.store.storage import Storage, StoreOptions
from telecine.manifests.queries import connect
from telecine.manifests.schemas import TABLES, Caption, Clip, Row, Source, Still, arrow_schema
from telecine.manifests.tables import COMPACT_EVERY, NO_TABLE, Tables
from tests.support.any_rows import rows_of
from tests.support.forward import forwarding
from tests.support.rows import make_caption, make_clip, make_source, make_still
from tests.support.s3 import S3Server


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "data set"))


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Where a dataset may lie, under a name that needs quoting, and its storage options."""
    name = "a b&c+(1)#%~'é日本"
    if request.param == "disk":
        return str(tmp_path / name), {}
    server: S3Server = request.getfixturevalue("s3")
    uri = server.uri("data sets", name)
    return uri, Storage(StoreOptions()).delta_options(uri)


# ── there and back ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rows_come_back_as_they_were(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = data.draw(st.lists(rows_of(TABLES[name]), min_size=1, max_size=3))
    tables = Tables(str(tmp_path_factory.mktemp("dataset")))
    tables.append(name, rows)
    again: list[Row] = Tables(tables.uri).rows(TABLES[name])
    assert sorted(again, key=repr) == sorted(rows, key=repr)


def test_a_dataset_lies_on_disk_or_in_a_store(place: tuple[str, dict[str, str]]) -> None:
    uri, options = place
    tables = Tables(uri, options)
    assert tables.append("sources", [make_source(uri="/a")]) == 1
    assert tables.append("sources", [make_source(uri="/b")]) == 2
    reader = Tables(uri, options)
    assert {r.uri for r in reader.rows(Source)} == {"/a", "/b"}
    assert [r.uri for r in reader.rows(Source, version=1)] == ["/a"]
    con = connect(reader, {"sources": 1})
    assert con.sql("SELECT uri FROM current_sources").fetchall() == [("/a",)]


def test_half_a_character_is_kept_as_an_escape(tables: Tables) -> None:
    tables.append("captions", [make_caption(text="fin\udce9", detail="ok")])
    assert [r.text for r in tables.rows(Caption)] == ["fin\\udce9"]


def test_column_texts_are_in_the_table(tables: Tables) -> None:
    tables.append("clips", [make_clip()])
    schema = pa.schema(deltalake.DeltaTable(f"{tables.uri}/tables/clips").schema().to_arrow())
    texts = {f.name: f.metadata["text"] for f in dataclasses.fields(Clip)}
    assert {f.name: f.metadata[b"text"].decode() for f in schema} == texts


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def test_a_reworded_column_text_bars_nothing(tmp_path: Path) -> None:
    """The texts are documentation: another version may word them otherwise, and append."""
    schema = arrow_schema(Caption)
    reworded = pa.schema([f.with_metadata({"text": "once said otherwise"}) for f in schema])
    location = tmp_path / "tables" / "captions"
    deltalake.DeltaTable.create(str(location), schema=reworded)
    tables = Tables(str(tmp_path))
    tables.append("captions", [make_caption()])
    tables.append("captions", [make_caption(clip_id="b" * 32)])
    assert len(Tables(str(tmp_path)).rows(Caption)) == 2


def test_a_missing_table_reads_as_an_empty_one(tables: Tables) -> None:
    assert tables.version("clips") == NO_TABLE
    assert tables.rows(Clip) == []
    assert tables.arrow("clips").schema.equals(arrow_schema(Clip), check_metadata=True)
    assert tables.append("clips", []) == NO_TABLE
    assert not Path(tables.uri).exists()


def test_any_past_version_can_be_read(tables: Tables) -> None:
    for number in range(3):
        tables.append("sources", [make_source(uri=f"/{number}")])
    counts = [len(tables.rows(Source, version=v)) for v in (NO_TABLE, 0, 1, 2, 3)]
    assert counts == [0, 0, 1, 2, 3]
    with pytest.raises(UsageError, match="has no version 4: its last is 3"):
        tables.rows(Source, version=4)


def test_columns_can_be_chosen(tables: Tables) -> None:
    tables.append("clips", [make_clip(clip_id="a", shot=1), make_clip(clip_id="b", shot=2)])
    found = tables.arrow("clips", columns=["clip_id"])
    assert sorted(found.to_pylist(), key=repr) == [{"clip_id": "a"}, {"clip_id": "b"}]


def test_a_reader_keeps_the_state_it_first_saw(tables: Tables) -> None:
    tables.append("sources", [make_source()])
    reader = Tables(tables.uri)
    assert reader.version("clips") == NO_TABLE
    tables.append("sources", [make_source()])
    assert len(reader.rows(Source)) == 1
    assert len(Tables(tables.uri).rows(Source)) == 2


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_polars_reads_without_our_code(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri, options = str(tmp_path), dict[str, str]()
    if where == "s3":
        uri = request.getfixturevalue("s3").uri("dataset")
        options = Storage(StoreOptions()).delta_options(uri)
    tables = Tables(uri, options)
    tables.append("clips", [make_clip(clip_id="a"), make_clip(clip_id="b", width=320)])
    found = pl.scan_delta(f"{uri}/tables/clips", storage_options=options)
    wide = found.filter(pl.col("width") == 640).select("clip_id", "dominant_colors")
    assert wide.collect().rows() == [("a", ["grey"])]


def test_duckdb_reads_without_our_code(tmp_path: Path) -> None:
    """Its delta extension is a download, so it is given the files that the log names."""
    tables = Tables(str(tmp_path))
    tables.append("clips", [make_clip(clip_id="a")])
    tables.append("clips", [make_clip(clip_id="b"), make_clip(clip_id="c", width=320)])
    files = deltalake.DeltaTable(str(tmp_path / "tables" / "clips")).file_uris()
    with duckdb.connect() as con:
        found = con.read_parquet(files).filter("width = 640").project("clip_id").fetchall()
    assert sorted(found) == [("a",), ("b",)]


# ── committing ───────────────────────────────────────────────────────────────────────────────────


def test_the_second_of_two_writers_is_refused(place: tuple[str, dict[str, str]]) -> None:
    first, second = Tables(*place), Tables(*place)
    assert first.version("sources") == second.version("sources") == NO_TABLE
    first.append("sources", [make_source(uri="/first")])
    with pytest.raises(CommitError, match="another run is writing to this dataset"):
        second.append("sources", [make_source(uri="/second")])
    third, fourth = Tables(*place), Tables(*place)
    assert third.version("sources") == fourth.version("sources") == 1
    third.append("sources", [make_source(uri="/third")])
    for _ in range(2):  # again is no better: what this writer knows stays out of date
        with pytest.raises(CommitError, match="another run is writing to this dataset"):
            fourth.append("sources", [make_source(uri="/fourth")])
    assert {r.uri for r in Tables(*place).rows(Source)} == {"/first", "/third"}


def test_all_tables_are_seen_at_one_time(tables: Tables) -> None:
    """A decision made from one table cannot meet a newer other one."""
    late = Tables(tables.uri)
    assert late.rows(Source) == []
    tables.append("stills", [make_still()])
    with pytest.raises(CommitError, match="table stills"):
        late.append("stills", [make_still()])


_WRITER = """
import sys
from telecine.infra.errors import CommitError
from telecine.manifests.tables import Tables
from tests.support.rows import make_caption
uri, name = sys.argv[1:]
tables = Tables(uri)
tables.version("captions")
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    try:
        tables.append("captions", [make_caption(clip_id=name, input_digest=str(number))])
        print("kept", number)
    except CommitError:
        break
"""


def test_two_processes_at_once_never_mix(tables: Tables) -> None:
    """Whatever a writer was told is kept is there once; the other's rows come after none of it."""
    tables.append("captions", [make_caption(clip_id="seed")])
    command = [sys.executable, "-c", _WRITER, tables.uri]
    writers = {
        name: subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    }
    for writer in writers.values():
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers.values():
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = {name: writer.communicate()[0].count("kept") for name, writer in writers.items()}
    assert [writer.returncode for writer in writers.values()] == [0, 0]
    assert sorted(told.values()) == [0, 20]
    rows = Tables(tables.uri).rows(Caption)
    assert {name: sum(r.clip_id == name for r in rows) for name in writers} == told


def test_options_are_asked_again_before_a_commit(tmp_path: Path) -> None:
    """Credentials expire: new ones are taken, and what was seen stays what was seen."""
    asked: list[dict[str, str]] = []

    def options() -> dict[str, str]:
        asked.append({"timeout": f"{60 + len(asked)}s"})
        return asked[-1]

    tables = Tables(str(tmp_path), options)
    assert [tables.append("sources", [make_source()]) for _ in range(3)] == [1, 2, 3]
    assert len(asked) == 4
    Tables(str(tmp_path)).append("sources", [make_source()])
    with pytest.raises(CommitError, match="another run"):
        tables.append("sources", [make_source()])


def test_a_store_that_refuses_is_a_clear_error(s3: S3Server) -> None:
    missing = f"s3://{s3.bucket}-missing/dataset"
    options = Storage(StoreOptions()).delta_options(missing)
    with pytest.raises((StorageError, CommitError), match="NoSuchBucket"):
        Tables(missing, options).append("sources", [make_source()])


@contextlib.contextmanager
def losing_answers(endpoint_url: str, path: str) -> Iterator[str]:
    """A way to the server on which the answer to the first PUT of `path` is lost."""
    lost = threading.Event()

    def passes(method: str, asked: str, _: bytes) -> bool:
        if method != "PUT" or not asked.endswith(path) or lost.is_set():
            return True
        lost.set()
        return False

    with forwarding(endpoint_url, passes) as url:
        yield url
    assert lost.is_set()


def test_a_commit_whose_answer_was_lost_is_found(s3: S3Server) -> None:
    """The store took it; asked again, it says that version exists. It is ours."""
    uri = s3.uri("dataset")
    options = Storage(StoreOptions()).delta_options(uri)
    Tables(uri, options).append("sources", [make_source(uri="/1")])
    with losing_answers(s3.endpoint_url, "sources/_delta_log/00000000000000000002.json") as lossy:
        tables = Tables(uri, {**options, "AWS_ENDPOINT_URL": lossy})
        assert tables.append("sources", [make_source(uri="/2")]) == 2
        assert tables.append("sources", [make_source(uri="/3")]) == 3
    assert {r.uri for r in Tables(uri, options).rows(Source)} == {"/1", "/2", "/3"}


def test_what_is_read_from_s3_is_counted(s3: S3Server) -> None:
    """As the server counts it; and a question that needs one column reads no other."""
    uri = s3.uri("dataset")
    options = Storage(StoreOptions()).delta_options(uri)
    written = Tables(uri, options)
    written.append("stills", [make_still(position=n, jpeg=randbytes(50_000)) for n in range(20)])
    served: list[int] = []

    def count(method: str, path: str, content: bytes) -> bool:
        if method == "GET" and path.endswith(".parquet"):
            served.append(len(content))
        return True

    with forwarding(s3.endpoint_url, count) as url:
        tables = Tables(uri, {**options, "AWS_ENDPOINT_URL": url})
        assert tables.bytes_read == 0
        con = connect(tables)
        assert con.sql("SELECT sum(position) FROM stills").fetchall() == [(190,)]
        assert 0 < tables.bytes_read == sum(served) < 100_000
        assert con.sql("SELECT sum(octet_length(jpeg)) FROM stills").fetchall() == [(1_000_000,)]
        assert 1_000_000 < tables.bytes_read == sum(served)


def test_what_is_on_disk_is_not_counted(tables: Tables) -> None:
    tables.append("sources", [make_source()])
    assert len(tables.rows(Source)) == 1
    assert tables.bytes_read == 0


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where the folder should be")
    with pytest.raises((StorageError, CommitError), match=r"table sources of .*"):
        Tables(str(tmp_path)).append("sources", [make_source()])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x" * 500)])
def test_files_that_are_gone_or_damaged_are_a_clear_error(
    tables: Tables, damage: Callable[[Path], object]
) -> None:
    tables.append("sources", [make_source()])
    damage(Path(tables.files("sources")[0]))
    for read in (lambda: tables.rows(Source), lambda: connect(tables)):
        with pytest.raises(StorageError, match=r"table sources of .* cannot be read: .*part-"):
            read()


def test_a_damaged_log_is_told_in_one_line(tables: Tables) -> None:
    tables.append("sources", [make_source()])
    (log,) = Path(tables.uri).glob("tables/sources/_delta_log/*1.json")
    log.write_text("garbage {")
    with pytest.raises(StorageError, match=r"cannot open table sources of .*Json error") as refused:
        Tables(tables.uri).rows(Source)
    assert not re.search(r"\n|<unknown>", str(refused.value))


@pytest.mark.parametrize("name", ["a[1]", "a|b", "a^b", "a\\b", "a\nb", "a%41b"])
def test_names_the_format_cannot_take_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot hold a dataset"):
        Tables(str(tmp_path / name))


def test_many_commits_leave_a_short_log_and_few_files(tables: Tables) -> None:
    """Opening reads the last checkpoint and at most a hundred commits, of a few hundred bytes."""
    for number in range(COMPACT_EVERY):
        tables.append("stills", [make_still(position=number)])
    log = Path(tables.uri) / "tables" / "stills" / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) == 2
    commits = sorted(log.glob("*.json"))
    assert len(commits) == COMPACT_EVERY + 2  # created, appended to, compacted; none cleaned away
    assert max(c.stat().st_size for c in commits[1:-1]) < 1500
    assert len(tables.files("stills")) == 1
    tables.append("stills", [make_still(position=COMPACT_EVERY)])
    reader = Tables(tables.uri)
    assert {r.position for r in reader.rows(Still)} == set(range(COMPACT_EVERY + 1))
    assert {r.position for r in reader.rows(Still, version=9)} == set(range(9))


def test_files_that_no_version_to_keep_names(place: tuple[str, dict[str, str]]) -> None:
    """Compaction leaves the files it merged, for readers of the versions before."""
    tables, storage = Tables(*place, compact_every=4), Storage()
    for number in range(5):
        tables.append("stills", [make_still(position=number)])
    assert tables.version("stills") == 6  # compacted by the fifth commit
    assert tables.unreferenced("stills") == []  # younger than a week
    assert tables.unreferenced("clips", older_than_hours=0) == []  # no such table
    assert len(tables.unreferenced("stills", [NO_TABLE, 3], older_than_hours=0)) == 1
    old = tables.unreferenced("stills", [2], older_than_hours=0)
    assert len(old) == 2
    storage.delete([f"{tables.uri}/{path}" for path in old], tables.uri)
    assert tables.unreferenced("stills", [2], older_than_hours=0) == old  # the log remembers
    reader = Tables(*place)
    assert {r.position for r in reader.rows(Still)} == set(range(5))
    assert {r.position for r in reader.rows(Still, version=2)} == {0, 1}
    with pytest.raises(StorageError, match="cannot be read"):
        reader.rows(Still, version=3)


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────

_READER = """
import sys
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Caption
from telecine.manifests.tables import Tables
tables = Tables(sys.argv[1])
assert len(tables.rows(Caption)) == 200
assert connect(tables).sql("SELECT count(*) FROM captions").fetchall() == [(200,)]
"""


@pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_short_lived_readers_leave_with_code_0(times: int, tables: Tables) -> None:
    """Threads that outlive the interpreter abort it now and then: 4 of 35 readers did."""
    for start in range(0, 200, 20):
        tables.append("captions", [make_caption(clip_id=str(start + n)) for n in range(20)])

    def read(_: int) -> tuple[int, str]:
        command = [sys.executable, "-c", _READER, tables.uri]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stderr

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(read, range(times))) == {(0, "")}


def test_datasets_are_arrow_datasets(tables: Tables) -> None:
    tables.append("clips", [make_clip()])
    for name in ("clips", "stills"):
        assert isinstance(tables.dataset(name), ds.Dataset)
