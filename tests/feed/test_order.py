"""Every sample once an epoch, the same steps for any world, resumed exactly where it stopped."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.infra.errors import UsageError
from telecine.manifests.index.samples import SampleIndex
from telecine.pipeline.feed.plan.options import OrderOptions, Split
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.report import report
from telecine.pipeline.feed.plan.steps import START, Piece, Position, Source, Step
from tests.support.mixes import made_index, realistic


@st.composite
def shapes(draw: st.DrawFn) -> npt.NDArray[np.int32]:
    """[n, 4]: an image, and up to 150 videos of 1 to 6 tokens a frame, in runs of short and long.

    So windows of few shards differ, and some have fewer packs than a step.
    """
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    n = draw(st.integers(0, 150))
    scale = random.choice((1, 1, 12), 15).repeat(10)[:n]
    sides = [
        random.integers(1, 3, n) * scale,
        2 * random.integers(1, 4, n),
        2 * random.integers(1, 3, n),
    ]
    rows = np.stack([np.full(n, 4), *sides], axis=1)
    return np.concatenate([[(4, 1, 2, 2)], rows]).astype(np.int32)


SPLITS: tuple[Split, ...] = ("prefix", "windows", "leave")


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Small ones, of windows so narrow that some fill no step."""
    options = OrderOptions(
        tokens=draw(st.integers(1, 60)),
        packs_per_step=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 3)),
        split=draw(st.sampled_from(SPLITS)),
        window=draw(st.integers(1, 30)),
        window_steps=1,
        spread=draw(st.integers(1, 4)),
    )
    return Order([Source(made_index(draw(shapes()), per_shard=draw(st.integers(1, 9))))], options)


@st.composite
def blends(draw: st.DrawFn) -> Order:
    """Of two sources with weights, or of two renditions of the same clips; images among them."""
    first = np.concatenate([[(4, 2, 2, 2)], draw(shapes())])
    second = first * (1, 1, 2, 1)
    ids = [f"clip-{i}" for i in range(len(first))]
    weights = draw(st.sampled_from([(None, None), (1.0, 1.0), (0.7, 0.3), (5.0, 0.5)]))
    options = OrderOptions(
        tokens=draw(st.integers(6, 60)),
        packs_per_step=draw(st.integers(1, 9)),
        split=draw(st.sampled_from(SPLITS)),
        image_share=draw(st.sampled_from((None, 0.0, 0.3, 1.0))),
        renditions=draw(st.sampled_from(("apart", "drawn", "paired"))),
        batch=draw(st.sampled_from((None, None, 3))),
        window=draw(st.integers(1, 30)),
        window_steps=1,
    )
    indexes = [
        made_index(of.astype(np.int32), clip_ids=ids, build=build, per_shard=7)
        for of, build in ((first, "draft"), (second, "final"))
    ]
    return Order([Source(*pair) for pair in zip(indexes, weights, strict=True)], options)


def first_time(steps: list[Step]) -> list[Piece]:
    packs = [
        pack
        for step in steps
        for pack, again in zip(step.packs, step.repeated, strict=True)
        if not again
    ]
    return list(chain.from_iterable(packs))


def wanted(order: Order) -> list[Piece]:
    """What an epoch must hold, sample by sample."""
    pieces = []
    for row, (_, frames, height, width) in enumerate(order.columns[0].shapes.tolist()):
        most = min(order.options.tokens // (height * width // 4), frames)
        if most == frames or (most and order.options.split == "prefix"):
            pieces.append(Piece(0, row, 0, most))
        elif most and order.options.split == "windows":
            cuts = [*range(0, frames, most), frames]
            pieces += [Piece(0, row, a, b) for a, b in pairwise(cuts)]
    return pieces


@given(orders(), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_every_sample_comes_once_an_epoch(order: Order, epoch: int) -> None:
    steps = list(order.steps(Position(epoch)))
    assert sorted(first_time(steps)) == sorted(wanted(order))
    for step in steps:
        assert len(step.packs) == len(step.repeated) == order.options.packs_per_step
        assert list(step.costs) == sorted(step.costs, reverse=True)
        for pack, tokens in zip(step.packs, step.tokens, strict=True):
            shapes = order.columns[0].shapes[[piece.row for piece in pack]].tolist()
            lengths = [
                (p.stop - p.start) * s[2] * s[3] // 4 for p, s in zip(pack, shapes, strict=True)
            ]
            assert 0 < sum(lengths) == tokens <= order.options.tokens
    assert not any(chain.from_iterable(step.repeated for step in steps[:-1]))
    assert sum(steps[-1].repeated) < order.options.packs_per_step
    again = {p for p, r in zip(steps[-1].packs, steps[-1].repeated, strict=True) if r}
    assert again <= {p for s in steps for p, r in zip(s.packs, s.repeated, strict=True) if not r}


@given(st.one_of(orders(), blends()), st.data())
@settings(max_examples=50, deadline=None)
def test_it_goes_on_exactly_where_it_stopped(order: Order, data: st.DataObject) -> None:
    steps = list(order.steps())
    steps += order.steps(steps[-1].after)
    assert [step.step for step in steps] == list(range(len(steps)))
    stopped = data.draw(st.integers(0, len(steps) - 1))
    state = json.loads(json.dumps(order.state(steps[stopped].after)))

    resumed = Order(order.sources, order.options)
    at = resumed.position(state)
    rest = [] if at.epoch == 2 else list(resumed.steps(at))
    if at.epoch == 0:
        rest += resumed.steps(rest[-1].after)
    assert rest == steps[stopped + 1 :]


@pytest.mark.parametrize(("before", "after"), [(4, 1), (4, 2), (4, 8), (1, 8)])
def test_a_run_goes_on_with_other_ranks(before: int, after: int) -> None:
    """Each rank by an order of its own, from one state; together they get what one rank would."""

    def received(world: int, at: Position, steps: int) -> tuple[list[object], Position]:
        ranks = []
        for rank in range(world):
            planned = islice(small(packs_per_step=8).steps(at), steps)
            ranks.append([(s.after, [s.packs[i] for i in s.of_rank(rank, world)]) for s in planned])
        ends = {mine[-1][0] for mine in ranks}
        assert len(ends) == 1
        rounds = zip(*ranks, strict=True)
        return [sorted(chain(*(packs for _, packs in of))) for of in rounds], ends.pop()

    first, at = received(before, START, 2)
    state = small(packs_per_step=8).state(at)
    rest, _ = received(after, small(packs_per_step=8).position(state), 3)
    alone, _ = received(1, START, 5)
    assert first + rest == alone


@given(st.integers(1, 6), st.integers(1, 6))
def test_ranks_share_a_step_out(each: int, world: int) -> None:
    packs = each * world
    step = Step(0, 0, ((),) * packs, (False,) * packs, (0,) * packs, (0.0,) * packs, START)
    shares = [list(step.of_rank(rank, world)) for rank in range(world)]
    assert sorted(chain.from_iterable(shares)) == list(range(packs))
    assert {len(share) for share in shares} == {each}


def small(**options: object) -> Order:
    shapes = np.array([(4, 1 + i % 5, 4, 4 + i % 3 * 2) for i in range(200)], np.int32)
    given = {"tokens": 64, "packs_per_step": 4, "window": 20, "window_steps": 1, **options}
    return Order([Source(made_index(shapes, per_shard=10))], OrderOptions(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(("rank", "world"), [(0, 3), (2, 2), (-1, 2), (0, 0)])
def test_a_world_that_does_not_divide_the_step_is_refused(rank: int, world: int) -> None:
    step = next(small().steps())
    with pytest.raises(UsageError, match=r"1, 2, 4 ranks|ranks count from 0"):
        step.of_rank(rank, world)


def test_seed_and_epoch_decide_and_nothing_else_does() -> None:
    first = list(small().steps())
    assert first == list(small().steps())
    other = [list(small(seed=1).steps()), list(small().steps(Position(epoch=1)))]
    assert all([s.packs for s in steps] != [s.packs for s in first] for steps in other)
    assert all(Counter(first_time(steps)) == Counter(first_time(first)) for steps in other)


def test_beginning_plans_two_windows_at_most() -> None:
    """One, and the next where a step is its window's last; resuming, the one before as well."""
    order, planned = small(), []
    assert order.windows > 5

    class Counted(Order):
        def _packed(self, epoch: int, window: int):  # type: ignore[no-untyped-def]
            planned.append(window)
            return super()._packed(epoch, window)

    counted = Counted(order.sources, order.options)
    next(counted.steps())
    assert planned == [0, 1]
    late = [step.after for step in order.steps() if step.after.window == order.windows - 2]
    assert any(at.carried for at in late)
    planned.clear()
    next(Counted(order.sources, order.options).steps(late[-1]))
    assert min(planned) >= order.windows - 3


def test_a_state_of_another_order_is_refused_with_what_differs() -> None:
    state = small().state(START)
    with pytest.raises(UsageError, match=r"tokens was 64, is 128\)"):
        small(tokens=128).position(state)
    grown = Order([Source(made_index(np.ones((3, 4), np.int32) * 2))], small().options)
    with pytest.raises(UsageError, match="sources was"):
        grown.position(state)


def test_what_cannot_be_planned_is_said_at_once() -> None:
    none = made_index(np.empty((0, 4), np.int32))
    with pytest.raises(UsageError, match="no samples"):
        Order([Source(none)], OrderOptions())
    with pytest.raises(UsageError, match="no source"):
        Order([], OrderOptions())
    with pytest.raises(UsageError, match="make packs longer"):
        list(small(tokens=2).steps())
    with pytest.raises(UsageError, match="choose of prefix, windows, leave"):
        small(split="crop")
    odd = made_index(np.array([(4, 1, 3, 4)], np.int32))
    with pytest.raises(UsageError, match=r"made-0.*\(4, 1, 3, 4\), not whole patches of 2 × 2"):
        Order([Source(odd)], OrderOptions())


@pytest.mark.parametrize("tokens", [65_536, 262_144])
def test_a_real_mix_is_packed_tightly_and_evenly(tokens: int) -> None:
    order = Order([Source(made_index(realistic(5_000)))], OrderOptions(tokens=tokens))
    steps = list(order.steps())
    used = sum(chain.from_iterable(step.tokens for step in steps))
    assert used / (len(steps) * 8 * tokens) >= 0.985
    assert np.mean([max(step.costs) / np.mean(step.costs) for step in steps]) <= 1.1


def test_batches_are_of_one_shape_and_dealt_like_packs() -> None:
    order = small(batch=3, split="windows", tokens=16)
    steps = list(order.steps())
    assert sorted(first_time(steps)) == sorted(wanted(order))
    shapes = order.columns[0].shapes
    for batch in chain.from_iterable(step.packs for step in steps):
        assert len({(*shapes[p.row, 2:].tolist(), p.stop - p.start) for p in batch}) == 1
        assert len(batch) <= 3
    found = report(order)
    slots = 3 * 4 * len(steps)
    used = sum(len(batch) for step in steps for batch in step.packs)
    assert found.padding == pytest.approx(1 - used / slots)
    assert order.position(order.state(steps[3].after)) == steps[3].after
    with pytest.raises(UsageError, match="batch = 0: a whole number above 0"):
        small(batch=0)


def test_planning_loads_what_an_index_needs_and_no_more() -> None:
    program = "import sys, telecine.pipeline.feed.plan.report; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "av", "torch", "duckdb", "deltalake", "boto3", "pydantic"} & set(loaded)


@pytest.mark.parametrize("unlike", [{"vae_fingerprint": "another"}, {"patch": 1}])
def test_latents_of_two_encoders_are_in_no_order_together(unlike: dict[str, Any]) -> None:
    one, other = (made_index(realistic(10), build=name) for name in ("draft", "final"))
    facts = dataclasses.replace(other.facts, **unlike)
    with pytest.raises(UsageError, match="draft and final cannot be in one order"):
        Order([Source(one), Source(SampleIndex(facts, other.rows))], OrderOptions())
