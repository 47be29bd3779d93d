"""A LeRobotDataset v3 root of generated episodes: as the format lays it out, in small."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.movies import Movie, Planes, write_movie

FPS = 25


def write_root(
    root: Path,
    cameras: Mapping[str, Sequence[Sequence[Planes]]],
    rows: Sequence[Mapping[str, Sequence[object]]],
) -> None:
    """Of each camera the episodes' pictures, and of each episode its columns by frame."""
    lengths = [len(pictures) for pictures in next(iter(cameras.values()))]
    starts = [sum(lengths[:n]) / FPS for n in range(len(lengths))]
    features: dict[str, object] = {"action": {"dtype": "float32", "shape": [1]}}
    episodes: dict[str, list[object]] = {
        "episode_index": list(range(len(lengths))),
        "tasks": [["push the square"] for _ in lengths],
        "length": list(lengths),
        "data/chunk_index": [0 for _ in lengths],
        "data/file_index": [0 for _ in lengths],
    }
    for camera, pictures in cameras.items():
        features[camera] = {"dtype": "video", "shape": [3, 144, 160]}
        path = root / "videos" / camera / "chunk-000" / "file-000.mp4"
        path.parent.mkdir(parents=True)
        write_movie(path, [p for episode in pictures for p in episode], Movie(rate=FPS))
        episodes |= {
            f"videos/{camera}/chunk_index": [0 for _ in lengths],
            f"videos/{camera}/file_index": [0 for _ in lengths],
            f"videos/{camera}/from_timestamp": list(starts),
            f"videos/{camera}/to_timestamp": [
                s + n / FPS for s, n in zip(starts, lengths, strict=True)
            ],
        }
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features}
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text(json.dumps(info))
    tasks = pa.table({"task_index": [0], "task": ["push the square"]})
    pq.write_table(tasks, root / "meta" / "tasks.parquet")
    _write(root / "meta" / "episodes", pa.table(episodes))
    write_data(root, rows)


def write_data(root: Path, rows: Sequence[Mapping[str, Sequence[object]]]) -> None:
    """The rows of all episodes, by frame, with their stamps in float32 as LeRobot writes them."""
    tables = []
    for index, columns in enumerate(rows):
        count = len(next(iter(columns.values())))
        stamps = pa.array([k / FPS for k in range(count)], pa.float32())
        known = {"episode_index": [index] * count, "frame_index": list(range(count))}
        tables.append(pa.table({**known, "timestamp": stamps, **columns}))
    _write(root / "data", pa.concat_tables(tables))


def _write(folder: Path, table: pa.Table) -> None:
    path = folder / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
