"""The counts of an epoch are those of its steps."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from telecine.pipeline.feed.plan.options import OrderOptions, Split
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.report import Share, report
from telecine.pipeline.feed.plan.steps import Source
from tests.support.mixes import made_index

# C, T', H', W': 60 images of 4 tokens, 20 clips of 5 × 8, 10 of 12 × 8 and 2 whose frame is 100.
SHAPES = np.array(
    [(4, 1, 4, 4)] * 60 + [(4, 5, 4, 8)] * 20 + [(4, 12, 4, 8)] * 10 + [(4, 3, 20, 20)] * 2,
    np.int32,
)


@pytest.mark.parametrize(
    ("split", "tokens", "samples", "too_long", "shortened", "divided", "inexact"),
    [
        ("prefix", 240 + 800 + 640, 90, 2, 10, 0, 0),
        ("windows", 240 + 800 + 960, 90, 2, 0, 10, 10),
        ("leave", 240 + 800, 80, 12, 0, 0, 0),
    ],
)
def test_counts(
    split: Split,
    tokens: int,
    samples: int,
    too_long: int,
    shortened: int,
    divided: int,
    inexact: int,
) -> None:
    options = OrderOptions(tokens=64, packs_per_step=4, split=split)
    order = Order([Source(made_index(SHAPES))], options)
    found = report(order)
    steps = list(order.steps())
    assert (found.steps, found.packs) == (len(steps), 4 * len(steps))
    assert found.repeated_packs == sum(sum(step.repeated) for step in steps)
    assert found.tokens == sum(sum(step.tokens) for step in steps)
    assert found.padding == pytest.approx(1 - found.tokens / (64 * found.packs))
    assert found.slowest == pytest.approx(
        np.mean([max(step.costs) / np.mean(step.costs) for step in steps])
    )
    assert found.left_out == {"too_long": too_long, "not_drawn": 0, "unpaired": 0}
    assert (found.samples, found.shortened, found.divided) == (samples, shortened, divided)
    assert (found.inexact, found.frames_left) == (inexact, 40 if split == "prefix" else 0)
    assert found.images == Share(60, 240)
    assert found.videos == Share(samples - 60, tokens - 240)
    assert found.sources == [Share(samples, tokens)]
    assert sum(share.tokens for share in found.buckets.values()) == tokens
    once = found.packs - found.repeated_packs
    assert found.bytes_per_pack == pytest.approx(tokens * 4 * 4 * 2 / once)
    json.dumps(asdict(found))


def test_what_shares_leave_out_and_draw_again_is_counted() -> None:
    sources = [Source(made_index(SHAPES[:60]), 1.0), Source(made_index(SHAPES[60:80]), 1.0)]
    found = report(Order(sources, OrderOptions(tokens=64, packs_per_step=4)))
    assert [share.samples for share in found.sources] == [40, 40]
    assert found.left_out == {"too_long": 0, "not_drawn": 20, "unpaired": 0}
    assert found.repeated_samples == 20
