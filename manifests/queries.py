"""What the tables say, as views and small typed questions.

Every question about state is asked here, in SQL, over tables that need not fit in memory.

    sources ──▶ current_sources            per URI the row in force
    clips ────▶ current_clips              of current sources that were scanned
    samples ──▶ live_samples               of completed plans, replaced shards left out
            └─▶ current_samples            of the build promoted last
"""

from __future__ import annotations

import functools
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from telecine.infra.errors import StorageError, UsageError
from telecine.infra.text import identifier, literal
from telecine.manifests.evolve import select_of
from telecine.manifests.schemas import TABLES, arrow_schema
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
    con.execute(f"SET temp_directory = {literal(_spill_folder())}")
    con.execute("SET enable_progress_bar = false")  # it would go to standard output
    con.execute("SET python_enable_replacements = false")
    con.execute("SET parquet_metadata_cache = true")  # a table's files never change
    if not tables.on_disk:
        con.register_filesystem(tables.store_files)
        con.execute(f"SET external_file_cache_remote_max_block_size = {READ_BYTES}")
    con.execute(f"SET allowed_directories = [{literal(f'{tables.uri}/tables/')}]")
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
        declared = ", ".join(f"{identifier(n)} {kind}" for n, kind in _types(name).items())
        con.execute(f"CREATE TABLE {name} ({declared})")
        return
    kind, columns = "TABLE" if name == "builds" else "VIEW", tables.columns(name, version)
    types = {} if columns.same else _types(name)
    con.execute(f"CREATE {kind} {name} AS {select_of(columns, types, files)}")


@functools.cache
def _types(name: str) -> Mapping[str, str]:
    """DuckDB's words for the types of a table's columns as they are declared."""
    with duckdb.connect() as con:
        con.register("declared", arrow_schema(TABLES[name]).empty_table())
        described = con.sql("FROM declared")
        return dict(zip(described.columns, map(str, described.types), strict=True))


def _spill_folder() -> str:
    """Made by DuckDB when it needs it, and removed when the connection ends."""
    return str(Path(tempfile.gettempdir()) / f"telecine-{uuid.uuid4().hex}")


# ── which clip is meant ──────────────────────────────────────────────────────────────────────────

NAMED = 6  # ids to name where none or several are meant


def find_clip(
    con: duckdb.DuckDBPyConnection, text: str, among: str = "clips", holder: str = "this dataset"
) -> str:
    """The one clip_id, of those that a relation of SQL has, that begins so.

    Raises UsageError, with the ids near it, where none or several do. `holder` is what the message
    calls the relation.
    """
    found = clips_that_begin(con, text, among) if text else []
    if len(found) == 1:
        return found[0]
    if found:
        more = ", …" if len(found) == NAMED else ""
        raise UsageError(
            f"several clips begin with {text!r} ({', '.join(found)}{more}): give more of the id"
        )
    near = _clips_near(con, text, among)
    raise UsageError(
        f"{holder} has no clip whose id begins with {text!r}; "
        + (f"near it are {', '.join(near)}" if near else "it has no clip yet")
    )


def clips_that_begin(con: duckdb.DuckDBPyConnection, text: str, among: str = "clips") -> list[str]:
    """The first few of them."""
    rows = con.sql(
        f"SELECT DISTINCT clip_id FROM {among} WHERE starts_with(clip_id, ?) "
        f"ORDER BY clip_id LIMIT {NAMED}",
        params=[text],
    )
    return [clip_id for (clip_id,) in rows.fetchall()]


def _clips_near(con: duckdb.DuckDBPyConnection, text: str, among: str) -> list[str]:
    """Its neighbours in the order of ids: those that begin most like it are among them."""
    each = NAMED // 2
    rows = con.sql(
        f"(SELECT clip_id FROM {among} WHERE clip_id < $1 ORDER BY clip_id DESC LIMIT {each}) "
        f"UNION (SELECT clip_id FROM {among} WHERE clip_id > $1 ORDER BY clip_id LIMIT {each})",
        params=[text],
    )
    return sorted(clip_id for (clip_id,) in rows.fetchall())


# ── a scan that was killed ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Orphans:
    """Clips with rows although no committed scan of their source stands behind them.

    A scan commits stills, frame_times, clips, then sources. One that was killed in between leaves
    these, unseen by every view. Scanning the source again makes the same rows: leave out those
    whose clip_id is here, append the others.
    """

    clips: frozenset[str]  # clip_ids in `clips`
    stills: frozenset[str]  # clip_ids in `stills` (a clip's stills are committed together)
    frame_times: frozenset[str] = frozenset()  # clip_ids in `frame_times`


def orphans(con: duckdb.DuckDBPyConnection) -> Orphans:
    """Cheap where there are none: then the counts that rows carry of each other add up."""
    clips, stills = frozenset[str](), frozenset[str]()
    if _value(con, _CLIPS_MISSED):
        clips = frozenset(_column(con, _ORPHANED_CLIPS))
    if clips or _value(con, _STILLS_MISSED):
        stills = frozenset(_column(con, _ORPHANED_STILLS))
    return Orphans(clips, stills, frozenset(_column(con, _ORPHANED_TIMES)))


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

_ORPHANED_TIMES = f"""
SELECT clip_id FROM frame_times ANTI JOIN
(SELECT clip_id FROM clips SEMI JOIN {_SCANNED} USING (source_id, scan_fingerprint)) USING (clip_id)
"""


def _value(con: duckdb.DuckDBPyConnection, query: str) -> int:
    ((value,),) = con.sql(query).fetchall()
    return int(value)


def _column(con: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [row[0] for row in con.sql(query).fetchall()]
