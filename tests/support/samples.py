"""Samples as their tars hold them."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import numpy as np

from tests.support.lab import Lab


def members(lab: Lab) -> dict[str, dict[str, Any]]:
    """Of each live sample of the current build, by clip_id: arrays, JSON parsed, else bytes."""
    found: dict[str, dict[str, Any]] = {}
    for shard in {s.shard_path for s in lab.live() if s.outcome == "kept"}:
        with tarfile.open(lab.dataset / shard) as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                file = tar.extractfile(info)
                assert file is not None
                found.setdefault(key, {})[suffix] = _value(suffix, file.read())
    return found


def _value(suffix: str, data: bytes) -> Any:
    if suffix.endswith("npy"):
        return np.load(io.BytesIO(data))
    return json.loads(data) if suffix == "json" else data
