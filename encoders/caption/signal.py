"""signal: one or two sentences that say what was measured, and claim nothing of what is shown.

    A landscape video of 4.2 seconds, 1280 by 720 pixels; the camera pans slowly to the left and
    there is little motion in the picture. The picture is dim, with high contrast and muted colors,
    mostly grey, blue and black; it changes a lot from the beginning of the shot to its end.

It needs no weights and no server, and says something of every clip, and nothing of what could not
be measured. A learned captioner says more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from telecine.encoders.caption.interface import (
    CaptionReply,
    CaptionRequest,
    ClipFacts,
    Input,
    OneSpeaker,
    Outcome,
    Speaker,
    reply,
)
from telecine.manifests.fingerprint import JsonValue

# A scale names a value by the first limit that it is below.
Scale: TypeAlias = tuple[tuple[float, str], ...]

SQUARE_TOLERANCE = 0.02  # of the longer side
CAMERA_STILL = 0.02  # widths or heights per second, below which there is no pan or tilt
CAMERA_FAST = 0.25  # widths or heights per second
CAMERA_AXIS_SHARE = 0.5  # an axis is named if its drift is at least this share of the other's
SUBJECT_MOTION: Scale = (  # mean change with the drift taken out, 0..1 of full scale
    (0.003, "almost no motion"),
    (0.012, "little motion"),
    (0.035, "some motion"),
    (math.inf, "a lot of motion"),
)
BRIGHTNESS: Scale = (  # mean luma, 0..1 of full range
    (0.15, "dark"),
    (0.35, "dim"),
    (0.6, "moderately bright"),
    (math.inf, "bright"),
)
CONTRAST: Scale = (  # standard deviation of luma, 0..1 of full range
    (0.1, "low"),
    (0.22, "medium"),
    (math.inf, "high"),
)
SATURATION: Scale = (  # mean HSV saturation, 0..1
    (0.06, "hardly any color"),
    (0.3, "muted colors"),
    (0.55, "moderate colors"),
    (math.inf, "vivid colors"),
)
CHANGE: Scale = (  # difference of first and last still, 0..1 of full scale
    (0.04, "hardly changes"),
    (0.12, "changes somewhat"),
    (math.inf, "changes a lot"),
)


class SignalCaptioner(OneSpeaker):
    name = "signal"
    uses = frozenset({Input.FACTS})

    def identity(self) -> dict[str, JsonValue]:
        scales = {
            "subject_motion": SUBJECT_MOTION,
            "brightness": BRIGHTNESS,
            "contrast": CONTRAST,
            "saturation": SATURATION,
            "change": CHANGE,
        }
        return {
            "name": self.name,
            "version": 1,  # rises when the code would word any facts differently
            "square_tolerance": SQUARE_TOLERANCE,
            "camera": [CAMERA_STILL, CAMERA_FAST, CAMERA_AXIS_SHARE],
            # The last limit is no number in JSON; its word is enough.
            "scales": {key: [*scale[:-1], scale[-1][1]] for key, scale in scales.items()},
        }

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        (speaker,) = self.speakers
        return [_answer(request, speaker) for request in requests]


def _answer(request: CaptionRequest, speaker: Speaker) -> CaptionReply:
    facts = request.facts
    measured = (
        facts.duration_seconds, facts.camera_x, facts.camera_y, facts.subject_motion,
        facts.change, facts.brightness, facts.contrast, facts.saturation,
    )  # fmt: skip
    if not all(math.isfinite(value) for value in measured if value is not None):
        return reply(
            request, speaker, Outcome.FAILED, detail=f"a measurement is no number: {facts}"
        )
    return reply(request, speaker, Outcome.OK, describe(facts))


def describe(facts: ClipFacts) -> str:
    size = f"{facts.width} by {facts.height} pixels"
    if facts.kind == "image":
        return f"A {orientation(facts)} still image, {size}. {_look(facts)}."
    moving = " and ".join(filter(None, [camera(facts), _subjects(facts)]))
    return (
        f"A {orientation(facts)} video of {_length(facts.duration_seconds)}, {size}"
        f"{moving and '; '}{moving}. {_look(facts)}; it {_named(facts.change, CHANGE)} from the "
        "beginning of the shot to its end."
    )


def _length(seconds: float) -> str:
    number = f"{seconds:.1f}".removesuffix(".0") if seconds >= 1 else f"{seconds:.2g}"
    return f"{number} second" if number == "1" else f"{number} seconds"


def orientation(facts: ClipFacts) -> str:
    if abs(facts.width - facts.height) <= SQUARE_TOLERANCE * max(facts.width, facts.height):
        return "square"
    return "landscape" if facts.width > facts.height else "portrait"


def camera(facts: ClipFacts) -> str:
    """The picture drifts against the camera: to the right as the camera pans to the left, and down
    as it tilts up. Nothing is said where the drift is unknown.
    """
    if facts.camera_x is None or facts.camera_y is None:
        return ""
    across, down = abs(facts.camera_x), abs(facts.camera_y)
    drift = max(across, down)
    if drift < CAMERA_STILL:
        return "the camera does not pan or tilt"
    named = max(CAMERA_STILL, CAMERA_AXIS_SHARE * drift)
    pan = f"to the {'left' if facts.camera_x > 0 else 'right'}" if across >= named else ""
    tilt = "up" if facts.camera_y > 0 else "down"
    speed = "fast" if drift >= CAMERA_FAST else "slowly"
    if down < named:
        return f"the camera pans {speed} {pan}"
    if not pan:
        return f"the camera tilts {speed} {tilt}"
    return f"the camera pans {speed} {pan} and tilts {tilt}"


def _subjects(facts: ClipFacts) -> str:
    if facts.subject_motion is None:
        return ""
    return f"there is {_named(facts.subject_motion, SUBJECT_MOTION)} in the picture"


def _look(facts: ClipFacts) -> str:
    light = _named(facts.brightness, BRIGHTNESS)
    look = f"The picture is {light}, with {_named(facts.contrast, CONTRAST)} contrast and "
    look += _named(facts.saturation, SATURATION)
    return f"{look}, mostly {_listed(facts.dominant_colors)}" if facts.dominant_colors else look


def _named(value: float, scale: Scale) -> str:
    return next(name for limit, name in scale if value < limit)


def _listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c"""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
