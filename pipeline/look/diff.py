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
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import duckdb
from rich.console import Console

from telecine.infra.text import json_value, size
from telecine.manifests.builds import BuildState, find_build
from telecine.manifests.queries import connect
from telecine.manifests.tables import Tables
from telecine.pipeline.lifecycle.changes import Change, differences, told
from telecine.pipeline.lifecycle.channels import Channel, pooled
from telecine.pipeline.lifecycle.gates import canaries
from telecine.pipeline.look.movement import (
    COLUMNS,
    FIRST,
    Move,
    Movement,
    Some,
    movement,
    print_buckets,
    print_dropped,
)
from telecine.pipeline.look.movement import told as told_moves
from telecine.pipeline.terminal.text import heading, line, print_table, write

__all__ = ["Diff", "Some", "diff", "inspect_builds"]


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


def inspect_builds(tables: Tables, a: str, b: str, as_json: bool, console: Console) -> None:
    """Print what differs between two builds, each given by its name or the beginning of its id.

    Raises UsageError where there is no such build.
    """
    con = connect(tables)
    found = diff(con, find_build(con, a), find_build(con, b))
    if as_json:
        write(console, json.dumps(json_value(_as_json(found)), indent=2))
    else:
        _print(found, console)


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
    quoted = build_id.replace("'", "''")
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {side}_samples AS "
        f"SELECT {COLUMNS} FROM live_samples WHERE build_id = '{quoted}'"
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


# ── printing ─────────────────────────────────────────────────────────────────────────────────────


def _as_json(found: Diff) -> dict[str, Any]:
    channels = [
        dataclasses.asdict(pair) | {"shift": pair.shift, "ratio": pair.ratio}
        for pair in found.channels
    ]
    medians = dict(zip(("db_a", "db_b"), _medians(found), strict=False))
    return dataclasses.asdict(found) | {"channels": channels, "canary_medians": medians}


def _medians(found: Diff) -> tuple[float, ...]:
    if not found.canaries:
        return ()
    return median(c.db_a for c in found.canaries), median(c.db_b for c in found.canaries)


def _print(found: Diff, console: Console) -> None:
    a, b = found.a, found.b
    rows = [
        ("build_id", a.build_id, b.build_id),
        ("state", a.state, b.state),
        ("samples", f"{a.samples:,}", f"{b.samples:,}"),
        ("shards", f"{a.shards:,}", f"{b.shards:,}"),
        ("latents", size(a.latent_bytes), size(b.latent_bytes)),
        ("tars", size(a.shard_bytes), size(b.shard_bytes)),
    ]
    print_table(("", f"A: {a.name}", f"B: {b.name}"), rows, console)
    heading(console, "spec and encoder")
    for text in told(found.changes):
        line(console, text)
    if not found.changes:
        line(console, "equal")
    _print_channels(found, console)
    _print_canaries(found, console)
    print_buckets(found.movement.buckets, console)
    print_dropped(found.movement, console)
    _print_samples(found, console)


def _print_channels(found: Diff, console: Console) -> None:
    heading(console, f"latents of the {found.both:,} clips in both, by channel")
    if not found.channels:
        for name, channels in (("A", found.latents_a), ("B", found.latents_b)):
            line(console, f"{name}: {_spread(channels)}")
        line(console, "not compared channel by channel: their numbers differ, or are not there")
        return
    far = sorted(found.channels, key=_distance, reverse=True)
    names = ("channel", "mean A", "mean B", "shift in stds of A", "std A", "std B", "std B / A")
    rows = [
        [c.number, *map(_figure, (c.mean_a, c.mean_b, c.shift, c.std_a, c.std_b, c.ratio))]
        for c in far[:FIRST]
    ]
    print_table(names, rows, console)
    if len(far) > FIRST:
        line(console, f"the {FIRST} that differ most of {len(far)}; --json has all")


def _spread(channels: Sequence[Channel]) -> str:
    if not channels:
        return "nothing measured"
    means, stds = [c.mean for c in channels], [c.std for c in channels]
    return (
        f"{len(channels)} channels, means from {min(means):.3g} to {max(means):.3g}, "
        f"standard deviations from {min(stds):.3g} to {max(stds):.3g}"
    )


def _distance(pair: ChannelPair) -> float:
    """How far apart two channels are, in A's standard deviations and in powers of e"""
    if pair.shift is None or pair.ratio is None:
        return math.inf if pair.std_b or pair.mean_a != pair.mean_b else 0.0
    return abs(pair.shift) + abs(math.log(max(pair.ratio, 1e-6)))


def _figure(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _print_canaries(found: Diff, console: Console) -> None:
    heading(console, "canaries, decoded again, in dB of PSNR")
    if not found.canaries:
        line(console, "none in both")
        return
    rows: list[tuple[Any, ...]] = [
        (c.clip_id, f"{c.db_a:.2f}", f"{c.db_b:.2f}", f"{c.db_b - c.db_a:+.2f}")
        for c in found.canaries
    ]
    a, b = _medians(found)
    gain = median(c.db_b - c.db_a for c in found.canaries)
    rows.append(("median", f"{a:.2f}", f"{b:.2f}", f"{gain:+.2f}"))
    print_table(("clip", "A", "B", "B - A"), rows, console)


def _print_samples(found: Diff, console: Console) -> None:
    heading(console, "samples")
    line(console, f"{found.both:,} in both")
    if found.reshaped.count:
        line(console, f"{found.reshaped.count:,} of them with another shape: {found.reshaped}")
    if found.retold.count > found.movement.moves[Move.RETOLD].count:  # re-encoded ones as well
        line(console, f"{found.retold.count:,} of them with another text: {found.retold}")
    for text in told_moves(found.movement, (Move.REENCODED, Move.RETOLD, Move.MOVED)):
        line(console, text)
    for here, there, missing in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        for lost in missing:
            why = (
                f"{there} dropped them: {lost.reason}" if lost.reason else f"not planned in {there}"
            )
            line(console, f"{lost.clips.count:,} in {here} alone ({why}): {lost.clips}")
