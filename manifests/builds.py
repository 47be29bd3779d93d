"""Builds: what their events say of them, and which one is meant.

planned ──▶ completed ──▶ promoted ──▶ rolled_back …        a row of `builds` each
└───────── deleted: what was planned before is gone ───▶ planned …
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import duckdb

from telecine.infra.errors import UsageError
from telecine.manifests.schemas import Build, from_arrow
from telecine.manifests.shards import Shard

PINNED = ("sources", "clips", "captions", "scores", "duplicates", "samples", "builds")


def pinned(event: Build) -> dict[str, int]:
    """The table versions that a plan is a pure function of."""
    return {name: getattr(event, f"{name}_version") for name in PINNED}


class State(StrEnum):
    """What a build is good for."""

    CURRENT = "current"  # what trainers follow
    RENDITION = "rendition"  # current beside that one, which it follows
    COMPLETED = "completed"  # whole, and readable by its name
    IN_PROGRESS = "in_progress"  # its first plan is not carried out yet
    DELETED = "deleted"


NOW = (State.CURRENT, State.RENDITION)


@dataclass(frozen=True)
class BuildState:
    """A build as its events since it was last deleted leave it."""

    build_id: str
    name: str
    state: State
    last: Build  # event
    completed: Build | None  # the event that completed its last whole plan
    plans: int  # completed
    in_progress: Build | None  # the plan that was begun and is not completed
    promoted: int | None  # sequence of the last event that made it current
    rendition: str = ""  # its name in the family it was last made or promoted in, or empty


def builds(con: duckdb.DuckDBPyConnection) -> list[BuildState]:
    """Every build there was, in the order of their first events."""
    current = current_build(con)
    states: dict[str, State] = {}
    if current is not None:
        states = dict.fromkeys(family(current.family).values(), State.RENDITION)
        states[current.build_id] = State.CURRENT
    histories: dict[str, list[Build]] = {}
    names: dict[str, str] = {}
    for event in _events(con):
        histories.setdefault(event.build_id, []).append(event)
        names |= {build_id: name for name, build_id in family(event.family).items()}
    return [
        _state(history, states.get(build_id), names.get(build_id, ""))
        for build_id, history in histories.items()
    ]


def family(text: str) -> dict[str, str]:
    """build_id by the name of each rendition, the first one first, of the column `family`.

    Empty where a build stands alone.
    """
    return dict(pair.split("=") for pair in text.split())


def family_text(renditions: Mapping[str, str]) -> str:
    """The column `family`."""
    return " ".join(f"{name}={build_id}" for name, build_id in renditions.items())


def last_family(con: duckdb.DuckDBPyConnection, build_id: str) -> dict[str, str]:
    """The family that a build was last made or promoted in; of those that are not deleted."""
    last = _event(
        con,
        "FROM known_events WHERE build_id = $1 OR contains(family, '=' || $1) "
        "ORDER BY sequence DESC LIMIT 1",
        build_id,
    )
    there = {build.build_id for build in builds(con) if build.state is not State.DELETED}
    found = {} if last is None else family(last.family)
    kept = {name: one for name, one in found.items() if one in there}
    return kept if len(kept) > 1 else {}


def _state(history: list[Build], now: State | None, rendition: str) -> BuildState:
    last = history[-1]
    deletions = [n for n, event in enumerate(history) if event.event == "deleted"]
    known = history[deletions[-1] + 1 :] if deletions else history
    completed = [e for e in known if e.event == "completed"]
    planned = max((e for e in known if e.event == "planned"), key=lambda e: e.plan, default=None)
    is_done = planned is None or any(e.plan == planned.plan for e in completed)
    state = State.COMPLETED if completed else State.IN_PROGRESS
    if not known:
        state = State.DELETED
    elif now is not None:
        state = now
    return BuildState(
        build_id=last.build_id,
        name=last.name,
        state=state,
        last=last,
        completed=completed[-1] if completed else None,
        plans=len(completed),
        in_progress=None if is_done else planned,
        promoted=max((e.sequence for e in known if e.event in _PROMOTIONS), default=None),
        rendition=rendition,
    )


def find_build(con: duckdb.DuckDBPyConnection, text: str) -> BuildState:
    """The build, not deleted, of that name; the rendition of that name in the current family; or
    the one whose name or id alone begins so.

    Raises UsageError, with those there are, where none or more than one is meant.
    """
    there = [build for build in builds(con) if build.state is not State.DELETED]
    found = [build for build in there if build.name == text]
    found = found or [b for b in there if text and b.rendition == text and b.state in NOW]
    found = found or [
        b for b in there if text and (b.name.startswith(text) or b.build_id.startswith(text))
    ]
    if len(found) == 1:
        return found[0]
    listed = "".join(f"\n  {b.name}  {b.build_id}  {b.state}" for b in found or there)
    if found:
        raise UsageError(
            f"{text!r} begins the names or ids of {len(found)} builds; write more:{listed}"
        )
    raise UsageError(
        f"there is no build {text!r}: give the beginning of a name or id"
        + (f" of these:{listed}" if listed else "; this dataset has no build yet")
    )


def completed_build(con: duckdb.DuckDBPyConnection, text: str | None) -> BuildState:
    """The build of that name (None: the current one). Raises UsageError where it is not whole."""
    if text is None:
        current = current_build(con)
        if current is None:
            raise UsageError("no build is current yet: name one with --build")
        text = current.build_id
    found = find_build(con, text)
    if found.completed is None:
        raise UsageError(
            f"build {found.name} is not completed: run telecine rebuild again to go on with it"
        )
    return found


def shards_of(con: duckdb.DuckDBPyConnection, build_id: str) -> list[Shard]:
    """The build's live shards, in the order of index.json."""
    rows = con.sql(
        """
        SELECT DISTINCT shard_path, shard_samples, shard_bytes, shard_sha256,
            resolution, aspect, duration
        FROM live_samples WHERE build_id = ? AND outcome = 'kept' ORDER BY shard_path
        """,
        params=[build_id],
    )
    return [Shard(*row) for row in rows.fetchall()]


# ── events ───────────────────────────────────────────────────────────────────────────────────────


def next_sequence(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the next event in `builds`."""
    ((number,),) = con.sql("SELECT coalesce(max(sequence) + 1, 0) FROM builds").fetchall()
    return int(number)


def last_plan(con: duckdb.DuckDBPyConnection, build_id: str) -> Build | None:
    """The build's plan with the highest number, as its last event but promotion has it.

    None where it has none, or none since it was deleted.
    """
    return _event(
        con,
        "FROM known_events WHERE build_id = ? AND event IN ('planned', 'completed') "
        "ORDER BY plan DESC, sequence DESC LIMIT 1",
        build_id,
    )


def next_plan(con: duckdb.DuckDBPyConnection, build_id: str) -> int:
    """The number of the build's next plan. None is used twice, not even after a deletion."""
    query = "SELECT coalesce(max(plan) + 1, 0) FROM builds WHERE build_id = ?"
    ((number,),) = con.sql(query, params=[build_id]).fetchall()
    return int(number)


def current_build(con: duckdb.DuckDBPyConnection) -> Build | None:
    """The event that made the current build current."""
    return _event(
        con,
        "FROM builds WHERE event IN ('promoted', 'rolled_back') ORDER BY sequence DESC LIMIT 1",
    )


def _event(con: duckdb.DuckDBPyConnection, query: str, *params: str) -> Build | None:
    found = con.sql(query, params=list(params)).to_arrow_table()
    return next(iter(from_arrow(found, Build)), None)


def promotions(con: duckdb.DuckDBPyConnection) -> list[Build]:
    """The promotions in force, the current build's last: a rollback goes to the one before it.

    promote A, promote B, promote C  →  A B C;  roll back  →  A B;  delete A  →  B
    """
    stack: list[Build] = []
    for event in _events(con):
        if event.event == "promoted":
            stack.append(event)
        elif event.event == "deleted":
            gone = event.build_id
            stack = [e for e in stack if gone != e.build_id and gone not in e.family]
        elif event.event == "rolled_back":
            while stack and _made(stack[-1]) != _made(event):
                stack.pop()
        # To go from a build to itself is no step.
        stack = [e for n, e in enumerate(stack) if not n or _made(stack[n - 1]) != _made(e)]
    return stack


def _made(event: Build) -> tuple[str, str]:
    """What a promotion makes current: a build, or a family as a whole."""
    return event.build_id, event.family


_PROMOTIONS = ("promoted", "rolled_back")


def _events(con: duckdb.DuckDBPyConnection) -> list[Build]:
    return from_arrow(con.sql("FROM builds ORDER BY sequence").to_arrow_table(), Build)
