"""What is known of each current clip, in one row: the views `described_clips` and `dataset`.

clips and their scores ─┬─ source ──┬─ caption in force ──┬─ sample of the current build
                        └ uri, ...  └ caption, captioner  └ in_build, shard_path, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb

from telecine.manifests.schemas import CHECKS
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.captions import create_chosen_captions
from telecine.pipeline.catalog.scores import score_columns, scored_clips
from telecine.pipeline.catalog.tracks import track_columns

# Columns of the views by the table that they are from, as SQL over it.
SPAN_COLUMNS = {
    f"{end}_seconds": f"clip.{end}_pts * clip.time_base_num / clip.time_base_den"
    for end in ("start", "end")
}
SOURCE_COLUMNS = {
    name: f"source.{name}"
    for name in (
        "uri", "size_bytes", "container", "codec", "profile", "pixel_format", "bit_depth",
        "color_matrix", "color_range", "color_transfer", "color_primaries", "interlaced",
        "rotation_degrees", "mirrored", "has_audio", "audio_channels", "audio_sample_rate",
        "sidecar_uri",
    )
}  # fmt: skip
CAPTION_COLUMNS = {
    "caption": "said.text",
    "captioner": "said.captioner",
    "caption_outcome": "said.outcome",
}
PLACE_COLUMNS = {
    "in_build": "coalesce(sample.outcome = 'kept', false)",
    "drop_reason": "nullif(sample.reason, '')",
    "drop_detail": "nullif(sample.detail, '')",
    "bucket_resolution": "sample.resolution",
    "bucket_aspect": "sample.aspect",
    "bucket_duration": "sample.duration",
    **{
        name: f"sample.{name}"
        for name in (
            "shard_path", "position", "latent_shape", "latent_bytes", *CHECKS,
            "encoded_width", "encoded_height", "encoded_frames", "frames_left_out",
            "frames_resampled_away", "frames_repeated", "copied_from",
        )
    },
}  # fmt: skip


def described_columns(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> tuple[str, ...]:
    """What is known of a clip by itself: the columns that a condition over clips may name."""
    own = con.sql("FROM current_clips").columns
    scores = (*score_columns(spec.score), *track_columns(spec))
    return (*own, *scores, *SPAN_COLUMNS, *SOURCE_COLUMNS, *CAPTION_COLUMNS)


def create_described_clips(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, names: Iterable[str] | None = None
) -> None:
    """Make the view `described_clips`: current clips with their scores, sources and captions.

    It has a clip's own columns and those of the names, in lower case, that there are (None: all):
    what is not named is not looked up.
    """
    described = _described(con, spec, names if names is None else frozenset(names))
    con.execute(f"CREATE OR REPLACE TEMP VIEW described_clips AS {described}")


def create_dataset_view(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, names: Iterable[str] | None = None
) -> None:
    """Make the view `dataset`: the columns of `described_clips`, and those of a clip's place.

    `in_build` says whether the current build has the clip; it is false, with a `drop_reason` of
    NULL, where the build does not know the clip. `names` as in `create_described_clips`.
    """
    wanted = names if names is None else frozenset(names)
    dataset = _described(con, spec, wanted)
    if _some(wanted, PLACE_COLUMNS):
        dataset = (
            f"SELECT clip.*, {_listed(PLACE_COLUMNS)} FROM ({dataset}) AS clip "
            "LEFT JOIN current_samples AS sample USING (clip_id)"
        )
    con.execute(f"CREATE OR REPLACE TEMP VIEW dataset AS {dataset}")


def _described(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, names: frozenset[str] | None
) -> str:
    columns, joins = ["clip.*"], []
    if _some(names, SPAN_COLUMNS):
        columns.append(_listed(SPAN_COLUMNS))
    if _some(names, SOURCE_COLUMNS):
        columns.append(_listed(SOURCE_COLUMNS))
        joins.append("LEFT JOIN current_sources AS source USING (source_id)")
    if _some(names, CAPTION_COLUMNS):
        create_chosen_captions(con, spec)
        columns.append(_listed(CAPTION_COLUMNS))
        joins.append("LEFT JOIN chosen_captions AS said USING (clip_id)")
    clips = scored_clips(spec, names)
    return f"SELECT {', '.join(columns)} FROM ({clips}) AS clip {' '.join(joins)}"


def _some(names: frozenset[str] | None, columns: Mapping[str, str]) -> bool:
    return names is None or not names.isdisjoint(columns)


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
