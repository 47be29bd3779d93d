"""query: SQL over the tables, in every form of output, and nothing but reading."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import typer
from deltalake import DeltaTable
from rich.console import Console
from typer.testing import CliRunner

from telecine.infra.errors import StorageError, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.manifests.queries import connect
from telecine.manifests.tables import Tables
from telecine.pipeline.catalog.dataset import create_dataset_view
from telecine.pipeline.catalog.statement import parsed, takes_whole_rows
from telecine.pipeline.cli import query as cli_query
from telecine.pipeline.cli.query import SHOWN, Wanted, answer
from telecine.pipeline.look.query import NAMES, ask
from telecine.pipeline.look.summary import summary
from tests.support.commands import COMMAND
from tests.support.lab import Lab
from tests.support.movies import picture, write_movie
from tests.support.rows import make_caption, make_clip, make_source, make_still


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of three seconds and three images, one with a caption beside it. Not to be changed."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    write_movie(lab.footage / "film.mp4", [picture(frame) for frame in range(75)])
    for number in range(3):
        lab.image(f"{number}", seed=number)
    lab.text("1", "Picture one.")
    lab.ingest()
    return lab.dataset


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Iterator[Dataset]:
    before = files(folder)
    yield open_dataset(str(folder), Storage())
    assert files(folder) == before, "a query changed the dataset"


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def given(dataset: Dataset, sql: str, **wanted: Any) -> str:
    out = io.StringIO()
    answer(dataset, sql, Wanted(**wanted), Console(file=out, width=160))
    return out.getvalue()


def rows(dataset: Dataset, sql: str, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(given(dataset, sql, as_json=True, **wanted))
    return found


# ── what can be asked ────────────────────────────────────────────────────────────────────────────


def test_numbers_agree_with_inspect_and_with_the_tables_read_by_others(dataset: Dataset) -> None:
    counted = {
        row["kind"]: (row["clips"], row["frames"])
        for row in rows(
            dataset,
            "SELECT kind, count(*) AS clips, sum(num_frames) AS frames FROM current_clips "
            "GROUP BY kind",
        )
    }
    found = summary(connect(dataset.tables), dataset.uri, dataset.spec)
    assert counted == {c.kind: (c.clips, c.frames) for c in found.clips}
    clips = DeltaTable(f"{dataset.uri}/tables/clips").to_pyarrow_dataset()  # noqa: F841
    theirs = duckdb.sql("SELECT kind, count(*), sum(num_frames) FROM clips GROUP BY kind")
    assert counted == {kind: (n, frames) for kind, n, frames in theirs.fetchall()}
    (build,) = found.builds
    kept = rows(dataset, "SELECT count(*) AS n FROM dataset WHERE in_build")
    assert kept == [{"n": sum(b.clips for b in build.buckets)}]


def test_every_table_and_view_can_be_asked(dataset: Dataset) -> None:
    con, other = connect(dataset.tables), connect(dataset.tables)
    listed = {row["name"] for row in rows(dataset, "SHOW TABLES")}
    for name in NAMES:
        theirs = "current_clips" if name == "dataset" else name
        expected = other.sql(f"SELECT count(*) FROM {theirs}").fetchall()
        assert ask(con, dataset.spec, f"SELECT count(*) FROM {name}").fetchall() == expected
        assert name in listed


EVERY = (
    "SELECT * FROM dataset",
    "FROM dataset",
    "TABLE dataset",
    "SELECT dataset.* FROM dataset",
    "SELECT d.* EXCLUDE (clip_id) FROM dataset AS d",
    "SELECT COLUMNS('cap.*|uri') FROM dataset",
    "SELECT d FROM dataset AS d",
    "SELECT to_json(Dataset) FROM dataset",
    "SELECT #40 FROM dataset",
    "FROM (SELECT * FROM dataset)",
    "WITH d AS (FROM dataset) SELECT caption FROM d",
    "DESCRIBE dataset",
    "SUMMARIZE dataset",
    "UNPIVOT (SELECT clip_id, encoded_width, encoded_height FROM dataset) "
    "ON encoded_width, encoded_height",
    "SELECT kind, caption FROM dataset NATURAL JOIN (SELECT clip_id, motion FROM clips)",
    "SELECT a FROM dataset AS d(a, b)",
)
NAMED = (
    "SELECT count(*) FROM dataset",
    "SELECT clip_id, motion * 2 FROM dataset ORDER BY motion",
    "SELECT \"Caption\", URI FROM dataset WHERE captioner = 'sidecar'",
    "SELECT shard_path, list(clip_id ORDER BY clip_id) FROM dataset GROUP BY ALL ORDER BY 1",
    "SELECT max(d.latent_absmax) FROM dataset AS d WHERE d.in_build",
    "SELECT unnest(dominant_colors) FROM dataset",
)


@pytest.fixture(scope="module")
def con(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    return connect(dataset.tables)


@pytest.fixture(scope="module")
def full(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """With everything joined."""
    con = connect(dataset.tables)
    create_dataset_view(con, dataset.spec)
    return con


@pytest.mark.parametrize("sql", [*EVERY, *NAMED])
def test_the_joined_view_gives_what_is_asked_of_it(
    sql: str,
    dataset: Dataset,
    con: duckdb.DuckDBPyConnection,
    full: duckdb.DuckDBPyConnection,
) -> None:
    """The same as of a view with everything joined, which queries that name little do without."""
    found = ask(con, dataset.spec, sql)
    mine = (found.columns, sorted(found.fetchall(), key=repr))
    assert takes_whole_rows(parsed(con, sql)) == (sql in EVERY)
    every = full.sql(sql)
    assert mine == (every.columns, sorted(every.fetchall(), key=repr))
    assert mine[1]


def test_what_is_not_named_is_not_joined(dataset: Dataset) -> None:
    con = connect(dataset.tables)
    ask(con, dataset.spec, "SELECT count(*) FROM dataset WHERE motion > 0")
    assert {"caption", "uri", "shard_path"}.isdisjoint(con.sql("FROM dataset").columns)
    ask(con, dataset.spec, "SELECT caption FROM dataset")
    assert "uri" not in con.sql("FROM dataset").columns


# ── forms of output ──────────────────────────────────────────────────────────────────────────────

AWKWARD = (
    "SELECT 'a \"quoted\", text' AS text, 'two' || chr(10) || 'lines' AS lines, NULL AS nothing, "
    "true AS yes, [1, 2] AS list, {'a': 'ü'} AS struct, 'x'::BLOB AS bytes, 0.1::DOUBLE AS tenth, "
    "'NaN'::DOUBLE AS nan, DATE '2024-02-29' AS day"
)


def test_csv_is_read_back_by_others(dataset: Dataset, tmp_path: Path) -> None:
    text = given(dataset, AWKWARD, as_csv=True)
    assert text.count("\r\n") == 2
    names, values = csv.reader(io.StringIO(text, newline=""))
    assert dict(zip(names, values, strict=True)) == {
        "text": 'a "quoted", text', "lines": "two\nlines", "nothing": "", "yes": "true",
        "list": "[1, 2]", "struct": '{"a": "ü"}', "bytes": base64.b64encode(b"x").decode(),
        "tenth": "0.1", "nan": "nan", "day": "2024-02-29",
    }  # fmt: skip
    path = tmp_path / "clips.csv"
    path.write_text(given(dataset, "FROM clips", as_csv=True), newline="")
    ours = "SELECT clip_id, motion, num_frames FROM clips ORDER BY clip_id"
    theirs = duckdb.sql(
        f"SELECT clip_id, motion, num_frames FROM read_csv('{path}') ORDER BY clip_id"
    )
    assert theirs.fetchall() == connect(dataset.tables).sql(ours).fetchall()


def test_json_has_every_column_also_two_of_one_name(dataset: Dataset) -> None:
    (row,) = rows(dataset, "SELECT 1 AS a, 2 AS a, NULL AS b")
    assert row == {"a": 1, "a_1": 2, "b": None}
    assert rows(dataset, "SELECT 1 AS a WHERE false") == []


def test_parquet_has_the_values_and_types(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "stills.parquet"
    sql = "SELECT * FROM stills ORDER BY clip_id, position"
    said = given(dataset, sql, parquet=path)
    written = pq.read_table(path)
    theirs = connect(dataset.tables).sql(sql).to_arrow_table()
    assert written.equals(theirs.cast(written.schema))
    assert said.startswith(f"{path}: {theirs.num_rows} rows, 8 columns, ")
    with pytest.raises(UsageError, match="is there already: name another file, or add --overwrite"):
        given(dataset, "SELECT 1 AS a", parquet=path)
    given(dataset, "SELECT 1 AS a", parquet=path, overwrite=True)
    assert pq.read_table(path).to_pylist() == [{"a": 1}]


@pytest.mark.parametrize(
    "sql",
    ["SELECT 'é;' AS a; -- that is all; é", "-- one\nSELECT 'é;' AS a /* b */ ; /* c */ ; -- d"],
)
def test_comments_around_a_statement_are_nothing(dataset: Dataset, sql: str) -> None:
    assert rows(dataset, sql) == [{"a": "é;"}]


def test_parquet_comes_in_row_groups_of_some_size(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    given(dataset, "SELECT i FROM range(250000) AS t(i) ORDER BY i", parquet=path)
    file = pq.ParquetFile(path)
    assert file.metadata.num_row_groups == 3
    assert file.read().column("i").to_pylist() == list(range(250_000))


def test_a_parquet_file_is_whole_or_not_there(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    for sql, words in (
        ("SELECT 1 / (i - 200000)::INT AS a, error('stop') FROM range(3) t(i)", "stop"),
        ("SELECT if(i < 200000, i, error('late')) AS a FROM range(300000) t(i)", "late"),
        ("SELECT INTERVAL 1 DAY AS a", r"some.parquet cannot hold a column(.|\n)*::VARCHAR"),
    ):
        with pytest.raises(UsageError, match=words):
            given(dataset, sql, parquet=path)
        assert list(tmp_path.iterdir()) == []


def test_where_a_parquet_file_may_be(dataset: Dataset, tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none" / "a.parquet", "there is no folder"),
        (Path(dataset.uri) / "tables" / "a.parquet", "lies in the dataset"),
        (tmp_path, "this is a folder"),
        (Path("s3://bucket/a.parquet"), "name a file on this machine"),
    ):
        with pytest.raises(UsageError, match=words):
            given(dataset, "SELECT 1", parquet=path, overwrite=True)
    with pytest.raises(UsageError, match="give one of them"):
        given(dataset, "SELECT 1", as_json=True, as_csv=True)


def test_a_table_shows_fifty_rows_unless_told_otherwise(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "SELECT i FROM range({}) AS t(i) ORDER BY i DESC"
    assert len(given(dataset, sql.format(SHOWN)).splitlines()) == 1 + SHOWN
    assert capsys.readouterr().err == ""
    text = given(dataset, sql.format(SHOWN + 1))
    assert text.split()[:2] == ["i", str(SHOWN)]
    assert len(text.splitlines()) == 1 + SHOWN
    assert capsys.readouterr().err == "50 rows at most are shown; --limit 0 shows all\n"
    assert len(given(dataset, sql.format(SHOWN + 1), limit=0).splitlines()) == 2 + SHOWN
    assert len(given(dataset, sql.format(9), limit=3).splitlines()) == 4
    assert len(rows(dataset, sql.format(99))) == 99
    assert [r["i"] for r in rows(dataset, sql.format(99), limit=2)] == [98, 97]
    assert given(dataset, sql.format(99), limit=1, as_csv=True) == "i\r\n98\r\n"


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", r'syntax error at or near "SELEC"(.|\n)*the tables are sources, clips'),
        ("SELECT * FROM clipz", r"clipz does not exist(.|\n)*the tables are sources, clips"),
        ("SELECT motio FROM clips", r'"motio" not found(.|\n)*clips has the columns clip_id'),
        (
            "SELECT s.uri, c.nix FROM clips c JOIN sources s USING (source_id)",
            r"nix(.|\n)*sources has the columns uri(.|\n)*clips has the columns clip_id",
        ),
        ("SELECT capt FROM dataset", r"capt(.|\n)*dataset has the columns clip_id.* caption, "),
        ("SELECT CAST(kind AS INT) FROM clips", r"Could not convert(.|\n)*clips has the columns"),
        ("SELECT error('why')", "why"),
        ("SELECT ?", "parameters"),
        ("SELECT 1; SELECT 2", "a query is one statement; this is 2"),
        ("SELECT 1 AS \x00a; DROP VIEW clips", "a query is one statement; this is 2"),
        ("-- nothing", "a query is one statement; this is none"),
        ("", "a query is one statement; this is none"),
        ("PIVOT clips ON kind", "PIVOT needs its columns named"),
        ("SELECT " + "1 + " * 900 + "1", "nested too deeply|max_expression_depth|expression depth"),
    ],
)
def test_mistakes_are_explained(sql: str, words: str, dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=words):
        given(dataset, sql)


WRITES = (
    "COPY clips TO '{}/evil.csv'",
    "COPY (SELECT 1 AS a) TO '{}/evil.parquet'",
    "WITH x AS (COPY clips TO '{}/evil.csv') SELECT 1 AS a",
    "WITH x AS (COPY clips TO '{}/evil.csv') FROM x",
    "WITH y AS (WITH x AS (COPY clips TO '{}/evil.csv') SELECT 1) FROM y",
    "ATTACH '{}/evil.db'",
    "EXPORT DATABASE '{}/evil'",
    "EXPLAIN ANALYZE COPY clips TO '{}/evil.csv'",
    "PREPARE p AS COPY clips TO '{}/evil.csv'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP MACRO m() AS 1",
    "INSERT INTO clips SELECT * FROM clips",
    "WITH x AS (INSERT INTO clips SELECT * FROM clips RETURNING *) FROM x",
    "DELETE FROM clips",
    "UPDATE clips SET kind = ''",
    "DROP VIEW clips",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '100GB'",
    "RESET memory_limit",
    "USE memory",
    "PRAGMA database_list",
    "CALL checkpoint()",
    "IMPORT DATABASE '{}'",
    "BEGIN",
    "EXPLAIN SELECT 1",
)
READS_FILES = (
    "FROM read_text('{}/*/_delta_log/*.json')",
    "FROM read_parquet('{}/clips/*.parquet')",
    "FROM READ_BLOB('{}/*')",
    "FROM read_csv('/etc/passwd')",
    "FROM glob('{}/*')",
    "FROM parquet_schema('{}/clips/*.parquet')",
    "SELECT (SELECT max(size) FROM read_text('{}/*/_delta_log/*.json'))",
    "WITH x AS (FROM read_text('{}/*')) SELECT 1 FROM x",
    "SUMMARIZE SELECT * FROM read_text('{}/*')",
    "FROM query('FROM read_text(''{}/*'')')",
    "FROM query_table('{}/builds/_delta_log/00000000000000000000.json')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{}/*'')'))",
    "FROM '{}/builds/_delta_log/00000000000000000000.json'",
    "FROM enable_logging(storage := 'file', storage_path := '{}/evil')",
    "FROM duckdb_settings()",
)


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written(sql: str, dataset: Dataset, con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UsageError, match=r"a query reads: one SELECT .* is refused"):
        ask(con, dataset.spec, sql.format(f"{dataset.uri}/tables"))


@pytest.mark.parametrize("sql", READS_FILES)
def test_no_file_is_read(sql: str, dataset: Dataset, con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UsageError, match=r"is refused: a query reads the tables|there is no table"):
        ask(con, dataset.spec, sql.format(f"{dataset.uri}/tables"))


def test_the_lock_of_the_connection_would_not_do(tmp_path: Path) -> None:
    """What the refusals are for: DuckDB writes where it may read."""
    tables = Tables(str(tmp_path))
    tables.append("clips", [make_clip()])
    con = connect(tables)
    con.execute(f"COPY (SELECT 1) TO '{tables.uri}/tables/evil.csv'")
    assert (tmp_path / "tables" / "evil.csv").is_file()
    written = f"WITH x AS (COPY clips TO '{tables.uri}/tables/evil.parquet') SELECT 1"
    assert [s.type for s in con.extract_statements(written)] == [duckdb.StatementType.SELECT]
    con.execute(written).fetchall()
    assert (tmp_path / "tables" / "evil.parquet").is_file()


# ── other people's text, other places ────────────────────────────────────────────────────────────

HOSTILE = "\x1b[2J[bold]x\r\u202ey"


def test_text_is_harmless_on_a_terminal_and_unchanged_in_a_file(tmp_path: Path) -> None:
    made = create_dataset(str(tmp_path / "dataset"), Storage(), None)
    made.tables.append("captions", [make_caption(text=HOSTILE)])
    sql, harmless = "SELECT text FROM captions", r"\x1b[2J[bold]x\r\u202ey"
    for wanted in ({}, {"as_csv": True}):
        out = io.StringIO()
        screen = Console(file=out, width=200, force_terminal=True, color_system="truecolor")
        answer(made, sql, Wanted(**wanted), screen)  # type: ignore[arg-type]
        assert harmless in out.getvalue()
        assert "\x1b[2J" not in out.getvalue()
    assert (
        next(csv.DictReader(io.StringIO(given(made, sql, as_csv=True), newline="")))["text"]
        == HOSTILE
    )
    assert rows(made, sql) == [{"text": HOSTILE}]
    with pytest.raises(UsageError) as refused:
        given(made, "SELECT text::INT FROM captions")
    assert harmless in str(refused.value)


def test_tables_on_s3_are_asked_like_those_on_disk(root: str, storage: Storage) -> None:
    made = create_dataset(root, storage, None)
    made.tables.append("stills", [make_still(position=n) for n in range(3)])
    made.tables.append("clips", [make_clip()])
    made.tables.append("sources", [make_source()])
    opened = open_dataset(root, storage)
    assert rows(opened, "SELECT uri, caption FROM dataset") == [
        {"uri": "/footage/a.mp4", "caption": None}
    ]
    assert rows(opened, "SELECT sum(position) AS n FROM stills") == [{"n": 3}]


def test_a_file_that_is_gone_is_no_mistake_of_the_query(root: str, storage: Storage) -> None:
    made = create_dataset(root, storage, None)
    made.tables.append("clips", [make_clip()])
    opened = open_dataset(root, storage)
    assert rows(opened, "SELECT motion FROM clips") == [{"motion": 0.1}]
    (part,) = [o.uri for o in storage.list(f"{root}/tables/clips") if o.uri.endswith(".parquet")]
    storage.delete([part], f"{root}/tables/clips")
    for wanted in ({}, {"as_json": True}):
        with pytest.raises(StorageError, match="cannot be read"):
            given(opened, "SELECT motion FROM clips", **wanted)


# ── the command ──────────────────────────────────────────────────────────────────────────────────

APP = typer.Typer()
APP.command()(cli_query.query)


def test_sql_comes_from_the_line_a_file_or_standard_input(folder: Path, tmp_path: Path) -> None:
    sql = "SELECT count(*) AS n FROM clips"
    file = tmp_path / "count.sql"
    file.write_text(sql)
    for arguments, given_in in (([sql], ""), (["--file", str(file)], ""), (["-"], sql)):
        done = CliRunner().invoke(APP, [str(folder), *arguments, "--csv"], input=given_in)
        assert (done.exit_code, done.stdout) == (0, "n\n4\n")
    for arguments in ([], [sql, "--file", str(file)], ["--file", str(tmp_path / "none.sql")]):
        done = CliRunner().invoke(APP, [str(folder), *arguments])
        assert isinstance(done.exception, UsageError)


def test_the_command_in_a_process_of_its_own(folder: Path) -> None:
    """A mistake is 2 without a traceback; a reader that has seen enough is no failure."""
    command = [*COMMAND, "query", str(folder)]
    wrong = subprocess.run(
        [*command, "SELECT nix FROM clips"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: Binder Error")
    assert "Traceback" not in wrong.stderr
    many = "SELECT i, repeat('x', 100) AS x FROM range(200000) t(i)"
    with subprocess.Popen(
        [*command, many, "--csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"i,x\r\n"
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0
