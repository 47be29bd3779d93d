"""some_stills: those of a few clips, out of a store.

On a disk DuckDB skips the pictures that nobody asked for. Out of a store it reads, as Arrow does,
all of a file to find one. Here the ids of every file are read, many files at once, and then only
the row groups that hold a still of the clips:

    file  ▏ clip_id ▕ ...                     ▏ clip_id ▕ jpeg jpeg jpeg ▕ jpeg jpeg ▕ ...
          none of them: nothing else is read   some of them ▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schemas import Still, from_arrow
from manifests.tables import Tables

FILES_AT_ONCE = 16  # what is waited for is the store, not this machine

Part = TypeVar("Part")


def some_stills(
    tables: Tables, clip_ids: Iterable[str], files: Iterable[str] | None = None
) -> list[Still]:
    """By clip and position; `files` (None: all) are those of `Tables.files` to look into.

    Raises StorageError where a file is not to be read.
    """
    wanted = pa.array(sorted(set(clip_ids)), pa.string())
    with tables.reading("stills"):
        parts = _of_each(tables, files, lambda _, fragment: _stills(fragment, wanted))
    found = [still for part in parts for still in part]
    return sorted(found, key=lambda still: (still.clip_id, still.position))


def sources_of_files(tables: Tables, files: Iterable[str]) -> pa.Table:
    """Columns source_id and filename: whose stills are in each file, once.

    Raises StorageError where a file is not to be read.
    """

    def sources(path: str, fragment: Any) -> pa.Table:
        found = pc.unique(fragment.to_table(columns=["source_id"]).column("source_id"))
        return pa.table({"source_id": found, "filename": pa.repeat(path, len(found))})

    with tables.reading("stills"):
        parts = _of_each(tables, files, sources)
    return pa.concat_tables(parts)


def _of_each(
    tables: Tables, files: Iterable[str] | None, read: Callable[[str, Any], Part]
) -> list[Part]:
    chosen = None if files is None else set(files)
    fragments = {
        tables.path("stills", fragment.path): fragment
        for fragment in tables.dataset("stills").get_fragments()
    }
    asked = [(p, fragment) for p, fragment in fragments.items() if chosen is None or p in chosen]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return list(pool.map(lambda pair: read(*pair), asked))


def _stills(fragment: Any, wanted: pa.Array) -> list[Still]:
    ids = fragment.to_table(columns=["clip_id"]).column("clip_id")
    rows = np.flatnonzero(pc.is_in(ids, wanted).to_numpy())
    if not len(rows):
        return []
    ends = np.cumsum([group.num_rows for group in fragment.row_groups])
    groups = np.unique(np.searchsorted(ends, rows, "right"))
    some = fragment.subset(row_group_ids=groups.tolist())
    return from_arrow(some.to_table(filter=pc.field("clip_id").isin(wanted)), Still)
