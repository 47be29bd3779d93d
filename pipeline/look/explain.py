"""explain: why footage is, or is not, in the current build. `telecine explain DATASET NAME`

    NAME ─┬─ a uri, or how one ends ─▶ the source, and each of its clips
          └─ how a clip's id begins ─▶ its source, and the clip, step by step

The steps themselves are in steps.py.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from telecine.infra.errors import UsageError
from telecine.infra.store.storage import absolute, is_s3
from telecine.manifests.builds import State as BuildIs
from telecine.manifests.builds import builds
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import NAMED, clips_that_begin, connect, find_clip
from telecine.manifests.schemas import Source, from_arrow
from telecine.pipeline.catalog.conditions import is_blank, judged
from telecine.pipeline.catalog.narrow import narrow, uris_of
from telecine.pipeline.catalog.selection import cannot_select, selected
from telecine.pipeline.look.clip import KnownClip, known_clips
from telecine.pipeline.look.steps import (
    Ground,
    Selection,
    Step,
    clip_steps,
    source_steps,
    span,
)
from telecine.pipeline.look.verdict import (
    Verdict,
    clip_verdict,
    clips_verdict,
    source_verdict,
)


@dataclass(frozen=True, slots=True)
class ExplainedClip:
    clip_id: str
    span: str
    steps: tuple[Step, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Explained:
    asked: str
    uri: str
    steps: tuple[Step, ...]  # of the source
    clips: tuple[ExplainedClip, ...]  # the one asked for, or all of the source in force
    verdict: Verdict


def explain(dataset: Dataset, name: str) -> Explained:
    """Every step of a source or clip. Raises UsageError where nothing by that name is known."""
    with connect(dataset.tables) as con:
        uri, clip_id = _find(con, name, dataset.uri)
        if clip_id is not None:
            uri = next(iter(uris_of(con, [clip_id])), None)
            clip_ids = [clip_id]
        else:
            clip_ids = _current_clips(con, str(uri))
        original = None if uri is None else _original(con, uri)
        ground = _ground(con, dataset)
        narrow(con, clip_ids, [] if uri is None else [uri])
        known = known_clips(con, dataset.spec)
        ground, selections = _selected(con, dataset, ground, known)
        history = from_arrow(con.sql("FROM sources ORDER BY revision").to_arrow_table(), Source)
    clips = tuple(_explained(k, selections[k.clip.clip_id], ground) for k in known)
    steps = source_steps(history, original) if history else ()
    if clip_id is not None:
        verdict = clips[0].verdict
    else:
        own = source_verdict(history[-1], original, ground)
        verdict = own if own is not None else clips_verdict([c.verdict for c in clips], ground)
    return Explained(name, uri or "", steps, clips, verdict)


def _explained(known: KnownClip, selection: Selection, ground: Ground) -> ExplainedClip:
    steps = clip_steps(known, selection, ground)
    verdict = clip_verdict(known, selection, ground)
    return ExplainedClip(known.clip.clip_id, span(known), steps, verdict)


# ── what is meant ────────────────────────────────────────────────────────────────────────────────


def _find(con: duckdb.DuckDBPyConnection, name: str, dataset: str) -> tuple[str | None, str | None]:
    """The URI or the clip_id that a name stands for: a whole URI before an id before an end."""
    uri = absolute(name) if name else ""
    for whole in (uri, name):
        if _uris(con, "uri = ?", whole):
            return whole, None
    if re.fullmatch("[0-9a-f]{1,32}", name) and clips_that_begin(con, name):
        return None, find_clip(con, name)
    for end in (f"/{name.lstrip('/')}", name):
        found = _uris(con, "ends_with(uri, ?)", end) if name else []
        if len(found) == 1:
            return found[0], None
        if found:
            raise UsageError(f"several sources end so: give more of the name{_listed(found)}")
    raise _unknown(con, name, uri, dataset)


def _uris(con: duckdb.DuckDBPyConnection, condition: str, value: str) -> list[str]:
    rows = con.sql(
        f"SELECT DISTINCT uri FROM sources WHERE {condition} ORDER BY uri LIMIT {NAMED}",
        params=[value],
    )
    return [uri for (uri,) in rows.fetchall()]


def _listed(uris: list[str]) -> str:
    return "".join(f"\n  {uri}" for uri in uris) + ("\n  …" if len(uris) == NAMED else "")


def _unknown(con: duckdb.DuckDBPyConnection, name: str, uri: str, dataset: str) -> UsageError:
    """What to do about a name that no table has."""
    if not name:
        return UsageError("the name is empty: give a uri or how it ends, or how a clip_id begins")
    if within := _uris(con, "starts_with(uri, ?)", f"{uri.rstrip('/')}/"):
        return UsageError(f"{name} is no source, but these lie in it: name one{_listed(within)}")
    if beside := _uris(con, "sidecar_uri = ?", uri):
        return UsageError(f"{name} is a caption file; explain what it is beside{_listed(beside)}")
    command = Ground(dataset, None, None, None, "", None, "").ingest(uri)
    if is_s3(uri) or Path(uri).exists():
        return UsageError(f"{name} is not in this dataset: no ingest has met it. {command}")
    near = _uris(con, "contains(uri, ?)", Path(name).name)
    return UsageError(
        f"there is no source or clip {name!r}, nor a file of that name. Give a uri or how it ends, "
        "or how a clip_id begins" + (f"; near it are{_listed(near)}" if near else "")
    )


# ── what the tables say ──────────────────────────────────────────────────────────────────────────


def _current_clips(con: duckdb.DuckDBPyConnection, uri: str) -> list[str]:
    rows = con.sql(
        "SELECT clip_id FROM current_clips SEMI JOIN "
        "(SELECT source_id FROM current_sources WHERE uri = ?) USING (source_id)",
        params=[uri],
    )
    return [clip_id for (clip_id,) in rows.fetchall()]


def _original(con: duckdb.DuckDBPyConnection, uri: str) -> Source | None:
    """What the source is a copy of, if it is one."""
    rows = con.sql(
        "FROM sources WHERE source_id = (SELECT duplicate_of FROM current_sources WHERE uri = ?) "
        "AND status <> 'duplicate' ORDER BY revision DESC LIMIT 1",
        params=[uri],
    )
    return next(iter(from_arrow(rows.to_arrow_table(), Source)), None)


def _ground(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Ground:
    there = [build for build in builds(con) if build.state is not BuildIs.DELETED]
    current = next((build for build in there if build.state is BuildIs.CURRENT), None)
    unfinished = [build for build in there if build.in_progress is not None]
    mine = [b for b in unfinished if current is None or b.build_id == current.build_id]
    theirs = json.loads(current.last.spec).get("select", {}) if current is not None else {}
    return Ground(
        dataset=dataset.uri,
        current=current,
        in_progress=next(reversed(mine or unfinished), None),
        where=dataset.spec.select.where,
        where_error="",
        current_where=theirs.get("where"),
        scorer=dataset.spec.score.scorer or "",
    )


def _selected(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, ground: Ground, known: list[KnownClip]
) -> tuple[Ground, Mapping[str, Selection]]:
    clip_ids = [k.clip.clip_id for k in known]
    where = dataset.spec.select.where
    if where is None or is_blank(where):
        return ground, dict.fromkeys(clip_ids, Selection(True))
    try:
        chosen = set(selected(con, dataset.spec, where)["clip_id"].to_pylist())
        parts = judged(con, "described_clips", where)
    except UsageError as error:
        why = str(error).splitlines()[0].removeprefix(cannot_select(where))
        failed = dataclasses.replace(ground, where_error=why)
        return failed, dict.fromkeys(clip_ids, Selection(False))
    return ground, {c: Selection(c in chosen, parts.get(c, ())) for c in clip_ids}
