"""Planning a trainer's epoch: time a sample, padding, and how long ranks wait for each other.

    python benchmarks/feed_plan.py --samples 20000
    python benchmarks/feed_plan.py --samples 20000 --images 0.3
    python benchmarks/feed_plan.py --index dataset/shards/BUILD/samples-DIGEST.arrow

Without an index: videos of 480p to 1080p in five aspects, 1 to 60 s, log-uniform, at 24 fps, and
images of 256 to 1,536 px (`--images`: their share of the samples), 8 × 8 px and 4 frames to a
latent, patches of 2 × 2. What is longer than a pack is cut to a prefix, in every row.

`padded`: share of the packs without a token. `waits`: dearest pack of a step ÷ its mean pack, by
cost.py, in the mean over steps of `--packs-per-step`; `random`: the same packs, dealt at random.
Figures are in docs/decisions/0022-feed.md.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telecine.manifests.index.samples import SampleIndex, read_samples
from telecine.pipeline.feed.plan.columns import Columns
from telecine.pipeline.feed.plan.options import OrderOptions
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.pack import packed
from telecine.pipeline.feed.plan.report import report
from telecine.pipeline.feed.plan.steps import Source, Step
from tests.support.mixes import made_index, realistic

Sizes = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--images", type=float, default=0.5)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[65_536, 262_144])
    parser.add_argument("--packs-per-step", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.index:
        index = read_samples(pa.memory_map(str(given.index)), str(given.index))
    else:
        index = made_index(realistic(given.samples, image_share=given.images))
    for tokens in given.tokens:
        print_padding(index, tokens)
        for packs in given.packs_per_step:
            print_order(index, OrderOptions(tokens=tokens, packs_per_step=packs), given.rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory {peak:.0f} MiB, {index.rows.num_rows:,} samples")


def print_order(index: SampleIndex, options: OrderOptions, rounds: int) -> None:
    began, planned = [], []
    for _ in range(rounds):
        start = time.process_time()
        order = Order([Source(index)], options)
        first = next(order.steps())
        began.append(time.process_time() - start)
        start = time.process_time()
        steps = list(order.steps())
        planned.append(time.process_time() - start)
        assert steps[0] == first
    start = time.process_time()
    resumed = Order([Source(index)], options)
    stopped = steps[len(steps) // 2]
    assert next(resumed.steps(stopped.after)).step == stopped.step + 1
    seconds = time.process_time() - start
    counts = report(Order([Source(index)], options))
    print(
        f"  {options.packs_per_step:3} packs a step: {counts.steps:,} steps, padded "
        f"{counts.padding:.2%}, waits {counts.slowest:.3f} (attention alone "
        f"{counts.slowest_attention:.3f}; random {at_random(steps):.3f}); "
        f"{min(planned) / index.rows.num_rows * 1e6:.1f} µs a sample, first step "
        f"{min(began) * 1e3:.0f} ms, resumed in the middle {seconds * 1e3:.0f} ms"
    )


def at_random(steps: Sequence[Step]) -> float:
    """Dearest ÷ mean where the same packs meet in a random order."""
    costs = np.array([step.costs for step in steps])
    dealt = np.random.default_rng(0).permutation(costs.ravel()).reshape(costs.shape)
    return float((dealt.max(axis=1) / dealt.mean(axis=1)).mean())


# ── padding otherwise ────────────────────────────────────────────────────────────────────────────


def print_padding(index: SampleIndex, tokens: int) -> None:
    columns = Columns(index)
    frame = columns.frame_tokens(np.arange(columns.size))
    frames = np.minimum(columns.shapes[:, 1], tokens // frame)
    shapes = np.column_stack([frames, columns.shapes[:, 2:]])[frames > 0].astype(np.int64)
    shapes = np.random.default_rng(0).permutation(shapes)
    sizes = shapes.prod(axis=1) // index.facts.patch**2
    named = {
        "random batches, padded to the longest": to_longest(sizes, tokens),
        "batches of a bucket, padded by axis": by_axis(shapes, tokens * index.facts.patch**2),
        "batches of one shape": one_shape(shapes, sizes, tokens),
        "first fit, 8 open packs": first_fit(sizes, tokens, 8),
        **{
            f"best-fit decreasing, windows of {window:,}": fitted(sizes, tokens, window)
            for window in (100, 1_024, 4_096)
        },
    }
    print(f"\npacks of {tokens:,} tokens")
    for name, share in named.items():
        print(f"  {name:45} {share:6.2%}")


def to_longest(sizes: Sizes, tokens: int) -> float:
    """As many in a row as fit when each takes as much as the longest."""
    packs, count, longest = 1, 0, 0
    for size in sizes.tolist():
        count, longest = count + 1, max(longest, size)
        if count * longest > tokens:
            packs, count, longest = packs + 1, 1, size
    return 1 - int(sizes.sum()) / (packs * tokens)


def by_axis(shapes: Sizes, room: int) -> float:
    """Buckets as the product has them: rungs of the short side and of time, and the aspect."""
    time_rung = np.log2(shapes[:, 0]).astype(int)
    side_rung = (np.log2(shapes[:, 1:].min(axis=1)) * 2).astype(int)
    aspect = np.round(np.log2(shapes[:, 2] / shapes[:, 1]) * 3).astype(int)
    packs = 0
    _, buckets = np.unique(
        np.column_stack([time_rung, side_rung, aspect]), axis=0, return_inverse=True
    )
    for bucket in range(buckets.max() + 1):
        batch: list[Sizes] = []
        for shape in shapes[buckets == bucket]:
            grown = np.max([*batch, shape], axis=0)
            if batch and (len(batch) + 1) * int(grown.prod()) > room:
                packs, batch = packs + 1, []
            batch.append(shape)
        packs += 1
    return 1 - int(shapes.prod(axis=1).sum()) / (packs * room)


def one_shape(shapes: Sizes, sizes: Sizes, tokens: int) -> float:
    """As many of a shape as fit, the rest of the pack empty; its last batch may be short."""
    _, first, counts = np.unique(shapes, axis=0, return_index=True, return_counts=True)
    batches = -(-counts // (tokens // sizes[first]))
    return 1 - int(sizes.sum()) / (int(batches.sum()) * tokens)


def first_fit(sizes: Sizes, tokens: int, bins: int) -> float:
    """Into the first open pack with room; where there is none, the fullest is closed."""
    free: list[int] = []
    packs = 0
    for size in sizes.tolist():
        fit = next((i for i, room in enumerate(free) if room >= size), None)
        if fit is None:
            if len(free) == bins:
                free.remove(min(free))
            free.append(tokens)
            packs, fit = packs + 1, len(free) - 1
        free[fit] -= size
    return 1 - int(sizes.sum()) / (packs * tokens)


def fitted(sizes: Sizes, tokens: int, window: int) -> float:
    parts = [sizes[i : i + window] for i in range(0, len(sizes), window)]
    return 1 - int(sizes.sum()) / (sum(len(packed(part, tokens)) for part in parts) * tokens)


if __name__ == "__main__":
    main()
