"""What the tests of captioning share: a captioner that looks, sidecars that lie somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from telecine.encoders.caption.interface import (
    CaptionReply,
    CaptionRequest,
    Input,
    Outcome,
    Speaker,
    reply,
)
from telecine.infra.store.storage import Storage
from telecine.manifests.fingerprint import JsonValue, fingerprint


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
