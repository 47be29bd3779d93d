"""Files of columns of texts that nothing names any more, for gc.

Needed are the index beside each build that stays, older ones for some hours after they were
superseded, what these name, and the embeddings of their texts. A tar or part that is younger than
those hours stays too: a run may be about to name it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from telecine.infra.errors import NotFound, UsageError
from telecine.infra.store.storage import ObjectInfo
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.columns import COLUMNS, ColumnIndex, column_folder, read_column
from telecine.manifests.queries import connect
from telecine.pipeline.lifecycle.stored import in_force_since, objects_under

_PARTS = """
SELECT DISTINCT path FROM text_embeddings
SEMI JOIN used_texts USING (encoder_fingerprint, text_digest)
"""


def column_garbage(dataset: Dataset, builds: Iterable[str], hours: float) -> tuple[ObjectInfo, ...]:
    """Under columns/, where the builds of these names stay."""
    there, since = _stored(dataset), time.time() - hours * 3600.0
    in_need, found = set[str](), list[ColumnIndex]()
    for folder, paths in _indexes(there).items():
        if folder.rpartition("/")[2] in set(builds):
            in_need.add(f"{folder}/index.json")
            for path in in_force_since(since, paths, there):
                in_need.add(path)
                found += _read(dataset, path)
    in_need |= {path for index in found for path in _named(index)}
    in_need |= _parts(dataset, found)
    return tuple(
        info
        for path, info in there.items()
        if path not in in_need and (not path.endswith((".tar", ".npy")) or info.modified < since)
    )


def _stored(dataset: Dataset) -> dict[str, ObjectInfo]:
    """Every object of ours under columns/, by its path relative to the dataset."""
    found = objects_under(dataset, COLUMNS)
    return {path: info for path, info in found.items() if _is_ours(path)}


def _is_ours(path: str) -> bool:
    _, _, *rest = path.split("/")
    name = rest[-1] if rest else ""
    if len(rest) == 3 and rest[0] in ("tars", "parts"):
        return name.endswith(".tar")
    if len(rest) == 2:
        return name == "index.json" or (name.startswith("column-") and name.endswith(".arrow"))
    return len(rest) == 1 and name.startswith("null-") and name.endswith(".npy")


def _indexes(there: Mapping[str, ObjectInfo]) -> dict[str, list[str]]:
    """Arrow indexes by the folder that they lie in."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in there:
        if path.endswith(".arrow"):
            found[path.rpartition("/")[0]].append(path)
    return found


def _read(dataset: Dataset, path: str) -> list[ColumnIndex]:
    """None where it cannot be read: nobody trains by it either."""
    try:
        return [read_column(pa.py_buffer(dataset.storage.read_bytes(dataset.path(path))), path)]
    except (NotFound, UsageError):
        return []


def _named(index: ColumnIndex) -> Iterator[str]:
    folder = column_folder(index.facts.name)
    yield from (folder + name for name in index.rows["shard"].unique().to_pylist())
    if index.facts.null_file:
        yield folder + index.facts.null_file


def _parts(dataset: Dataset, found: list[ColumnIndex]) -> set[str]:
    """Paths of the tars with the embeddings of these texts, and of the null prompt."""
    if not found:
        return set()
    con = connect(dataset.tables)
    con.execute("CREATE TEMP TABLE used_texts (encoder_fingerprint VARCHAR, text_digest VARCHAR)")
    for index in found:
        con.register("rows_of", index.rows.select(["text_digest"]))
        con.execute(
            "INSERT INTO used_texts SELECT $encoder, lower(hex(text_digest)) FROM rows_of "
            "UNION SELECT $encoder, sha256('')",
            {"encoder": index.facts.encoder_fingerprint},
        )
    return {path for (path,) in con.sql(_PARTS).fetchall()}
