"""Which samples an epoch has, and in which of its windows each: shares of sources, and of images.

An epoch has as many samples as all sources together. A source with a share of them gives so many
of its endless order (deck.py) in each epoch and goes on from there in the next, so that over the
epochs each of its samples comes equally often, whatever the share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.plan.columns import Columns
from telecine.pipeline.feed.plan.deck import Deck
from telecine.pipeline.feed.plan.hashes import Numbers
from telecine.pipeline.feed.plan.options import OrderOptions
from telecine.pipeline.feed.plan.pools import Alone, Drawn, Paired, Pool
from telecine.pipeline.feed.plan.steps import Source


@dataclass(frozen=True)
class Draw:
    """Of all sources: what an epoch draws, and from how many samples."""

    drawings: list[Drawing]
    members: int  # of all pools, drawn or not: samples, or pairs
    unpaired: int  # clips that a pairing leaves out


@dataclass(frozen=True)
class Drawing:
    """So many of a deck in each epoch."""

    pool: Pool
    deck: Deck
    count: int

    def part(self, epoch: int, window: int, windows: int) -> tuple[Numbers, Numbers]:
        """Sources and rows, [m, k] each, of what comes from here in one of an epoch's windows."""
        start, stop = (self.count * w // windows for w in (window, window + 1))
        base = epoch * self.count
        return self.pool.pick(self.deck.take(base + start, base + stop), epoch)

    def some(self, most: int) -> tuple[Numbers, Numbers]:
        """Of the deck's members, evenly over all shards, as they are picked in the first epoch."""
        return self.pool.pick(self.deck.some(most), 0)


def draw(sources: Sequence[Source], columns: Sequence[Columns], options: OrderOptions) -> Draw:
    """Raises UsageError where the options ask for what no source has."""
    pools, weights = _pools(sources, columns, options)
    total = sum(len(pool.images) for pool in pools)
    kinds = _kinds(total, options.image_share)
    found = []
    for kind, wanted in kinds:
        members = [_members(pool, kind) for pool in pools]
        have = [weight if len(m) else 0.0 for weight, m in zip(weights, members, strict=True)]
        if wanted and not any(have):
            raise UsageError(
                f"image_share = {options.image_share}, but no source has {kind or 'samples'}"
            )
        counts = shares(wanted, have)
        for number, (pool, of) in enumerate(zip(pools, members, strict=True)):
            if counts[number]:
                name: list[str | int] = [options.seed, kind, *_digests(sources, number, len(pools))]
                deck = Deck(of, pool.shards[of], name, options.spread)
                found.append(Drawing(pool, deck, counts[number]))
    unpaired = sum(pool.unpaired for pool in pools if isinstance(pool, Paired))
    return Draw(found, total, unpaired)


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to the total, in the proportion of the weights: largest remainders."""
    sum_of = math.fsum(weights) or 1.0
    exact = [total * weight / sum_of for weight in weights]
    whole = [math.floor(e) for e in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in [i for i in by_rest if weights[i]][: total - sum(whole)]:
        whole[i] += 1
    return whole


def _pools(
    sources: Sequence[Source], columns: Sequence[Columns], options: OrderOptions
) -> tuple[list[Pool], list[float]]:
    if options.renditions == "paired":
        return [Paired(columns)], [1.0]
    if options.renditions == "drawn":
        return [Drawn(columns, [s.weight or 1.0 for s in sources], options.seed)], [1.0]
    alone: list[Pool] = [Alone(number, of) for number, of in enumerate(columns)]
    sizes = [float(of.size) for of in columns]
    return alone, [s.weight or size for s, size in zip(sources, sizes, strict=True)]


def _kinds(total: int, image_share: float | None) -> list[tuple[str, int]]:
    if image_share is None:
        return [("", total)]
    images = round(total * image_share)
    return [("images", images), ("videos", total - images)]


def _members(pool: Pool, kind: str) -> Numbers:
    of_kind = {"": np.ones_like(pool.images), "images": pool.images, "videos": ~pool.images}
    return np.flatnonzero(of_kind[kind])


def _digests(sources: Sequence[Source], number: int, pools: int) -> list[str]:
    """Of the sources that a pool is made of."""
    mine = [sources[number]] if pools == len(sources) else sources
    return [s.index.facts.digest for s in mine]
