"""narrow: of some clips everything, of all others nothing; so their questions cost little."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

OF_CLIPS = ("clips", "captions", "embeddings", "scores", "duplicates", "samples")


def narrow(con: duckdb.DuckDBPyConnection, clip_ids: Sequence[str], uris: Sequence[str]) -> None:
    """From here on the tables hold these clips and all revisions of these sources, nothing else.

    Views over them follow. `builds` and `stills` stay whole.
    """
    con.register("asked_clips", pa.table({"clip_id": pa.array(clip_ids, pa.string())}))
    con.register("asked_sources", pa.table({"uri": pa.array(uris, pa.string())}))
    narrowed = {
        name: con.sql(f"FROM {name} SEMI JOIN asked_clips USING (clip_id)").to_arrow_table()
        for name in OF_CLIPS
    }
    of_sources = con.sql("FROM sources SEMI JOIN asked_sources USING (uri) ORDER BY uri, revision")
    narrowed["sources"] = of_sources.to_arrow_table()
    for name, rows in narrowed.items():
        con.register(name, rows)


def uris_of(con: duckdb.DuckDBPyConnection, clip_ids: Sequence[str]) -> list[str]:
    """Of the sources that the clips were cut from; none where a scan was never committed."""
    con.register("asked_clips", pa.table({"clip_id": pa.array(clip_ids, pa.string())}))
    rows = con.sql(
        "SELECT DISTINCT uri FROM sources "
        "SEMI JOIN (FROM clips SEMI JOIN asked_clips USING (clip_id)) USING (source_id) "
        "ORDER BY uri"
    )
    return [uri for (uri,) in rows.fetchall()]
