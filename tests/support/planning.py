"""Plans carried out, without anything being built."""

from __future__ import annotations

import dataclasses

from telecine.pipeline.build.plan import Candidate, LiveMember, Plan, plan_shards

TARGET = 1000  # bytes of a shard


def written(made: Plan, wanted: list[Candidate]) -> list[LiveMember]:
    """The shards of a plan as they would exist once built."""
    by_id = {c.clip_id: c for c in wanted}
    return [
        LiveMember(m.clip_id, by_id[m.clip_id].captions_digest, s.shard_id, size, s.bucket)
        for s in made.shards
        for size in [sum(by_id[m.clip_id].size_bytes for m in s.members)]
        for m in s.members
    ]


class History:
    """Plans of a build, each carried out: its live members, and every shard_id it has used."""

    def __init__(self, build_id: str, target_bytes: int = TARGET) -> None:
        self.build_id = build_id
        self.target_bytes = target_bytes
        self.live: list[LiveMember] = []
        self.used: set[str] = set()
        self.number = 0

    def places(self) -> dict[str, str]:
        return {m.clip_id: m.shard_id for m in self.live}

    def plan(self, wanted: list[Candidate], followed: History | None = None) -> Plan:
        places = followed.places() if followed else {}
        return plan_shards(
            [dataclasses.replace(c, followed_shard=places.get(c.clip_id, "")) for c in wanted],
            self.live,
            build_id=self.build_id,
            number=self.number,
            target_bytes=self.target_bytes,
            taken=self.used & set(places.values()),
        )

    def carry_out(self, made: Plan, wanted: list[Candidate]) -> None:
        new = [s.shard_id for s in made.shards]
        assert self.used.isdisjoint(new), "a name came back"
        assert len(set(new)) == len(new)
        self.used.update(new)
        self.live = [m for m in self.live if m.shard_id not in made.replaces]
        self.live += written(made, wanted)
        self.number += 1
