"""Seconds and peak memory of the `inspect` summary and of pages of `browse`, over millions of rows.

    python benchmarks/report.py --rows 10000000
    python benchmarks/report.py --rows 1000000 --s3

Rows are generated column by column and written straight to the tables: one clip in twenty comes
from each source, every clip has one caption and one sample. The summary runs in a process of its
own, so that its memory is its own; so do some pages of clips, one after the other. With --s3 the
same tables lie on an S3 server on loopback, and the whole command is timed.

Measured on two cores that others shared, 10,000,000 clips of 510,205 sources, as many captions
and samples, 2.6 GB of tables on disk: summary 1.3 to 1.7 s, peak memory 350 to 490 MiB, the whole
command 1.9 to 2.3 s. A first page 1.6 to 2.0 s; sorted by a measurement 4.0 to 5.6 s; filtered by
one and by what the build has, 8 to 9 s; peak memory 1.8 GiB.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from botocore.config import Config
from deltalake import write_deltalake

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset
from telecine.manifests.schemas import TABLES, arrow_schema
from telecine.manifests.tables import Tables

CLIPS_PER_SOURCE = 20
SAMPLES_PER_SHARD = 200
ROWS_PER_FILE = 500_000
SECONDS = 4
BUILD = "b" * 32

Columns = dict[str, Any]


def ids(kind: int, numbers: npt.NDArray[np.int64]) -> pa.Array:
    """32 hexadecimal digits per number that look random and are the same every time."""
    low = (numbers.astype(np.uint64) + np.uint64(kind << 40)) * np.uint64(0x9E3779B97F4A7C15)
    high = (low ^ (low >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    digits = np.stack([low, high], axis=1).view(np.uint8)
    nibbles = np.stack([digits >> 4, digits & 15], axis=2).reshape(len(numbers), 32)
    text = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles]
    offsets = np.arange(0, 32 * (len(numbers) + 1), 32, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(numbers), pa.py_buffer(offsets.tobytes()), pa.py_buffer(text.tobytes())
    )


def pick(numbers: npt.NDArray[np.int64], values: list[str]) -> pa.Array:
    return pa.array(values).take(pa.array(numbers % len(values)))


def fill(name: str, numbers: npt.NDArray[np.int64], given: Columns) -> pa.Table:
    """The given columns, and plausible noise in all others."""
    noise = np.random.default_rng(int(numbers[0]) if len(numbers) else 0)
    schema = arrow_schema(TABLES[name])

    def column(field: pa.Field) -> Any:
        if field.name in given:
            value = given[field.name]
            return (
                value if isinstance(value, pa.Array) else pa.repeat(pa.scalar(value), len(numbers))
            )
        if pa.types.is_string(field.type):
            return pa.repeat(pa.scalar(""), len(numbers))
        if pa.types.is_floating(field.type):
            return pa.array(np.round(noise.random(len(numbers)), 4))
        if pa.types.is_boolean(field.type):
            return pa.repeat(pa.scalar(False), len(numbers))
        if pa.types.is_list(field.type):
            empty = pa.array(np.zeros(len(numbers) + 1, np.int32))
            return pa.ListArray.from_arrays(empty, pa.array([], field.type.value_type))
        return pa.array(noise.integers(0, 4, len(numbers)))

    return pa.table([pc.cast(column(f), f.type) for f in schema], schema=schema)


def sources(n: npt.NDArray[np.int64]) -> Columns:
    rejected = n % 50 == 0
    clips = np.where(rejected, 0, CLIPS_PER_SOURCE)
    frames = clips * SECONDS * 25
    dropped = np.where(rejected, 0, 7)
    return {
        "uri": pc.binary_join_element_wise("s3://footage/", ids(1, n), ".mp4", ""),
        "revision": 0,
        "source_id": ids(2, n),
        "kind": "video",
        "status": pa.array(np.where(rejected, "rejected", "scanned").tolist()),
        "reason": pa.array(np.where(rejected, "corrupt", "").tolist()),
        "scan_fingerprint": "f" * 64,
        "num_clips": pa.array(clips),
        "num_frames": pa.array(frames + dropped),
        "frames_kept": pa.array(frames),
        "frames_dropped": pa.array(dropped),
        "dropped": pa.array(
            [[] if r else [DROPPED] for r in rejected.tolist()],
            arrow_schema(TABLES["sources"]).field("dropped").type,
        ),
    }


DROPPED = {"start_frame": 0, "num_frames": 7, "start_pts": 0, "end_pts": 7, "reason": "too_short"}


def clips(n: npt.NDArray[np.int64]) -> Columns:
    return {
        "clip_id": ids(3, n),
        "source_id": ids(2, source_of(n)),
        "scan_fingerprint": "f" * 64,
        "kind": "video",
        "duration_seconds": float(SECONDS),
        "num_frames": SECONDS * 25,
        "timing": "pts",
        "stills_digest": ids(4, n),
        "dominant_colors": pa.ListArray.from_arrays(
            pa.array(np.arange(len(n) + 1, dtype=np.int32) * 2),
            pick(np.arange(2 * len(n)), ["grey", "blue", "green", "brown", "red"]),
        ),
    }


def source_of(clip: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Scanned sources are those whose number 50 does not divide."""
    nth = clip // CLIPS_PER_SOURCE
    return nth // 49 * 50 + nth % 49 + 1


def captions(n: npt.NDArray[np.int64]) -> Columns:
    return {
        "clip_id": ids(3, n),
        "captioner": "vlm",
        "captioner_fingerprint": "c" * 64,
        "input_digest": ids(5, n),
        "outcome": pick(n, ["ok"] * 30 + ["empty"]),
        "text": pc.binary_join_element_wise("A still shot of ", ids(6, n), ""),
        "text_key": pa.array(n * 2654435761 % 2**61 + 1),
    }


def samples(n: npt.NDArray[np.int64]) -> Columns:
    bucket = n // SAMPLES_PER_SHARD
    return {
        "build_id": BUILD,
        "plan": 0,
        "clip_id": ids(3, n),
        "outcome": "kept",
        "text_digest": ids(7, n),
        "captions_digest": ids(7, n),
        "shard_id": ids(8, bucket),
        "shard_path": ids(9, bucket),
        "shard_sha256": ids(10, bucket),
        "position": pa.array(n % SAMPLES_PER_SHARD),
        "resolution": pa.array(np.array([360, 480, 720, 1080])[bucket % 4]),
        "aspect": pick(bucket // 4, ["16x9", "9x16", "1x1"]),
        "duration": pick(bucket // 12, ["1s", "2s", "4s", "8s"]),
        "latent_bytes": pa.array(n % 1000 + 500_000),
        "latent_shape": pa.ListArray.from_arrays(
            pa.array(np.arange(len(n) + 1, dtype=np.int32) * 4),
            pa.array(np.tile(np.array([16, 25, 45, 80]), len(n))),
        ),
        "encoded_frames": SECONDS * 25 - 3,
        "fps_num": 25,
        "fps_den": 1,
    }


def builds(n: npt.NDArray[np.int64]) -> Columns:
    return {
        "build_id": BUILD,
        "name": "dct",
        "sequence": pa.array(n),
        "event": pick(n, ["planned", "completed", "promoted"]),
        "plan": 0,
        "vae_fingerprint": "v" * 64,
        "pixel_fingerprint": "p" * 64,
    }


def write(tables: Tables, name: str, columns: Callable[..., Columns], rows: int) -> None:
    for numbers in blocks(rows):
        batch = fill(name, numbers, columns(numbers))
        write_deltalake(f"{tables.uri}/tables/{name}", batch, mode="append")


def blocks(rows: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, rows, ROWS_PER_FILE):
        yield np.arange(start, min(rows, start + ROWS_PER_FILE))


def generate(folder: str, rows: int) -> None:
    tables = Tables(folder)
    nth = -(-rows // CLIPS_PER_SOURCE)
    rows = nth * CLIPS_PER_SOURCE
    write(tables, "sources", sources, int(source_of(np.array([rows - 1]))[0]) + 1)
    for name, columns in (("clips", clips), ("captions", captions), ("samples", samples)):
        write(tables, name, columns, rows)
    write(tables, "builds", builds, 3)


SUMMARY = """
import sys, time
start = time.perf_counter()
from rich.console import Console
from telecine.manifests.tables import Tables
from telecine.manifests.dataset import Dataset
from telecine.manifests.specs import DatasetSpec
from telecine.infra.store.storage import Storage
from telecine.pipeline.cli.inspect import inspect_summary
ready = time.perf_counter()
tables = Tables(sys.argv[1])
dataset = Dataset(tables.uri, Storage(), DatasetSpec(), tables)
inspect_summary(dataset, False, Console(file=sys.stderr))
end = time.perf_counter()
# Not ru_maxrss: that of the parent counts in it.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line[:5] == "VmHWM")
print(
    f"import {ready - start:.2f} s, summary {end - ready:.2f} s, "
    f"all {time.process_time():.2f} CPU s, peak memory {peak / 1024:.0f} MiB"
)
"""

PAGES = """
import sys, time
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.browse.listing import Asked, clips_page
from telecine.pipeline.browse.snapshot import Snapshot
tables = Tables(sys.argv[1])
snapshot = Snapshot(Dataset(tables.uri, Storage(), DatasetSpec(), tables))
last = ""
for name, asked in (
    ("first page", Asked()),
    ("sorted", Asked(sort="motion", descending=True)),
    ("filtered", Asked(where="motion > 0.5", place="kept", sort="motion")),
    ("page after it", Asked(where="motion > 0.5", place="kept", sort="motion", after="last")),
):
    if asked.after:
        asked = Asked(where=asked.where, place=asked.place, sort=asked.sort, after=last)
    start, cpu = time.perf_counter(), time.process_time()
    with snapshot.asking() as con:
        page = clips_page(con, snapshot.spec, asked, snapshot.columns)
    last = page.rows[-1]["clip_id"]
    print(
        f"{name}: {time.perf_counter() - start:.1f} s, {time.process_time() - cpu:.1f} CPU s, "
        f"{page.total:,} clips"
    )
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line[:5] == "VmHWM")
print(f"peak memory {peak / 1024:.0f} MiB")
"""


def inspect_on_s3(folder: str, repeat: int) -> None:
    """The command, started by itself, on a copy of the dataset in a store on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # It is asked again until the server is there.
        client = boto3.client("s3", config=Config(retries={"max_attempts": 20}))
        client.create_bucket(Bucket="benchmark")
        size = 0
        for path in (p for p in Path(folder).rglob("*") if p.is_file()):
            client.upload_file(str(path), "benchmark", f"d/{path.relative_to(folder)}")
            size += path.stat().st_size
        command = [Path(sys.executable).with_name("telecine"), "inspect", "s3://benchmark/d"]
        for _ in range(repeat):
            start = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds = time.perf_counter() - start
            print(f"the command {seconds:.2f} s, {done.stderr.strip()}, {size / 1e6:.0f} MB in all")
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--s3", action="store_true", help="in a store; needs moto[server]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(folder, arguments.rows)
        print(f"{arguments.rows:,} clips generated in {time.perf_counter() - start:.0f} s")
        if arguments.s3:
            create_dataset(folder, Storage(), None)
            inspect_on_s3(folder, arguments.repeat)
            return
        for _ in range(arguments.repeat):
            command = [sys.executable, "-c", SUMMARY, folder]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        subprocess.run([sys.executable, "-c", PAGES, folder], check=True)


if __name__ == "__main__":
    main()
