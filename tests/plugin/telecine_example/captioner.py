"""facts: what was measured of a clip, after a word. `[caption] captioner = "facts:Footage"`."""

from collections.abc import Sequence

from telecine.encoders.caption.interface import (
    CaptionReply,
    CaptionRequest,
    Input,
    OneSpeaker,
    Outcome,
    clean_text,
    reply,
)
from telecine.encoders.kinds import CaptionerKind, RunsOn
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.specs import CaptionSpec


class Facts(OneSpeaker):
    """A `telecine.encoders.caption.interface.Captioner`."""

    name = "facts"
    uses = frozenset({Input.FACTS})  # no still or sidecar: another of these makes no other text

    def __init__(self, spec: CaptionSpec) -> None:
        self._word = clean_text(spec.captioner.partition(":")[2])

    def identity(self) -> dict[str, JsonValue]:
        return {"name": self.name, "word": self._word}

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        (speaker,) = self.speakers
        return [reply(request, speaker, Outcome.OK, self._text(request)) for request in requests]

    def _text(self, request: CaptionRequest) -> str:
        facts = request.facts
        colors = " and ".join(facts.dominant_colors) or "no color"
        return f"{self._word}, {facts.width}×{facts.height}, mostly {colors}."


CAPTIONER = CaptionerKind(
    rests=("WORD",), make=lambda spec, runtime: Facts(spec), runs_on=RunsOn.CPU
)
