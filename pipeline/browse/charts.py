"""charts: clips counted by bucket, by every measurement and score, and by colour.

One pass over the clips counts all histograms. Where their bars lie is taken from at most some
hundred thousand clips, so that a few far out squeeze no others together: the first and the last
bar are open.

    ≤ 0   0 to 0.02   0.02 to 0.04   ...   > 0.96        a bar has its lower end not, its upper end
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb

from telecine.infra.text import identifier, literal
from telecine.manifests.buckets import ENCODED_SECONDS, by_size
from telecine.manifests.schemas import MEASURED_NUMBERS
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.columns import Column, place_condition
from telecine.pipeline.catalog.scores import DUPLICATES, score_columns
from telecine.pipeline.catalog.selection import create_filtered, explaining
from telecine.pipeline.look.summary import BucketCount

CHARTED = ("duration_seconds", "num_frames", "width", "height", *MEASURED_NUMBERS)
LOOKED_AT = 100_000  # clips, about, that say where the bars lie
BARS = 24  # about
TAILS = 0.005  # of the clips on either side, in the open bars


@dataclass(frozen=True, slots=True)
class Bar:
    """Clips with values above `low`, up to and with `high`; None: however far.

    Where all clips have one value, it is both.
    """

    low: float | None
    high: float | None
    clips: int
    where: str


@dataclass(frozen=True, slots=True)
class Histogram:
    name: str
    text: str
    lowest: float | None  # of all values; None where there is none
    highest: float | None
    bars: tuple[Bar, ...]
    without: int  # clips that have no value


@dataclass(frozen=True, slots=True)
class Cell:
    """One bucket of the current build."""

    resolution: int
    aspect: str
    duration: str
    clips: int
    hours: float
    place: str


@dataclass(frozen=True, slots=True)
class Color:
    """Clips that have a colour among their dominant ones."""

    name: str
    clips: int
    where: str


@dataclass(frozen=True, slots=True)
class Charts:
    where: str
    place: str
    clips: int
    cells: tuple[Cell, ...]
    histograms: tuple[Histogram, ...]
    colors: tuple[Color, ...]


def charts(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    there: Sequence[Column],
    where: str = "",
    place: str = "",
    buckets: Sequence[BucketCount] | None = None,
) -> Charts:
    """Of the clips at a place that the condition takes, of the columns there are.

    Where all clips are meant, the current build's `buckets` are known and not counted again.
    Raises UsageError where the clause is none.
    """
    known = {column.name: column for column in there}
    names = [*CHARTED, *(c for c in score_columns(spec.score) if c not in DUPLICATES)]
    names += [name for name in DUPLICATES if name in known and known[name].is_number]
    create_filtered(con, spec, where, names, place_condition(place))
    with explaining(con, spec, where):
        ((clips,),) = con.sql("SELECT count(*) FROM filtered").fetchall()
        counted = [(b.resolution, b.aspect, b.duration, b.clips, b.hours) for b in buckets or ()]
        if buckets is None:
            counted = con.sql(_CELLS).fetchall()
        return Charts(
            where,
            place,
            clips,
            tuple(sorted((Cell(*row, _bucket(*row[:3])) for row in counted), key=by_size)),
            _histograms(con, [known[name] for name in names], clips),
            _colors(con),
        )


# As in pipeline/look/summary.py, whose numbers they are where all clips are meant.
_CELLS = f"""
SELECT resolution, aspect, duration, count(*),
    round(sum({ENCODED_SECONDS}) / 3600, 6)
FROM current_samples SEMI JOIN filtered USING (clip_id) WHERE outcome = 'kept' GROUP BY ALL
"""

# The few combinations that there are first: ten times faster than every list by itself.
_COLORS = """
SELECT color, sum(clips)::BIGINT FROM (
    SELECT unnest(list_distinct(dominant_colors)) AS color, clips
    FROM (SELECT dominant_colors, count(*) AS clips FROM filtered GROUP BY dominant_colors)
) GROUP BY color ORDER BY sum(clips) DESC, color
"""


def _bucket(resolution: int, aspect: str, duration: str) -> str:
    return f"kept/{resolution}/{aspect}/{duration}"


def _colors(con: duckdb.DuckDBPyConnection) -> tuple[Color, ...]:
    return tuple(
        Color(name, clips, f"list_contains(dominant_colors, {literal(name)})")
        for name, clips in con.sql(_COLORS).fetchall()
    )


# ── histograms ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Ends:
    """Upper ends of the bars of one column, as decimal numbers; the last bar has none."""

    column: Column
    ends: tuple[Decimal, ...]

    @property
    def sql(self) -> str:
        """A map of upper end to clips, and how many values there are, the lowest and the highest"""
        value = _finite(self.column)
        listed = ", ".join(map(_plain, self.ends))
        return (
            f"histogram({value}, [{listed}]::DOUBLE[]), count({value}), min({value}), max({value})"
        )


def _finite(column: Column) -> str:
    value = f"{identifier(column.name)}::DOUBLE"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _histograms(
    con: duckdb.DuckDBPyConnection, chosen: Sequence[Column], clips: int
) -> tuple[Histogram, ...]:
    if not clips:
        return ()
    placed = _placed(con, chosen, clips)
    (row,) = con.sql(f"SELECT {', '.join(p.sql for p in placed)} FROM filtered").fetchall()
    return tuple(
        _histogram(ends, row[4 * n : 4 * n + 4], clips)
        for n, ends in enumerate(placed)
        if row[4 * n + 1]
    )


def _placed(con: duckdb.DuckDBPyConnection, chosen: Sequence[Column], clips: int) -> list[_Ends]:
    """The same clips every time: those whose hash is a multiple of some number."""
    every = max(1, clips // LOOKED_AT)
    asked = ", ".join(
        f"quantile_disc({_finite(column)}, [{TAILS}, {1 - TAILS}])" for column in chosen
    )
    some = f"FROM filtered WHERE hash(clip_id) % {every} = 0"
    (row,) = con.sql(f"SELECT {asked} {some}").fetchall()
    return [
        _Ends(column, ends(*(found or (0.0, 0.0)), whole=column.type != "DOUBLE"))
        for column, found in zip(chosen, row, strict=True)
    ]


def ends(low: float, high: float, *, whole: bool = False) -> tuple[Decimal, ...]:
    """Round numbers from below or at `low` to above or at `high`, evenly spaced; at least one."""
    if not low < high:
        return (Decimal(repr(low)),)
    step = _step((high - low) / BARS)
    if whole:
        step = max(step, Decimal(1))
    first = math.floor(Decimal(low) / step)
    last = math.ceil(Decimal(high) / step)
    return tuple(n * step for n in range(first, last + 1))


def _step(least: float) -> Decimal:
    """The next of ... 0.1 0.2 0.5 1 2 5 10 ..."""
    unit = Decimal(10) ** math.floor(math.log10(least))
    return next(unit * n for n in (1, 2, 5, 10, 20) if float(unit * n) >= least)


def _histogram(placed: _Ends, found: Sequence[Any], clips: int) -> Histogram:
    counts, values, lowest, highest = found
    name = placed.column.name
    if lowest == highest:
        return Histogram(
            name, placed.column.text, lowest, highest, _only(name, lowest, values), clips - values
        )
    uppers = [float(end) for end in placed.ends]
    counted = [counts.get(upper, 0) for upper in uppers]
    counted.append(values - sum(counted))
    lows = [None, *placed.ends]
    highs = [*placed.ends, None]
    bars = [
        Bar(_number(low), _number(high), count, _between(name, low, high))
        for low, high, count in zip(lows, highs, counted, strict=True)
    ]
    while bars and not bars[0].clips:
        del bars[0]
    while bars and not bars[-1].clips:
        del bars[-1]
    return Histogram(name, placed.column.text, lowest, highest, tuple(bars), clips - values)


def _only(name: str, value: float, clips: int) -> tuple[Bar, ...]:
    end = _plain(Decimal(repr(value)))
    return (Bar(value, value, clips, f"{name} = {end}"),)


def _number(end: Decimal | None) -> float | None:
    return None if end is None else float(end)


def _between(name: str, low: Decimal | None, high: Decimal | None) -> str:
    above = "" if low is None else f"{name} > {_plain(low)}"
    upto = "" if high is None else f"{name} <= {_plain(high)}"
    return " AND ".join(filter(None, (above, upto)))


def _plain(end: Decimal) -> str:
    """As in 0.02 or 1000: no exponent, no zeros at the end."""
    text = format(end, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
