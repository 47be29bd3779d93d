"""export_energon: a build as NVIDIA's Megatron-Energon reads it (checked with 7.4.1).

    FOLDER/360/16x9/2s/<shard>.tar       a link to the shard, which stays where it is
                       <shard>.tar.idx   where its samples begin
    FOLDER/.nv-meta/.info.json, index.sqlite, index.uuid   Energon's own `energon prepare`
                    dataset.yaml         CrudeWebdataset: a cooker of the trainer's makes samples
                    split.yaml           train, val and test, by shard

Energon looks for the index of a shard beside it, so the shards must lie on this machine. A cooker
gets `latent.npy` as an array, `json` as a dict and `txt` as a string. A bucket holds like shapes,
not equal ones: a batch of unlike ones cannot be stacked, and Energon logs that and goes on without
its samples.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from telecine.infra.errors import CheckFailed, StorageError, UsageError
from telecine.infra.text import counted, one_line
from telecine.manifests.builds import BuildState
from telecine.manifests.dataset import Dataset
from telecine.manifests.shards import Shard, path_in_build
from telecine.pipeline.export.formats import Content

PARTS = ("train", "val", "test")
_META = ".nv-meta"


def write_energon(part: Path, content: Content) -> tuple[str, ...]:
    """Returns what each part holds.

    Raises UsageError where Energon is not installed, the shards are not on this machine, or a part
    that is to have some has none; StorageError and CheckFailed where a shard is not what its rows
    say.
    """
    _check_possible(part, content.dataset)
    names = {_name(content.build, shard): shard for shard in content.shards}
    chosen = _split(names, content.options.split)
    for name, shard in names.items():
        _link(part / name, content.dataset, shard)
    _prepare(part)
    _check_counts(part, names)
    (part / _META / "split.yaml").write_text(_split_yaml(chosen))
    return (
        *(_told(name, [names[n] for n in members]) for name, members in chosen.items() if members),
        "samples of several shapes follow one another, in one bucket too: group them by "
        "json['latent']['shape'] in TaskEncoder.batch_group_criterion, or pack them",
    )


def _check_possible(part: Path, dataset: Dataset) -> None:
    try:
        there = importlib.util.find_spec("megatron.energon") is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        raise UsageError(
            "--format energon needs Megatron-Energon, which indexes the shards: "
            "pip install megatron-energon"
        )
    if not dataset.tables.on_disk:
        raise UsageError(
            f"{dataset.uri}: Energon looks for an index beside each shard, and an export writes "
            "nothing into a dataset. Copy it to a disk and export there, or take --format urls"
        )
    if any(c in str(part) for c in "*?[]{}!"):
        raise UsageError(f"{part.parent}: Energon takes no * ? [ ] {{ }} ! in the name of a folder")


def _name(build: BuildState, shard: Shard) -> str:
    return path_in_build(shard.path, build.name)


def _link(place: Path, dataset: Dataset, shard: Shard) -> None:
    target = Path(dataset.path(shard.path)).resolve()
    size_bytes = target.stat().st_size if target.is_file() else None
    if size_bytes != shard.size_bytes:
        found = "is not there" if size_bytes is None else f"has {size_bytes:,} bytes"
        raise StorageError(
            f"{target} {found}, where the tables say {shard.size_bytes:,} bytes. "
            "Run telecine verify --repair"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


# ── Energon's own preparation ────────────────────────────────────────────────────────────────────


def _prepare(part: Path) -> None:
    """`energon prepare`, in a process of its own: it forks, prints and may exit."""
    workers = max(1, min(16, os.cpu_count() or 1))
    command = [
        sys.executable, "-m", "megatron.energon.cli.main", "prepare", "--non-interactive",
        "--no-progress", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset",
        "--num-workers", str(workers), str(part),
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode or not (part / _META / ".info.json").is_file():
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        if "No space left" in done.stderr or "disk is full" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        raise CheckFailed(
            f"energon prepare gave up: {one_line(' '.join(words[-1:]))}. "
            "Check the shards with telecine verify, and that Megatron-Energon imports"
        )


def _check_counts(part: Path, names: dict[str, Shard]) -> None:
    """What Energon found in the shards is what the tables say of them."""
    found = json.loads((part / _META / ".info.json").read_text())["shard_counts"]
    said = {name: shard.num_samples for name, shard in names.items()}
    for name in sorted(said.keys() | found.keys()):
        if said.get(name) != found.get(name):
            raise CheckFailed(
                f"{name}: Energon finds {found.get(name, 'no')} samples, the tables say "
                f"{said.get(name, 'none')}. Check the build with telecine verify"
            )


# ── train, val and test ──────────────────────────────────────────────────────────────────────────


def _split(names: Iterable[str], split: str | None) -> dict[str, list[str]]:
    """Shards by part. Each goes by its id alone, so that none moves as a build grows."""
    bounds = _bounds(split or "1,0,0")
    chosen: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in names:
        turn = _turn(name)
        chosen[PARTS[sum(turn >= bound for bound in bounds)]].append(name)
    for part, below, bound in zip(PARTS, (0.0, *bounds), bounds, strict=False):
        if bound > below and not chosen[part]:
            raise UsageError(
                f"--split {split}: no shard falls to {part}, and each goes whole. Give it a larger "
                "share, or make smaller shards with telecine rebuild --shard-bytes"
            )
    return chosen


def _bounds(split: str) -> tuple[float, float, float]:
    """Where each part ends, in 0..1."""
    try:
        train, val, test = (float(share) for share in split.split(","))
    except ValueError:
        train = val = test = math.nan
    total = train + val + test
    if not (math.isfinite(total) and total > 0 and min(train, val, test) >= 0):
        raise UsageError(
            f"--split {split!r}: write the shares of train, val and test, as in 0.98,0.01,0.01"
        )
    after = (train + val) / total
    return train / total, after, 1.0 if test else after


def _turn(name: str) -> float:
    """52 bits of a hash of the shard's id, as a number in 0..1."""
    shard_id = name.rpartition("/")[2].removesuffix(".tar")
    return int(hashlib.sha256(f"split {shard_id}".encode()).hexdigest()[:13], 16) / 2**52


def _split_yaml(chosen: dict[str, list[str]]) -> str:
    """Lists in YAML; JSON's strings are YAML's."""
    lines = ["split_parts:"]
    for part, names in chosen.items():
        lines.append(f"  {part}:" + ("" if names else " []"))
        lines += [f"  - {json.dumps(name)}" for name in names]
    return "\n".join([*lines, "exclude: []", ""])


def _told(part: str, shards: list[Shard]) -> str:
    samples = sum(shard.num_samples for shard in shards)
    return f"{part}: {counted(samples, 'sample')} in {counted(len(shards), 'shard')}"
