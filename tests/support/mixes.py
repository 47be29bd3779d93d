"""Indexes of samples that lie nowhere: for all that plans and reads none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telecine.manifests.index.samples import SCHEMA, BuildFacts, SampleIndex

HEIGHTS = (480, 540, 720, 1080)
ASPECTS = (16 / 9, 9 / 16, 4 / 3, 1.0, 2.39)


def made_index(
    shapes: npt.NDArray[np.int32],
    *,
    images: npt.NDArray[np.bool_] | None = None,
    clip_ids: Sequence[str] | None = None,
    per_shard: int = 100,
    build: str = "made",
    patch: int = 2,
) -> SampleIndex:
    """Of samples of [n, 4] shapes, so many in a shard; images are those of one latent frame."""
    n = len(shapes)
    still = shapes[:, 1] == 1 if images is None else images
    named = clip_ids or [f"{build}-{i:08x}" for i in range(n)]
    size = 128 + 2 * shapes.astype(np.int64).prod(axis=1)
    shard = np.arange(n, dtype=np.int32) // per_shard
    position = np.arange(n, dtype=np.int32) % per_shard
    buckets = [f"{min(row[2:]) * 8}/{row[1]}s" for row in shapes.tolist()]
    columns: dict[str, Any] = {
        "clip_id": pa.array(named, pa.string()),
        "shard": pa.DictionaryArray.from_arrays(
            pa.array(shard), pa.array([f"{s:06d}.tar" for s in range(-(-n // per_shard))])
        ),
        "position": position,
        "offset": position * 4096,
        "size_bytes": size,
        "sample_bytes": size + 2048,
        "sha256": pa.array([bytes(32)] * n, pa.binary(32)),
        "shape": pa.FixedSizeListArray.from_arrays(pa.array(shapes.ravel(), pa.int32()), 4),
        "frames": shapes[:, 1] * 4 - 3,
        "fps_num": np.where(still, 0, 24).astype(np.int32),
        "fps_den": np.ones(n, np.int32),
        "bucket": pa.array(buckets, pa.string()).dictionary_encode(),
        "text_digest": pa.nulls(n, pa.binary(32)),
    }
    digest = hashlib.sha256(shapes.tobytes() + repr((named[:3], per_shard)).encode()).hexdigest()
    facts = BuildFacts(build, build, digest, patch, {}, "vae", 4, True)
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in SCHEMA]
    return SampleIndex(facts, pa.Table.from_arrays(arrays, schema=SCHEMA))


def realistic(n: int, seed: int = 0, image_share: float = 0.3) -> npt.NDArray[np.int32]:
    """[n, 4]: videos of 480p to 1080p and 1 to 60 s (log-uniform, 24 fps), images of 256 to 1,536.

    As an autoencoder of 8 × 8 px and 4 frames to a latent has them, cut to patches of 2 × 2.
    """
    random = np.random.default_rng(seed)
    aspect = random.choice(ASPECTS, n)
    still = random.random(n) < image_share
    short = np.where(still, random.uniform(256, 1536, n), random.choice(HEIGHTS, n))
    sides = [short * np.maximum(1, a) for a in (1 / aspect, aspect)]
    height, width = (side.astype(np.int64) // 16 * 2 for side in sides)
    seconds = np.exp(random.uniform(0, np.log(60), n))
    frames = np.where(still, 1, 1 + (seconds * 24).astype(np.int64) // 4)
    return np.stack([np.full(n, 16), frames, height, width], axis=1).astype(np.int32)
