"""What a trainer finds of a column beside a build: index.json, the Arrow index, the null prompt.

A view of the tables like the tars themselves, so it is simply made again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from telecine.encoders.text.interface import TextEncoder
from telecine.infra.errors import CheckFailed
from telecine.infra.faults import kill_point
from telecine.manifests.builds import shards_of
from telecine.manifests.dataset import Dataset
from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.index.columns import (
    SCHEMA,
    ColumnFacts,
    ColumnIndex,
    column_file,
    column_folder,
    column_index_path,
    null_path,
)
from telecine.manifests.queries import connect
from telecine.manifests.shards import path_in_build
from telecine.pipeline.build.index import shards_digest
from telecine.pipeline.embed.plan import Target


def write_column(
    dataset: Dataset, target: Target, encoder: TextEncoder, rows: pa.Table, null: dict[str, Any]
) -> ColumnIndex:
    """Its files beside the build. `rows` are of `column_samples`, `null` of `text_embeddings`."""
    index = ColumnIndex(_facts(dataset, target, encoder, rows, null), _arrow(target, rows))
    folder = column_index_path(target.column, target.build).rpartition("/")[0]
    arrow = f"{folder}/{column_file(index.facts.digest)}"
    if not dataset.storage.exists(dataset.path(arrow)):
        dataset.storage.write_bytes(dataset.path(arrow), bytes(index.to_bytes()))
        kill_point("committed", "arrow")
    text = json.dumps(_index_json(target, index, rows), indent=1, ensure_ascii=False) + "\n"
    dataset.storage.write_bytes(
        dataset.path(column_index_path(target.column, target.build)), text.encode()
    )
    kill_point("committed", "column_index")
    return index


def _facts(
    dataset: Dataset, target: Target, encoder: TextEncoder, rows: pa.Table, null: dict[str, Any]
) -> ColumnFacts:
    shards = shards_of(connect(dataset.tables), target.build_id)
    if len(rows) != sum(shard.num_samples for shard in shards):
        raise CheckFailed(
            f"the build {target.build} changed while its column was made: run telecine embed again"
        )
    tars = pc.unique(rows["tar_sha256"]).to_pylist()
    build_digest = shards_digest(shards, target.build)
    return ColumnFacts(
        name=target.column,
        build_id=target.build_id,
        build=target.build,
        build_digest=build_digest,
        digest=fingerprint([target.encoder_fingerprint, build_digest, tars]),
        encoder=encoder.identity(),
        encoder_fingerprint=target.encoder_fingerprint,
        dimensions=target.dimensions,
        null_file=_write_null(dataset, target, null) if null else "",
        null_sha256=null.get("sha256", ""),
        null_tokens=null.get("tokens", 0),
    )


def _write_null(dataset: Dataset, target: Target, null: dict[str, Any]) -> str:
    path = null_path(target.column, null["sha256"])
    if not dataset.storage.exists(dataset.path(path)):
        part = dataset.path(null["path"])
        data = dataset.storage.read_range(part, null["offset"], null["size_bytes"])
        if hashlib.sha256(data).hexdigest() != null["sha256"]:
            raise CheckFailed(f"{part} is damaged: remove it, and run telecine embed again")
        dataset.storage.write_bytes(dataset.path(path), data)
    return path.removeprefix(column_folder(target.column))


def _arrow(target: Target, rows: pa.Table) -> pa.Table:
    folder = column_folder(target.column)
    columns = {name: rows[name] for name in SCHEMA.names if name in rows.column_names}
    paths = [path.removeprefix(folder) for path in rows["path"].to_pylist()]
    columns["shard"] = pa.array(paths, pa.string()).dictionary_encode()
    for name in ("text_digest", "sha256"):
        said = [bytes.fromhex(value) or None for value in rows[name].to_pylist()]
        columns[name] = pa.array(said, pa.binary(32))
    arrays = [_whole(columns[f.name]).cast(f.type) for f in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _index_json(target: Target, index: ColumnIndex, rows: pa.Table) -> dict[str, Any]:
    facts, folder = index.facts, column_folder(target.column)
    tars: dict[str, dict[str, Any]] = {}
    columns = ["path", "shard_path", "shard_id", "tar_bytes", "tar_sha256"]
    for row in rows.select(columns).to_pylist():
        shard = path_in_build(row["shard_path"], target.build)
        tar = {
            "path": row["path"].removeprefix(folder),
            "beside": shard,
            "shard_id": row["shard_id"],
            "num_samples": 0,
            "size_bytes": row["tar_bytes"],
            "sha256": row["tar_sha256"],
        }
        tars.setdefault(row["path"], tar)["num_samples"] += 1
    embedded = pc.sum(pc.greater(rows["size_bytes"], 0)).as_py() or 0
    return {
        "column": target.column,
        "build": target.build,
        "build_id": target.build_id,
        "build_digest": facts.build_digest,
        "encoder": facts.encoder,
        "encoder_fingerprint": facts.encoder_fingerprint,
        "dimensions": facts.dimensions,
        "null": {"path": facts.null_file, "sha256": facts.null_sha256, "tokens": facts.null_tokens},
        "num_samples": len(rows),
        "num_embedded": embedded,
        "tokens": pc.sum(rows["tokens"]).as_py() or 0,
        "truncated": pc.sum(rows["truncated"]).as_py() or 0,
        "samples": column_file(facts.digest),
        "shards": list(tars.values()),
        "digest": facts.digest,
    }
