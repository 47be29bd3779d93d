"""rates.json: how fast each encoder last went here, so that a dry run can say how long it takes.

It holds time, so it is no table: runs over the same footage leave equal tables, not equal rates.
Nothing depends on it. One that is missing, damaged or of another age only means no estimate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import StorageError
from telecine.manifests.dataset import Dataset

RATES_FILE = "rates.json"


@dataclass(frozen=True, slots=True)
class Rate:
    """Of decoding and encoding, the waiting of one for the other included; not of the writing."""

    pixels_per_second: float  # frames × width × height encoded by one worker
    workers: int  # that ran beside each other


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float
    workers: int
    rate: Rate  # it was reckoned from


def record_rate(
    dataset: Dataset, encoder: VideoEncoder, *, pixels: int, seconds: float, workers: int
) -> None:
    """Note what a run measured: `pixels` encoded in `seconds` by `workers` side by side.

    Does nothing where nothing was encoded, or where the note cannot be written: the build is done.
    """
    if pixels <= 0 or seconds <= 0 or workers <= 0:
        return
    rates = _read(dataset)
    rates[_key(encoder)] = dataclasses.asdict(
        Rate(float(f"{pixels / seconds / workers:.6g}"), workers)
    )
    text = json.dumps(rates, indent=1, sort_keys=True) + "\n"
    with contextlib.suppress(StorageError):
        dataset.storage.write_bytes(dataset.path(RATES_FILE), text.encode())


def estimate(
    dataset: Dataset,
    encoder: VideoEncoder,
    *,
    pixels: int,
    shards: int,
    workers: int | None = None,
) -> Estimate | None:
    """How long encoding `pixels` would take with so many workers (None: as many as last time).

    No more of them than there are shards have anything to do: one worker owns one shard. None where
    no run under this very encoder was measured.
    """
    rate = _rate(_read(dataset).get(_key(encoder)))
    if rate is None:
        return None
    workers = max(1, min(workers or rate.workers, shards))
    return Estimate(pixels / (rate.pixels_per_second * workers), workers, rate)


def _key(encoder: VideoEncoder) -> str:
    return f"{encoder.identity()['name']}-{encoder.fingerprint}"


def _rate(found: Any) -> Rate | None:
    """None unless it is a rate that can be divided by."""
    try:
        rate = Rate(float(found["pixels_per_second"]), int(found["workers"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    usable = math.isfinite(rate.pixels_per_second) and rate.pixels_per_second > 0
    return rate if usable and rate.workers > 0 else None


def _read(dataset: Dataset) -> dict[str, Any]:
    try:
        found = json.loads(dataset.storage.read_bytes(dataset.path(RATES_FILE)))
    except (StorageError, ValueError, RecursionError):  # not there, or not JSON
        return {}
    return found if isinstance(found, dict) else {}
