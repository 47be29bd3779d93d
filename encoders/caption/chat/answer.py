"""What a server of chat completions said, read from the bytes of its answers. Pure.

    {"choices": [{"finish_reason": "stop", "message": {"content": "…"}}]}    answer()
    {"error": {"message": "…"}}, {"detail": "…"}, an HTML page               complaint()
    {"data": [{"id": "model"}]}                                              model_names()

Nothing is believed of these bytes: a broken or hostile server may send any.
"""

from __future__ import annotations

import json
from typing import Any

from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome

VERSION = 1  # rises when any answer would be read as another text


def answer(body: bytes) -> Said:
    """The first choice of a completion. Details are as long as the server made them."""
    match _json(body):
        case {"choices": [{"message": dict() as message} as choice, *_]}:
            return _said(message, choice.get("finish_reason"))
    return Said(Outcome.FAILED, "", f"no chat completion: {complaint(body)}")


def _said(message: dict[str, Any], finish: object) -> Said:
    content = "" if message.get("content") is None else message["content"]
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        return Said(Outcome.REFUSED, "", refusal)
    if finish == "content_filter":
        return Said(Outcome.REFUSED, "", "the server's content filter")
    if not isinstance(content, str):
        return Said(Outcome.FAILED, "", f"no chat completion: a {type(content).__name__} as text")
    text = _without_thoughts(content)
    if finish == "stop" and content.strip() and not text:
        return Said(Outcome.FAILED, "", "thoughts and no answer")
    if finish == "stop":
        return Said(Outcome.OK, text)
    if finish == "length":
        if not text:
            return Said(Outcome.FAILED, "", "no answer yet at its token limit")
        return Said(Outcome.TRUNCATED, text)
    return Said(Outcome.FAILED, "", f"it stopped for another reason than its end: {finish!r}")


def _without_thoughts(content: str) -> str:
    """A reasoning model's answer, where its server leaves the thoughts before it."""
    _, ended, text = content.rpartition("</think>")
    if not ended and content.lstrip().startswith("<think>"):
        return ""
    return text.strip()


def complaint(body: bytes) -> str:
    """The message of an error, wherever this server puts it; or else the body as it is."""
    match _json(body):
        case {"error": {"message": str(message)}} if message:
            return message
        case {"error": str(message)} | {"message": str(message)} | {"detail": str(message)}:
            return message
    return body.decode("utf-8", "replace") or "an empty answer"


def model_names(body: bytes) -> list[str]:
    match _json(body):
        case {"data": [*models]}:
            return [m["id"] for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)]
    return []


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
