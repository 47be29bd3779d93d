"""Columns beside builds as they stand: how many samples have their text in them now."""

from __future__ import annotations

import json
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from telecine.infra.errors import NotFound, UsageError
from telecine.manifests.builds import builds
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.columns import COLUMNS, column_folder, column_index_path, read_column
from telecine.manifests.queries import connect
from telecine.pipeline.catalog.captions import create_chosen_captions


@dataclass(frozen=True)
class ColumnState:
    """A column beside a build."""

    column: str
    build: str
    encoder: str  # its name
    dimensions: int
    samples: int  # of the build
    fresh: int  # the column has the text that the sample has now, and its embedding
    stale: int  # ... another text
    missing: int  # ... nothing of the sample, or no embedding of its text
    truncated: int  # of the column: texts that are longer than what was encoded
    tokens: int

    @property
    def in_step(self) -> bool:
        return self.fresh == self.samples


# Of a sample the text is that of its .txt; where captions are in a column, that in force.
_STATE = """
SELECT count(*) AS samples,
    count_if(same AND (size_bytes > 0 OR NOT $embeds)),
    count_if(indexed AND NOT same),
    count_if(NOT indexed OR same AND size_bytes = 0 AND $embeds)
FROM (
    SELECT column_rows.clip_id IS NOT NULL AS indexed, size_bytes,
        coalesce(lower(hex(column_rows.text_digest)), '') = coalesce(
            CASE WHEN live.text_digest <> '' THEN live.text_digest ELSE chosen.text_digest END, ''
        ) AS same
    FROM (
        SELECT clip_id, text_digest FROM live_samples
        WHERE build_id = $build_id AND outcome = 'kept'
    ) AS live
    LEFT JOIN column_rows USING (clip_id) LEFT JOIN chosen_captions AS chosen USING (clip_id)
)
"""


def column_states(dataset: Dataset, build_id: str | None = None) -> list[ColumnState]:
    """Of each column beside each build (None: all builds), by their names."""
    names = _columns(dataset)
    if not names:
        return []
    con = connect(dataset.tables)
    create_chosen_captions(con, dataset.spec)
    chosen = [b for b in builds(con) if b.completed and build_id in (None, b.build_id)]
    found = (
        _state(dataset, con, name, build.build_id, build.name) for build in chosen for name in names
    )
    return [state for state in found if state is not None]


def _columns(dataset: Dataset) -> list[str]:
    """Those that have an index beside some build."""
    try:
        listed = dataset.storage.list(dataset.path(COLUMNS), follow_links=False)
        paths = [info.uri.removeprefix(dataset.path(COLUMNS)).strip("/") for info in listed]
    except NotFound:
        return []
    return sorted({path.partition("/")[0] for path in paths if path.endswith("/index.json")})


def _state(
    dataset: Dataset, con: duckdb.DuckDBPyConnection, name: str, build_id: str, build: str
) -> ColumnState | None:
    """None where the column has no index beside the build."""
    path = dataset.path(column_index_path(name, build))
    try:
        said = json.loads(dataset.storage.read_bytes(path))
        arrow = f"{dataset.path(column_folder(name))}{build}/{said['samples']}"
        index = read_column(pa.py_buffer(dataset.storage.read_bytes(arrow)), arrow)
    except (NotFound, UsageError):
        return None
    con.register("column_rows", index.rows.select(["clip_id", "text_digest", "size_bytes"]))
    known = {"build_id": build_id, "embeds": index.facts.dimensions > 0}
    ((samples, fresh, stale, missing),) = con.execute(_STATE, known).fetchall()
    return ColumnState(
        column=name,
        build=build,
        encoder=str(index.facts.encoder.get("name", "")),
        dimensions=index.facts.dimensions,
        samples=samples,
        fresh=fresh,
        stale=stale,
        missing=missing,
        truncated=said["truncated"],
        tokens=said["tokens"],
    )
