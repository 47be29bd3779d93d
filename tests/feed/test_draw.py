"""Shares of sources, of images and of renditions; and an endless order that is even."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.infra.errors import UsageError
from telecine.manifests.index.samples import SampleIndex
from telecine.pipeline.feed.plan.deck import Deck
from telecine.pipeline.feed.plan.draw import shares
from telecine.pipeline.feed.plan.hashes import key, shuffled, text_dropped
from telecine.pipeline.feed.plan.options import OrderOptions
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.steps import Piece, Position, Source
from tests.support.mixes import made_index


def clips(
    n: int, build: str, *, still: int = 0, side: int = 4, named: range | None = None
) -> SampleIndex:
    """n samples of 3 latent frames, of which the first so many are images; a token is 2 × 2."""
    frames = np.where(np.arange(n) < still, 1, 3)
    shapes = np.stack([np.full(n, 4), frames, np.full(n, side), np.full(n, side)], axis=1)
    ids = [f"clip-{i:04d}" for i in named] if named else None
    return made_index(shapes.astype(np.int32), build=build, clip_ids=ids, per_shard=7)


def drawn(order: Order, epochs: int) -> list[Piece]:
    """Of so many epochs, what fills last steps left out."""
    steps = chain.from_iterable(order.steps(Position(epoch)) for epoch in range(epochs))
    packs = (zip(step.packs, step.repeated, strict=True) for step in steps)
    return [piece for step in packs for pack, again in step if not again for piece in pack]


def order(*sources: Source, **options: object) -> Order:
    return Order(sources, OrderOptions(**{"tokens": 64, "packs_per_step": 2, **options}))  # type: ignore[arg-type]


# ── hashes and decks ─────────────────────────────────────────────────────────────────────────────


def test_an_order_is_the_same_on_every_machine_and_for_good() -> None:
    assert key(7, "epoch", 1) == 14715902531141604277
    assert shuffled(key("seed"), np.arange(8)).tolist() == [2, 4, 0, 7, 6, 1, 3, 5]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.data())
def test_a_deck_gives_each_member_once_a_round(
    n: int, per_shard: int, spread: int, data: st.DataObject
) -> None:
    shards = (np.arange(n) // per_shard).astype(np.int32)
    deck = Deck(np.arange(n) + 100, shards, ("name",), spread)
    places = deck.take(0, 3 * n)
    for number in range(3):
        assert sorted(places[number * n :][:n].tolist()) == list(range(100, 100 + n))
    a, b = sorted(data.draw(st.tuples(st.integers(0, 3 * n), st.integers(0, 3 * n))))
    assert deck.take(a, b).tolist() == places[a:b].tolist()


def test_few_shards_are_open_at_a_time() -> None:
    deck = Deck(np.arange(1000), (np.arange(1000) // 10).astype(np.int32), (1,), 4)
    shards = deck.take(0, 1000) // 10
    opened = [set(shards[i : i + 40].tolist()) for i in range(0, 1000, 40)]
    assert {len(group) for group in opened} == {4}
    assert [g for g in opened if max(g) - min(g) == 3] != opened  # and not neighbours


def test_text_is_dropped_as_often_as_asked_and_evenly_over_the_epochs_of_a_clip() -> None:
    ids = [f"clip-{i}" for i in range(2_000)]
    dropped = [[text_dropped(0, epoch, name, 0.1) for epoch in range(30)] for name in ids]
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.01)
    assert {sum(of) for of in dropped} <= {2, 3, 4}
    assert not any(text_dropped(0, 0, name, 0.0) for name in ids)
    assert all(text_dropped(0, 0, name, 1.0) for name in ids)


# ── shares ───────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 1000), st.lists(st.floats(0.01, 5), min_size=1, max_size=5))
def test_shares_are_whole_and_sum_up(total: int, weights: list[float]) -> None:
    found = shares(total, weights)
    assert sum(found) == total
    exact = [total * weight / sum(weights) for weight in weights]
    assert all(abs(n - e) < 1 + 1e-6 for n, e in zip(found, exact, strict=True))


@given(st.floats(0.2, 4), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_a_source_has_its_share_and_each_of_its_samples_comes_as_often(
    weight: float, first: int, second: int
) -> None:
    sources = Source(clips(first, "a"), weight), Source(clips(second, "b"), 1.0)
    pieces = drawn(order(*sources), 4)
    counts = [Counter(p.row for p in pieces if p.source == source) for source in range(2)]
    expected = shares(first + second, (weight, 1.0))
    assert [sum(count.values()) for count in counts] == [4 * n for n in expected]
    for size, count in zip((first, second), counts, strict=True):
        often = [count[row] for row in range(size)]
        assert max(often) - min(often) <= 1


def test_without_weights_sources_come_whole() -> None:
    pieces = drawn(order(Source(clips(30, "a")), Source(clips(12, "b"))), 1)
    assert Counter(p.source for p in pieces) == {0: 30, 1: 12}
    assert len(set(pieces)) == 42


def test_images_have_the_share_that_was_asked_for() -> None:
    source = Source(clips(40, "a", still=10))
    pieces = drawn(order(source, image_share=0.5), 3)
    images = Counter(p.row for p in pieces if p.row < 10)
    videos = Counter(p.row for p in pieces if p.row >= 10)
    assert sum(images.values()) == sum(videos.values()) == 60
    assert set(images.values()) == {6}
    assert set(videos.values()) == {2}


@pytest.mark.parametrize(("still", "share", "kind"), [(0, 0.5, "images"), (9, 0.5, "videos")])
def test_a_share_of_what_is_not_there_is_refused(still: int, share: float, kind: str) -> None:
    with pytest.raises(UsageError, match=f"image_share = {share}, but no source has {kind}"):
        order(Source(clips(9, "a", still=still)), image_share=share)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (-1.0, 1.0), (None, 1.0), (float("nan"), 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float | None, float]) -> None:
    with pytest.raises(UsageError, match="weights of sources"):
        order(*(Source(clips(5, "a"), weight) for weight in weights))


# ── renditions ───────────────────────────────────────────────────────────────────────────────────


def renditions() -> tuple[Source, Source]:
    """200 clips; those below 50 in the draft alone, those above 180 in the final alone."""
    draft, final = clips(180, "draft", named=range(180)), clips(150, "final", named=range(50, 200))
    return Source(draft, 1.0), Source(final, 3.0)


def test_each_clip_comes_in_one_rendition_by_weight() -> None:
    mixed = order(*renditions(), renditions="drawn")
    pieces = [drawn(mixed, 1), drawn(mixed, 8)]
    clip = [[p.row + (50 if p.source else 0) for p in of] for of in pieces]
    assert sorted(clip[0]) == list(range(200))
    assert set(Counter(clip[1]).values()) == {8}
    both = [p.source for p, c in zip(pieces[1], clip[1], strict=True) if 50 <= c < 180]
    assert np.mean(both) == pytest.approx(0.75, abs=0.02)
    final = Counter(c for p, c in zip(pieces[1], clip[1], strict=True) if p.source)
    assert {final[c] for c in range(50, 180)} <= {5, 6, 7}  # of 8 epochs


def test_draft_and_final_of_a_clip_come_in_one_pack() -> None:
    paired = order(*renditions(), renditions="paired")
    assert paired.draw.unpaired == 70
    seen = []
    for step in paired.steps():
        for pack, again in zip(step.packs, step.repeated, strict=True):
            assert [p.source for p in pack] == [0, 1] * (len(pack) // 2)
            assert all(a.row == b.row + 50 for a, b in zip(pack[::2], pack[1::2], strict=True))
            seen += [] if again else [p.row for p in pack[::2]]
    assert sorted(seen) == list(range(50, 180))


def test_pairs_are_cut_alike_or_left() -> None:
    """3 latent frames of 4 + 16 tokens do not fit into 45: two of both do."""
    sources = (
        Source(clips(20, "draft", named=range(20))),
        Source(clips(20, "final", side=8, named=range(20))),
    )
    cut = drawn(order(*sources, renditions="paired", tokens=45), 1)
    assert {(p.start, p.stop) for p in cut} == {(0, 2)}
    whole = drawn(order(*sources, renditions="paired", tokens=45, split="windows"), 1)
    assert Counter((p.start, p.stop) for p in whole) == {(0, 2): 40, (2, 3): 40}
    with pytest.raises(UsageError, match="make packs longer"):
        drawn(order(*sources, renditions="paired", tokens=19), 1)


def test_pairs_of_nothing_in_common_are_refused() -> None:
    with pytest.raises(UsageError, match="no clip is in all of the 2 sources"):
        order(Source(clips(5, "a")), Source(clips(5, "b")), renditions="paired")
