"""What the tests of captioning share: requests with plain defaults, a captioner that looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from telecine.encoders.caption.interface import (
    CaptionReply,
    CaptionRequest,
    ClipFacts,
    Input,
    Outcome,
    Sidecar,
    Speaker,
    reply,
)
from telecine.infra.storage import Storage
from telecine.manifests.fingerprint import JsonValue, fingerprint


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


class Looker:
    """Says how many bytes of stills it was shown; fails where told to. Small, but a captioner."""

    name = "looker"
    uses = frozenset({Input.STILLS})

    def __init__(self, raises_on: str = "") -> None:
        self.raises_on = raises_on

    def identity(self) -> dict[str, JsonValue]:
        return {"name": self.name}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        return (Speaker(self.name, self.fingerprint),)

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        if any(r.clip_id == self.raises_on for r in requests):
            raise RuntimeError("the model choked")
        return [
            reply(
                r, self.speakers[0], Outcome.OK, " ".join(f"{s:g}s:{len(j)}" for s, j in r.stills)
            )
            for r in requests
        ]


def write_sidecar(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """The columns by which a source names it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    info = Storage().stat(str(folder / name))
    return {"sidecar_uri": info.uri, "sidecar_version": info.version}
