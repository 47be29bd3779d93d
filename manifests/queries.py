"""What the tables say, as views and small typed questions.

Every question about state is asked here, in SQL, over tables that need not fit in memory.

    sources ──▶ current_sources            per URI the row in force
    clips ────▶ current_clips              of current sources that were scanned
    samples ──▶ live_samples               of completed plans, replaced shards left out
            └─▶ current_samples            of the build promoted last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from manifests.schemas import TABLES, Build, from_arrow
from manifests.tables import Tables

_VIEWS = """
CREATE VIEW current_sources AS
SELECT * FROM sources
WHERE (uri, revision) IN (SELECT uri, max(revision) FROM sources GROUP BY uri);

CREATE VIEW current_clips AS
SELECT * FROM clips WHERE (source_id, scan_fingerprint) IN
    (SELECT source_id, scan_fingerprint FROM current_sources WHERE status = 'scanned');

CREATE VIEW completed_plans AS
SELECT * FROM builds WHERE event = 'completed';

CREATE VIEW replaced_shards AS
SELECT DISTINCT build_id, unnest(replaces) AS shard_id FROM completed_plans;

CREATE VIEW live_samples AS
WITH done AS (
    SELECT * FROM samples WHERE (build_id, plan) IN (SELECT build_id, plan FROM completed_plans)
), kept AS (
    SELECT * FROM done WHERE outcome = 'kept'
    AND (build_id, shard_id) NOT IN (SELECT build_id, shard_id FROM replaced_shards)
), dropped AS (
    SELECT * FROM done WHERE outcome = 'dropped'
    QUALIFY row_number() OVER (PARTITION BY build_id, clip_id ORDER BY plan DESC) = 1
)
FROM kept UNION ALL
-- A clip that was dropped once and kept later is a kept clip.
FROM dropped WHERE (build_id, clip_id) NOT IN (
    SELECT k.build_id, k.clip_id FROM kept k SEMI JOIN dropped d USING (build_id, clip_id)
);

CREATE VIEW current_build AS
SELECT build_id FROM builds WHERE event = 'promoted' ORDER BY sequence DESC LIMIT 1;

CREATE VIEW current_samples AS
SELECT * FROM live_samples WHERE build_id IN (FROM current_build);
"""

VIEWS = ("current_sources", "current_clips", "live_samples", "current_samples")


def connect(tables: Tables, versions: Mapping[str, int] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB over the tables, at the versions given (those in view otherwise).

    It can read nothing else: no file, no URL, no Python variable, whatever a WHERE clause says.
    Ask it with `con.sql(...)`; a result of `con.execute(...)` that is not fetched to its end
    blocks the connection.
    """
    con = duckdb.connect(":memory:")
    con.execute("SET memory_limit = '2GB'")
    con.execute("SET python_enable_replacements = false")
    for name in TABLES:
        con.register(name, tables.dataset(name, (versions or {}).get(name)))
    con.execute(_VIEWS)
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con


def next_sequence(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the next event in `builds`."""
    return int(_value(con, "SELECT coalesce(max(sequence) + 1, 0) FROM builds"))


def last_plan(con: duckdb.DuckDBPyConnection, build_id: str) -> Build | None:
    """The plan of the build with the highest number, as its last event but promotion has it."""
    found = con.sql(
        "SELECT * FROM builds WHERE build_id = ? AND event IN ('planned', 'completed') "
        "ORDER BY plan DESC, sequence DESC LIMIT 1",
        params=[build_id],
    )
    return next(iter(from_arrow(found.to_arrow_table(), Build)), None)


def current_build(con: duckdb.DuckDBPyConnection) -> Build | None:
    """The event that made the current build current."""
    found = con.sql("SELECT * FROM builds WHERE event = 'promoted' ORDER BY sequence DESC LIMIT 1")
    return next(iter(from_arrow(found.to_arrow_table(), Build)), None)


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
        clips = frozenset(_column(con, f"SELECT clip_id FROM clips WHERE NOT {_SCANNED}"))
    if clips or _value(con, _STILLS_MISSED):
        stills = frozenset(_column(con, _ORPHANED_STILLS))
    return Orphans(clips, stills)


_SCANNED = """(source_id, scan_fingerprint) IN
    (SELECT source_id, scan_fingerprint FROM sources WHERE status = 'scanned')"""

_CLIPS_MISSED = """
SELECT (SELECT count(*) FROM clips) <> coalesce(sum(num_clips), 0)
FROM (SELECT DISTINCT source_id, scan_fingerprint, num_clips FROM sources WHERE status = 'scanned')
"""

_STILLS_MISSED = """
SELECT (SELECT count(*) FROM stills) <> (SELECT coalesce(sum(num_stills), 0) FROM clips)
"""

_ORPHANED_STILLS = f"""
SELECT DISTINCT clip_id FROM stills
WHERE clip_id NOT IN (SELECT clip_id FROM clips WHERE {_SCANNED})
"""


def _value(con: duckdb.DuckDBPyConnection, query: str) -> int:
    ((value,),) = con.sql(query).fetchall()
    return int(value)


def _column(con: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [row[0] for row in con.sql(query).fetchall()]
