"""The interface that every captioner stands behind, and what one is asked and answers.

    CaptionRequest ──▶ caption() ──▶ CaptionReply
    clip_id, stills_digest           the same two, who spoke, an outcome and a text

The two keys travel both ways, so that an answer that went astray is noticed and never lands on
another clip (pipeline/caption/step.py checks them).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from telecine.infra.errors import TelecineError
from telecine.manifests.fingerprint import JsonValue, fingerprint


class Input(StrEnum):
    """What a captioner's text depends on, beside the clip itself."""

    STILLS = "stills"
    FACTS = "facts"
    SIDECAR = "sidecar"


class Outcome(StrEnum):
    """A closed set. Only `ok` and `truncated` have a text."""

    OK = "ok"
    EMPTY = "empty"  # there was nothing to say: no sidecar, no line in the clip's span
    REFUSED = "refused"  # the model declined
    TRUNCATED = "truncated"  # true as far as it goes, but cut at a length limit
    FAILED = "failed"  # no answer; another attempt may bring one


WITH_TEXT = frozenset({Outcome.OK, Outcome.TRUNCATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What was measured of a clip: columns of `schemas.Clip`, by the same names and units.

    None is unknown.
    """

    kind: str
    duration_seconds: float
    width: int
    height: int
    camera_x: float | None
    camera_y: float | None
    subject_motion: float | None
    change: float
    brightness: float
    contrast: float
    saturation: float
    dominant_colors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A caption file that lies beside a source."""

    name: str  # file name: its extension says what is in it
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRequest:
    clip_id: str
    stills_digest: str
    input_digest: str  # of everything below that the captioner uses
    facts: ClipFacts
    start_seconds: float  # of the clip, since its source's first frame
    end_seconds: float  # excluded; equals the start for an image
    stills: tuple[tuple[float, bytes], ...] = ()  # (seconds since the clip's first frame, JPEG)
    sidecar: Sidecar | None = None


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who answers, as the `captions` table names it."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a clip that was captioned by itself."""

    start_seconds: float  # since the clip's first frame
    end_seconds: float  # excluded
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionReply:
    clip_id: str
    stills_digest: str
    speaker: Speaker
    outcome: Outcome
    text: str = ""
    detail: str = ""  # why there is no text, or whose answer came before
    windows: tuple[Window, ...] = ()  # of a text that was joined from more than one


class Interrupted(Exception):
    """The captioner can answer nobody any more, and why; what it had answered before is kept."""

    def __init__(self, error: TelecineError, replies: Sequence[CaptionReply]) -> None:
        super().__init__(str(error))
        self.error = error
        self.replies = tuple(replies)


class Captioner(Protocol):
    """Says something of clips. Cheap to construct: a model is loaded by the first `caption`."""

    @property
    def name(self) -> str: ...

    @property
    def uses(self) -> frozenset[Input]:
        """What requests must bring, and whose change makes a new caption."""

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        """Whom replies may name, in order of preference; the last always has an answer."""

    def identity(self) -> dict[str, JsonValue]:
        """Everything that changes a text: name, version, constants, weights digest."""

    @property
    def fingerprint(self) -> str:
        """`telecine.manifests.fingerprint.fingerprint(self.identity())`"""

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        """One reply per request, in their order, with the request's two keys.

        What is wrong with one clip is that clip's `failed`. Raises Interrupted where some got an
        answer and nobody else will; any other exception means that nobody got one.
        """


class OneSpeaker:
    """Of captioners that speak for themselves alone, called what their identity says."""

    name: str

    def identity(self) -> dict[str, JsonValue]:
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        return (Speaker(self.name, self.fingerprint),)


def reply(
    request: CaptionRequest,
    speaker: Speaker,
    outcome: Outcome,
    text: str = "",
    detail: str = "",
    windows: tuple[Window, ...] = (),
) -> CaptionReply:
    return CaptionReply(
        clip_id=request.clip_id,
        stills_digest=request.stills_digest,
        speaker=speaker,
        outcome=outcome,
        text=text,
        detail=detail,
        windows=windows,
    )


# Control characters, surrogates, invisible direction marks. The joiners that emoji, Persian and
# Indic scripts need (U+200C, U+200D) stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
    "\ufeff\ufffe\uffff\ud800-\udfff]"
)


def clean_text(text: str) -> str:
    """One line: no control characters or lone surrogates, single spaces between words."""
    return " ".join(_UNSEEN.sub("", text).split())


class FirstOf:
    """Asks one captioner after another and takes the first text; the last one's answer stands."""

    def __init__(self, name: str, captioners: Sequence[Captioner]) -> None:
        self.name = name
        self._captioners = tuple(captioners)
        self.uses = frozenset[Input]().union(*(c.uses for c in captioners))
        self.speakers = tuple(speaker for c in captioners for speaker in c.speakers)

    def identity(self) -> dict[str, JsonValue]:
        return {"name": self.name, "first_of": [c.identity() for c in self._captioners]}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        replies = self._captioners[0].caption(requests)
        for captioner in self._captioners[1:]:
            silent = [i for i, r in enumerate(replies) if r.outcome not in WITH_TEXT]
            answers = captioner.caption([requests[i] for i in silent])
            for i, answer in zip(silent, answers, strict=True):
                replies[i] = _after(replies[i], answer)
        return replies


def _after(earlier: CaptionReply, later: CaptionReply) -> CaptionReply:
    """The later answer, with a word on why the earlier one had none; having nothing is no fault."""
    if earlier.outcome is Outcome.EMPTY:
        return later
    why = f"{earlier.speaker.name} {earlier.outcome}: {earlier.detail}"
    return replace(later, detail="; ".join(filter(None, [why, later.detail])))
