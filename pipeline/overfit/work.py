"""The work of overfit: what the feed gives, training by heart, and training with clips held out."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telecine.pipeline.feed.feed import Feed
from telecine.pipeline.overfit.checks import Check, held_out_checks
from telecine.pipeline.overfit.fed import Fed, axes_exchanged, joined, windowed
from telecine.pipeline.overfit.learned import Learned
from telecine.pipeline.overfit.material import Material, chosen, divided
from telecine.pipeline.overfit.train import Clock, Trainer, average_of
from telecine.pipeline.progress import Progress, Step

Fault = Callable[[Fed], Fed]  # what a test does to all that the feed gives

LOOKED_AT = 50  # steps between two looks at the loss
PACKS_OF_A_STEP = 4  # of a training with clips held out
HELD_OUT_TOKENS = 4096  # of a clip that a window is taken of
STATISTICS = 48  # packs whose mean and deviation are measured
STATISTICS_TOKENS = 2048


def unchanged(given: Fed) -> Fed:
    """No fault"""
    return given


CHANGES: tuple[Fault, Fault] = (unchanged, axes_exchanged)  # of a held-out training: its control


@dataclass(frozen=True)
class Options:
    """What to learn, and how long."""

    clips: int = 4
    minutes: float = 3.0  # of wall time that training takes at most; held-out takes as many again
    tokens: int = 512  # patches of a clip at most: of a longer one the first frames
    held_out: bool = False
    build: str | None = None  # None: the current one
    vae: str | None = None  # where the build's weights lie now
    steps: int = 4000  # of training at most
    seed: int = 0


@dataclass(frozen=True)
class Work:
    """A build, what is asked of it, and what is done to all that the feed gives."""

    material: Material
    options: Options
    device: str
    progress: Progress
    fault: Fault = unchanged

    def learn(self) -> Learned:
        """Train on the chosen clips until their samples are good, or the time is over."""
        clip_ids = chosen(self.material, self.options.clips, self.options.tokens)
        captions = self.material.captions(clip_ids)
        with self._feed(clip_ids, self.options.tokens) as feed:
            given = self._fed(feed.epoch(0))
        trainer = Trainer(given.patches.shape[1], self.device, self.options.seed)
        clock = self._clock()
        learned = Learned(self.material, captions, given, trainer, clock)
        for rate in self._ticks(clock, "overfit"):
            trainer.step(given, rate)
            if clock.done % LOOKED_AT == 0 and learned.is_good():
                return learned
        learned.look()
        return learned

    def statistics(self) -> list[Fed]:
        """What the feed gives of the whole build, as far as a few packs go."""
        clip_ids = self.material.index.rows["clip_id"].to_pylist()
        with self._feed(clip_ids, max(self.options.tokens, STATISTICS_TOKENS)) as feed:
            return [self._fed([pack]) for pack in itertools.islice(feed.epoch(0), STATISTICS)]

    def hold_out(self) -> list[Check]:
        """Train on two thirds of the sources, as the feed gives them and with exchanged axes.

        Of each clip a window of the sequence, so that many clips are seen in little time.
        """
        tokens = max(self.options.tokens, HELD_OUT_TOKENS)
        inside, outside = divided(self.material, tokens)
        training, held = (self._windows(clips, tokens) for clips in (inside, outside))
        features = training[0][0].patches.shape[1]
        trainers = [Trainer(features, self.device, self.options.seed) for _ in CHANGES]
        pairs = itertools.cycle(training)
        for rate in self._ticks(self._clock(), "held-out"):
            for trainer, given in zip(trainers, next(pairs), strict=True):
                trainer.step(given, rate)
        ratios = [
            trainer.ratio(
                average_of([pair[at].patches for pair in training]), [pair[at] for pair in held]
            )
            for at, trainer in enumerate(trainers)
        ]
        return held_out_checks(*ratios)

    def _windows(self, clip_ids: list[str], tokens: int) -> list[list[Fed]]:
        """The steps of an epoch, each as it is and changed as the control."""
        with self._feed(clip_ids, tokens) as feed:
            packs = iter(feed.epoch(0))
            steps = iter(lambda: list(itertools.islice(packs, PACKS_OF_A_STEP)), [])
            fed = (self._fed(some) for some in steps)
            return [[windowed(change(given)) for change in CHANGES] for given in fed]

    # ── what the feed gives ──────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _feed(self, clip_ids: list[str], tokens: int) -> Iterator[Feed]:
        """Of these clips alone; a pack has the tokens that one of them may have."""
        dataset, options = self.material.dataset, self.options
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "chosen.arrow"
            index.write_bytes(self.material.kept(clip_ids).to_bytes())
            store = dataset.storage.options
            yield Feed(
                dataset.uri,
                build=str(index),
                tokens=tokens,
                packs_per_step=1,
                seed=options.seed,
                split="prefix",
                endpoint_url=store.endpoint_url,
                profile=store.profile,
            )

    def _fed(self, packs: Iterable[Any]) -> Fed:
        """The packs as one sequence on the device, with the fault that is tried."""
        return self.fault(joined(packs)).to(self.device)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def _clock(self) -> Clock:
        return Clock(self.options.minutes * 60, self.options.steps)

    def _ticks(self, clock: Clock, verb: str) -> Iterator[float]:
        """A learning rate for each step that there is time for; progress is told."""
        with Step(self.progress, verb, "steps", clock.steps, 1.0) as step:
            while clock.share < 1:
                yield clock.rate
                clock.done += 1
                step.advance(weight=clock.share - step.tally.weight)
