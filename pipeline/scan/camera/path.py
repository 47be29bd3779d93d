"""Path: what the pairs of a clip tell of its camera together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telecine.pipeline.media.geometry import Orientation
from telecine.pipeline.scan.camera.pairs import Rows
from telecine.pipeline.scan.measure import tidy

Doubles = npt.NDArray[np.float64]

LEAST_KNOWN = 0.5  # of a clip's pairs
LEAST_JOLTS = 2
# Of the length of a vector of two independent normal numbers: its root mean square over its median.
RMS_OF_MEDIAN = 1 / math.sqrt(math.log(2))
# Of second differences of independent positions: standard deviations for one of a position.
OF_SECOND_DIFFERENCE = math.sqrt(6)


@dataclass(frozen=True)
class Path:
    """As coded; None where the pairs do not tell."""

    x: float | None = None  # widths per second
    y: float | None = None  # heights per second
    zoom: float | None = None  # natural logarithm of the enlargement, per second
    roll: float | None = None  # degrees per second, counter-clockwise > 0
    shake: float | None = None  # longer sides
    unexplained: float | None = None  # share of the change that the movement leaves


def summarise_pairs(pairs: Rows, starts: Doubles) -> Path:
    """Medians over PAIR rows, where the movement could be told of at least half of them.

    `starts`: seconds at which each frame is shown, by ordinal.
    """
    known = pairs["known"]
    if not len(pairs) or known.mean() < LEAST_KNOWN:
        return Path()
    told = pairs[known]
    seconds = starts[told["last"]] - starts[told["first"]]
    x, y, zoom, roll = (
        float(np.median(told[name] / seconds)) for name in ("x", "y", "zoom", "roll")
    )
    raw = float(told["raw"].sum(dtype=np.float64))
    left = float(told["left"].sum(dtype=np.float64)) / raw if raw else 1.0
    return Path(x, y, zoom, roll, _shake(pairs[pairs["near_known"]], starts), min(1.0, left))


def _shake(near: Rows, starts: Doubles) -> float | None:
    """How far the picture leaves its even path: root mean square, by the median, of the second
    differences of its position over frames near each other, as of independent jolts.

    An even pan has none, a slow change of pace next to none.
    """
    if len(near) < LEAST_JOLTS:
        return None
    before = starts[near["first"]] - starts[near["first"] - near["near"]]
    after = starts[near["first"] + near["near"]] - starts[near["first"]]
    x, y = (near[f"after_{c}"] / after + near[f"before_{c}"] / before for c in "xy")
    second = np.hypot(x, y) * (before + after) / 2
    return float(np.median(second)) * RMS_OF_MEDIAN / OF_SECOND_DIFFERENCE


def displayed(path: Path, orientation: Orientation, motion: float) -> dict[str, float | None]:
    """Columns of a clip. Where nothing moves no subject does, whatever is known of the camera."""
    if path.x is None or path.y is None:
        return {"subject_motion": None if motion else 0.0}
    x, y = displayed_direction(path.x, path.y, orientation)
    found = {
        "camera_x": x,
        "camera_y": y,
        "zoom": path.zoom,
        "roll": -path.roll if orientation.mirrored and path.roll else path.roll,
        "shake": path.shake,
        "subject_motion": None if path.unexplained is None else motion * path.unexplained,
    }
    return {name: None if value is None else tidy(value) for name, value in found.items()}


def displayed_direction(x: float, y: float, orientation: Orientation) -> tuple[float, float]:
    """A direction in the stored picture (right, down), as it is displayed."""
    x = -x if orientation.mirrored else x
    for _ in range(orientation.quarter_turns):  # counter-clockwise: right becomes up
        x, y = y, -x
    return x, y
