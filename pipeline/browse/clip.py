"""clip: all that the tables know of one clip, whether or not its source is still in force."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import duckdb

from telecine.infra.errors import NotFound
from telecine.manifests.builds import State, builds
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.captions import Said, captions_said
from telecine.pipeline.catalog.columns import TEXTS
from telecine.pipeline.catalog.narrow import narrow, uris_of
from telecine.pipeline.catalog.scores import create_scored_clips, score_columns, similarity


@dataclass(frozen=True, slots=True)
class Fact:
    """A column's name, value, and line of text."""

    name: str
    value: Any
    text: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What one captioner said."""

    captioner: str
    fingerprint: str
    outcome: str
    text: str
    windows: tuple[tuple[float, float, str], ...]
    detail: str
    in_force: bool


@dataclass(frozen=True, slots=True)
class InBuild:
    """The clip in one build."""

    build_id: str
    name: str
    state: str
    kept: bool
    reason: str
    detail: str
    frames: int  # encoded
    channels: int
    statistics: tuple[tuple[float, float], ...]  # mean and deviation of each channel
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Known:
    clip: dict[str, Any]
    source: dict[str, Any]
    is_current: bool
    start_seconds: float  # as schemas.Clip has it
    end_seconds: float
    facts: tuple[Fact, ...]
    source_facts: tuple[Fact, ...]
    scores: tuple[Fact, ...]  # in force
    captions: tuple[Told, ...]
    builds: tuple[InBuild, ...]

    def build(self, build_id: str) -> InBuild | None:
        """That one; without an id the current one or, where that has not got it, any other."""
        wanted = (build for build in self.builds if build_id in ("", build.build_id))
        return next(wanted, None)

    @property
    def caption(self) -> str:
        return next((told.text for told in self.captions if told.in_force), "")


def clip_facts(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, clip_id: str) -> Known:
    """From here on `con` knows this clip alone. Raises NotFound where there is no such clip."""
    clip = _one(con, "SELECT * FROM clips WHERE clip_id = $id LIMIT 1", clip_id)
    if clip is None:
        raise NotFound(f"there is no clip {clip_id!r}")
    source = _one(
        con,
        "SELECT * FROM sources WHERE source_id = $id AND status = 'scanned' "
        "ORDER BY revision DESC LIMIT 1",
        clip["source_id"],
    )
    tick = Fraction(clip["time_base_num"], clip["time_base_den"])
    scores = _scores(con, spec, clip_id)
    return Known(
        clip=clip,
        source=source or {},
        is_current=scores is not None,
        start_seconds=float(clip["start_pts"] * tick),
        end_seconds=float(clip["end_pts"] * tick),
        facts=_facts(clip, "clips"),
        source_facts=_facts(source or {}, "sources"),
        scores=scores or (),
        builds=_builds(con, clip_id),
        captions=_captions(con, spec, clip_id),
    )


def _rows(con: duckdb.DuckDBPyConnection, query: str, key: str) -> list[dict[str, Any]]:
    found = con.sql(query, params={"id": key})
    names = found.columns
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _one(con: duckdb.DuckDBPyConnection, query: str, key: str) -> dict[str, Any] | None:
    return next(iter(_rows(con, query, key)), None)


def _facts(row: dict[str, Any], table: str) -> tuple[Fact, ...]:
    texts = TEXTS[table]
    return tuple(Fact(name, value, texts.get(name, "")) for name, value in row.items())


def _scores(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, clip_id: str
) -> tuple[Fact, ...] | None:
    """Of the scorer in force; None where the clip is not current."""
    names = score_columns(spec.score)
    create_scored_clips(con, spec, names)
    listed = ", ".join(["clip_id", *names])
    row = _one(con, f"SELECT {listed} FROM scored_clips WHERE clip_id = $id", clip_id)
    if row is None:
        return None
    prompts = {similarity(name): text for name, text in spec.score.prompts.items()}
    return tuple(Fact(name, row[name], prompts.get(name, "")) for name in names)


def _captions(con: duckdb.DuckDBPyConnection, spec: DatasetSpec, clip_id: str) -> tuple[Told, ...]:
    """Narrows the tables to the clip."""
    narrow(con, [clip_id], uris_of(con, [clip_id]))
    _, said = captions_said(con, spec)
    return tuple(_told(one) for one in said.get(clip_id, ()))


def _told(said: Said) -> Told:
    row = said.caption
    return Told(
        captioner=row.captioner,
        fingerprint=row.captioner_fingerprint,
        outcome=row.outcome,
        text=row.text,
        windows=tuple((w.start_seconds, w.end_seconds, w.text) for w in row.windows),
        detail=row.detail,
        in_force=said.chosen,
    )


_LEFT_OUT = (
    "build_id", "clip_id", "outcome", "reason", "detail", "channel_means", "channel_stds",
)  # fmt: skip


def _builds(con: duckdb.DuckDBPyConnection, clip_id: str) -> tuple[InBuild, ...]:
    rows = {
        row["build_id"]: row
        for row in _rows(con, "SELECT * FROM live_samples WHERE clip_id = $id", clip_id)
    }
    found = []
    for build in builds(con):
        row = rows.get(build.build_id)
        if row is None or build.state is State.DELETED:
            continue
        kept = row["outcome"] == "kept"
        shown = {name: value for name, value in row.items() if name not in _LEFT_OUT}
        found.append(
            InBuild(
                build_id=build.build_id,
                name=build.name,
                state=str(build.state),
                kept=kept,
                reason=row["reason"],
                detail=row["detail"],
                frames=row["encoded_frames"],
                channels=next(iter(row["latent_shape"]), 0),
                statistics=tuple(zip(row["channel_means"], row["channel_stds"], strict=True)),
                facts=_facts(shown, "samples") if kept else (),
            )
        )
    return tuple(sorted(found, key=lambda build: build.state != State.CURRENT))
