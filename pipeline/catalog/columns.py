"""Which columns there are: those that a condition may name, and those of a clip's place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import duckdb

from telecine.infra.errors import UsageError
from telecine.infra.text import literal
from telecine.manifests.schemas import Clip, Sample, Source
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.dataset import PLACE_COLUMNS, create_dataset_view


@dataclass(frozen=True, slots=True)
class Column:
    """A column that an order may name and, unless it is of a clip's place, a condition."""

    name: str
    type: str  # DuckDB's
    text: str  # what it says, or empty

    @property
    def is_place(self) -> bool:
        """It says what the current build did with the clip."""
        return self.name in PLACE_COLUMNS

    @property
    def sorts(self) -> bool:
        return not self.type.endswith("[]")

    @property
    def is_number(self) -> bool:
        return self.type in ("DOUBLE", "FLOAT", "BIGINT", "INTEGER")


def columns(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> list[Column]:
    """All there are, in the order of the view `dataset`. Nothing is read."""
    create_dataset_view(con, spec)
    view = con.sql("FROM dataset")
    return [
        Column(name, str(kind), _TEXTS.get(name, ""))
        for name, kind in zip(view.columns, view.types, strict=True)
    ]


def place_condition(place: str) -> str:
    """SQL over the view `dataset`: what the current build did with a clip; true of all for ''.

    kept, kept/480/16x9/4s (in one bucket), dropped/REASON, or unplanned: it has no row of the clip.
    Raises UsageError for anything else.
    """
    match place.split("/"):
        case [""]:
            return ""
        case ["kept"]:
            return "in_build"
        case ["kept", resolution, aspect, duration] if resolution.isdecimal():
            return (
                f"bucket_resolution = {int(resolution)} AND bucket_aspect = {literal(aspect)} "
                f"AND bucket_duration = {literal(duration)}"
            )
        case ["dropped", reason]:
            return f"drop_reason = {literal(reason)}"
        case ["unplanned"]:
            return "NOT in_build AND drop_reason IS NULL"
    raise UsageError(
        f"place={place!r}: of the current build clips are kept, kept/480/16x9/4s, dropped/REASON "
        "or unplanned"
    )


def _texts(row: Any) -> dict[str, str]:
    return {field.name: str(field.metadata["text"]) for field in dataclasses.fields(row)}


TEXTS = {"clips": _texts(Clip), "sources": _texts(Source), "samples": _texts(Sample)}
_TEXTS = {
    **TEXTS["samples"],
    **TEXTS["sources"],
    **TEXTS["clips"],
    "start_seconds": "start_pts × time base: on the source's own clock",
    "end_seconds": "end_pts × time base, excluded",
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
