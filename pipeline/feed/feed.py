"""Feed: a build's samples as packs, in an order that any number of ranks can share and resume.

order ─ steps of this rank ─▶ pieces ─ threads ─▶ memory of a pack ─▶ Pack
                                        └ one pack ahead of who asks
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from telecine.infra.errors import UsageError
from telecine.infra.store.ranges import open_ranges
from telecine.infra.store.storage import Storage, StoreOptions, absolute, is_s3
from telecine.manifests.index.samples import BuildFacts, SampleIndex
from telecine.manifests.tar import DTYPE
from telecine.pipeline.feed.buffers import Buffers, Bytes
from telecine.pipeline.feed.pack import Member, Pack
from telecine.pipeline.feed.plan.hashes import text_dropped
from telecine.pipeline.feed.plan.options import OrderOptions, Renditions, Split
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.report import EpochReport, report
from telecine.pipeline.feed.plan.steps import (
    START,
    PackPlan,
    Position,
    Source,
    Step,
    check_world,
)
from telecine.pipeline.feed.read import BadSample, Reader, Verify
from telecine.pipeline.feed.sources import Builds, open_sources, pinned
from telecine.pipeline.feed.texts import Texts

AHEAD, AHEAD_OF_A_STORE = 1, 3  # packs that are read while one is used
THREADS, THREADS_OF_A_STORE = 4, 16


@dataclass(frozen=True)
class _Coming:
    """A pack that threads are filling."""

    step: Step
    repeated: bool
    last: bool  # of this rank's in the step
    buffer: Bytes
    plan: PackPlan
    ends: list[int]  # bytes of the buffer
    reads: list[Future[Member]]


class Feed:
    """Packs for one rank. See docs/feed.md for every argument.

    Raises UsageError where there is no such build, or the options do not fit each other.
    """

    def __init__(
        self,
        dataset: str | Path,
        build: Builds = None,
        *,
        tokens: int = 65_536,
        packs_per_step: int = 8,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        split: Split = "prefix",
        renditions: Renditions = "apart",
        image_share: float | None = None,
        text: str | None = None,
        text_dropout: float = 0.0,
        tracks: Sequence[str] = (),
        verify: Verify = "first",
        bad: Literal["raise", "skip"] = "raise",
        pad_to: int = 1,
        threads: int | None = None,
        cache: str | Path | None = None,
        cache_bytes: float | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name != "self"}
        check_world(packs_per_step, rank, world)
        _check_words(verify, bad, text_dropout, threads, pad_to)
        self.rank, self.world = rank, world
        self._dropout, self._skip, self._seed = text_dropout, bad == "skip", seed
        uri = absolute(str(dataset))
        storage = Storage(StoreOptions(endpoint_url, profile))
        self._options = OrderOptions(
            tokens, packs_per_step, seed=seed, split=split, image_share=image_share,
            renditions=renditions,
        )  # fmt: skip
        ranges = open_ranges(uri, storage, cache, cache_bytes)

        def reader(index: SampleIndex) -> Reader:
            texts = Texts(uri, text, index, storage, ranges) if text else None
            return Reader(uri, index, ranges, verify, tracks, texts)

        self._uri, self._storage, self._reader = uri, storage, reader
        self._open(open_sources(uri, build, storage))
        self._pad_to = pad_to
        far = is_s3(uri)
        self._ahead = AHEAD_OF_A_STORE if far else AHEAD
        self._pool = ThreadPoolExecutor(threads or (THREADS_OF_A_STORE if far else THREADS), "feed")
        self._buffers, self._patches = Buffers(), Buffers()
        self._at: Position = START
        self.left_out: Counter[str] = Counter()  # samples that were not fed, by reason, so far

    def _open(self, sources: Sequence[Source]) -> None:
        self.order = Order(sources, self._options)
        self._readers = [self._reader(source.index) for source in sources]
        self._nulls = [reader.texts.null if reader.texts else None for reader in self._readers]

    @property
    def steps(self) -> int:
        """That were taken whole, of all epochs: where the state is."""
        return self._at.step

    @property
    def facts(self) -> BuildFacts:
        """Of the first build: patch, VAE, stride."""
        return self._readers[0].facts

    # ── packs ────────────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Iterator[Pack]:
        """Packs of this rank from the state on, one epoch after the other, without end."""
        while True:
            for pack, after in self._packs(self.order, self._at):
                if after is not None:
                    self._at = after
                yield pack

    def epoch(self, number: int) -> Iterator[Pack]:
        """Packs of this rank of one epoch; the state stays as it is."""
        return (pack for pack, _ in self._packs(self.order, Position(epoch=number)))

    def batches(self, size: int, epoch: int = 0) -> Iterator[Pack]:
        """Packs of samples of one shape, `size` of them or fewer: `numpy.stack(pack.split())`."""
        order = Order(self.order.sources, replace(self._options, batch=size))
        return (pack for pack, _ in self._packs(order, Position(epoch=epoch)))

    def samples(self, epoch: int = 0) -> Iterator[Pack]:
        """Packs of one sample each."""
        return self.batches(1, epoch)

    def _packs(self, order: Order, at: Position) -> Iterator[tuple[Pack, Position | None]]:
        """With each the position after it, where its step ends with it."""
        coming: deque[_Coming] = deque()
        for step in order.steps(at):
            mine = step.of_rank(self.rank, self.world)
            for number in mine:
                coming.append(self._begin(step, number, last=number == mine[-1]))
                if len(coming) > self._ahead:
                    one = coming.popleft()
                    yield self._finish(one), one.step.after if one.last else None
                    del one
        while coming:
            one = coming.popleft()
            yield self._finish(one), one.step.after if one.last else None
            del one

    def _begin(self, step: Step, number: int, *, last: bool) -> _Coming:
        plan = step.packs[number]
        sizes = [self._size(piece.source, piece.row, piece.stop - piece.start) for piece in plan]
        ends = np.cumsum(sizes).tolist()
        buffer = self._buffers.take(ends[-1])
        view = buffer.data
        reads = [
            self._pool.submit(self._readers[piece.source].read, piece, view[end - size : end])
            for piece, size, end in zip(plan, sizes, ends, strict=True)
        ]
        return _Coming(step, step.repeated[number], last, buffer, plan, ends, reads)

    def _size(self, source: int, row: int, frames: int) -> int:
        channels, _, height, width = self.order.columns[source].shapes[row].tolist()
        return int(channels * frames * height * width * DTYPE.itemsize)

    def _finish(self, coming: _Coming) -> Pack:
        samples, kept, start = [], [], 0
        for piece, end, read in zip(coming.plan, coming.ends, coming.reads, strict=True):
            try:
                samples.append(self._dropped(read.result(), piece.source, coming.step.epoch))
                kept.append(slice(start, end))
            except BadSample as error:
                if not self._skip:
                    raise
                self.left_out[error.reason] += 1
            start = end
        whole = coming.buffer[: coming.ends[-1]]
        if len(kept) < len(coming.plan):
            parts = [coming.buffer[part] for part in kept] or [coming.buffer[:0]]
            whole = np.concatenate(parts)
        return Pack(
            latents=whole.view(DTYPE),
            samples=tuple(samples),
            channels=int(self.order.columns[0].shapes[0][0]),
            patch=self.facts.patch,
            step=coming.step.step,
            epoch=coming.step.epoch,
            repeated=coming.repeated,
            memory=self._patches,
            pad_to=self._pad_to,
        )

    def _dropped(self, member: Member, source: int, epoch: int) -> Member:
        """With the null prompt in the text's place, where chance says so."""
        if not text_dropped(self._seed, epoch, member.key, self._dropout):
            return member
        text = member.text if self._nulls[source] is None else self._nulls[source]
        return replace(member, text_dropped=True, text=text)

    # ── state and report ─────────────────────────────────────────────────────────────────────────

    def state_dict(self) -> dict[str, Any]:
        """Numbers and words, equal on every rank: after the last step that was taken whole."""
        return self.order.state(self._at)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there, with any number of ranks, and by the index that it was made with.

        Raises UsageError where it is another order's, or that index is there no more.
        """
        mine, digests = self.order.sources, state.get("sources", ())
        if len(digests) == len(mine) and list(digests) != [s.index.facts.digest for s in mine]:
            found = pinned(self._uri, mine, digests, self._storage)
            if found is not None:
                self._open(found)
        self._at = self.order.position(state)

    def __reduce__(self) -> tuple[Any, ...]:
        """By what it was made of: threads and what they read are of one process alone."""
        return _again, (self._given, self.state_dict())

    def report(self, epoch: int = 0) -> dict[str, Any]:
        """What an epoch has, and what was left out so far; nothing is read for it."""
        planned: EpochReport = report(self.order, epoch)
        return {**asdict(planned), "left_out_so_far": dict(self.left_out)}


def _again(given: Mapping[str, Any], state: Mapping[str, Any]) -> Feed:
    feed = Feed(**given)
    feed.load_state_dict(state)
    return feed


def _check_words(
    verify: str, bad: str, text_dropout: float, threads: int | None, pad_to: int
) -> None:
    for name, value, words in (
        ("verify", verify, ("first", "always", "never")),
        ("bad", bad, ("raise", "skip")),
    ):
        if value not in words:
            raise UsageError(f"{name} = {value!r}: choose of {', '.join(words)}")
    if not 0 <= text_dropout <= 1:
        raise UsageError(f"text_dropout = {text_dropout}: a share of the samples, from 0 to 1")
    for name, number in (("threads", threads), ("pad_to", pad_to)):
        if number is not None and number < 1:
            raise UsageError(f"{name} = {number}: a number above 0 is meant")
