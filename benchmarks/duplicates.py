"""Grouping near-duplicates: rows a second, memory, and the share of planted ones that are found.

    python benchmarks/duplicates.py --rows 200000 --dimensions 768 --threshold 0.95

A fifth of the rows are copies of others, of cosine 0.90 to 0.999; one in a hundred is a copy of one
title card. `random`: rows in all directions. `cone`: as CLIP's, two unrelated rows have a cosine of
0.5, two of one topic (50 rows) 0.8, and few axes hold most of the variance. `hard`: the same, and
copies differ from their own along those same axes, instead of along all evenly. A copy counts as
found unless it and its own are both kept. Rows are preferred in random order.

Memory is what grouping added, `own`, and the most that the process held with the pages of the file
that it read, `all`, which the kernel takes back where it needs them. On one thread of two cores
that others shared (cosine: the threshold; by cosine: of pairs that are so near, or more):

                        rows/CPU s  own GiB   all   found   0.90+   0.92+   0.95+   0.98+
    all pairs (up to 50,000 rows)
    hard     50,000 × 768  0.95  2,827  0.26  0.37  1.0000                  1.0000  1.0000
    hard     50,000 × 768  0.9   3,114  0.27  0.38  1.0000  1.0000  1.0000  1.0000  1.0000
    through the index
    random  100,000 × 768  0.9   2,261  0.15  0.35  1.0000  1.0000  1.0000  1.0000  1.0000
    cone    200,000 × 768  0.9   3,633  0.17  0.50  1.0000  1.0000  1.0000  1.0000  1.0000
    hard    200,000 × 768  0.9   4,134  0.17  0.50  0.9927  0.9781  0.9919  0.9986  1.0000
    hard    200,000 × 768  0.95  4,173  0.17  0.50  0.9991                  0.9986  1.0000
    hard    300,000 × 768  0.95  3,567  0.19  0.67  0.9993                  0.9988  1.0000
    cone    200,000 × 64   0.95  5,812  0.10  0.18  1.0000                  1.0000  1.0000
    on two threads, with 128 cells searched (now 161 and 192 at these sizes)
    hard    500,000 × 768  0.95  2,497  0.26  1.03  0.9979                  0.9966  1.0000
    cone  1,000,000 × 64   0.95  2,458  0.24  0.42  0.9999                  0.9999  1.0000

The title card's copies were one group in every run. Two threads spin while others hold the cores,
which counts as CPU time: of one run 50 s became 73 s. A row costs more the more there are, since
there are more cells and more of them are searched. Random rows crowd into few cells, since in so
many dimensions a few centres are the nearest of most: 0.15 to 0.36 of 200,000 were searched with
128 of 7,000 and of 3,578 cells, where of `hard` ones it was 0.02 and 0.05.

10 million × 768 were not run. Reckoned (`needed_bytes`) they take 3.8 GiB beside the file of 15 GB:

    312 bytes a row (code 128, in the index 136, places and numbers 48)            2.9 GiB
    9 KiB for each of 37,947 cells while the centres are learnt                    0.3 GiB
    sample of the axes, blocks, libraries                                          0.5 GiB

Measured growth is about 190 bytes a row of 64 dimensions (reckoned: 184, and cells) and 320 of 768
(312, and cells). By operations counted, not measured, 10 million take some four hours of one core.
How many of the `hard` copies are found at that size is not known; the share fell with more rows.

faiss and torch each bring an OpenMP of their own (GNU's, on Linux). In one process, imported in
either order and computing in turns, on 1 to 3 threads, all gave the same groups, byte for byte;
nothing sets their threads, which are as many as cores or OMP_NUM_THREADS says. On macOS, where
wheels bring LLVM's OpenMP twice, faiss beside torch is known to crash; it is not tried here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from telecine.pipeline.score.duplicates import EXACT_ROWS, cosines, group_duplicates
from telecine.pipeline.score.neighbours import needed_bytes

COPIES = 0.2  # of all rows
CARD = 0.01  # of all rows: copies of one of them
LEAST, MOST = 0.90, 0.999  # cosine of a copy with its own
AT_ONCE = 20_000
RANGES = (0.90, 0.92, 0.95, 0.98, 1.0)

Rows = NDArray[np.float32]


def unit(rows: Rows) -> Rows:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@dataclass(frozen=True)
class Scene:
    """How rows lie, and how copies differ from their own."""

    row: Callable[[int], Rows]  # number → so many
    noise: Callable[[int], Rows]


def scene(kind: str, dimensions: int, rows: int) -> Scene:
    random = np.random.default_rng(1)

    def even(count: int) -> Rows:
        return random.standard_normal((count, dimensions), np.float32)

    spread = 1 / np.sqrt(np.arange(1, dimensions + 1, dtype=np.float32))
    turned = spread[:, None] * np.linalg.qr(even(dimensions))[0]
    middle, topics = unit(even(1)), unit(even(rows // 50 + 1) @ turned)

    def cone(count: int) -> Rows:
        topic = topics[random.integers(len(topics), size=count)]
        own = unit(even(count) @ turned)
        return unit(0.5**0.5 * middle + 0.3**0.5 * topic + 0.2**0.5 * own)

    if kind == "random":
        return Scene(lambda count: unit(even(count)), even)
    if kind == "cone":
        return Scene(cone, even)
    return Scene(cone, lambda count: even(count) @ turned)


def write(folder: Path, kind: str, rows: int, dimensions: int) -> None:
    """vectors.bin; of.npy: the row that each is a copy of, or -1; -2: of the card."""
    made, random = scene(kind, dimensions, rows), np.random.default_rng(2)
    card, of = made.row(1), np.full(rows, -1)
    with (folder / "vectors.bin").open("wb") as file:
        for start in range(0, rows, AT_ONCE):
            count = min(AT_ONCE, rows - start)
            cards, copies = int(count * CARD), int(count * COPIES)
            plain = made.row(count - cards - copies)
            origin = random.integers(len(plain), size=copies)
            cosine = random.uniform(LEAST, MOST, (copies, 1)).astype(np.float32)
            away = made.noise(copies)
            away -= (away * plain[origin]).sum(1, keepdims=True) * plain[origin]
            near = cosine * plain[origin] + np.sqrt(1 - cosine**2) * unit(away)
            file.write(np.concatenate([plain, near]).astype(np.float16).tobytes())
            grain = 0.01 * unit(made.noise(cards)) if cards else made.noise(0)
            file.write(unit(card + grain).astype(np.float16).tobytes())
            of[start + len(plain) : start + count - cards] = start + origin
            of[start + count - cards : start + count] = -2
    np.save(folder / "of.npy", of)


class Memory:
    """The most that this process held: its own, and with the pages of the file that it read."""

    def __init__(self) -> None:
        self._stop, self.own = threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.all = kib("VmHWM")

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.own = max(self.own, kib("RssAnon"))


def kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def group(folder: Path, dimensions: int, threshold: float, exact_rows: int) -> None:
    """In a process of its own: groups, and prints what it took and what it found."""
    vectors = np.memmap(folder / "vectors.bin", np.float16, "r").reshape(-1, dimensions)
    preference = np.random.default_rng(3).permutation(len(vectors))
    before = kib("RssAnon")
    began, cpu = time.perf_counter(), time.process_time()
    with Memory() as memory:
        found = group_duplicates(vectors, preference, threshold, exact_rows=exact_rows)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    of = np.load(folder / "of.npy")
    copies = np.flatnonzero(of >= 0)
    exact = np.concatenate(
        [
            cosines(vectors[c], vectors[of[c]])
            for c in np.array_split(copies, len(copies) // 4096 + 1)
        ]
    )
    overlooked = (found.rank[copies] == 0) & (found.rank[of[copies]] == 0)
    recall = [
        (low, float(1 - overlooked[chosen].mean()))
        for low, high in itertools.pairwise(RANGES)
        if (chosen := (exact >= max(low, threshold)) & (exact < high)).any()
    ]
    print(json.dumps({
        "rows": len(vectors), "seconds": seconds, "cpu": cpu, "own": memory.own - before,
        "all": memory.all, "recall": float(1 - overlooked[exact >= threshold].mean()),
        "by_cosine": recall, "kept": float((found.rank == 0).mean()),
        "cards": len(np.unique(found.group[of == -2])),
    }))  # fmt: skip


def measure(kind: str, rows: int, dimensions: int, threshold: float, exact_rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), kind, rows, dimensions)
        command = [sys.executable, __file__, "--group", name, "--dimensions", str(dimensions)]
        command += ["--threshold", str(threshold), "--exact-rows", str(exact_rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    got = json.loads(done.stdout)
    ranges = "  ".join(f"{low:.2f}+ {share:.4f}" for low, share in got["by_cosine"])
    print(
        f"{kind:<7} {rows:>9,} × {dimensions:<4} {threshold:<5} {rows / got['cpu']:>7,.0f} "
        f"{rows / got['seconds']:>7,.0f} {got['own'] / 2**20:>5.2f} {got['all'] / 2**20:>6.2f} "
        f"{got['kept']:>7.3f} {got['cards']:>5}  {got['recall']:.4f} = {ranges}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--threshold", type=float, action="append")
    parser.add_argument("--kind", choices=["random", "cone", "hard"], action="append")
    parser.add_argument("--exact-rows", type=int, default=EXACT_ROWS)
    parser.add_argument("--group", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    thresholds = given.threshold or [0.9, 0.95]
    if given.group is not None:
        group(given.group, given.dimensions, thresholds[0], given.exact_rows)
        return
    needed = needed_bytes(10_000_000, given.dimensions) / 2**30
    print(
        f"{platform.machine()}, {os.cpu_count()} cores; reckoned for 10 million: {needed:.2f} GiB"
    )
    print("kind         rows × d   cosine   /CPU s      /s  own    all    kept  card  recall")
    for kind in given.kind or ["random", "cone", "hard"]:
        for threshold in thresholds:
            measure(kind, given.rows, given.dimensions, threshold, given.exact_rows)


if __name__ == "__main__":
    main()
