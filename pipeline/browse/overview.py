"""The numbers of `telecine inspect`, the funnel, and the charts of all clips.

    sources   found ─▶ scanned                      rejected by reason, duplicates
    frames    decoded ─▶ in clips                   dropped by reason
    clips     cut ─▶ kept in the current build      not selected, without a caption, dropped by
                                                    reason, not built yet

Every clip has one fate, so that they add up to the clips there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.browse.charts import Charts, charts
from telecine.pipeline.browse.snapshot import Snapshot
from telecine.pipeline.catalog.columns import place_condition
from telecine.pipeline.catalog.conditions import is_blank
from telecine.pipeline.catalog.selection import create_filtered, explaining, taken
from telecine.pipeline.look.summary import BuildReport, Summary, summary

KEPT, NOT_SELECTED = "kept", "not selected"
NO_CAPTION, NOT_BUILT = "without a caption", "not built yet"
UNPLANNED = "unplanned"  # as in place_condition


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a stage's sources, frames or clips: what went on, or was left out for one reason."""

    name: str
    count: int
    frames: int  # 0 of sources
    share: float  # of the stage: of its sources, or of all frames decoded
    where: str = ""  # of the clips
    place: str = ""  # of the clips, as in place_condition; empty of anything else
    reason: str = ""  # of the sources that were rejected; empty of anything else
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Funnel:
    sources: tuple[Part, ...]
    frames: tuple[Part, ...]
    clips: tuple[Part, ...]
    build: BuildReport | None  # the current one
    gone: int  # clips that the build keeps although their source was replaced since


def funnel(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, found: Summary) -> Funnel:
    """`found` has the numbers of sources, frames and builds; of clips the fates are asked for."""
    build = next((build for build in found.builds if build.current), None)
    clips = fates(con, spec, found.frames)
    kept_now = sum(part.count for part in clips if part.kept)
    kept = sum(bucket.clips for bucket in build.buckets) if build else 0
    return Funnel(_sources(found), _frames(found), clips, build, kept - kept_now)


def _sources(found: Summary) -> tuple[Part, ...]:
    total = sum(s.sources for s in found.sources)
    scanned, doubled = (
        sum(s.sources for s in found.sources if s.status == status)
        for status in ("scanned", "duplicate")
    )
    parts = [Part("scanned", scanned, 0, _share(scanned, total), kept=True)]
    parts += [
        Part(f"rejected: {reason}", count, 0, _share(count, total), reason=reason)
        for reason, count in found.rejected.items()
    ]
    if doubled:
        parts.append(Part("the same bytes as another", doubled, 0, _share(doubled, total)))
    return tuple(parts)


def _frames(found: Summary) -> tuple[Part, ...]:
    kept = Part(
        "in clips", found.frames_kept, found.frames_kept,
        _share(found.frames_kept, found.frames), kept=True,
    )  # fmt: skip
    lost = (
        Part(f"dropped: {reason}", frames, frames, _share(frames, found.frames))
        for reason, frames in found.frames_dropped.items()
    )
    return (kept, *lost)


def fates(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, frames: int) -> tuple[Part, ...]:
    """What became of the clips; shares are of `frames`. Only what waits is asked for its caption:
    which one is in force takes long to say.
    """
    create_filtered(con, spec, "", ["in_build", "drop_reason"])
    built = con.sql("""
        SELECT in_build, drop_reason, count(*), sum(num_frames) FROM filtered GROUP BY ALL
        ORDER BY in_build DESC, count(*) DESC, drop_reason
    """).fetchall()
    parts, waiting = [], 0
    for in_build, reason, clips, shown in built:
        if in_build:
            parts.append(Part(KEPT, clips, shown, _share(shown, frames), place="kept", kept=True))
        elif reason is not None:
            name, place = f"dropped: {reason}", f"dropped/{reason}"
            parts.append(Part(name, clips, shown, _share(shown, frames), place=place))
        else:
            waiting = clips
    return (*parts, *(_waiting(con, spec, frames) if waiting else ()))


def _waiting(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, frames: int) -> Sequence[Part]:
    """Clips that the build has no row for."""
    selection = spec.select.where
    wheres = {NO_CAPTION: "caption IS NULL", NOT_BUILT: "caption IS NOT NULL"}
    if not is_blank(selection):
        taken(con, spec, selection)  # refused in its own words, where it is no condition
        selected = f"coalesce((\n{selection}\n), false)"
        wheres = {name: f"{selected} AND {where}" for name, where in wheres.items()}
        wheres = {NOT_SELECTED: f"NOT {selected}"} | wheres
    parts = []
    for name, where in wheres.items():
        create_filtered(con, spec, where, place=place_condition(UNPLANNED))
        with explaining(con, spec, selection):
            ((clips, shown),) = con.sql(
                "SELECT count(*), coalesce(sum(num_frames), 0) FROM filtered"
            ).fetchall()
        if clips:
            parts.append(Part(name, clips, shown, _share(shown, frames), where, UNPLANNED))
    return parts


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# ── all of it, asked once ─────────────────────────────────────────────────────────────────────────


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
