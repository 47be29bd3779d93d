"""What a trainer finds beside a build's shards, made from the tables: index.json, samples, current.

It is a view of the tables like the shards themselves, so it is simply made again.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import duckdb
import pyarrow as pa

from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import NotFound
from telecine.infra.faults import kill_point
from telecine.manifests.buckets import IMAGE
from telecine.manifests.builds import builds, current_build, family, shards_of
from telecine.manifests.dataset import Dataset
from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.index.samples import SCHEMA, BuildFacts, SampleIndex, samples_file
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build
from telecine.manifests.shards import (
    CURRENT_PATH,
    INDEX,
    Shard,
    build_folder,
    index_path,
    path_in_build,
)
from telecine.manifests.tar import BLOCK
from telecine.pipeline.build.identity import Generation


def write_index(dataset: Dataset, build: Generation | Build, *, anew: bool = False) -> None:
    """`index.json`: every live shard with its count, bytes and digest, for plain webdataset users.

    Beside it where each sample lies, for `telecine.feed`, unless that is there, or `anew`; and
    `current.json`, whichever build is current.
    """
    con = connect(dataset.tables)
    live = shards_of(con, build.build_id)
    digest = shards_digest(live, build.name)
    samples = build_folder(build.name) + samples_file(digest)
    # Equal shards, equal samples. One that comes back is written again: gc goes by its age.
    if (
        anew
        or named_samples(dataset, build.name) != samples
        or not dataset.storage.exists(dataset.path(samples))
    ):
        index = sample_index(con, build, live)
        dataset.storage.write_bytes(dataset.path(samples), bytes(index.to_bytes()))
        kill_point("committed", "samples")
    index_json = {
        "build_id": build.build_id,
        "vae_fingerprint": build.vae_fingerprint,
        "num_samples": sum(s.num_samples for s in live),
        "size_bytes": sum(s.size_bytes for s in live),
        "samples": samples_file(digest),
        "shards": [
            dataclasses.asdict(s) | {"path": path_in_build(s.path, build.name)} for s in live
        ],
        "digest": digest,
    }
    _write_json(dataset, index_path(build.name), index_json)
    kill_point("committed", "index")
    write_current(dataset, con)


def named_samples(dataset: Dataset, build_name: str) -> str | None:
    """Path of the index of samples that a build's index.json names; None where it names none."""
    try:
        index = json.loads(dataset.storage.read_bytes(dataset.path(index_path(build_name))))
        return build_folder(build_name) + str(index["samples"])
    except (NotFound, ValueError, KeyError):
        return None


def write_current(dataset: Dataset, con: duckdb.DuckDBPyConnection) -> None:
    """`shards/current.json` names the current build, for trainers that follow it, and where it is
    one of several renditions all of these by their names.
    """
    current = current_build(con)
    if current is not None:
        pointer = _pointer(current.build_id, current.name)
        names = {build.build_id: build.name for build in builds(con)}
        renditions = {
            name: _pointer(build_id, names[build_id])
            for name, build_id in family(current.family).items()
        }
        beside: dict[str, Any] = {"renditions": renditions} if renditions else {}
        _write_json(dataset, CURRENT_PATH, {**pointer, **beside})
        kill_point("committed", "current")


def _pointer(build_id: str, name: str) -> dict[str, str]:
    return {"build_id": build_id, "name": name, "index": f"{name}/{INDEX}"}


def shards_digest(shards: list[Shard], build_name: str) -> str:
    """Of a build's live shards: equal ones hold equal samples."""
    return fingerprint([[path_in_build(s.path, build_name), s.sha256] for s in shards])


def _write_json(dataset: Dataset, path: str, value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    dataset.storage.write_bytes(dataset.path(path), text.encode())


# ── where each sample lies ───────────────────────────────────────────────────────────────────────

# Of the last sample of a shard the zeros at its end too: they are a few kilobytes.
_SAMPLES = f"""
SELECT clip_id, shard_path, position, latent_offset AS "offset", latent_bytes AS size_bytes,
    coalesce(lead(latent_offset) OVER (PARTITION BY shard_path ORDER BY position) - {BLOCK},
        shard_bytes) - latent_offset AS sample_bytes,
    unhex(latent_sha256) AS sha256, latent_shape AS shape, encoded_frames AS frames,
    CASE WHEN duration = '{IMAGE}' THEN 0 ELSE fps_num END AS fps_num, fps_den,
    concat_ws('/', resolution, aspect, duration) AS bucket,
    CASE WHEN text_digest <> '' THEN unhex(text_digest) END AS text_digest
FROM live_samples WHERE build_id = ? AND outcome = 'kept' ORDER BY shard_path, position
"""


def sample_index(
    con: duckdb.DuckDBPyConnection, build: Generation | Build, shards: list[Shard]
) -> SampleIndex:
    """The index of the build's live samples; `shards` are its live shards."""
    found = con.sql(_SAMPLES, params=[build.build_id]).to_arrow_table()
    paths = pa.array([s.path for s in shards], pa.string())
    names = pa.array([path_in_build(s.path, build.name) for s in shards], pa.string())
    columns = {name: found[name] for name in SCHEMA.names if name in found.column_names}
    columns["shard"] = pa.DictionaryArray.from_arrays(
        pa.compute.index_in(found["shard_path"], paths).combine_chunks(), names
    )
    columns["bucket"] = found["bucket"].combine_chunks().dictionary_encode()
    rows = pa.table([_as(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)
    return SampleIndex(_facts(build, shards), rows)


def _as(values: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> pa.Array:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return whole if whole.type == wanted else whole.cast(wanted)


def _facts(build: Generation | Build, shards: list[Shard]) -> BuildFacts:
    if isinstance(build, Generation):
        vae, time = build.encoder.identity(), _time(build.encoder)
    else:
        vae, time = json.loads(build.vae), _time(build)
    return BuildFacts(
        build_id=build.build_id,
        build=build.name,
        digest=shards_digest(shards, build.name),
        patch=json.loads(build.spec)["vae"]["patch"],
        vae=vae,
        vae_fingerprint=build.vae_fingerprint,
        **time,
    )


def _time(of: VideoEncoder | Build) -> dict[str, Any]:
    return {"temporal_stride": of.temporal_stride, "causal": of.causal}
