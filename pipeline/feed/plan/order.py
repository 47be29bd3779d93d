"""The order of an epoch: a pure function of the sources' digests, the options and the epoch.

    index ─ draw ─▶ samples of a window ─ split ─▶ pieces ─ pack ─▶ packs ─ deal ─▶ steps

One window after the other, each from itself alone: to begin, or to go on in the middle, costs the
planning of a window or two. Nothing in it knows how many ranks there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.plan.columns import Columns
from telecine.pipeline.feed.plan.deal import Dealt, Packed, dealt, filled, own
from telecine.pipeline.feed.plan.draw import Drawing, draw
from telecine.pipeline.feed.plan.hashes import key
from telecine.pipeline.feed.plan.options import OrderOptions
from telecine.pipeline.feed.plan.pack import batched, packed
from telecine.pipeline.feed.plan.split import fitted, whole
from telecine.pipeline.feed.plan.steps import START, Position, Source, Step

VERSION = 1  # of the order: another one gives other steps from the same options


_LOOKED_AT = 4_096  # samples of a source by which the mean length is estimated


class Order:
    """Steps of packs over one source or several.

    Raises UsageError where there is no sample, and where the options ask for what is not there.
    """

    def __init__(self, sources: Sequence[Source], options: OrderOptions) -> None:
        _check(sources)
        self.sources = tuple(sources)
        self.options = options
        self.columns = tuple(Columns(source.index) for source in sources)
        self.draw = draw(self.sources, self.columns, options)
        self.samples = sum(drawing.count for drawing in self.draw.drawings)  # or pairs, an epoch
        if not self.samples:
            raise UsageError("the index has no samples: a filter, or an empty build, left none")
        self.windows = max(1, round(self.samples / self._window()))
        self._recent: dict[tuple[int, int], Packed] = {}

    # ── steps ────────────────────────────────────────────────────────────────────────────────────

    def steps(self, start: Position = START) -> Iterator[Step]:
        """From a position to the end of its epoch; the last step's `after` begins the next epoch.

        Raises UsageError where no step is left: no sample fits into a pack.
        """
        last: Step | None = None
        for step in self._steps(start):
            if last is not None:
                yield last
            last = step
        if last is None:
            raise UsageError(
                f"no sample of epoch {start.epoch} fits into packs of {self.options.tokens} tokens "
                f"(split = {self.options.split!r}): make packs longer"
            )
        end = Position(epoch=start.epoch + 1, step=last.step + 1)
        yield dataclasses.replace(last, after=end)

    def _steps(self, start: Position) -> Iterator[Step]:
        within, carried, step = start.within, start.carried, start.step
        for window, _, steps, left in self.walk(start):
            for done, packs in enumerate(steps[within:], within + 1):
                step += 1
                yield _step(packs, Position(start.epoch, window, carried, done, step))
            within, carried = 0, len(left)

    def walk(self, start: Position) -> Iterator[tuple[int, Packed, list[list[Dealt]], list[Dealt]]]:
        """Windows to the epoch's end: number, packs, all steps, and what goes into the next one."""
        carried = self._carried(start)
        for window in range(start.window, self.windows):
            here = self.packed(start.epoch, window)
            under = key(self.options.seed, start.epoch, window, "steps")
            steps, left = dealt(here, carried, self.options.packs_per_step, under)
            if window + 1 == self.windows and left:
                steps, left = [*steps, filled(left, steps, self.options.packs_per_step)], []
            yield window, here, steps, left
            carried = left

    def _carried(self, at: Position) -> list[Dealt]:
        """The packs that earlier windows left: the last one's, and those of the one before."""
        found: list[Dealt] = []
        window = at.window
        while len(found) < at.carried:
            window -= 1
            of = self.packed(at.epoch, window)
            found = own(of, min(at.carried - len(found), len(of.packs))) + found
        return found

    # ── windows ──────────────────────────────────────────────────────────────────────────────────

    def packed(self, epoch: int, window: int) -> Packed:
        """A window's samples, cut and packed; from its number and the epoch's alone."""
        at = (epoch, window)
        if (found := self._recent.get(at)) is None:
            found = self._packed(epoch, window)
            self._recent = {**dict(list(self._recent.items())[-1:]), at: found}
        return found

    def _packed(self, epoch: int, window: int) -> Packed:
        drawn = [drawing.part(epoch, window, self.windows) for drawing in self.draw.drawings]
        source, row = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        fit = fitted(whole(source, row, self.columns), self.options)
        tokens, costs = fit.pieces.tokens.sum(axis=1), fit.pieces.cost(self.options.width)
        if self.options.batch:
            packs = batched(fit.pieces.shapes(self.columns), self.options.batch)
        else:
            packs = packed(tokens, self.options.tokens)
        total = _sums(packs, costs)
        order = np.argsort(-total, kind="stable")
        pieces = fit.pieces.plans()
        plans = (map(pieces.__getitem__, packs[number]) for number in order.tolist())
        return Packed(
            fitted=fit,
            packs=[tuple(chain.from_iterable(plan)) for plan in plans],
            tokens=_sums(packs, tokens)[order].astype(np.int64).tolist(),
            costs=total[order].tolist(),
        )

    def _window(self) -> int:
        """Samples of a window: pieces as the option says, and packs for enough steps."""
        means = [self._means(drawing) * drawing.count for drawing in self.draw.drawings]
        pieces, packs = (float(of) / self.samples for of in np.sum(means, axis=0))
        wanted = self.options.window_steps * self.options.packs_per_step
        return max(1, round(self.options.window / max(pieces, 1.0)), round(wanted / packs))

    def _means(self, drawing: Drawing) -> npt.NDArray[np.float64]:
        """Pieces of a sample, and packs (above 0), estimated."""
        samples = whole(*drawing.some(_LOOKED_AT), self.columns)
        pieces, options = fitted(samples, self.options).pieces, self.options
        packs = (
            len(pieces.row) / options.batch
            if options.batch
            else pieces.tokens.sum() / options.tokens
        )
        return np.array([len(pieces.row), max(packs, 1e-3)]) / len(samples.row)

    # ── state ────────────────────────────────────────────────────────────────────────────────────

    def state(self, at: Position) -> dict[str, Any]:
        """A position, and what the order is made of: numbers and words, fit for JSON."""
        return {**self._made_of(), "at": dataclasses.asdict(at)}

    def position(self, state: Mapping[str, Any]) -> Position:
        """Of a state. Raises UsageError where it is another order's, and says what differs."""
        mine = self._made_of()
        other = {
            name: (state.get(name), mine[name]) for name in mine if state.get(name) != mine[name]
        }
        if other:
            said = "; ".join(
                f"{name} was {then!r}, is {now!r}" for name, (then, now) in other.items()
            )
            raise UsageError(
                f"the state is of another order ({said}): give the feed what it had then, and the "
                "same index (telecine feed --index writes one to keep), or begin without the state"
            )
        try:
            return Position(**state["at"])
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"the state has no position that this version knows ({error})"
            ) from error

    def _made_of(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "sources": [source.index.facts.digest for source in self.sources],
            "weights": [source.weight for source in self.sources],
            **dataclasses.asdict(self.options),
        }


def _sums(packs: Sequence[Sequence[int]], of: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of each pack, over its pieces."""
    counts = np.array([len(pack) for pack in packs], np.int64)
    pieces = np.array([*chain.from_iterable(packs)], np.int64)
    values = of[pieces].astype(np.float64)
    sums = np.bincount(np.repeat(np.arange(len(packs)), counts), values, len(packs))
    return sums.astype(np.float64)


def _step(packs: Sequence[Dealt], after: Position) -> Step:
    return Step(
        epoch=after.epoch,
        step=after.step - 1,
        packs=tuple(pack.window.packs[pack.number] for pack in packs),
        repeated=tuple(pack.repeated for pack in packs),
        tokens=tuple(pack.window.tokens[pack.number] for pack in packs),
        costs=tuple(pack.cost for pack in packs),
        after=after,
    )


def _check(sources: Sequence[Source]) -> None:
    weights = [source.weight for source in sources]
    if not sources:
        raise UsageError("no source of samples was given: name a build or an index")
    if any(weight is not None and not 0 < weight < float("inf") for weight in weights):
        raise UsageError(f"weights of sources are {weights}: each is a number above 0")
    if None in weights and any(weights):
        raise UsageError(f"weights of sources are {weights}: give every source one, or none")
    first = sources[0].index.facts
    for facts in (source.index.facts for source in sources[1:]):
        if (facts.vae_fingerprint, facts.patch) != (first.vae_fingerprint, first.patch):
            raise UsageError(
                f"builds {first.build} and {facts.build} cannot be in one order: their latents are "
                f"of encoders {first.vae.get('name')} and {facts.vae.get('name')} "
                f"({first.vae_fingerprint[:8]}, {facts.vae_fingerprint[:8]}) in patches of "
                f"{first.patch} and {facts.patch}. Give each a feed of its own"
            )
