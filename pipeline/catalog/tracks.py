"""Which track file a clip's sample is made from, and how much of the clip each track covers.

    <track>_coverage    share of its frames, 0..1
    <track>_gap         seconds: the longest time without a row of the file; NULL: no usable track

They are rows of `scores`, named by the track's own spec and by the version of the file.
"""

from __future__ import annotations

from telecine.infra.text import literal
from telecine.manifests.specs import DatasetSpec

DIGEST = "if(tracks_uri = '', '', sha256(concat(tracks_uri, chr(10), tracks_version)))"


def coverage(track: str) -> str:
    """The column of a track's name."""
    return f"{track}_coverage"


def gap(track: str) -> str:
    """The column of a track's name."""
    return f"{track}_gap"


def tracks_in_force(spec: DatasetSpec) -> str:
    """SQL: clip_id and tracks_digest of the current clips, empty where there is no track file.

    No rows where the spec asks for no track: then no sample depends on any.
    """
    query = f"""
        SELECT clip_id, {DIGEST} AS tracks_digest
        FROM current_clips JOIN current_sources USING (source_id)
    """
    return query if spec.tracks else f"{query} LIMIT 0"


def uncovered(spec: DatasetSpec) -> str:
    """SQL: clip_id of the current clips of which some track's coverage is not known."""
    each = (
        f"""
        SELECT clip_id FROM ({tracks_in_force(spec)}) ANTI JOIN (
            SELECT clip_id, input_digest AS tracks_digest FROM scores
            WHERE name = {literal(coverage(name))}
            AND scorer_fingerprint = {literal(track.fingerprint)}
        ) USING (clip_id, tracks_digest)
        """
        for name, track in spec.tracks.items()
    )
    return " UNION ".join(each)


def track_columns(spec: DatasetSpec) -> tuple[str, ...]:
    """The columns that clips have of their tracks under a spec."""
    return tuple(column(name) for name in spec.tracks for column in (coverage, gap))


def covered(spec: DatasetSpec, column: str) -> str:
    """SQL: clip_id and that column, of the clips that have it as they are now."""
    name = column.rpartition("_")[0]
    return f"""
        SELECT clip_id, any_value(value) AS {column} FROM scores
        SEMI JOIN (
            SELECT clip_id, tracks_digest AS input_digest FROM ({tracks_in_force(spec)})
        ) USING (clip_id, input_digest)
        WHERE name = {literal(column)}
        AND scorer_fingerprint = {literal(spec.tracks[name].fingerprint)}
        GROUP BY clip_id
    """
