"""What an ingest costs, against a bare PyAV decode of the same files on the same cores.

    python benchmarks/ingest.py FOOTAGE            (a folder of real footage; five minutes or more)
    python benchmarks/ingest.py FOOTAGE --only memory

(a) scan       CPU seconds of scan_source ÷ bare decode, without Python's start   target ≤ 1.35
(b) ingest     CPU seconds of the whole ingest ÷ bare decode, Ray's own too      target ≤ 4
(c) workers    wall-clock seconds with 1 worker ÷ with 2                         target ≥ 1.7
(d) memory     peak resident memory of scan and shard worker, 60 s of 1080p      target ≤ 1.5 GB

Ratios come from one run, so that a noisy machine troubles them less. Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

CORPUS = (
    "bower__video.mp4", "cosmoscurate__test_video_30s.mp4", "intel__bottle-detection.mp4",
    "intel__one-by-one-person-detection.mp4", "mdndom__video.mp4", "mdnlearn__crystal.webm",
    "mdnshared__flower.mp4", "mdnshared__tears-of-steel-battle-clip-medium.webm",
    "sam2__01_dog.mp4", "timedmedia__shuttle10seconds.1080x608.webm", "webav__bunny_2.mp4",
    "webrtc__chrome.mp4", "mediabunny__video-h265.mp4",
    "libavtutorial__small_bunny_1080p_60fps.mp4",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    cpu_seconds: float
    wall_seconds: float


# ── work that runs in a process of its own ───────────────────────────────────────────────────────


def decode(files: list[Path]) -> None:
    began = time.process_time()
    frames, seconds = 0, 0.0
    for path in files:
        with path.open("rb") as file, av.open(file, metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            first = last = None
            for frame in container.decode(stream):
                frames += 1
                first, last = frame.time if first is None else first, frame.time
            seconds += (last or 0) - (first or 0)
    print(time.process_time() - began, frames, seconds / 60)


def scan(files: list[Path]) -> None:
    from telecine.infra.store.storage import Storage
    from telecine.manifests.specs import DatasetSpec
    from telecine.pipeline.scan.discover import Found, ScanTask
    from telecine.pipeline.scan.worker import scan_source

    storage = Storage()
    began = time.process_time()
    for path in files:
        info = storage.stat(str(path))
        found = Found(info.uri, info.version, info.size_bytes)
        scanned = scan_source(ScanTask(found, 0), storage, DatasetSpec())
        assert scanned.source.status == "scanned", scanned.source.detail
    print(time.process_time() - began)


def memory(files: list[Path]) -> None:
    """Scan and encode one long clip in this process; print its peak."""
    from telecine.encoders.load import load_encoder
    from telecine.infra.store.storage import Storage
    from telecine.manifests.buckets import Bucket
    from telecine.manifests.dataset import create_dataset
    from telecine.pipeline.build.sample import ChosenCaption
    from telecine.pipeline.build.worker import MemberJob, ShardJob, ShardWorker
    from telecine.pipeline.scan.discover import Found, ScanTask
    from telecine.pipeline.scan.worker import scan_source

    storage = Storage()
    with tempfile.TemporaryDirectory() as folder:
        dataset = create_dataset(folder, storage, None)
        info = storage.stat(str(files[0]))
        task = ScanTask(Found(info.uri, info.version, info.size_bytes), 0)
        scanned = scan_source(task, storage, dataset.spec)
        print(f"scan: {_peak():.2f} GB")
        (clip,) = scanned.clips
        member = MemberJob(clip, scanned.source, ChosenCaption("none", "", "", ""), None)
        bucket = Bucket(1080, "16x9", "60s")
        load_encoder(dataset.spec.vae)
        worker = ShardWorker(folder, dataset.spec, storage, ahead=2)
        receipt = worker(ShardJob("b", "b", 0, "s", bucket, (member,)))
        print(
            f"scan and shard: {_peak():.2f} GB, {receipt.samples[0].latent_bytes / 1e6:.0f} MB "
            f"of latents, {clip.duration_seconds:.0f} s of {clip.width}×{clip.height}"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def render_long(path: Path, seconds: int = 60) -> None:
    """60 s of 1080p at 24 frames per second: noise that drifts, in one shot."""
    rng = np.random.default_rng(0)
    noise = rng.integers(40, 200, (136, 300), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        chroma = np.full((540, 1920), 128, np.uint8)
        for n in range(24 * seconds):
            left = n % 480
            planes = np.concatenate([noise[:1080, left : left + 1920], chroma])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


def measured(command: list[str]) -> Cost:
    """CPU seconds of a command and all its descendants, Ray's daemons and workers too.

    Ray does not reap its workers, so what they used is read from /proc while they live.
    """
    began = time.monotonic()
    process = subprocess.Popen(command)
    used: dict[tuple[int, int], float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            _sample(process.pid, used)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return Cost(sum(used.values()), time.monotonic() - began)


def _sample(root: int, used: dict[tuple[int, int], float]) -> None:
    parents: dict[int, int] = {}
    times: dict[int, tuple[int, float]] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        times[pid] = int(fields[19]), (int(fields[11]) + int(fields[12])) / tick
    for pid, (started, seconds) in times.items():
        ancestor = pid
        while ancestor > 1 and ancestor != root:
            ancestor = parents.get(ancestor, 0)
        if ancestor == root or (pid, started) in used:
            used[pid, started] = seconds


def _figures(command: list[str]) -> list[float]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def _self(task: str, *args: str) -> list[str]:
    return [sys.executable, __file__, "--task", task, *args]


def _ingest(folder: Path, dataset: Path, workers: int) -> list[str]:
    code = "from telecine.pipeline.cli.main import main; main()"
    return [
        sys.executable, "-c", code, "ingest", str(folder), "--dataset", str(dataset),
        "--workers", str(workers), "--allow-duplicates",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", nargs="+", type=Path)
    parser.add_argument("--task", choices=("decode", "scan", "memory"))
    parser.add_argument(
        "--repeat", type=int, default=1, help="take the corpus so many times, to outweigh start-up"
    )
    parser.add_argument("--only", choices=("scan", "ingest", "memory"))
    args = parser.parse_args()
    if args.task:
        tasks: dict[str, Callable[[list[Path]], None]] = {
            "decode": decode, "scan": scan, "memory": memory,
        }  # fmt: skip
        tasks[args.task](args.footage)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="telecine-bench-") as name:
        run(args.footage[0].resolve(), Path(name), args.only, args.repeat)


def run(footage: Path, work: Path, only: str | None, repeat: int) -> None:
    files = [footage / name for name in CORPUS if (footage / name).exists()]
    paths = [str(path) for path in files] * repeat
    if only != "memory":
        bare, frames, minutes = _figures(_self("decode", *paths))
        print(
            f"bare decode  {bare:7.1f} CPU s, {frames:.0f} frames, {minutes:.1f} minutes",
            flush=True,
        )
    if only in (None, "scan"):
        (scanned,) = _figures(_self("scan", *paths))
        print(f"(a) scan     {scanned:7.1f} CPU s, {scanned / bare:.2f} × bare decode", flush=True)
    if only in (None, "ingest"):
        corpus = work / "corpus"
        corpus.mkdir()
        for path in files:
            for n in range(repeat):
                (corpus / f"{n} {path.name}").symlink_to(path)
        costs = {n: measured(_ingest(corpus, work / f"dataset-{n}", n)) for n in (2, 1)}
        print(
            f"(b) ingest     {costs[2].cpu_seconds:7.1f} CPU s, "
            f"{costs[2].cpu_seconds / bare:.2f} × bare decode"
        )
        print(
            f"(c) workers    {costs[1].wall_seconds:7.1f} s with 1, {costs[2].wall_seconds:.1f} s "
            f"with 2: {costs[1].wall_seconds / costs[2].wall_seconds:.2f} ×",
            flush=True,
        )
    if only in (None, "memory"):
        render_long(work / "long.mp4")
        print("(d) memory", flush=True)
        subprocess.run(_self("memory", str(work / "long.mp4")), check=True)


if __name__ == "__main__":
    main()
