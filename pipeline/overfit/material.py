"""Which clips are learned, and what is true of them: their captions and the footage's own frames.

All of it comes from the tables and the footage, nothing from the feed, which it is held against.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import duckdb
import numpy as np
import pyarrow as pa

from telecine.encoders.frames import Pixels
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.infra.text import counted
from telecine.manifests.builds import BuildState, completed_build
from telecine.manifests.dataset import Dataset
from telecine.manifests.index.samples import SampleIndex, narrowed, read_samples
from telecine.manifests.queries import connect
from telecine.manifests.shards import build_folder, index_path
from telecine.pipeline.look.decode import Footage, encoder_of, sample_of
from telecine.pipeline.overfit.compare import flat_db, small_distance

TOO_FLAT_DB = 22.0  # of its own mean colour: 3 dB more would be no picture yet
TOO_ALIKE = (
    12.0**2
)  # mean square between small pictures, of 255: copies of a film, shots of a scene
HELD_OUT_SOURCES = 3  # at least


@dataclass(frozen=True)
class Material:
    """A build, and what the feed is to give of it."""

    dataset: Dataset
    con: duckdb.DuckDBPyConnection
    build: BuildState
    index: SampleIndex
    encoder: VideoEncoder

    @classmethod
    def of(cls, dataset: Dataset, build: str | None, vae: str | None) -> Material:
        """Raises UsageError where the build cannot be had, or is older than indexes of samples."""
        con = connect(dataset.tables)
        found = completed_build(con, build)
        about = json.loads(dataset.storage.read_bytes(dataset.path(index_path(found.name))))
        if "samples" not in about:
            raise UsageError(
                f"build {found.name} has no index of samples, as those of an older Telecine: "
                "telecine ingest or telecine promote writes it"
            )
        where = dataset.path(build_folder(found.name) + about["samples"])
        index = read_samples(pa.py_buffer(dataset.storage.read_bytes(where)), where)
        return cls(dataset, con, found, index, encoder_of(found, vae))

    def captions(self, clip_ids: list[str]) -> dict[str, str]:
        """The text of each by the tables; empty where the sample has none."""
        query = """
            SELECT clip_id, any_value(captions.text) FROM captions
            JOIN (FROM live_samples WHERE build_id = ?) AS made USING (clip_id)
            WHERE sha256(captions.text) = made.text_digest AND list_contains(?, clip_id)
            GROUP BY clip_id
        """
        found = dict(self.con.execute(query, [self.build.build_id, clip_ids]).fetchall())
        return {clip_id: found.get(clip_id, "") for clip_id in clip_ids}

    def footage(self, clip_id: str, frames: int) -> Pixels:
        """uint8 RGB [frames, H, W, 3]: the clip's first, as the encoder saw them."""
        sample = sample_of(self.con, self.build, clip_id)
        return Footage.of(self.dataset, self.con, self.build, sample).first(frames)

    def kept(self, clip_ids: list[str]) -> SampleIndex:
        """The index of these clips alone"""
        wanted = pa.compute.is_in(self.index.rows["clip_id"], pa.array(clip_ids))
        return narrowed(self.index, self.index.rows.filter(wanted))


# ── which clips ──────────────────────────────────────────────────────────────────────────────────


def chosen(material: Material, clips: int, tokens: int) -> list[str]:
    """clip_ids of unlike pictures and captions: of images and videos, of each orientation in turn.

    The smallest first. One latent frame has at most `tokens` patches: of a video so many frames
    are taken as fit. Raises UsageError where there are too few.
    """
    taken: dict[str, Pixels] = {}
    captions: set[str] = set()
    fitting = list(_in_turn(material, tokens))
    texts = material.captions(fitting)
    for clip_id in fitting:
        if not texts[clip_id] or texts[clip_id] in captions:
            continue
        picture = material.footage(clip_id, 1)
        if flat_db(picture) > TOO_FLAT_DB:
            continue
        if all(small_distance(picture, other) > TOO_ALIKE for other in taken.values()):
            taken[clip_id] = picture
            captions.add(texts[clip_id])
        if len(taken) == clips:
            return list(taken)
    raise UsageError(
        f"--clips {clips}: build {material.build.name} has {counted(len(taken), 'clip')} to learn "
        f"that are unlike in picture and caption, with a latent frame of at most {tokens} patches "
        f"({len(fitting)} of {material.index.rows.num_rows} samples are so small): ask for fewer, "
        "make a rendition of a smaller short_side, or give more --tokens"
    )


def _in_turn(material: Material, tokens: int) -> Iterator[str]:
    kinds: dict[tuple[bool, int], list[tuple[int, str]]] = defaultdict(list)
    rows = material.index.rows
    patch = material.index.facts.patch
    for clip_id, (_, _, high, wide), rate in zip(
        rows["clip_id"].to_pylist(), rows["shape"].to_pylist(), rows["fps_num"].to_pylist(),
        strict=True,
    ):  # fmt: skip
        size = (high // patch) * (wide // patch)
        if size <= tokens:
            kinds[rate == 0, int(np.sign(wide - high))].append((size, clip_id))
    for layer in zip_longest(*(sorted(kinds[kind]) for kind in sorted(kinds))):
        yield from (entry[1] for entry in layer if entry is not None)


def divided(material: Material, tokens: int, most: int = 96) -> tuple[list[str], list[str]]:
    """clip_ids to train on and to hold out, a third of the sources; no source is in both.

    Raises UsageError where there are too few sources.
    """
    fitting = list(_in_turn(material, tokens))
    query = "SELECT clip_id, any_value(source_id) FROM clips GROUP BY clip_id"
    source_of = dict(material.con.sql(query).fetchall())
    sources = sorted({source_of[c] for c in fitting}, key=_hashed)
    held = set(sources[: len(sources) // 3])
    if len(held) < HELD_OUT_SOURCES:
        raise UsageError(
            f"--held-out: build {material.build.name} has samples of a latent frame of at most "
            f"{tokens} patches from {counted(len(sources), 'source')}; a third is held out, and "
            f"that must be {HELD_OUT_SOURCES} at least: leave out --held-out, or give more --tokens"
        )
    inside = [c for c in fitting if source_of[c] not in held]
    outside = [c for c in fitting if source_of[c] in held]
    return inside[:most], outside[: most // 2]


def _hashed(source_id: str) -> str:
    return hashlib.sha256(source_id.encode()).hexdigest()
