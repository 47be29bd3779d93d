"""Requests to captioners with plain defaults, for tests that care about a few values."""

from __future__ import annotations

import dataclasses
from typing import Any

from encoders.captioner import CaptionRequest, ClipFacts, Sidecar


def make_facts(**changes: Any) -> ClipFacts:
    """A landscape video in which nothing stands out."""
    facts = ClipFacts(
        kind="video", duration_seconds=2.0, width=640, height=360, camera_x=0.0, camera_y=0.0,
        subject_motion=0.005, change=0.08, brightness=0.5, contrast=0.15, saturation=0.2,
        dominant_colors=("grey", "blue"),
    )  # fmt: skip
    return dataclasses.replace(facts, **changes)


def make_request(number: int = 0, **changes: Any) -> CaptionRequest:
    """Requests of different numbers differ in their keys and in what is to be said of them."""
    request = CaptionRequest(
        clip_id=f"clip{number}",
        stills_digest=f"stills{number}",
        input_digest=f"input{number}",
        facts=make_facts(width=640 + number),
        start_seconds=0.0,
        end_seconds=2.0,
        stills=((0.0, b"first"), (1.0, b"second")),
        sidecar=Sidecar("a.txt", f"text of clip {number}".encode()),
    )
    return dataclasses.replace(request, **changes)
