"""diff: two builds side by side, from the tables alone. `telecine diff DATASET A B`

identity    keys of spec and encoder that differ
latents     mean and deviation by channel, over the clips that both keep
canaries    PSNR of the clips that both decoded again
buckets     clips and hours in each
dropped     by reason
samples     in one alone, and why; in both, but of other shape or text, or in another shard
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import duckdb

from telecine.infra.text import literal
from telecine.manifests.builds import BuildState
from telecine.pipeline.lifecycle.changes import Change, differences
from telecine.pipeline.lifecycle.channels import Channel, pooled
from telecine.pipeline.lifecycle.gates import canaries
from telecine.pipeline.look.movement import (
    COLUMNS,
    FIRST,
    Move,
    Movement,
    Some,
    movement,
)
from telecine.pipeline.look.movement import told as told_moves


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two builds."""

    build_id: str
    name: str
    state: str
    samples: int  # kept
    shards: int
    latent_bytes: int
    shard_bytes: int


@dataclass(frozen=True, slots=True)
class ChannelPair:
    """One channel over the clips that both builds keep; shift and ratio are of B against A."""

    number: int
    mean_a: float
    std_a: float
    mean_b: float
    std_b: float

    @property
    def shift(self) -> float | None:
        """Of the mean, in A's standard deviations"""
        return (self.mean_b - self.mean_a) / self.std_a if self.std_a else None

    @property
    def ratio(self) -> float | None:
        """Of the standard deviations"""
        return self.std_b / self.std_a if self.std_a else None

    @property
    def distance(self) -> float:
        """How far apart the two are, in A's standard deviations and in powers of e"""
        if self.shift is None or self.ratio is None:
            return math.inf if self.std_b or self.mean_a != self.mean_b else 0.0
        return abs(self.shift) + abs(math.log(max(self.ratio, 1e-6)))


@dataclass(frozen=True, slots=True)
class CanaryPair:
    clip_id: str
    db_a: float
    db_b: float


@dataclass(frozen=True, slots=True)
class Missing:
    """Clips that one build keeps and the other does not."""

    reason: str  # why the other dropped them; empty: it never planned them
    clips: Some


@dataclass(frozen=True, slots=True)
class Diff:
    a: Side
    b: Side
    changes: tuple[Change, ...]
    latents_a: tuple[Channel, ...]  # of the clips that both keep
    latents_b: tuple[Channel, ...]
    canaries: tuple[CanaryPair, ...]
    only_a: tuple[Missing, ...]
    only_b: tuple[Missing, ...]
    both: int  # clips that both keep
    reshaped: Some  # of them, with latents of another shape
    retold: Some  # of them, with another text
    movement: Movement

    @property
    def channels(self) -> tuple[ChannelPair, ...]:
        """Channel by channel; empty where their numbers differ."""
        if len(self.latents_a) != len(self.latents_b):
            return ()
        both = zip(self.latents_a, self.latents_b, strict=True)
        return tuple(ChannelPair(a.number, a.mean, a.std, b.mean, b.std) for a, b in both)

    @property
    def canary_medians(self) -> tuple[float, float] | None:
        """DB in A and in B; None without a canary of both."""
        if not self.canaries:
            return None
        return median(c.db_a for c in self.canaries), median(c.db_b for c in self.canaries)

    def as_values(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        channels = [
            dataclasses.asdict(pair) | {"shift": pair.shift, "ratio": pair.ratio}
            for pair in self.channels
        ]
        medians = dict(zip(("db_a", "db_b"), self.canary_medians or (), strict=False))
        return dataclasses.asdict(self) | {"channels": channels, "canary_medians": medians}


def diff(con: duckdb.DuckDBPyConnection, a: BuildState, b: BuildState) -> Diff:
    ids = (a.build_id, b.build_id)
    for side, build_id in zip("ab", ids, strict=True):
        _create_side(con, side, build_id)
    old, new = canaries(con, a.build_id), canaries(con, b.build_id)
    ((both, reshaped, first_reshaped, retold, first_retold),) = _rows(con, _BOTH, *ids)
    return Diff(
        a=_side(con, a),
        b=_side(con, b),
        changes=tuple(differences(a.last, b.last)),
        latents_a=tuple(pooled(con, a.build_id, b.build_id)),
        latents_b=tuple(pooled(con, b.build_id, a.build_id)),
        canaries=tuple(CanaryPair(clip, old[clip], new[clip]) for clip in old if clip in new),
        only_a=_only(con, *ids),
        only_b=_only(con, *reversed(ids)),
        both=both,
        reshaped=Some(reshaped, tuple(first_reshaped or ())),
        retold=Some(retold, tuple(first_retold or ())),
        movement=movement(con),
    )


def _create_side(con: duckdb.DuckDBPyConnection, side: str, build_id: str) -> None:
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {side}_samples AS "
        f"SELECT {COLUMNS} FROM live_samples WHERE build_id = {literal(build_id)}"
    )


# ── questions ────────────────────────────────────────────────────────────────────────────────────

_SIDE = """
SELECT coalesce(sum(samples), 0), count(*), coalesce(sum(latents), 0), coalesce(sum(bytes), 0)
FROM (
    SELECT count(*) AS samples, sum(latent_bytes) AS latents, any_value(shard_bytes) AS bytes
    FROM live_samples WHERE build_id = $a AND outcome = 'kept' GROUP BY shard_id
)
"""

_KEPT = "(SELECT * FROM live_samples WHERE build_id = {} AND outcome = 'kept')"

_BOTH = f"""
SELECT count(*),
    count(*) FILTER (reshaped), min(clip_id, {FIRST}) FILTER (reshaped),
    count(*) FILTER (retold), min(clip_id, {FIRST}) FILTER (retold)
FROM (
    SELECT clip_id, a.latent_shape <> b.latent_shape AS reshaped,
        a.text_digest <> b.text_digest AS retold
    FROM {_KEPT.format("$a")} AS a JOIN {_KEPT.format("$b")} AS b USING (clip_id)
)
"""

_ONLY = f"""
SELECT coalesce(other.reason, ''), count(*), min(clip_id, {FIRST})
FROM (SELECT clip_id FROM {_KEPT.format("$a")} ANTI JOIN {_KEPT.format("$b")} USING (clip_id))
LEFT JOIN (SELECT clip_id, reason FROM live_samples WHERE build_id = $b) AS other USING (clip_id)
GROUP BY ALL ORDER BY 2 DESC, 1
"""


def _rows(con: duckdb.DuckDBPyConnection, query: str, a: str, b: str = "") -> list[tuple[Any, ...]]:
    params = {"a": a, "b": b} if "$b" in query else {"a": a}
    rows: list[tuple[Any, ...]] = con.sql(query, params=params).fetchall()
    return rows


def _side(con: duckdb.DuckDBPyConnection, build: BuildState) -> Side:
    ((samples, shards, latents, size_bytes),) = _rows(con, _SIDE, build.build_id)
    counts = (int(samples), int(shards), int(latents), int(size_bytes))
    return Side(build.build_id, build.name, str(build.state), *counts)


def _only(con: duckdb.DuckDBPyConnection, a: str, b: str) -> tuple[Missing, ...]:
    return tuple(
        Missing(reason, Some(count, tuple(first)))
        for reason, count, first in _rows(con, _ONLY, a, b)
    )


# ── in words ─────────────────────────────────────────────────────────────────────────────────────


def told(found: Diff) -> list[str]:
    """A line for each sort of sample that there is."""
    lines = [f"{found.both:,} in both"]
    if found.reshaped.count:
        lines.append(f"{found.reshaped.count:,} of them with another shape: {found.reshaped}")
    if found.retold.count > found.movement.moves[Move.RETOLD].count:  # re-encoded ones as well
        lines.append(f"{found.retold.count:,} of them with another text: {found.retold}")
    lines += told_moves(found.movement, (Move.REENCODED, Move.RETOLD, Move.MOVED))
    for here, there, missing in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        for lost in missing:
            why = (
                f"{there} dropped them: {lost.reason}" if lost.reason else f"not planned in {there}"
            )
            lines.append(f"{lost.clips.count:,} in {here} alone ({why}): {lost.clips}")
    return lines
