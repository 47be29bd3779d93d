"""What the tables say, as views and small typed questions.

Every question about state is asked here, in SQL, over tables that need not fit in memory.

    sources ──▶ current_sources            per URI the row in force
    clips ────▶ current_clips              of current sources that were scanned
    samples ──▶ live_samples               of completed plans, replaced shards left out
            └─▶ current_samples            of the build promoted last
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import duckdb

from telecine.infra.errors import StorageError, UsageError
from telecine.manifests.schemas import TABLES, Build, from_arrow
from telecine.manifests.tables import Tables, one_line

# Joins are written as SEMI JOIN and ANTI JOIN, the few rows on the right: measured on ten million
# samples, IN and NOT IN over pairs of columns took up to a hundred times as long.
_VIEWS = """
CREATE VIEW current_sources AS
SELECT sources.* FROM sources
ANTI JOIN (SELECT uri, revision - 1 AS revision FROM sources WHERE revision > 0) AS replaced
USING (uri, revision);

CREATE VIEW current_clips AS
SELECT clips.* FROM clips
SEMI JOIN (FROM current_sources WHERE status = 'scanned') USING (source_id, scan_fingerprint);

-- A build that was deleted may be made again: what was planned before is gone.
CREATE TABLE deletions AS
SELECT build_id, max(sequence) AS deleted FROM builds WHERE event = 'deleted' GROUP BY build_id;

CREATE TABLE known_events AS
SELECT builds.* FROM builds LEFT JOIN deletions USING (build_id)
WHERE deleted IS NULL OR sequence > deleted;

CREATE TABLE completed_plans AS
SELECT * FROM known_events WHERE event = 'completed';

CREATE TABLE replaced_shards AS
SELECT DISTINCT build_id, unnest(replaces) AS shard_id FROM completed_plans;

CREATE VIEW completed_samples AS
SELECT samples.* FROM samples SEMI JOIN completed_plans USING (build_id, plan);

CREATE VIEW dropped_samples AS
SELECT * FROM completed_samples WHERE outcome = 'dropped';

-- What became last of each clip that was ever dropped.
CREATE VIEW last_plans AS
SELECT build_id, clip_id, max(plan) AS plan
FROM completed_samples SEMI JOIN dropped_samples USING (build_id, clip_id)
GROUP BY build_id, clip_id;

CREATE VIEW live_samples AS
SELECT kept.* FROM completed_samples AS kept
ANTI JOIN replaced_shards USING (build_id, shard_id) WHERE outcome = 'kept'
UNION ALL
SELECT dropped.* FROM dropped_samples AS dropped
SEMI JOIN last_plans USING (build_id, clip_id, plan);

CREATE TABLE current_build AS
SELECT build_id FROM builds WHERE event IN ('promoted', 'rolled_back')
ORDER BY sequence DESC LIMIT 1;

CREATE VIEW current_samples AS
SELECT * FROM live_samples WHERE build_id = (FROM current_build);
"""

READ_BYTES = 16 * 2**20  # of one request to a store, at most: each costs as much as a megabyte

VIEWS = ("current_sources", "current_clips", "live_samples", "current_samples")


def connect(tables: Tables, versions: Mapping[str, int] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB over the tables, at the versions given (those in view otherwise).

    It can read nothing else: no file, no URL, no Python variable, whatever a WHERE clause says.
    Ask it with `con.sql(...)`; a result of `con.execute(...)` that is not fetched to its end
    blocks the connection. It is a context manager; one that nobody holds is closed by itself.

    Raises StorageError where a table's files cannot be read; a query that finds one unreadable
    later raises duckdb.Error.
    """
    con = duckdb.connect(":memory:")
    con.execute("SET memory_limit = '2GB'")  # larger joins spill
    con.execute(f"SET temp_directory = {_quoted(_spill_folder())}")
    con.execute("SET enable_progress_bar = false")  # it would go to standard output
    con.execute("SET python_enable_replacements = false")
    con.execute("SET parquet_metadata_cache = true")  # a table's files never change
    if not tables.on_disk:
        con.register_filesystem(tables.store_files)
        con.execute(f"SET external_file_cache_remote_max_block_size = {READ_BYTES}")
    con.execute(f"SET allowed_directories = [{_quoted(f'{tables.uri}/tables/')}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    for name in TABLES:
        try:
            _add(con, tables, name, (versions or {}).get(name))
        except duckdb.Error as error:
            raise StorageError(
                f"table {name} of {tables.uri} cannot be read: {one_line(error)}"
            ) from error
    con.execute(_VIEWS)
    return con


def _add(con: duckdb.DuckDBPyConnection, tables: Tables, name: str, version: int | None) -> None:
    """Of the files only the columns and row groups that a query needs are read.

    The few rows of `builds`, which nearly every question asks several times, are read at once.
    """
    files = tables.files(name, version)
    if not files:
        con.register("stored", tables.arrow(name, version=version))
        con.execute(f"CREATE TABLE {name} AS FROM stored")
        con.unregister("stored")
        return
    kind = "TABLE" if name == "builds" else "VIEW"
    paths = ", ".join(map(_quoted, files))
    con.execute(f"CREATE {kind} {name} AS SELECT * FROM read_parquet([{paths}])")


def _spill_folder() -> str:
    """Made by DuckDB when it needs it, and removed when the connection ends."""
    return str(Path(tempfile.gettempdir()) / f"telecine-{uuid.uuid4().hex}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def next_sequence(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the next event in `builds`."""
    return int(_value(con, "SELECT coalesce(max(sequence) + 1, 0) FROM builds"))


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


# ── builds ───────────────────────────────────────────────────────────────────────────────────────


class State(StrEnum):
    """What a build is good for."""

    CURRENT = "current"  # what trainers follow
    COMPLETED = "completed"  # whole, and readable by its name
    IN_PROGRESS = "in_progress"  # its first plan is not carried out yet
    DELETED = "deleted"


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


def builds(con: duckdb.DuckDBPyConnection) -> list[BuildState]:
    """Every build there was, in the order of their first events."""
    current = current_build(con)
    histories: dict[str, list[Build]] = {}
    for event in _events(con):
        histories.setdefault(event.build_id, []).append(event)
    return [
        _state(history, current is not None and current.build_id == build_id)
        for build_id, history in histories.items()
    ]


def _state(history: list[Build], current: bool) -> BuildState:
    last = history[-1]
    deletions = [n for n, event in enumerate(history) if event.event == "deleted"]
    known = history[deletions[-1] + 1 :] if deletions else history
    completed = [e for e in known if e.event == "completed"]
    planned = max((e for e in known if e.event == "planned"), key=lambda e: e.plan, default=None)
    is_done = planned is None or any(e.plan == planned.plan for e in completed)
    state = State.COMPLETED if completed else State.IN_PROGRESS
    if not known:
        state = State.DELETED
    elif current:
        state = State.CURRENT
    return BuildState(
        build_id=last.build_id,
        name=last.name,
        state=state,
        last=last,
        completed=completed[-1] if completed else None,
        plans=len(completed),
        in_progress=None if is_done else planned,
        promoted=max((e.sequence for e in known if e.event in _PROMOTIONS), default=None),
    )


def find_build(con: duckdb.DuckDBPyConnection, text: str) -> BuildState:
    """The build, not deleted, of that name, or whose name or id alone begins so.

    Raises UsageError, with those there are, where none or more than one is meant.
    """
    there = [build for build in builds(con) if build.state is not State.DELETED]
    found = [build for build in there if build.name == text]
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


@dataclass(frozen=True)
class Shard:
    """A live shard of a build, as index.json has it."""

    path: str  # relative to the dataset
    num_samples: int
    size_bytes: int
    sha256: str
    resolution: int
    aspect: str
    duration: str

    @property
    def bucket(self) -> str:
        return f"{self.resolution}/{self.aspect}/{self.duration}"


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


def promotions(con: duckdb.DuckDBPyConnection) -> list[Build]:
    """The promotions in force, the current build's last: a rollback goes to the one before it.

    promote A, promote B, promote C  →  A B C;  roll back  →  A B;  delete A  →  B
    """
    stack: list[Build] = []
    for event in _events(con):
        if event.event == "promoted":
            stack.append(event)
        elif event.event == "deleted":
            stack = [e for e in stack if e.build_id != event.build_id]
        elif event.event == "rolled_back":
            while stack and stack[-1].build_id != event.build_id:
                stack.pop()
        # To go from a build to itself is no step.
        stack = [e for n, e in enumerate(stack) if not n or stack[n - 1].build_id != e.build_id]
    return stack


_PROMOTIONS = ("promoted", "rolled_back")


def _events(con: duckdb.DuckDBPyConnection) -> list[Build]:
    return from_arrow(con.sql("FROM builds ORDER BY sequence").to_arrow_table(), Build)


# ── a scan that was killed ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Orphans:
    """Clips with rows although no committed scan of their source stands behind them.

    A scan commits stills, then clips, then sources. One that was killed in between leaves these,
    unseen by every view. Scanning the source again makes the same rows: leave out those whose
    clip_id is here, append the others.
    """

    clips: frozenset[str]  # clip_ids in `clips`
    stills: frozenset[str]  # clip_ids in `stills` (a clip's stills are committed together)


def orphans(con: duckdb.DuckDBPyConnection) -> Orphans:
    """Cheap where there are none: then the counts that rows carry of each other add up."""
    clips, stills = frozenset[str](), frozenset[str]()
    if _value(con, _CLIPS_MISSED):
        clips = frozenset(_column(con, _ORPHANED_CLIPS))
    if clips or _value(con, _STILLS_MISSED):
        stills = frozenset(_column(con, _ORPHANED_STILLS))
    return Orphans(clips, stills)


_SCANNED = "(SELECT source_id, scan_fingerprint FROM sources WHERE status = 'scanned')"

# A source scanned before, replaced and put back has two rows for one set of clips.
_CLIPS_MISSED = """
SELECT (SELECT count(*) FROM clips) <> coalesce(sum(num_clips), 0)
FROM (SELECT DISTINCT source_id, scan_fingerprint, num_clips FROM sources WHERE status = 'scanned')
"""

_STILLS_MISSED = """
SELECT (SELECT count(*) FROM stills) <> (SELECT coalesce(sum(num_stills), 0) FROM clips)
"""

_ORPHANED_CLIPS = (
    f"SELECT clip_id FROM clips ANTI JOIN {_SCANNED} USING (source_id, scan_fingerprint)"
)

_ORPHANED_STILLS = f"""
SELECT DISTINCT clip_id FROM stills ANTI JOIN
(SELECT clip_id FROM clips SEMI JOIN {_SCANNED} USING (source_id, scan_fingerprint)) USING (clip_id)
"""


def _value(con: duckdb.DuckDBPyConnection, query: str) -> int:
    ((value,),) = con.sql(query).fetchall()
    return int(value)


def _column(con: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [row[0] for row in con.sql(query).fetchall()]
