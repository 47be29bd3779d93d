"""Curricula by step."""

from __future__ import annotations

import pytest

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.stages import Stages


def test_a_stage_lasts_until_the_next_begins() -> None:
    stages = Stages((0, 3, 5))
    assert [stages.at(step) for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]
    assert [stages.left(step) for step in range(7)] == [3, 2, 1, 2, 1, None, None]


@pytest.mark.parametrize("starts", [(), (1,), (0, 5, 5), (0, 5, 3)])
def test_stages_begin_at_the_first_step_and_rise(starts: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="the first begins at 0"):
        Stages(starts)
