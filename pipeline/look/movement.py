"""What became of samples between two sides: of two builds, or of two versions of a dataset.

    in B alone        came          latents differ      re-encoded
    in A alone        went          only texts differ   retold
                                    only the tar does   moved

Both sides are relations of one connection, `a_samples` and `b_samples`, with these COLUMNS of
`samples`; all of it is SQL over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import duckdb

from telecine.infra.text import counted
from telecine.manifests.buckets import ENCODED_SECONDS, Bucket, by_size

FIRST = 5  # names that stand for many

# Of a row of `samples` what is compared; two of 64 bits stand for digests of many more.
COLUMNS = f"""
    clip_id, outcome, reason, {{'resolution': resolution, 'aspect': aspect, 'duration': duration}}
        AS bucket,
    {ENCODED_SECONDS} AS seconds,
    hash(latent_sha256) AS latents, hash(text_digest, captions_digest) AS texts,
    hash(shard_id) AS shard
"""


@dataclass(frozen=True, slots=True)
class Some:
    """Clips or sources of one sort: how many, and the first of them."""

    count: int
    first: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.first) + (", …" if self.count > len(self.first) else "")


NONE = Some(0, ())


class Move(StrEnum):
    """What became of a sample that one side or both keep. A closed set."""

    CAME = "came"
    WENT = "went"
    REENCODED = "reencoded"
    RETOLD = "retold"
    MOVED = "moved"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Dropped:
    """Clips that a side dropped for one reason."""

    reason: str
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class BucketPair:
    """What both sides keep in one bucket; hours as encoded, 0 of images."""

    bucket: Bucket
    clips_a: int
    hours_a: float
    clips_b: int
    hours_b: float
    came: int
    went: int


@dataclass(frozen=True)
class Movement:
    moves: dict[Move, Some]  # all of them, also where there is none
    dropped: tuple[Dropped, ...]
    buckets: tuple[BucketPair, ...]


def movement(con: duckdb.DuckDBPyConnection) -> Movement:
    """Between `a_samples` and `b_samples`, of which each has one row of a clip at most."""
    con.execute(_PAIRS)
    there = {what: Some(n, tuple(first)) for what, n, first in con.sql(_MOVES).fetchall()}
    moves = {move: there.get(move, NONE) for move in Move}
    dropped = tuple(Dropped(*row) for row in con.sql(_DROPPED).fetchall())
    buckets = [
        BucketPair(Bucket(**bucket), *counts) for bucket, *counts in con.sql(_BUCKETS).fetchall()
    ]
    return Movement(moves, dropped, tuple(sorted(buckets, key=lambda pair: by_size(pair.bucket))))


_PAIRS = """
CREATE OR REPLACE TEMP TABLE pairs AS
SELECT clip_id, a.bucket AS bucket_a, b.bucket AS bucket_b,
    a.seconds AS seconds_a, b.seconds AS seconds_b,
    CASE WHEN a.outcome IS NULL THEN 'came' WHEN b.outcome IS NULL THEN 'went'
    WHEN a.latents <> b.latents THEN 'reencoded' WHEN a.texts <> b.texts THEN 'retold'
    WHEN a.shard <> b.shard THEN 'moved' ELSE 'same' END AS what
FROM (FROM a_samples WHERE outcome = 'kept') AS a
FULL JOIN (FROM b_samples WHERE outcome = 'kept') AS b USING (clip_id)
"""

_MOVES = f"SELECT what, count(*), min(clip_id, {FIRST}) FROM pairs GROUP BY what"

_DROPPED = """
SELECT reason, sum(a)::BIGINT, sum(b)::BIGINT FROM (
    SELECT reason, 1 AS a, 0 AS b FROM a_samples WHERE outcome = 'dropped' UNION ALL
    SELECT reason, 0, 1 FROM b_samples WHERE outcome = 'dropped'
) GROUP BY reason ORDER BY reason
"""

# A clip whose bucket is another one went from the one and came to the other.
_BUCKETS = """
SELECT bucket, sum(a)::BIGINT, round(sum(seconds_a) / 3600, 6),
    sum(b)::BIGINT, round(sum(seconds_b) / 3600, 6), sum(came)::BIGINT, sum(went)::BIGINT
FROM (
    SELECT bucket_a AS bucket, 1 AS a, seconds_a, 0 AS b, 0.0 AS seconds_b, 0 AS came,
        (bucket_a IS DISTINCT FROM bucket_b)::INTEGER AS went
    FROM pairs WHERE bucket_a IS NOT NULL UNION ALL
    SELECT bucket_b, 0, 0.0, 1, seconds_b, (bucket_a IS DISTINCT FROM bucket_b)::INTEGER, 0
    FROM pairs WHERE bucket_b IS NOT NULL
) GROUP BY bucket
"""


# ── in words ─────────────────────────────────────────────────────────────────────────────────────


_TOLD = {
    Move.CAME: "came",
    Move.WENT: "went",
    Move.REENCODED: "re-encoded",
    Move.RETOLD: "retold: the same latents with another text",
    Move.MOVED: "moved: the same sample in another shard",
}


def told(found: Movement, moves: Iterable[Move] = _TOLD) -> list[str]:
    """A line for each sort that there is."""
    there = [(move, found.moves[move]) for move in moves]
    return [f"{some.count:,} {_TOLD[move]}: {some}" for move, some in there if some.count]


def summary_line(found: Movement) -> str:
    kept = sum(some.count for some in found.moves.values())
    same = found.moves[Move.SAME].count
    return f"{counted(kept, 'sample')} in one or both, {same:,} of them the same in both"
