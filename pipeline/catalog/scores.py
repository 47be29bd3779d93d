"""Which scores are in force: the columns that a condition over clips may use beside their own.

    text_similarity       embedding · caption in force, of the scorer in force
    similarity_<name>     embedding · a prompt of [score.prompts]
    aesthetic_score       the linear head's
    <track>_coverage, <track>_gap       how much of the clip a track covers (catalog/tracks.py)
    duplicate_rank, duplicate_group     0 and the clip's own id: kept, or without duplicates

A score counts while it was made from the clip's present stills and the present text; a clip that
has none has NULL, of which no comparison is true.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import duckdb

from telecine.encoders.load import load_scorer
from telecine.infra.text import literal
from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.specs import DatasetSpec, ScoreSpec
from telecine.pipeline.catalog.captions import captions_of
from telecine.pipeline.catalog.conditions import columns_named
from telecine.pipeline.catalog.tracks import covered, track_columns

TEXT_SIMILARITY = "text_similarity"
AESTHETIC = "aesthetic_score"
DUPLICATES = ("duplicate_rank", "duplicate_group")

_COLUMN = re.compile(rf"{TEXT_SIMILARITY}|{AESTHETIC}|similarity_[a-z0-9_]+|{'|'.join(DUPLICATES)}")


def similarity(prompt: str) -> str:
    """The column of a prompt's name."""
    return f"similarity_{prompt}"


def is_score(column: str) -> bool:
    """Whether a column of that name, in lower case, is a score's, be there one or not."""
    return bool(_COLUMN.fullmatch(column))


def scores_wanted(score: ScoreSpec) -> tuple[str, ...]:
    """Names of the scores that a spec asks for, but for the ranks of duplicates."""
    if score.scorer is None:
        return ()
    aesthetic = (AESTHETIC,) if score.aesthetic else ()
    return (TEXT_SIMILARITY, *aesthetic, *map(similarity, score.prompts))


def score_columns(score: ScoreSpec) -> tuple[str, ...]:
    """The columns that clips have beside their own under a spec."""
    grouped = score.scorer is not None and score.duplicate_threshold is not None
    return (*scores_wanted(score), *(DUPLICATES if grouped else ()))


def scores_used(spec: DatasetSpec) -> ScoreSpec | None:
    """Of the spec's scores what its selection hangs on; None where it hangs on none.

    Raises UsageError where the selection is no condition.
    """
    score = spec.score
    named = columns_named(spec.select.where) & set(score_columns(score))
    if not named:
        return None
    kept: dict[str, Any] = {
        "prompts": {n: text for n, text in score.prompts.items() if similarity(n) in named}
    }
    if AESTHETIC not in named:
        kept |= {"aesthetic": None, "aesthetic_weights": None}
    if not named & set(DUPLICATES):
        kept |= {"duplicate_threshold": None, "duplicate_keep": "longest"}
    return score.model_copy(update=kept)


def create_scored_clips(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, names: Iterable[str] | None = None
) -> None:
    """Make the view `scored_clips`: current clips with those of the scores named, None: with all.

    What is not named is not looked up: each is a join.
    """
    clips = scored_clips(spec, names if names is None else frozenset(names))
    con.execute(f"CREATE OR REPLACE TEMP VIEW scored_clips AS {clips}")


def scored_clips(spec: DatasetSpec, names: frozenset[str] | None) -> str:
    """SQL of that view."""
    there = (*score_columns(spec.score), *track_columns(spec))
    columns = [name for name in there if names is None or name in names]
    joins = [f"LEFT JOIN ({_query(spec, column)}) USING (clip_id)" for column in columns]
    listed = ", ".join(["current_clips.*", *columns])
    return f"SELECT {listed} FROM current_clips {' '.join(joins)}"


def _query(spec: DatasetSpec, column: str) -> str:
    if column in track_columns(spec):
        return covered(spec, column)
    if column in DUPLICATES:
        return f"""
            SELECT clip_id, arg_max({column}, round) AS {column} FROM duplicates
            WHERE grouping = {literal(grouping(spec.score))} GROUP BY clip_id
        """
    scorer = load_scorer(spec.score).fingerprint
    return f"""
        SELECT clip_id, any_value(CASE WHEN isfinite(value) THEN value END) AS {column}
        FROM scores SEMI JOIN ({score_inputs(spec, column)}) USING (clip_id, input_digest)
        WHERE name = {literal(column)} AND scorer_fingerprint = {literal(scorer)}
        GROUP BY clip_id
    """


def score_inputs(spec: DatasetSpec, column: str) -> str:
    """SQL: clip_id and input_digest of the clips that can have this score, as they are now."""
    digest = "sha256(stills_digest || ' ' || {})"
    if column == TEXT_SIMILARITY:
        return f"""
            SELECT clip_id, {digest.format("sha256(said.text)")} AS input_digest, said.text AS text
            FROM current_clips JOIN ({captions_of(spec.caption)}) USING (clip_id)
            WHERE said.text <> ''
        """
    compared = literal(_compared(spec.score, column))
    return (
        f"SELECT clip_id, {digest.format(compared)} AS input_digest, '' AS text FROM current_clips"
    )


def _compared(score: ScoreSpec, column: str) -> str:
    """Digest of what an embedding is compared with."""
    if column == AESTHETIC:
        return str(score.aesthetic_weights)
    (text,) = (text for name, text in score.prompts.items() if similarity(name) == column)
    return hashlib.sha256(text.encode()).hexdigest()


def grouping(score: ScoreSpec) -> str:
    """What names a way of grouping near-duplicates."""
    return fingerprint(
        {
            "scorer": load_scorer(score).fingerprint,
            "threshold": score.duplicate_threshold,
            "keep": score.duplicate_keep,
            "version": 1,
        }
    )
