"""joined: the view `dataset`, a row per current clip with all that is known of it.

clips and their scores ─┬─ source ──┬─ caption in force ──┬─ sample of the current build
                        └ uri, ...  └ caption, captioner  └ in_build, shard_path, ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import duckdb

from telecine.manifests.schemas import CHECKS
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.captions import create_chosen_captions
from telecine.pipeline.catalog.scores import create_scored_clips

# Columns of the view by the table they are from, as SQL over it.
_SOURCE = {
    name: f"source.{name}"
    for name in (
        "uri", "size_bytes", "container", "codec", "profile", "pixel_format", "bit_depth",
        "color_matrix", "color_range", "color_transfer", "color_primaries", "interlaced",
        "rotation_degrees", "mirrored", "sidecar_uri",
    )
}  # fmt: skip
_CAPTION = {
    "caption": "said.text",
    "captioner": "said.captioner",
    "caption_outcome": "said.outcome",
}
_SAMPLE = {
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
            "copied_from",
        )
    },
}  # fmt: skip

_JOINS = {
    "LEFT JOIN current_sources AS source USING (source_id)": _SOURCE,
    "LEFT JOIN chosen_captions AS said USING (clip_id)": _CAPTION,
    "LEFT JOIN current_samples AS sample USING (clip_id)": _SAMPLE,
}


def create_joined(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec, expressions: Iterable[str | None] = ("*",)
) -> None:
    """Make the view `dataset`, with those tables joined whose columns the expressions name.

    An expression `*` names all. `in_build` says whether the current build has the clip; it is
    false, with a `drop_reason` of NULL, where the build does not know the clip.
    """
    said = [expression for expression in expressions if expression]
    every = any(expression.strip() == "*" for expression in said)
    create_scored_clips(con, spec, said)
    create_chosen_captions(con, spec)
    words = set(re.findall(r"\w+", " ".join(said).lower()))
    columns, joins = ["clip.*"], []
    for join, names in _JOINS.items():
        if every or words & names.keys():
            joins.append(join)
            columns += [f"{sql} AS {name}" for name, sql in names.items()]
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW dataset AS SELECT {', '.join(columns)} "
        f"FROM scored_clips AS clip {' '.join(joins)}"
    )
