"""Detail: what a frame tells at its native resolution alone, from a few tiles of it.

frame ──▶ tiles with the most detail ──▶ width of their edges
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from telecine.pipeline.scan.looks.bandwidth import bandwidth
from telecine.pipeline.scan.looks.combing import combed_share
from telecine.pipeline.scan.looks.focus import edge_width
from telecine.pipeline.scan.looks.tiles import Plane, busiest
from telecine.pipeline.scan.measure import tidy


@dataclass(frozen=True)
class Detail:
    """Of one frame; None of what it cannot tell."""

    edge_width: float | None  # px
    bandwidth: float | None  # 0..1 of Nyquist's frequency
    combed: float | None  # share of its columns


def examine(luma: Plane, shift: int = 0) -> Detail:
    """Of a frame's luma as stored, of 8 + `shift` bits."""
    tiles = busiest(luma, shift)
    return Detail(edge_width(tiles), bandwidth(tiles), combed_share(luma, shift))


def summarise_details(frames: Sequence[Detail]) -> dict[str, Any]:
    """The measurements of a clip that come from the frames of its stills."""
    bands = [one.bandwidth for one in frames]
    combed = [one.combed for one in frames if one.combed is not None]
    return {
        "blur": _median([one.edge_width for one in frames]),
        "upscaled": _median([None if band is None else 1 / band for band in bands]),
        "combing": tidy(float(np.mean(combed))) if combed else None,
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return tidy(float(np.median(known))) if known else None
