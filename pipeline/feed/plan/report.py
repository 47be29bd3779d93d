"""What an epoch would be, before a shard is read or a second of a GPU is spent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from telecine.pipeline.feed.plan.deal import Dealt
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.split import Pieces
from telecine.pipeline.feed.plan.steps import Position

_BYTES = 2  # of a value: float16


@dataclass(frozen=True)
class Share:
    """Of a bucket, a source or a kind."""

    samples: int
    tokens: int


@dataclass(frozen=True)
class EpochReport:
    """Counts of one epoch. `asdict` of it is fit for JSON."""

    epoch: int
    packs: int  # those that come again counted again
    steps: int
    samples: int  # that come, each as often as it does
    pieces: int
    tokens: int
    padding: float  # share of the packs that holds no token; of batches: no sample
    slowest: float  # dearest pack of a step ÷ its mean pack, by cost.py: mean over the steps
    slowest_worst: float  # the same of the worst step
    slowest_attention: float  # `slowest` by the squares of the lengths alone
    bytes_per_pack: float  # latents, in the mean
    left_out: dict[str, int]  # samples too_long or not_drawn (by shares), clips unpaired
    shortened: int  # samples of which only a prefix comes
    frames_left: int  # latent frames that those lose
    divided: int  # samples that come in several pieces
    inexact: int  # pieces that do not begin with their clip
    repeated_packs: int  # they fill the last step
    repeated_samples: int  # that a weight or a share draws again within the epoch
    images: Share
    videos: Share
    sources: list[Share]
    buckets: dict[str, Share]


@dataclass
class _Sums:
    """What adds up over the windows."""

    drawn: list[npt.NDArray[np.bool_]]  # which rows of each source were
    kinds: Counter[tuple[int, bool, str]] = field(default_factory=Counter)  # samples
    tokens: Counter[tuple[int, bool, str]] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    slowest: list[float] = field(default_factory=list)
    attention: list[float] = field(default_factory=list)

    def share(self, wanted: tuple[int | None, bool | None, str | None]) -> Share:
        """Of a source, of images or not, and of a bucket; None: of any."""

        def total(of: Counter[tuple[int, bool, str]]) -> int:
            fits = (
                all(w is None or w == k for w, k in zip(wanted, kind, strict=True)) for kind in of
            )
            return sum(n for n, fit in zip(of.values(), fits, strict=True) if fit)

        return Share(total(self.kinds), total(self.tokens))


def report(order: Order, epoch: int = 0) -> EpochReport:
    """Plans a whole epoch: some seconds for a million samples.

    Raises UsageError where no sample fits into a pack.
    """
    next(order.steps(Position(epoch)))
    sums = _Sums([np.zeros(of.size, np.bool_) for of in order.columns])
    for _, window, steps, _ in order.walk(Position(epoch)):
        fit = window.fitted
        _add_pieces(sums, order, fit.pieces)
        sums.facts["too_long"] += fit.too_long.row.size
        for source, drawn in enumerate(sums.drawn):
            drawn[fit.too_long.row[fit.too_long.source == source]] = True
        for name in ("samples", "shortened", "frames_left", "divided"):
            sums.facts[name] += getattr(fit, name)
        for step in steps:
            _add_step(sums, order, step)
    return _report(sums, order, epoch)


def _add_pieces(sums: _Sums, order: Order, pieces: Pieces) -> None:
    """Source by source: which rows came, in which buckets, with how many tokens."""
    for source, of in enumerate(order.columns):
        here = pieces.source == source
        row, tokens = pieces.row[here], pieces.tokens[here]
        first = pieces.start[here] == 0
        sums.drawn[source][row] = True
        kind = of.buckets[row].astype(np.int64) * 2 + of.images[row]
        names = of.bucket_names
        for counter, values in ((sums.kinds, first), (sums.tokens, tokens)):
            for number, count in enumerate(np.bincount(kind, values).tolist()):
                if count:
                    counter[source, bool(number % 2), names[number // 2]] += int(count)
        frames = pieces.stop[here] - pieces.start[here]
        values = frames * of.shapes[row].astype(np.int64)[:, [0, 2, 3]].prod(axis=1)
        sums.facts["bytes"] += int(values.sum()) * _BYTES
    sums.facts["pieces"] += pieces.row.size
    sums.facts["inexact"] += int((pieces.start > 0).sum())


def _add_step(sums: _Sums, order: Order, step: list[Dealt]) -> None:
    costs = np.array([pack.cost for pack in step])
    tokens = np.array([pack.window.tokens[pack.number] for pack in step], np.float64)
    squares = costs - 6.0 * order.options.width * tokens
    sums.slowest.append(float(costs.max() / costs.mean()))
    sums.attention.append(float(squares.max() / squares.mean()))
    sums.facts["tokens"] += int(tokens.sum())
    together = len(order.sources) if order.options.renditions == "paired" else 1
    sums.facts["members"] += sum(len(p.window.packs[p.number]) for p in step) // together
    sums.facts["repeated"] += sum(pack.repeated for pack in step)


def _filled(sums: _Sums, order: Order) -> float:
    """Packs that would do if none had room left, for what comes again as well."""
    facts, options = sums.facts, order.options
    return facts["members"] / options.batch if options.batch else facts["tokens"] / options.tokens


def _report(sums: _Sums, order: Order, epoch: int) -> EpochReport:
    facts, options = sums.facts, order.options
    packs = len(sums.slowest) * options.packs_per_step
    distinct = sum(int(drawn.sum()) for drawn in sums.drawn)
    together = len(order.sources) if options.renditions == "paired" else 1
    left_out = {
        "too_long": facts["too_long"],
        "not_drawn": order.draw.members * together - distinct,
        "unpaired": order.draw.unpaired,
    }
    return EpochReport(
        epoch=epoch,
        packs=packs,
        steps=len(sums.slowest),
        samples=facts["samples"],
        pieces=facts["pieces"],
        tokens=facts["tokens"],
        padding=1 - _filled(sums, order) / packs,
        slowest=float(np.mean(sums.slowest)),
        slowest_worst=max(sums.slowest),
        slowest_attention=float(np.mean(sums.attention)),
        bytes_per_pack=facts["bytes"] / (packs - facts["repeated"]),
        left_out=left_out,
        shortened=facts["shortened"],
        frames_left=facts["frames_left"],
        divided=facts["divided"],
        inexact=facts["inexact"],
        repeated_packs=facts["repeated"],
        repeated_samples=facts["samples"] + facts["too_long"] - distinct,
        images=sums.share((None, True, None)),
        videos=sums.share((None, False, None)),
        sources=[sums.share((source, None, None)) for source in range(len(order.sources))],
        buckets={
            name: sums.share((None, None, name)) for name in sorted({k[2] for k in sums.kinds})
        },
    )
