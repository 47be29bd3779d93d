"""Statistics of a build's latents by channel: pooled over its samples, and of single clips.

A sample's row has the mean and the standard deviation of each channel of its latents. Pooled over
samples of n_i values per channel:

    mean = Σ n_i mean_i / Σ n_i        std² = Σ n_i (std_i² + mean_i²) / Σ n_i - mean²

All of it is SQL, grouped by channel: no row of the samples comes to Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True, slots=True)
class Channel:
    """Of all values of one channel, as stored."""

    number: int  # from 0
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class ClipChannel:
    """One channel of one clip, in one build and where asked for in another."""

    clip_id: str
    mean: float
    std: float
    other_mean: float
    other_std: float


# The shape of moments has 2C channels, and so many means and standard deviations has its row.
_POOLED = """
SELECT channel, total / n, sqrt(greatest(squares / n - (total / n) ** 2, 0)) FROM (
    SELECT channel, sum(n) AS n, sum(n * mean) AS total,
        sum(n * (std * std + mean * mean)) AS squares
    FROM (
        SELECT generate_subscripts(channel_means, 1) - 1 AS channel,
            unnest(channel_means) AS mean, unnest(channel_stds) AS std,
            list_product(latent_shape) / latent_shape[1] AS n
        FROM live_samples {common} WHERE build_id = $build AND outcome = 'kept'
    ) GROUP BY channel
) ORDER BY channel
"""

_COMMON = """
SEMI JOIN (
    SELECT clip_id FROM live_samples
    WHERE build_id = $other AND outcome = 'kept' AND len(channel_means) > 0
) USING (clip_id)
"""

_FURTHEST = """
SELECT clip_id, a.mean, a.std, b.mean, b.std
FROM ({a}) AS a JOIN ({b}) AS b USING (clip_id)
ORDER BY {order}, clip_id LIMIT $limit
"""

_OF_CHANNEL = """
SELECT clip_id, channel_means[$channel + 1] AS mean, channel_stds[$channel + 1] AS std
FROM live_samples
WHERE build_id = {build} AND outcome = 'kept' AND len(channel_means) > $channel
"""


def pooled(
    con: duckdb.DuckDBPyConnection, build_id: str, common_with: str | None = None
) -> list[Channel]:
    """Over the kept samples of a build, or over the clips that another build keeps too.

    Empty where no such sample has statistics.
    """
    params = {"build": build_id}
    if common_with is not None:
        params["other"] = common_with
    query = _POOLED.format(common="" if common_with is None else _COMMON)
    rows = con.sql(query, params=params).fetchall()
    return [Channel(*row) for row in rows]


# How far a clip is out, by what it is out of; $scale is a small part of a standard deviation.
OUTLYING = "abs(a.mean - $centre) DESC"
WIDEST = "a.std DESC"
NARROWEST = "a.std"
SHIFTED = "abs(a.mean - b.mean) DESC"
RESCALED = "abs(ln((a.std + $scale) / (b.std + $scale))) DESC"


def furthest_clips(
    con: duckdb.DuckDBPyConnection,
    build_id: str,
    channel: int,
    order: str,
    *,
    other: str | None = None,
    centre: float = 0.0,
    scale: float = 1e-3,
    limit: int = 3,
) -> Sequence[ClipChannel]:
    """The clips that stand out most in one channel, by one of the orders above.

    Without `other` a clip's values there are its own. Equal clips stand in the order of their ids.
    """
    params = {"build": build_id, "other": other or build_id, "channel": channel, "limit": limit}
    for name, value in (("centre", centre), ("scale", scale)):
        if f"${name}" in order:
            params[name] = value
    a, b = (_OF_CHANNEL.format(build=name) for name in ("$build", "$other"))
    rows = con.sql(_FURTHEST.format(a=a, b=b, order=order), params=params).fetchall()
    return [ClipChannel(*row) for row in rows]
