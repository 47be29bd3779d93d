"""What it costs to read a build for training, beside other loaders over the same samples.

    python benchmarks/feed.py DATASET [--rounds 5] [--cold] [--peers PYTHON] [--only NAME ...]

Each reader reads two epochs in a process of its own, the readers taking turns, some rounds of them;
the second one is told, so that what is done once for a whole training is not counted:

    raw           `readinto` of every tar, whole, into one buffer: what nothing can be below
    feed          telecine.feed, packs in flat buffers, no digests checked
    feed+sha256   the same, every latent's digest checked
    feed+patches  the same without digests, each pack cut into patches
    webdataset    plain, `.decode()`, one sample after the other
    energon       exported with `telecine export --format energon`, a crude cooker, no workers
    litdata       StreamingDataset over the samples rewritten in its own format, no workers
    streaming     mosaicml-streaming likewise, MDS

CPU is user and system time of the process; of several rounds the least, since whoever else has the
cores only adds to it. Wall time is the median. Memory is the most that was resident, above what
was so before. `--cold` drops the files from the page cache before it.

`--s3` reads through HTTP instead: a server of its own answers 20 ms late and shares one link among
all of its answers; told is the share of the link that GETs of whole tars, 16 at once, reach, and
the feed. `--packs` tells padding and the slowest pack of a step, of this index and of one that has
it 30 times. litdata and streaming are looked for in another interpreter's packages, if one is
named: `pip install --no-deps litdata mosaicml-streaming` and what they ask for, into an environment
of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.machinery
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

TOKENS = 131_072
LATE, LINK = 0.02, 100e6  # seconds before an answer, bytes a second
BUCKET = "bucket"


@dataclass(frozen=True)
class Work:
    """What the readers read."""

    dataset: Path
    beside: Path  # what other formats were written to
    build: str
    tars: tuple[Path, ...]
    samples: int

    @classmethod
    def of(cls, dataset: Path, beside: Path) -> Work:
        current = json.loads((dataset / "shards/current.json").read_text())
        index = json.loads((dataset / "shards" / current["index"]).read_text())
        folder = dataset / "shards" / current["name"]
        tars = tuple(folder / shard["path"] for shard in index["shards"])
        return cls(dataset, beside, current["name"], tars, index["num_samples"])


# ── readers: each prepares, and gives what reads an epoch and says how many bytes it got ─────────


def raw(work: Work) -> Callable[[], int]:
    buffer = bytearray(max(tar.stat().st_size for tar in work.tars))

    def read() -> int:
        total = 0
        for tar in work.tars:
            with tar.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    total += count
        return total

    return read


def _feed(patches: bool, verify: str) -> Callable[[Work], Callable[[], int]]:
    def prepare(work: Work) -> Callable[[], int]:
        from telecine.feed import Feed

        if patches:
            import torch  # noqa: F401  not to be counted

        feed = Feed(
            str(work.dataset), tokens=TOKENS, packs_per_step=1, split="windows", verify=verify
        )

        def read() -> int:
            total = 0
            for pack in feed.epoch(0):
                total += pack.patches().nbytes if patches else pack.latents.nbytes
            return total

        return read

    return prepare


def webdataset(work: Work) -> Callable[[], int]:
    import webdataset

    samples = webdataset.WebDataset([str(tar) for tar in work.tars], shardshuffle=False).decode()
    return lambda: sum(sample["latent.npy"].nbytes for sample in samples)


def energon(work: Work) -> Callable[[], int]:
    import megatron.energon as library

    space = {"__annotations__": {"latent": Any, "facts": Any, "caption": str}}
    kept = library.edataclass(type("Kept", (library.Sample,), space))

    def cook(raw: dict[str, Any]) -> Any:
        members = {"latent": raw["latent.npy"], "facts": raw["json"], "caption": raw["txt"]}
        return kept(**library.basic_sample_keys(raw), **members)

    cookers = [library.Cooker(library.stateless(cook))]
    task = type("Task", (library.DefaultTaskEncoder,), {"cookers": cookers})
    dataset = library.get_train_dataset(
        str(work.beside / "energon"),
        worker_config=library.WorkerConfig(rank=0, world_size=1, num_workers=0),
        task_encoder=task(),
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
    )
    loader = library.get_loader(dataset)
    return lambda: sum(sample.latent.nbytes for sample in islice(loader, work.samples))


def litdata(work: Work) -> Callable[[], int]:
    import litdata

    dataset = litdata.StreamingDataset(str(work.beside / "litdata"))
    return lambda: sum(sample["latent"].nbytes for sample in dataset)


def streaming(work: Work) -> Callable[[], int]:
    _without_torchvision()
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(work.beside / "mds"), shuffle=False, batch_size=1)
    return lambda: sum(sample["latent"].nbytes for sample in dataset)


READERS: dict[str, Callable[[Work], Callable[[], int]]] = {
    "raw": raw,
    "feed": _feed(False, "never"),
    "feed+sha256": _feed(False, "always"),
    "feed+patches": _feed(True, "never"),
    "webdataset": webdataset,
    "energon": energon,
    "litdata": litdata,
    "streaming": streaming,
}
OF_PEERS = {"litdata", "streaming"}  # not installed beside Telecine
REWRITTEN = {"litdata": "litdata", "streaming": "mds", "energon": "energon"}


def _without_torchvision() -> None:
    """mosaicml-streaming imports it for datasets of pictures, which are not asked for."""
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        module: Any = types.ModuleType(f"torchvision{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.VisionDataset, module.to_tensor = object, None
        sys.modules[module.__name__] = module


def _samples(work: Work) -> Iterator[dict[str, Any]]:
    import webdataset

    for one in webdataset.WebDataset([str(t) for t in work.tars], shardshuffle=False).decode():
        yield {"latent": one["latent.npy"], "facts": one["json"], "caption": one["txt"]}


def rewrite(name: str, work: Work) -> None:
    """The build in another library's own form."""
    folder = work.beside / REWRITTEN[name]
    if name == "energon":
        import telecine

        telecine.export(work.dataset, folder, "energon")
    elif name == "litdata":
        from litdata.streaming.cache import Cache

        cache = Cache(str(folder), chunk_bytes="64MB")
        for number, sample in enumerate(_samples(work)):
            cache[number] = {**sample, "facts": json.dumps(sample["facts"])}
        cache.done()
        cache.merge()
    else:
        _without_torchvision()
        from streaming import MDSWriter

        columns = {"latent": "ndarray", "facts": "json", "caption": "str"}
        with MDSWriter(out=str(folder), columns=columns) as writer:
            for sample in _samples(work):
                writer.write(sample)


# ── one turn ─────────────────────────────────────────────────────────────────────────────────────


def cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def resident(field: str) -> float:
    """MB, of /proc/self/status."""
    (line,) = (li for li in Path("/proc/self/status").read_text().splitlines() if field in li)
    return float(line.split()[1]) / 1000


def turn(name: str, work: Work, *, cold: bool) -> dict[str, float]:
    """Prepare, read an epoch, and read another, which is told, in this process."""
    read = READERS[name](work)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here on
    read()
    if cold:
        forget(work, name)
    began, used = time.perf_counter(), cpu()
    total = read()
    return {
        "bytes": total,
        "wall": time.perf_counter() - began,
        "cpu": cpu() - used,
        "memory": resident("VmHWM") - before,
    }


def turns(args: argparse.Namespace, work: Work) -> dict[str, list[dict[str, float]]]:
    names = [n for n in READERS if not args.only or n in args.only]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            python = args.peers if name in OF_PEERS else sys.executable
            if python is None:
                continue
            done = child(python, args, "--turn", name, *(["--cold"] if args.cold else []))
            if done is not None:
                found[name].append(json.loads(done))
    return {name: rounds for name, rounds in found.items() if rounds}


def child(python: str, args: argparse.Namespace, *what: str) -> str | None:
    """The last line that it prints; None where it failed, which is said."""
    command = [python, __file__, str(args.dataset), "--beside", str(args.beside), *what]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(what)} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return done.stdout.strip().splitlines()[-1]


def forget(work: Work, name: str) -> None:
    """Drop what a reader reads from the page cache."""
    os.sync()
    own = work.beside / REWRITTEN.get(name, "nothing")
    paths = [p for p in own.rglob("*") if p.is_file()] if own.is_dir() else []
    for path in (*work.tars, *paths):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def print_turns(found: dict[str, list[dict[str, float]]]) -> None:
    least = {name: min(r["cpu"] for r in rounds) for name, rounds in found.items()}
    wall = {name: median(r["wall"] for r in rounds) for name, rounds in found.items()}
    print("| reader | CPU s | × raw | wall s | × raw | MB over base | MB read |")
    print("|---|---|---|---|---|---|---|")
    for name, rounds in found.items():
        most = max(r["memory"] for r in rounds)
        ratios = [of[name] / of["raw"] if "raw" in of else 0.0 for of in (least, wall)]
        print(
            f"| {name} | {least[name]:.2f} | {ratios[0]:.1f} | {wall[name]:.2f} | {ratios[1]:.1f} "
            f"| {most:.0f} | {rounds[0]['bytes'] / 1e6:.0f} |"
        )


# ── packs ────────────────────────────────────────────────────────────────────────────────────────


def packs(work: Work) -> None:
    """Padding, and how far the slowest pack is from the mean."""
    import pyarrow as pa

    import telecine
    from telecine.manifests.index.samples import SampleIndex
    from telecine.pipeline.feed.plan.options import OrderOptions
    from telecine.pipeline.feed.plan.order import Order
    from telecine.pipeline.feed.plan.report import report
    from telecine.pipeline.feed.plan.steps import Source
    from telecine.pipeline.look.feeding import index_of

    index = index_of(telecine.open(work.dataset), None)
    print("| samples | tokens | packs a step | padding | slowest ÷ mean | in the worst step |")
    print("|---|---|---|---|---|---|")
    for times in (1, 30):
        rows = pa.concat_tables([index.rows] * times).combine_chunks()
        source = Source(SampleIndex(index.facts, rows))
        for tokens, each in ((65_536, 8), (65_536, 64), (262_144, 8), (262_144, 64)):
            order = Order([source], OrderOptions(tokens, each, split="windows"))
            of = report(order)
            print(
                f"| {rows.num_rows:,} | {tokens:,} | {each} | {of.padding:.2%} "
                f"| {of.slowest:.3f} | {of.slowest_worst:.3f} |"
            )


# ── a store behind a link ────────────────────────────────────────────────────────────────────────


class Link:
    """An S3 store of files: late answers, and one link that all of them share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._free = 0.0  # when the link is

    async def serve(self) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(LATE)
                await self._answer(request.decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, request: str, writer: asyncio.StreamWriter) -> None:
        first, *lines = request.split("\r\n")
        method, target, _ = first.split()
        named = (line.partition(": ")[::2] for line in lines)
        asked = {name.lower(): value for name, value in named}.get("range", "")
        path = self._root / target.partition("?")[0].removeprefix(f"/{BUCKET}/")
        if not path.is_file():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        size = path.stat().st_size
        start, stop = 0, size
        if asked:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            start, stop = (int(low), int(high or size - 1) + 1) if low else (size - int(high), size)
        stop = min(stop, size)
        head = "206 Partial Content" if asked else "200 OK"
        extent = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if asked else ""
        writer.write(
            f"HTTP/1.1 {head}\r\nContent-Length: {stop - start}\r\n{extent}"
            'ETag: "x"\r\nLast-Modified: Tue, 01 Dec 2026 00:00:00 GMT\r\n\r\n'.encode()
        )
        if method == "GET":
            await self._send(path, start, stop, writer)

    async def _send(self, path: Path, start: int, stop: int, writer: asyncio.StreamWriter) -> None:
        with path.open("rb") as file:
            file.seek(start)
            while start < stop:
                data = file.read(min(2**18, stop - start))
                now = time.perf_counter()
                self._free = max(now, self._free) + len(data) / LINK
                await asyncio.sleep(self._free - now)
                writer.write(data)
                await writer.drain()
                start += len(data)


def s3_turn(what: str, port: int, work: Work) -> float:
    """Bytes a second through the link: of whole tars, or of the feed."""
    if what == "gets":
        paths = [str(tar.relative_to(work.dataset)) for tar in work.tars]

        def get(path: str) -> int:
            link = HTTPConnection("127.0.0.1", port)
            link.request("GET", f"/{BUCKET}/{path}")
            with io.BytesIO() as sink:
                shutil.copyfileobj(link.getresponse(), sink, 2**20)
                return sink.tell()

        began = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            return sum(pool.map(get, paths)) / (time.perf_counter() - began)
    from telecine.feed import Feed

    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "x"}
    feed = Feed(
        f"s3://{BUCKET}", tokens=TOKENS, packs_per_step=1, split="windows", verify="never",
        endpoint_url=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    began = time.perf_counter()
    total = sum(pack.latents.nbytes for pack in feed.epoch(0))
    return total / (time.perf_counter() - began)


def s3(args: argparse.Namespace) -> None:
    command = [sys.executable, __file__, str(args.dataset), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            print("| through a link of 100 MB/s, 20 ms late | MB/s | of the link |")
            print("|---|---|---|")
            for what in ("gets", "feed"):
                done = child(sys.executable, args, "--s3-turn", what, "--port", port)
                if done is not None:
                    print(f"| {what} | {float(done) / 1e6:.1f} | {float(done) / LINK:.2f} |")
        finally:
            server.kill()


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--beside", type=Path, help="keep other libraries' forms here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--peers", help="interpreter that has litdata and streaming")
    parser.add_argument("--only", nargs="*", choices=list(READERS))
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--packs", action="store_true")
    for inner in ("--turn", "--rewrite", "--s3-turn", "--port"):
        parser.add_argument(inner, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.dataset = args.dataset.resolve()
    with tempfile.TemporaryDirectory() as folder:
        args.beside = (args.beside or Path(folder)).resolve()
        run(args, Work.of(args.dataset, args.beside))


def run(args: argparse.Namespace, work: Work) -> None:
    if args.serve:
        asyncio.run(Link(work.dataset).serve())
    elif args.turn:
        print(json.dumps(turn(args.turn, work, cold=args.cold)))
    elif args.rewrite:
        rewrite(args.rewrite, work)
        print("done")
    elif args.s3_turn:
        print(s3_turn(args.s3_turn, int(args.port), work))
    elif args.packs:
        packs(work)
    elif args.s3:
        s3(args)
    else:
        size = sum(tar.stat().st_size for tar in work.tars)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
        print(f"{work.samples} samples in {len(work.tars)} tars, {size / 1e6:.0f} MB")
        for name, folder in REWRITTEN.items():
            python = args.peers if name in OF_PEERS else sys.executable
            asked = not args.only or name in args.only
            if python and asked and not (work.beside / folder).exists():
                child(python, args, "--rewrite", name)
        print_turns(turns(args, work))


if __name__ == "__main__":
    main()
