"""Tables and datasets of other versions of Telecine: as deltalake leaves them, read by this one.

An older version's table is one that lacks columns; a newer one's has columns that are not declared.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telecine.infra.errors import CommitError, UsageError
from telecine.infra.store.storage import Storage, StoreOptions
from telecine.manifests.dataset import SPEC_FILE, open_dataset, parse_spec
from telecine.manifests.evolve import (
    ADDED,
    FORMAT,
    Columns,
    select_filled,
    stamp,
    without_stamp,
)
from telecine.manifests.queries import connect
from telecine.manifests.schemas import (
    TABLES,
    Caption,
    Clip,
    Row,
    Source,
    arrow_schema,
    column,
    defaults_of,
    from_arrow,
    measured,
    to_arrow,
)
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import Tables
from tests.support.any_rows import rows_of
from tests.support.older import unpack, write_table
from tests.support.rows import make_caption, make_clip, make_source
from tests.support.s3 import S3Server

Place = tuple[str, dict[str, str]]


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return str(tmp_path / "dataset"), {}
    server: S3Server = request.getfixturevalue("s3")
    uri = server.uri("dataset")
    return uri, Storage(StoreOptions()).delta_options(uri)


def every_way(tables: Tables, name: str) -> list[list[Row]]:
    """The rows of a table as each kind of reader has them, in one order."""
    by_sql = connect(tables).sql(f"FROM {name}").to_arrow_table()
    by_arrow = tables.arrow(name)
    return [
        sorted(tables.rows(TABLES[name]), key=repr),
        sorted((as_row(name, r) for r in by_sql.to_pylist()), key=repr),
        sorted((as_row(name, r) for r in by_arrow.to_pylist()), key=repr),
    ]


def as_row(name: str, values: dict[str, Any]) -> Row:
    """Exactly the values: neither a column more nor a default in place of NULL."""
    hints = typing.get_type_hints(TABLES[name])
    return TABLES[name](**{n: _as(hints[n], v) for n, v in values.items()})


def _as(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is not tuple or value is None:
        return value
    part = typing.get_args(hint)[0]
    return tuple(part(**v) if dataclasses.is_dataclass(part) else v for v in value)


def with_defaults(rows: Collection[Row], lacking: Collection[str]) -> list[Row]:
    return sorted(
        (dataclasses.replace(r, **{n: defaults_of(type(r))[n] for n in lacking}) for r in rows),
        key=repr,
    )


# ── columns that the table lacks ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [n for n in TABLES if defaults_of(TABLES[n])])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_a_table_lacks_is_read_as_its_default(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And added by the next append, which leaves the rows there as they are."""
    row = TABLES[name]
    old: list[Row] = data.draw(st.lists(rows_of(row), min_size=1, max_size=3))
    new: list[Row] = data.draw(st.lists(rows_of(row), min_size=1, max_size=2))
    lacking = data.draw(st.sets(st.sampled_from(sorted(defaults_of(row))), min_size=1))
    tables = Tables(str(tmp_path_factory.mktemp("dataset")))
    write_table(tables.uri, name, to_arrow(old, row).drop_columns(sorted(lacking)))

    there = with_defaults(old, lacking)
    for found in every_way(Tables(tables.uri), name):
        assert found == there
    version = tables.append(name, new)
    every = sorted([*there, *new], key=repr)
    for found in every_way(Tables(tables.uri), name):
        assert found == every
    DeltaTable(f"{tables.uri}/tables/{name}").optimize.compact()
    for found in every_way(Tables(tables.uri), name):
        assert found == every
    tables = Tables(tables.uri)
    assert sorted(tables.rows(row, version=version - 1), key=repr) == there
    past = connect(tables, {name: version - 1}).sql(f"FROM {name}").to_arrow_table()
    assert sorted((as_row(name, r) for r in past.to_pylist()), key=repr) == there


def test_an_older_table_in_either_place(place: Place) -> None:
    uri, options = place
    lacking = ["text_key", "windows", "detail"]
    rows = to_arrow([make_caption(detail="lost")], Caption).drop_columns(lacking)
    write_table(uri, "captions", rows, options)
    tables = Tables(uri, options)
    assert connect(tables).sql("SELECT DISTINCT detail FROM captions").fetchall() == [("",)]
    tables.append("captions", [make_caption(clip_id="e" * 32, text_key=7, detail="kept")])
    tables.append("captions", [make_caption(clip_id="f" * 32)])
    con = connect(Tables(uri, options))
    found = con.sql("SELECT clip_id[1], text_key, windows, detail FROM captions ORDER BY ALL")
    assert found.fetchall() == [("c", 0, [], ""), ("e", 7, [], "kept"), ("f", 0, [], "")]
    assert con.sql("SELECT count(*) FROM captions WHERE text_key = 0").fetchall() == [(2,)]


def test_the_second_of_two_that_add_a_column_is_refused(place: Place) -> None:
    uri, options = place
    write_table(
        uri, "captions", to_arrow([make_caption()], Caption).drop_columns(["text_key"]), options
    )
    first, second = Tables(uri, options), Tables(uri, options)
    assert first.version("captions") == second.version("captions")
    first.append("captions", [make_caption(text_key=1)])
    with pytest.raises(CommitError, match="another run is writing to this dataset"):
        second.append("captions", [make_caption(text_key=2)])
    assert sorted(r.text_key for r in Tables(uri, options).rows(Caption)) == [0, 1]


def test_an_added_column_has_its_text_and_who_added_it(tmp_path: Path) -> None:
    write_table(
        str(tmp_path), "captions", to_arrow([make_caption()], Caption).drop_columns(["detail"])
    )
    Tables(str(tmp_path)).append("captions", [make_caption()])
    schema = pa.schema(DeltaTable(f"{tmp_path}/tables/captions").schema().to_arrow())
    said = schema.field("detail").metadata
    assert said[b"text"] == arrow_schema(Caption).field("detail").metadata[b"text"]
    assert said[ADDED]
    assert schema.field("detail").nullable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A row type to which columns came, as a later version would declare them."""

    key: str = column("the key")
    level: int = column("a number that older rows say too", 3, since="9.0.0")
    names: tuple[str, ...] = column("a list that older rows say too", (), since="9.0.0")
    heat: float | None = measured("a measurement", None, since="9.0.0")


@given(rows=st.lists(rows_of(Grown), min_size=1, max_size=3), nothing=st.data())
def test_unknown_stays_unknown_and_null_is_the_default_elsewhere(
    rows: list[Grown], nothing: st.DataObject
) -> None:
    row: Any = Grown
    schema = arrow_schema(row)
    assert [f.name for f in schema if f.nullable] == ["level", "names", "heat"]
    lost = nothing.draw(st.sets(st.sampled_from(["level", "names", "heat"])))
    table = to_arrow(rows, row)  # type: ignore[type-var]
    assert from_arrow(table, row) == rows
    for name in lost:  # as an older version appends rows: NULL in what it does not know
        gone = pa.nulls(len(rows), schema.field(name).type)
        table = table.set_column(schema.names.index(name), schema.field(name), gone)
    expected = [dataclasses.replace(r, **{n: defaults_of(row)[n] for n in lost}) for r in rows]
    assert from_arrow(table, row) == expected
    assert from_arrow(table.drop_columns(sorted(lost)), row) == expected
    assert from_arrow(Columns(row, schema).filled(table), row) == expected
    with duckdb.connect() as con:
        con.register("there", table)
        filled = con.sql(select_filled(row, "there")).to_arrow_table()
    assert from_arrow(filled, row) == expected
    heats = [r.heat for r in expected]
    assert filled.column("heat").to_pylist() == heats


def test_what_came_after_the_first_format_says_since_when(tmp_path: Path) -> None:
    """Else a dataset that was made before would be shut out, or an older version by the new."""
    dataset = unpack(tmp_path)
    for name in sorted(path.name for path in (dataset / "tables").iterdir()):
        found = DeltaTable(str(dataset / "tables" / name)).schema().to_arrow()
        first = Columns(TABLES[name], pa.schema(found))
        assert not first.problems()
        assert not first.unknown  # none was taken away
        fields = {f.name: f for f in dataclasses.fields(TABLES[name])}
        for column_name in first.missing:
            new = fields[column_name]
            assert new.metadata["since"]
            if new.metadata.get("measured"):
                assert new.default is None


# ── columns that must have a value no more ───────────────────────────────────────────────────────


def test_what_may_be_unknown_now_is_freed_when_it_is(tmp_path: Path) -> None:
    """Of a table in which it was always known."""
    uri = str(tmp_path)
    known, unknown = make_clip(camera_x=0.5), make_clip(clip_id="o" * 32, camera_x=None)
    rows = to_arrow([known], Clip)
    bound = [f.with_nullable(f.nullable and f.name != "camera_x") for f in rows.schema]
    write_table(uri, "clips", rows.cast(pa.schema(bound)))
    before = Tables(uri).version("clips")
    assert Tables(uri).append("clips", [known]) == before + 1
    tables = Tables(uri)
    assert tables.columns("clips").bound(to_arrow([unknown], Clip)) == ["camera_x"]
    assert tables.append("clips", [unknown]) == tables.version("clips") == before + 3
    assert Tables(uri).append("clips", [unknown]) == before + 4
    for found in every_way(Tables(uri), "clips"):
        assert sorted(found, key=lambda r: r.clip_id) == [known, known, unknown, unknown]
    schema = pa.schema(DeltaTable(f"{uri}/tables/clips").schema().to_arrow())
    assert schema.field("camera_x").metadata == arrow_schema(Clip).field("camera_x").metadata
    assert Tables(uri).arrow("clips", ["camera_x"], before)["camera_x"].to_pylist() == [0.5]


# ── columns that this version does not know ──────────────────────────────────────────────────────


def newer(uri: str, *, nullable: bool) -> None:
    """A table of clips as a later version would make it, with a measurement of its own."""
    rows = to_arrow([make_clip(clip_id="n" * 32)], Clip)
    field = pa.field("novelty", pa.float64(), nullable)
    write_table(uri, "clips", rows.append_column(field, pa.array([0.5], pa.float64())))


def test_a_column_more_is_left_aside_and_not_lost(tmp_path: Path) -> None:
    uri = str(tmp_path)
    newer(uri, nullable=True)
    for found in every_way(Tables(uri), "clips"):
        assert found == [make_clip(clip_id="n" * 32)]
    Tables(uri).append("clips", [make_clip(clip_id="o" * 32)])
    for found in every_way(Tables(uri), "clips"):
        assert found == [make_clip(clip_id="n" * 32), make_clip(clip_id="o" * 32)]
    whole = DeltaTable(f"{uri}/tables/clips").to_pyarrow_dataset().to_table()
    by_clip = zip(whole["clip_id"].to_pylist(), whole["novelty"].to_pylist(), strict=True)
    assert sorted(by_clip) == [("n" * 32, 0.5), ("o" * 32, None)]


def test_a_column_more_that_needs_a_value_can_be_read_alone(tmp_path: Path) -> None:
    uri = str(tmp_path)
    newer(uri, nullable=False)
    assert Tables(uri).rows(Clip) == [make_clip(clip_id="n" * 32)]
    with pytest.raises(UsageError, match=r"table clips .* novelty, which .* must have a value"):
        Tables(uri).append("clips", [make_clip(clip_id="o" * 32)])
    assert len(Tables(uri).rows(Clip)) == 1


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────


def _of_another_type(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "clip_id", pa.array([7], pa.int64()))


def _without_one(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["motion"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_of_another_type, "column clip_id is int64, expected is string"),
        (_without_one, "there is no column motion, which has no default"),
    ],
)
@pytest.mark.parametrize("wrote", [None, "9.1.0"])
def test_what_cannot_be_read_is_refused_with_who_wrote_it(
    wrote: str | None, change: Callable[[pa.Table], pa.Table], words: str, tmp_path: Path
) -> None:
    write_table(str(tmp_path), "clips", change(to_arrow([make_clip()], Clip)), wrote=wrote)
    by = "Telecine 9.1.0" if wrote else "a Telecine that did not note its version"
    with pytest.raises(UsageError, match=rf"table clips of .*{words}.*last written by {by}\. Use"):
        Tables(str(tmp_path)).rows(Source)


def test_a_newer_format_is_refused_and_says_what_reads_it(tmp_path: Path) -> None:
    Tables(str(tmp_path)).append("sources", [make_source()])
    (tmp_path / SPEC_FILE).write_text(f'format = {FORMAT + 1}\nneeds = "0.9.0"\nnew_key = 3\n')
    with pytest.raises(UsageError, match=rf"format {FORMAT + 1};.*Use Telecine 0\.9\.0 or newer"):
        open_dataset(str(tmp_path), Storage())


@pytest.mark.parametrize("value", ["0", "-1", '"two"', "1.5", "true"])
def test_a_format_is_a_whole_number(value: str) -> None:
    with pytest.raises(UsageError, match="a whole number from 1 on is expected"):
        parse_spec(f"format = {value}\n", "telecine.toml")


def test_the_first_format_has_no_number() -> None:
    """A Telecine from before the numbers, which takes no key that it does not know, reads on."""
    assert stamp() == {}
    assert parse_spec("", "x") == parse_spec("format = 1\n", "x") == DatasetSpec()
    assert without_stamp({"format": FORMAT, "scan": {}}, "x") == {"scan": {}}
    assert stamp(2)["format"] == 2
