"""LeRobotDataset v3 roots: many episodes in one video file, told apart by time.

    meta/info.json                              codebase_version v3.x, and the paths below
    meta/episodes/chunk-000/file-000.parquet    of each episode its data file and, by camera KEY,
                                                videos/KEY/{chunk_index,file_index,from_timestamp}
    data/chunk-000/file-000.parquet             rows: episode_index, timestamp (s in the episode),
                                                action, observation.state, ...
    videos/KEY/chunk-000/file-000.mp4           footage: a source each

Format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telecine.infra.errors import StorageError, concerns_one_object
from telecine.infra.store.storage import Storage
from telecine.pipeline.side.align import Rows
from telecine.pipeline.side.formats import MAX_BYTES, UnusableTrack, rows_of_table

INFO = "meta/info.json"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
MAX_INFO_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Episode:
    """Where one episode lies in a video file, and where its rows are."""

    index: int
    start_seconds: float  # in the video file
    end_seconds: float
    data: str  # path of its data file


def is_lerobot(tracks_uri: str) -> bool:
    """Whether a source's tracks are a LeRobot root's."""
    return tracks_uri.endswith(f"/{INFO}")


def info_of(data: bytes) -> dict[str, Any] | None:
    """What an info.json says; None where it is not of a root of version 3."""
    try:
        info = json.loads(data)
        version = str(info["codebase_version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return info if re.match(r"v?3\.", version) else None


def episodes_of(storage: Storage, info_uri: str, video_uri: str) -> list[Episode]:
    """The episodes in a video file of a root, in order. Raises UnusableTrack, StorageError."""
    root = info_uri.removesuffix(INFO)
    info = info_of(_bytes(storage, info_uri, MAX_INFO_BYTES))
    if info is None:
        raise UnusableTrack(f"{info_uri} is no longer of a LeRobot dataset of version 3")
    key, place = _place(str(info.get("video_path") or VIDEO_PATH), video_uri.removeprefix(root))
    names = {n: f"videos/{key}/{n}" for n in
             ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}  # fmt: skip
    found = []
    for part in sorted(o.uri for o in storage.list(f"{root}meta/episodes/")):
        if part.endswith(".parquet"):
            wanted = ["episode_index", "data/chunk_index", "data/file_index", *names.values()]
            found += _table(storage, part, wanted).to_pylist()
    path = str(info.get("data_path") or DATA_PATH)
    here = [r for r in found if (r[names["chunk_index"]], r[names["file_index"]]) == place]
    try:
        episodes = [
            Episode(
                int(row["episode_index"]),
                float(row[names["from_timestamp"]]),
                float(row[names["to_timestamp"]]),
                root
                + path.format(
                    chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
                ),
            )
            for row in here
        ]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UnusableTrack(f"{info_uri}: its episodes cannot be read: {error!r}") from error
    return sorted(episodes, key=lambda episode: episode.start_seconds)


def read_rows(storage: Storage, info_uri: str, video_uri: str, columns: Sequence[str]) -> Rows:
    """The columns of all episodes in a video file, by the file's own time.

    Raises UnusableTrack, StorageError.
    """
    episodes = episodes_of(storage, info_uri, video_uri)
    if not episodes:
        raise UnusableTrack(f"no episode of {info_uri} is said to be in it")
    held: dict[str, pa.Table] = {}
    parts = []
    for episode in episodes:
        if episode.data not in held:
            wanted = ["episode_index", "timestamp", *columns]
            held = {episode.data: _table(storage, episode.data, wanted)}
        table = held[episode.data]
        rows = table.filter(pc.equal(table["episode_index"], episode.index))
        try:
            times = pc.add(rows["timestamp"].cast(pa.float64()), episode.start_seconds)
        except pa.ArrowException as error:
            raise UnusableTrack(f"{episode.data}: its timestamps are no numbers") from error
        parts.append(rows.drop_columns(["timestamp"]).append_column("timestamp", times))
    try:
        # One file may have as float32, or as lists of any length, what another has otherwise.
        whole = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise UnusableTrack(f"{info_uri}: its data files have unlike columns: {error}") from error
    return rows_of_table(whole, columns, 1.0)


def _place(template: str, path: str) -> tuple[str, tuple[int, int]]:
    """The camera of a video file, and its chunk and number."""
    fields: Mapping[str, str] = {
        "video_key": "(?P<video_key>.+)",
        "chunk_index:03d": "(?P<chunk_index>[0-9]+)",
        "file_index:03d": "(?P<file_index>[0-9]+)",
    }
    pattern = re.escape(template)
    for name, regex in fields.items():
        pattern = pattern.replace(re.escape("{" + name + "}"), regex)
    match = re.fullmatch(pattern, path)
    if match is None:
        raise UnusableTrack(f"{path} is none of {template}, as meta/info.json has it")
    return match["video_key"], (int(match["chunk_index"]), int(match["file_index"]))


def _table(storage: Storage, uri: str, columns: Sequence[str]) -> pa.Table:
    data = _bytes(storage, uri, MAX_BYTES)
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        missing = [c for c in columns if c not in names]
        if missing:
            there = ", ".join(f"`{n}`" for n in names if not n.startswith("stats/"))
            raise UnusableTrack(f"{uri}: there is no column `{missing[0]}`; there is {there}")
        return file.read(columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise UnusableTrack(f"{uri}: no parquet file that can be read: {said}") from error


def _bytes(storage: Storage, uri: str, most: int) -> bytes:
    try:
        info = storage.stat(uri)
        if info.size_bytes > most:
            raise UnusableTrack(f"{uri}: {info.size_bytes} bytes, more than {most}")
        with storage.open(info) as file:
            return file.read() or b""
    except StorageError as error:
        if not concerns_one_object(error):
            raise
        raise UnusableTrack(str(error)) from error
