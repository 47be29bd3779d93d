"""What a model said, looked at before it becomes a caption: the cuts and refusals that are seen in
generated text. Pure.

    nothing                                      → empty
    its prompt, or tokens of a chat template     → failed: asked again, never kept
    "I'm sorry, but I cannot ..."                → refused
    a sentence or phrase that comes again        → truncated before it
    more characters than the tokens allow        → truncated at the last whole sentence
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from telecine.encoders.caption.interface import WITH_TEXT, Outcome, clean_text

VERSION = 1  # rises when any text would come out differently

LEAKED_WORDS = 8  # of the prompt, in a row
PHRASE_WORDS = 8  # a phrase of at most so many words ...
PHRASE_TIMES = 4  # ... that stands so often in a row is a loop
SENTENCE_WORDS = 3  # a shorter sentence may come again: "It is day."
CHARACTERS_PER_TOKEN = 12  # at most, whatever the language: a server may ignore its limit
QUOTED = 120  # characters of a bad answer that are kept as its detail

_MARKUP = re.compile(
    r"<\|[^|>]{1,40}\|>|<(?:/?s|image|video|start_of_text|end_of_text)>|\[/?INST\]"
)
_REFUSAL = re.compile(
    r"^\W*(?:(?:i['’]?m|i am) (?:sorry|unable|not able|afraid)|sorry(?:[,.]| but| i\b)"
    r"|(?:unfortunately|apologies),"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|do not|don['’]?t) (?:assist|help|describe|identify|"
    r"provide|comply|view|see|watch|analy[sz]e|fulfil|have the ability)|as an ai\b)",
    re.IGNORECASE,
)
SENTENCES = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*")
_ENDED = re.compile(r"[.!?…。！？][\"'”’」)]*$")


@dataclass(frozen=True, slots=True)
class Said:
    """What a model answered. Only `ok` and `truncated` have a text."""

    outcome: Outcome
    text: str = ""
    detail: str = ""


def guard(said: Said, *, prompt: str, max_tokens: int) -> Said:
    """What may be kept of an answer to `prompt`, of `max_tokens` at most."""
    if said.outcome not in WITH_TEXT:
        return Said(said.outcome, "", clean_text(said.detail))
    text = clean_text(said.text)
    if not text:
        return Said(Outcome.EMPTY, "", said.detail or "the model said nothing")
    quoted = f"{text[:QUOTED]}…" if len(text) > QUOTED else text
    if leak := leaked(text, prompt):
        return Said(Outcome.FAILED, "", f"it says its prompt ({leak!r}): {quoted}")
    if _REFUSAL.search(text):
        return Said(Outcome.REFUSED, "", quoted)
    kept = before_repetition(text)
    if kept != text:
        return Said(Outcome.TRUNCATED, kept, "cut where it began to repeat itself")
    limit = CHARACTERS_PER_TOKEN * max_tokens
    if len(text) > limit:
        return Said(Outcome.TRUNCATED, whole_sentences(text[:limit]), f"cut at {limit} characters")
    if said.outcome is Outcome.TRUNCATED:
        detail = said.detail or f"cut at {max_tokens} tokens"
        return Said(Outcome.TRUNCATED, whole_sentences(text), detail)
    return Said(Outcome.OK, text, clean_text(said.detail))


def leaked(text: str, prompt: str) -> str:
    """What of the prompt or of a chat template stands in the text, or nothing."""
    if found := _MARKUP.search(text):
        return found[0]
    asked, said = _words(prompt), f" {' '.join(_words(text))} "
    length = min(LEAKED_WORDS, len(asked))
    if length < SENTENCE_WORDS:
        return ""
    runs = (" ".join(asked[i : i + length]) for i in range(len(asked) - length + 1))
    return next((run for run in runs if f" {run} " in said), "")


def before_repetition(text: str) -> str:
    """The text up to where a sentence comes a second time, or a phrase a second time in a loop."""
    seen: set[str] = set()
    kept: list[str] = []
    for sentence in SENTENCES.split(text):
        key = " ".join(_words(sentence))
        if key in seen and (key.count(" ") + 1 >= SENTENCE_WORDS or len(key) >= 2 * PHRASE_WORDS):
            break
        seen.add(key)
        once = _before_loop(sentence)
        kept.append(once)
        if once != sentence:
            break
    else:
        return text
    return " ".join(kept)


def _before_loop(sentence: str) -> str:
    words = sentence.split()
    keys = ["".join(_words(word)) for word in words]
    for size in range(1, PHRASE_WORDS + 1):
        for start in range(len(words) - size * PHRASE_TIMES + 1):
            phrase = keys[start : start + size]
            if all(
                keys[start + n * size : start + (n + 1) * size] == phrase
                for n in range(1, PHRASE_TIMES)
            ):
                return " ".join(words[: start + size])
    return sentence


def whole_sentences(text: str) -> str:
    """Without a last sentence that is cut off; where there is no other, without its last word."""
    sentences = [s for s in SENTENCES.split(text) if s]
    if sentences and _ENDED.search(sentences[-1]):
        return text
    if len(sentences) > 1:
        return text[: text.rindex(sentences[-1])].rstrip()
    return text.rsplit(None, 1)[0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Of a caption whose parts had these: a part that is missing makes it no caption at all."""
    found = set(outcomes)
    order = (Outcome.FAILED, Outcome.REFUSED, Outcome.TRUNCATED, Outcome.OK)
    return next((outcome for outcome in order if outcome in found), Outcome.EMPTY)
