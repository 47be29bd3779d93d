"""filtered: the clips that a WHERE clause takes, with all that is known of them.

The clause is one of `telecine inspect DATASET clips --where`, over more columns: those of the view
`dataset`, which also has each clip's source, caption in force and sample of the current build.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from telecine.infra.errors import UsageError
from telecine.manifests.schemas import Clip, Sample, Source
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import words
from telecine.pipeline.catalog.dataset import create_joined
from telecine.pipeline.catalog.statement import check_condition


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a clause or an order may name."""

    name: str
    type: str  # DuckDB's
    text: str  # what it says, or empty

    @property
    def sorts(self) -> bool:
        return not self.type.endswith("[]")

    @property
    def is_number(self) -> bool:
        return self.type in ("DOUBLE", "FLOAT", "BIGINT", "INTEGER")


def columns(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> list[Column]:
    """All there are, in the order of the view. Nothing is read."""
    create_joined(con, spec)
    view = con.sql("FROM dataset")
    return [
        Column(name, str(kind), _TEXTS.get(name, ""))
        for name, kind in zip(view.columns, view.types, strict=True)
    ]


def create_filtered(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    where: str,
    expressions: Iterable[str] = (),
) -> None:
    """Make the views `dataset` and `filtered`: what the clause is true of; all, where it is empty.

    Both have those columns that the clause and the expressions name, and a clip's own.
    Raises UsageError, with DuckDB's words and the columns there are, where it is no condition.
    """
    create_joined(con, spec, [where, *expressions])
    query = "SELECT * FROM dataset"
    with explaining(con, spec, where):
        if where.strip():
            con.sql("FROM dataset").filter(where)  # parsed as one expression: it ends no query
            check_condition(con, where)
            query += f" WHERE (\n{where}\n)"
        con.execute(f"CREATE OR REPLACE TEMP VIEW filtered AS {query}")


@contextlib.contextmanager
def explaining(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, where: str) -> Iterator[None]:
    """Turns what DuckDB says of a clause, also of one value on its way, into UsageError."""
    try:
        yield
    except duckdb.Error as error:
        if not where.strip() or isinstance(error, duckdb.InterruptException):
            raise
        there = ", ".join(column.name for column in columns(con, spec))
        raise UsageError(
            f"cannot select clips where {where!r}: {words(error)}\nthere are the columns {there}"
        ) from error


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _texts(row: Any) -> dict[str, str]:
    return {field.name: str(field.metadata["text"]) for field in dataclasses.fields(row)}


TEXTS = {"clips": _texts(Clip), "sources": _texts(Source), "samples": _texts(Sample)}
_TEXTS = {
    **TEXTS["samples"],
    **TEXTS["sources"],
    **TEXTS["clips"],
    "caption": "the caption in force, or NULL",
    "captioner": "whose caption that is",
    "caption_outcome": "ok, empty, refused or truncated",
    "in_build": "the current build has it",
    "drop_reason": "why the current build left it out, or NULL",
    "drop_detail": "the failure's own words, or NULL",
    "bucket_resolution": TEXTS["samples"]["resolution"],
    "bucket_aspect": TEXTS["samples"]["aspect"],
    "bucket_duration": TEXTS["samples"]["duration"],
    "text_similarity": "cosine similarity of clip and caption",
    "aesthetic_score": "of the linear head",
    "duplicate_rank": "0: kept, or without near-duplicates; 1, 2, ...: others",
    "duplicate_group": "clip_id of the one that is kept",
}
