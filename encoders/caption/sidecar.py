"""sidecar: the text that somebody wrote beside the footage. Parsing only; files are hostile.

    .txt    the whole text
    .json   a string; a list of strings, joined; or an object. Of an object: the first of the keys
            `caption`, `text`, `description` whose value is a string or a list of strings that is
            not blank; where there is none, the same in each value that is an object, in file order
    .srt    the lines of every cue that overlaps the clip's span, in file order, without tags; a
            line that repeats the one before is left out. Cues with an impossible time are skipped

Zero of an .srt is the source's first frame. Text is UTF-8, UTF-16 or else Windows-1252, and comes
out as one line.
"""

from __future__ import annotations

import codecs
import html
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from telecine.encoders.caption.interface import (
    CaptionReply,
    CaptionRequest,
    Input,
    OneSpeaker,
    Outcome,
    Sidecar,
    Speaker,
    clean_text,
    reply,
)
from telecine.manifests.fingerprint import JsonValue

MAX_BYTES = 2**20  # of a sidecar file; a feature film's subtitles are a fifth of it
MAX_CHARACTERS = 10_000  # of a caption; the rest is cut off at a word
MAX_UNSEEN_SHARE = 0.01  # control characters in what is still a text
JSON_KEYS = ("caption", "text", "description")

_TIME = r"(?:([0-9]{1,3}):)?([0-9]{1,2}):([0-9]{1,2})(?:[,.]([0-9]{1,3}))?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_NUMBER = re.compile(r"\s*[0-9]{1,9}\s*")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd]")


class UnusableSidecar(Exception):
    """The file is not what its name says; the message says why."""


class SidecarCaptioner(OneSpeaker):
    name = "sidecar"
    uses = frozenset({Input.SIDECAR})

    def identity(self) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "version": 1,  # rises when the code would read any file differently
            "max_bytes": MAX_BYTES,
            "max_characters": MAX_CHARACTERS,
            "json_keys": JSON_KEYS,
        }

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        (speaker,) = self.speakers
        return [_answer(request, speaker) for request in requests]


def _answer(request: CaptionRequest, speaker: Speaker) -> CaptionReply:
    if request.sidecar is None:
        return reply(request, speaker, Outcome.EMPTY, detail="no sidecar")
    try:
        text = read_sidecar(request.sidecar, request.start_seconds, request.end_seconds)
    except UnusableSidecar as error:
        return reply(request, speaker, Outcome.FAILED, detail=str(error))
    if not text:
        detail = f"{request.sidecar.name}: no text for this clip"
        return reply(request, speaker, Outcome.EMPTY, detail=detail)
    short = shorten(text)
    outcome = Outcome.OK if short == text else Outcome.TRUNCATED
    return reply(request, speaker, outcome, short)


def read_sidecar(sidecar: Sidecar, start_seconds: float, end_seconds: float) -> str:
    """The text for a span of the source, on one line, or empty. Raises UnusableSidecar."""
    name = sidecar.name
    if len(sidecar.data) > MAX_BYTES:
        raise UnusableSidecar(f"{name} is larger than the {MAX_BYTES} bytes a sidecar may have")
    text = decode(sidecar.data)
    if len(_CONTROL.findall(text)) > MAX_UNSEEN_SHARE * len(text):
        raise UnusableSidecar(f"{name} holds binary data, not text")
    match PurePosixPath(name).suffix.lower():
        case ".txt":
            return clean_text(text)
        case ".json":
            return _from_json(text, name)
        case ".srt":
            return _from_srt(text, name, start_seconds, end_seconds)
        case suffix:
            raise UnusableSidecar(f"{name}: {suffix or 'no extension'} is not .txt, .json or .srt")


def decode(data: bytes) -> str:
    """The text by its byte order mark, or as UTF-16 where every other byte is zero, or as UTF-8,
    or as Windows-1252. Never fails.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    even, odd = data[::2].count(0), data[1::2].count(0)
    if 10 * max(even, odd) > 4 * len(data):
        return data.decode("utf-16-le" if odd > even else "utf-16-be", "replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def shorten(text: str) -> str:
    """At most MAX_CHARACTERS, cut between words where there is a space."""
    if len(text) <= MAX_CHARACTERS:
        return text
    head, space, _ = text[: MAX_CHARACTERS + 1].rpartition(" ")
    return head if space else text[:MAX_CHARACTERS]


def _from_json(text: str, name: str) -> str:
    try:
        value = json.loads(text) if text.strip() else ""
    except (ValueError, RecursionError) as error:
        raise UnusableSidecar(f"{name} is malformed JSON: {error}") from error
    found = _strings(value) or _keyed(value)
    if not found and isinstance(value, dict):
        found = next((t for inner in value.values() if (t := _keyed(inner))), "")
    return found


def _strings(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    return clean_text(value) if isinstance(value, str) else ""


def _keyed(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return next((t for key in JSON_KEYS if (t := _strings(value.get(key)))), "")


@dataclass(frozen=True, slots=True)
class Cue:
    start_seconds: float
    end_seconds: float
    lines: tuple[str, ...]

    def overlaps(self, start_seconds: float, end_seconds: float) -> bool:
        """With a half-open span; an image's span is the point where it starts."""
        begins_before = self.start_seconds < end_seconds or self.start_seconds <= start_seconds
        return begins_before and self.end_seconds > start_seconds


def _from_srt(text: str, name: str, start_seconds: float, end_seconds: float) -> str:
    cues = list(parse_srt(text))
    if not cues and text.strip():
        raise UnusableSidecar(
            f"{name} has no cue with a valid time (00:00:01,000 --> 00:00:02,000)"
        )
    lines = [line for c in cues if c.overlaps(start_seconds, end_seconds) for line in c.lines]
    # Live captions roll: each cue repeats the line before.
    return " ".join(line for line, _ in itertools.groupby(lines))


def parse_srt(text: str) -> Iterator[Cue]:
    """Cues with a valid time, in file order. Blank lines between cues may be missing.

    A cue reaches from its `-->` to the next one, less the number that stands before that.
    """
    lines = text.splitlines()
    arrows = [i for i, line in enumerate(lines) if "-->" in line]
    for arrow, following in itertools.zip_longest(arrows, arrows[1:]):
        span, body = _span(lines[arrow]), lines[arrow + 1 : following]
        if following is not None and body and _NUMBER.fullmatch(body[-1]):
            body.pop()
        if span is not None:
            yield Cue(*span, tuple(filter(None, map(_plain, body))))


def _plain(line: str) -> str:
    return clean_text(html.unescape(_TAG.sub("", line)))


def _span(line: str) -> tuple[float, float] | None:
    """(start, end) in seconds, or None if it is no span that time could have."""
    match = _TIMING.fullmatch(line)
    if match is None:
        return None
    start, end = _seconds(*match.groups()[:4]), _seconds(*match.groups()[4:])
    return (start, end) if start is not None and end is not None and start < end else None


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float | None:
    if int(minutes) > 59 or int(seconds) > 59:
        return None
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return whole + int((fraction or "0").ljust(3, "0")) / 1000
