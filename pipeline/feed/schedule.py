"""Curricula: one feed after the other, by step, such as draft → mid → final over one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from telecine.infra.errors import UsageError
from telecine.pipeline.feed.feed import Feed
from telecine.pipeline.feed.pack import Pack
from telecine.pipeline.feed.stages import Stages


class Schedule:
    """Feeds with the steps from which they are on: [(0, draft), (20_000, final)]."""

    def __init__(self, stages: Sequence[tuple[int, Feed]]) -> None:
        """Raises UsageError unless they begin at 0 and rise."""
        self._stages = Stages([start for start, _ in stages])
        self._feeds = [feed for _, feed in stages]
        self._step = 0

    def __iter__(self) -> Iterator[Pack]:
        while True:
            before = self._step
            feed = self._feeds[self._stages.at(before)]
            left, begun = self._stages.left(before), feed.steps
            for pack in feed:
                self._step = before + feed.steps - begun
                yield pack
                if left is not None and self._step - before >= left:
                    break

    def state_dict(self) -> dict[str, Any]:
        """Equal on every rank."""
        return {"step": self._step, "feeds": [feed.state_dict() for feed in self._feeds]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises UsageError where it is another schedule's."""
        if "feeds" not in state or "step" not in state:
            raise UsageError(
                "the state is of no schedule: give it what Schedule.state_dict gave, a feed's is "
                "for a feed"
            )
        if len(state["feeds"]) != len(self._feeds):
            raise UsageError(
                f"the state is of {len(state['feeds'])} stages, this schedule has "
                f"{len(self._feeds)}: give it the stages that it had"
            )
        for feed, one in zip(self._feeds, state["feeds"], strict=True):
            feed.load_state_dict(one)
        self._step = int(state["step"])
