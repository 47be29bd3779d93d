"""Builds whose samples are known, written as a build writes them: for all that reads for training.

A value of a latent says which sample it is of, so that one that lands elsewhere is seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telecine.manifests.index.samples import SCHEMA, BuildFacts, SampleIndex, samples_file
from telecine.manifests.tar import BLOCK, Extent, TarWriter, npy_parts

Shape = tuple[int, int, int, int]

# Videos of landscape and portrait, images, and one clip that is longer than a small pack.
SHAPES: tuple[Shape, ...] = (
    (4, 3, 4, 6), (4, 5, 4, 6), (4, 1, 4, 4), (4, 2, 6, 4), (4, 4, 4, 6), (4, 1, 8, 4),
    (4, 3, 6, 4), (4, 9, 6, 6), (4, 2, 4, 4), (4, 1, 4, 6), (4, 3, 4, 6), (4, 2, 4, 6),
)  # fmt: skip
FPS = Fraction(24_000, 1001)


def values(key: str, shape: Shape) -> npt.NDArray[np.float16]:
    """The latents of a sample of that name: always the same."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


def caption(key: str) -> str:
    return f"A clip that is called {key}."


def keys(shapes: Sequence[Shape] = SHAPES, first: int = 0) -> list[str]:
    return [f"{number + first:032x}" for number in range(len(shapes))]


def write_build(
    folder: Path,
    shapes: Sequence[Shape] = SHAPES,
    *,
    name: str = "dct",
    first: int = 0,
    per_shard: int = 4,
    samples: bool = True,
) -> Path:
    """A dataset of one current build; another `first` has other samples. Returns the folder."""
    root = folder / "shards" / name
    rows, shards = [], []
    named = keys(shapes, first)
    for start in range(0, len(shapes), per_shard):
        path = f"360/16x9/2s/{first + start:032x}.tar"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        part = zip(named[start:], shapes[start : start + per_shard], strict=False)
        rows += _write_shard(root / path, path, list(part))
        shards.append(path)
    digest = hashlib.sha256(json.dumps([named, list(shapes)]).encode()).hexdigest()
    facts = BuildFacts(name, name, digest, 2, {"name": "dct"}, "vae", 4, True)
    table = pa.Table.from_pylist(rows, SCHEMA)
    (root / samples_file(digest)).write_bytes(SampleIndex(facts, table).to_bytes())
    said: dict[str, Any] = {"build_id": name, "num_samples": len(rows), "digest": digest}
    if samples:
        said["samples"] = samples_file(digest)
    (root / "index.json").write_text(json.dumps(said))
    current = {"build_id": name, "name": name, "index": f"{name}/index.json"}
    (folder / "shards/current.json").write_text(json.dumps(current))
    return folder


def _write_shard(tar: Path, path: str, named: list[tuple[str, Shape]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with TarWriter(tar) as writer:
        for position, (key, shape) in enumerate(named):
            parts, said = npy_parts(values(key, shape)), caption(key).encode()
            facts = {"clip_id": key, "latent": {"shape": shape}}
            latent = writer.add(f"{key}.latent.npy", *parts)
            writer.add(f"{key}.json", json.dumps(facts).encode())
            text = writer.add(f"{key}.txt", said)
            rows.append(_row(key, path, position, shape, latent, text))
            rows[-1]["sha256"] = hashlib.sha256(b"".join(parts)).digest()
            rows[-1]["text_digest"] = hashlib.sha256(said).digest()
        writer.seal()
    return rows


def _row(
    key: str, path: str, position: int, shape: Shape, latent: Extent, text: Extent
) -> dict[str, Any]:
    image = shape[1] == 1
    return {
        "clip_id": key,
        "shard": path,
        "position": position,
        "offset": latent.offset,
        "size_bytes": latent.size,
        "sample_bytes": text.offset + text.size + -text.size % BLOCK - latent.offset,
        "shape": shape,
        "frames": 1 + 4 * (shape[1] - 1),
        "fps_num": 0 if image else FPS.numerator,
        "fps_den": 1 if image else FPS.denominator,
        "bucket": "360/16x9/2s",
    }
