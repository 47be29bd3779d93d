"""overview: the numbers of `telecine inspect`, the funnel, and the charts of all clips."""

from __future__ import annotations

from dataclasses import dataclass

from telecine.pipeline.browse.charts import Charts, charts
from telecine.pipeline.browse.funnel import Funnel, funnel
from telecine.pipeline.browse.snapshot import Snapshot
from telecine.pipeline.look.summary import Summary, summary


@dataclass(frozen=True, slots=True)
class Overview:
    summary: Summary
    funnel: Funnel

    @property
    def hours(self) -> float:
        return sum(clip.hours for clip in self.summary.clips)

    @property
    def clips(self) -> int:
        return sum(clip.clips for clip in self.summary.clips)


def overview(snapshot: Snapshot) -> Overview:
    """Asked once of each version of the tables."""
    return snapshot.once.get("overview", lambda: _overview(snapshot))


def _overview(snapshot: Snapshot) -> Overview:
    with snapshot.asking() as con:
        found = summary(con, snapshot.dataset.uri, snapshot.spec)
        return Overview(found, funnel(con, snapshot.spec, found))


def charts_of(snapshot: Snapshot, where: str, place: str = "") -> Charts:
    """Asked once of each condition, place and version of the tables.

    Raises UsageError where the one or the other is none.
    """

    def ask() -> Charts:
        build = None if where.strip() or place else overview(snapshot).funnel.build
        with snapshot.asking() as con:
            buckets = build.buckets if build else None
            return charts(con, snapshot.spec, snapshot.columns, where, place, buckets)

    return snapshot.once.get(("charts", where, place), ask)
