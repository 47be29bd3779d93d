"""A captioner that is a model: windows in, guarded texts out, whatever model it is.

request ─▶ windows.views ─▶ Describer.describe ─▶ guards.guard ─▶ windows.joined ─▶ reply
                              coca, vlm, chat                  └▶ merge_prompt, asked once more
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from telecine.encoders.caption.guards import VERSION as GUARDS
from telecine.encoders.caption.guards import Said, guard, worst
from telecine.encoders.caption.interface import (
    WITH_TEXT,
    CaptionReply,
    CaptionRequest,
    Input,
    Interrupted,
    OneSpeaker,
    Outcome,
    Window,
    reply,
)
from telecine.encoders.caption.windows import View, joined, merge_prompt, views
from telecine.infra.errors import TelecineError
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.specs import CaptionSpec

PROMPT = (
    "Describe this video for someone who cannot see it, in one paragraph of plain sentences. Say "
    "what is shown: the people, animals and objects with how they look, what they do and in which "
    "order, the place, the light, the colors and the style, any text that can be read, and how the "
    "camera moves and frames the scene. Say only what can be seen. Start with the content itself."
)
FRAMES = 16
MAX_TOKENS = 512


class Unfinished(Exception):
    """No other view would fare better, and why; some were answered before, by their places."""

    def __init__(self, error: TelecineError, said: Mapping[int, Said]) -> None:
        super().__init__(str(error))
        self.error = error
        self.said = dict(said)


class Describer(Protocol):
    """Says something of views. Cheap to construct: a model is loaded by the first `describe`."""

    @property
    def name(self) -> str: ...

    def identity(self) -> dict[str, JsonValue]:
        """What it is, apart from what `ModelCaptioner` says of every model."""

    def describe(self, views: Sequence[View]) -> list[Said]:
        """One answer per view, in their order; a view without stills is a text to answer.

        What is wrong with one view is that view's `failed`. Raises a TelecineError, or Unfinished,
        where no other view would fare better; any other exception means that nobody got an answer.
        """


class ModelCaptioner(OneSpeaker):
    """A describer as a captioner. `prompt`, `frames` and `max_tokens` are those in force."""

    uses = frozenset({Input.STILLS})

    def __init__(
        self,
        describer: Describer,
        spec: CaptionSpec,
        *,
        prompt: str = PROMPT,
        frames: int = FRAMES,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.name = describer.name
        self._describer = describer
        self._spec = spec
        self._prompt = spec.prompt if spec.prompt is not None else prompt
        self._frames = spec.frames or frames
        self._max_tokens = spec.max_tokens or max_tokens

    def identity(self) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "model": self._describer.identity(),
            "prompt": self._prompt,
            "frames": self._frames,
            "window_seconds": self._spec.window_seconds,
            "merge_prompt": self._spec.merge_prompt,
            "max_tokens": self._max_tokens,
            "temperature": self._spec.temperature,
            "guards": GUARDS,
        }

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        shown = [self._views(request) for request in requests]
        asked = [view for some in shown for view in some]
        try:
            answers = iter(self._describe(asked))
        except Unfinished as unfinished:
            raise self._interrupted(requests, shown, unfinished) from unfinished
        return self._replies(requests, shown, [[next(answers) for _ in some] for some in shown])

    def _interrupted(
        self,
        requests: Sequence[CaptionRequest],
        shown: Sequence[list[View]],
        unfinished: Unfinished,
    ) -> Interrupted:
        """With the replies about those clips whose views were all answered."""
        places = iter(range(sum(map(len, shown))))
        kept: list[tuple[CaptionRequest, list[View], list[Said]]] = []
        for request, some in zip(requests, shown, strict=True):
            said = [unfinished.said.get(place) for place in itertools.islice(places, len(some))]
            told = [
                self._guarded(one, view.prompt)
                for one, view in zip(said, some, strict=True)
                if one is not None
            ]
            merges = self._spec.merge_prompt is not None and len(some) > 1
            if len(told) == len(some) and not merges:
                kept.append((request, some, told))
        replies = self._replies(*map(list, zip(*kept, strict=True))) if kept else []
        return Interrupted(unfinished.error, replies)

    def _replies(
        self,
        requests: Sequence[CaptionRequest],
        shown: Sequence[list[View]],
        said: Sequence[list[Said]],
    ) -> list[CaptionReply]:
        windows = [
            [
                Window(view.start_seconds, view.end_seconds, answer.text)
                for view, answer in zip(some, told, strict=True)
                if answer.text
            ]
            for some, told in zip(shown, said, strict=True)
        ]
        whole = self._whole(said, windows)
        (speaker,) = self.speakers
        return [
            reply(
                request, speaker, one.outcome, one.text, one.detail,
                tuple(parts) if one.text and len(some) > 1 else (),
            )
            for request, some, parts, one in zip(requests, shown, windows, whole, strict=True)
        ]  # fmt: skip

    def _views(self, request: CaptionRequest) -> list[View]:
        return views(
            request.stills,
            request.end_seconds - request.start_seconds,
            prompt=self._prompt,
            frames=self._frames,
            window_seconds=self._spec.window_seconds,
        )

    def _describe(self, asked: Sequence[View], prompt: str | None = None) -> list[Said]:
        """The answers, guarded against saying `prompt`, or else what was asked."""
        answers = self._describer.describe(asked) if asked else []
        return [
            self._guarded(answer, prompt or view.prompt)
            for view, answer in zip(asked, answers, strict=True)
        ]

    def _guarded(self, answer: Said, prompt: str) -> Said:
        return guard(answer, prompt=prompt, max_tokens=self._max_tokens)

    def _whole(self, said: Sequence[list[Said]], windows: Sequence[list[Window]]) -> list[Said]:
        """Of each clip one answer: its only window's, or its windows' joined."""
        whole = [
            together(some, joined([w.text for w in parts]))
            for some, parts in zip(said, windows, strict=True)
        ]
        if self._spec.merge_prompt is None:
            return whole
        several = [
            i for i, one in enumerate(whole) if one.outcome in WITH_TEXT and len(windows[i]) > 1
        ]
        asked = [View(merge_prompt(self._spec.merge_prompt, windows[i])) for i in several]
        # The windows' texts are part of what is asked, and meant to come again.
        try:
            told = self._describe(asked, prompt=self._spec.merge_prompt)
        except Unfinished as unfinished:
            raise unfinished.error from unfinished
        for i, merged in zip(several, told, strict=True):
            empty = merged.outcome is Outcome.EMPTY
            whole[i] = Said(Outcome.FAILED, "", "the merged text is empty") if empty else merged
        return whole


def together(said: Sequence[Said], text: str) -> Said:
    """One answer of several: their text, unless one of them has none that another try may give."""
    if not said:
        return Said(Outcome.FAILED, "", "it has no stills")
    if len(said) == 1:
        return said[0]
    outcome = worst(one.outcome for one in said)
    if outcome in WITH_TEXT and any(one.outcome is Outcome.EMPTY for one in said):
        return Said(Outcome.FAILED, "", "nothing was said of one of its windows")
    details = "; ".join(dict.fromkeys(one.detail for one in said if one.detail))
    return Said(outcome, text if outcome in WITH_TEXT else "", details)
