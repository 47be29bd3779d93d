"""A captioner that is a model: windows in, guarded texts out, never another clip's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.caption.describer import ModelCaptioner
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import CaptionReply, CaptionRequest, Outcome, Window
from telecine.encoders.caption.windows import View
from telecine.encoders.runtime import ModelRuntime, Secret
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import make_request


class Reader:
    """A describer that says what is written in its stills, and does what some of them tell it."""

    name = "reader"

    def identity(self) -> dict[str, JsonValue]:
        return {"kind": "reader"}

    def describe(self, views: Sequence[View]) -> list[Said]:
        return [self._answer(view) for view in views]

    def _answer(self, view: View) -> Said:
        if not view.stills:
            return Said(Outcome.OK, f"Merged {view.prompt.count('[')} windows.")
        text = " and ".join(jpeg.decode() for _, jpeg in view.stills)
        if "FAIL" in text:
            return Said(Outcome.FAILED, "", "told to")
        if "REFUSE" in text:
            return Said(Outcome.OK, "I'm sorry, I cannot describe this.")
        if "NOTHING" in text:
            return Said(Outcome.OK, "")
        return Said(Outcome.TRUNCATED if "CUT" in text else Outcome.OK, f"{text}.")


def captioner(**options: Any) -> ModelCaptioner:
    return ModelCaptioner(Reader(), CaptionSpec(captioner="vlm:x", **options))


def request(number: int, *stills: str, seconds: float = 30.0) -> CaptionRequest:
    step = seconds / len(stills)
    return make_request(
        number,
        start_seconds=100.0,
        end_seconds=100.0 + seconds,
        stills=tuple((step * (i + 0.5), text.encode()) for i, text in enumerate(stills)),
    )


def only(request: CaptionRequest, **options: Any) -> CaptionReply:
    (reply,) = captioner(**options).caption([request])
    return reply


def test_a_short_clip_is_its_only_window() -> None:
    reply = only(request(0, "a dog", "a cat", seconds=8.0))
    assert (reply.outcome, reply.text, reply.windows) == (Outcome.OK, "a dog and a cat.", ())


def test_a_long_clip_is_joined_and_keeps_its_windows() -> None:
    reply = only(request(0, "a dog", "a cat", "a cow"))
    assert reply.text == "a dog. a cat. a cow."
    assert reply.windows == (
        Window(0.0, 10.0, "a dog."), Window(10.0, 20.0, "a cat."), Window(20.0, 30.0, "a cow."),
    )  # fmt: skip


def test_windows_may_be_merged_by_the_model() -> None:
    reply = only(request(0, "a dog", "a cat", "a cow"), merge_prompt="Tell it as one story.")
    assert reply.text == "Merged 3 windows."
    assert [w.text for w in reply.windows] == ["a dog.", "a cat.", "a cow."]


def test_a_merge_may_say_what_the_windows_say() -> None:
    class Merger(Reader):
        def _answer(self, view: View) -> Said:
            if view.stills:
                return super()._answer(view)
            *_, first, second = view.prompt.splitlines()
            return Said(Outcome.OK, f"{first[first.index(']') + 2 :]} {second[-30:]}")

    long = "A man in a red coat walks along the wet street past three closed shops"
    captions = ModelCaptioner(Merger(), CaptionSpec(captioner="vlm:x", merge_prompt="Join them."))
    (reply,) = captions.caption([request(0, long, "He stops and looks up", seconds=20.0)])
    assert reply.outcome is Outcome.OK
    assert reply.text.startswith(f"{long}.")


@pytest.mark.parametrize(
    ("stills", "outcome", "text"),
    [
        (("a dog", "FAIL", "a cow"), Outcome.FAILED, ""),
        (("a dog", "REFUSE", "a cow"), Outcome.REFUSED, ""),
        (("a dog", "FAIL", "REFUSE"), Outcome.FAILED, ""),
        (("a dog", "NOTHING", "a cow"), Outcome.FAILED, ""),
        (("NOTHING", "NOTHING", "NOTHING"), Outcome.EMPTY, ""),
        (("a dog", "CUT", "a cow"), Outcome.TRUNCATED, "a dog. CUT. a cow."),
    ],
)
def test_one_window_without_an_answer_makes_no_caption_with_a_hole(
    stills: tuple[str, ...], outcome: Outcome, text: str
) -> None:
    reply = only(request(0, *stills))
    assert (reply.outcome, reply.text) == (outcome, text)
    assert bool(reply.windows) == bool(text)
    assert reply.detail or outcome is Outcome.OK


some = st.lists(
    st.lists(st.sampled_from(["FAIL", "REFUSE", "NOTHING", "CUT", "is"]), min_size=1, max_size=4),
    max_size=8,
)


@given(some, st.randoms(use_true_random=False))
def test_a_text_never_lands_on_another_clip(kinds: list[list[str]], chance: Any) -> None:
    asked = [
        request(n, *(f"clip {n} part {i} {kind}" for i, kind in enumerate(parts)))
        for n, parts in enumerate(kinds)
    ]
    chance.shuffle(asked)
    alone = {r.clip_id: only(r) for r in asked}
    replies = captioner().caption(asked)
    assert [r.clip_id for r in replies] == [r.clip_id for r in asked]
    for reply in replies:
        assert reply == alone[reply.clip_id]
        number = reply.clip_id.removeprefix("clip")
        assert reply.text.count("clip ") == reply.text.count(f"clip {number} ")
        assert all(f"clip {number} " in window.text for window in reply.windows)


def test_too_few_answers_are_nobodys() -> None:
    class Forgetful(Reader):
        def describe(self, views: Sequence[View]) -> list[Said]:
            return super().describe(views)[1:]

    with pytest.raises(ValueError, match="zip"):
        ModelCaptioner(Forgetful(), CaptionSpec(captioner="vlm:x")).caption(
            [request(0, "a"), request(1, "b")]
        )


def test_what_changes_a_text_changes_the_fingerprint() -> None:
    options: list[dict[str, Any]] = [
        {}, {"prompt": "Say it."}, {"frames": 3}, {"window_seconds": 5.0}, {"max_tokens": 9},
        {"merge_prompt": "Join."}, {"temperature": 0.5},
    ]  # fmt: skip
    found = {captioner(**one).fingerprint for one in options}
    assert len(found) == len(options)
    plain = captioner()
    assert captioner(frames=16, max_tokens=512).fingerprint == plain.fingerprint, "the defaults"
    assert plain.fingerprint == captioner(weights="w").fingerprint, "that is for the model to say"


def test_a_key_is_shown_by_nobody() -> None:
    runtime = ModelRuntime(url="http://host/v1", key=Secret("sk-123"))
    assert "sk-123" not in f"{runtime} {runtime!r} {dataclasses.replace(runtime)!r}"
    assert runtime.key.value == "sk-123"
