"""Rows of clips with their stills, in the order in which the stills lie: each file is read once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from telecine.manifests.tables import Tables

LOOKUP_STILLS = 16_384  # rows of `stills` whose clips are looked up by one query

Stills: TypeAlias = tuple[tuple[float, bytes], ...]  # (seconds since the clip's first frame, JPEG)


def with_stills(
    tables: Tables, con: duckdb.DuckDBPyConnection, clips: str
) -> Iterator[tuple[dict[str, Any], Stills]]:
    """Each row of a table of clips, which has clip_id and num_stills, with the clip's stills.

    A row whose stills are not all there comes without any, last. Holds the stills of the clips
    begun and not complete: a clip's stills are committed together.
    """
    ((count,),) = con.sql(f"SELECT count(*) FROM {clips}").fetchall()
    if not count:
        return
    begun: dict[str, dict[int, tuple[float, bytes]]] = defaultdict(dict)
    for fragments in _fragments(tables):
        rows = _wanted(con, clips, fragments)
        for still in _stills(fragments, list(rows)):
            row, parts = rows[still["clip_id"]], begun[still["clip_id"]]
            parts[still["position"]] = still["seconds"], still["jpeg"]
            if len(parts) == row["num_stills"]:
                del begun[still["clip_id"]]
                yield row, tuple(parts[i] for i in sorted(parts))
    missing = con.sql(f"FROM {clips} ANTI JOIN stills USING (clip_id)").to_arrow_table()
    incomplete = _rows_of(con, clips, list(begun))
    yield from ((row, ()) for row in [*missing.to_pylist(), *incomplete.values()])


def _fragments(tables: Tables) -> Iterator[list[Any]]:
    """The files of `stills`, small ones together."""
    together: list[Any] = []
    count = 0
    for fragment in tables.dataset("stills").get_fragments():
        together.append(fragment)
        count += fragment.count_rows()
        if count >= LOOKUP_STILLS:
            yield together
            together, count = [], 0
    if together:
        yield together


def _wanted(
    con: duckdb.DuckDBPyConnection, clips: str, fragments: list[Any]
) -> dict[str, dict[str, Any]]:
    columns = [f.to_table(columns=["clip_id"])["clip_id"].to_pylist() for f in fragments]
    return _rows_of(con, clips, sorted({clip_id for column in columns for clip_id in column}))


def _rows_of(
    con: duckdb.DuckDBPyConnection, clips: str, clip_ids: list[str]
) -> dict[str, dict[str, Any]]:
    con.register("asked", pa.table({"clip_id": pa.array(clip_ids, pa.string())}))
    found = con.sql(f"FROM {clips} SEMI JOIN asked USING (clip_id)").to_arrow_table()
    return {row["clip_id"]: row for row in found.to_pylist()}


def _stills(fragments: list[Any], clip_ids: list[str]) -> Iterator[dict[str, Any]]:
    columns = ["clip_id", "position", "seconds", "jpeg"]
    wanted = pc.field("clip_id").isin(pa.array(clip_ids, pa.string()))
    for fragment in fragments:
        for rows in fragment.to_batches(columns=columns, filter=wanted, batch_size=256):
            yield from rows.to_pylist()
