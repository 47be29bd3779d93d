"""What a model says is looked at before it becomes a caption."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telecine.encoders.caption.describer import PROMPT
from telecine.encoders.caption.guards import Said, before_repetition, guard, whole_sentences, worst
from telecine.encoders.caption.interface import WITH_TEXT, Outcome, clean_text

OK, EMPTY, REFUSED, TRUNCATED, FAILED = (
    Outcome.OK, Outcome.EMPTY, Outcome.REFUSED, Outcome.TRUNCATED, Outcome.FAILED,
)  # fmt: skip
LONG = "A man in a red coat walks along the shore. He stops and looks at the sea."


def guarded(text: str, outcome: Outcome = OK, max_tokens: int = 512) -> Said:
    return guard(Said(outcome, text), prompt=PROMPT, max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("text", "outcome", "kept"),
    [
        (LONG, OK, LONG),
        ("  A dog\n runs\x00. ", OK, "A dog runs."),
        ("", EMPTY, ""),
        (" \n\u200b ", EMPTY, ""),
        ("I'm sorry, but I can't help with that.", REFUSED, ""),
        ("I\u2019m unable to view videos.", REFUSED, ""),
        ("Unfortunately, I cannot see the video.", REFUSED, ""),
        ("As an AI language model, I do not watch videos.", REFUSED, ""),
        ("I cannot describe this.", REFUSED, ""),
        ("I can see a dog on a lawn.", OK, "I can see a dog on a lawn."),
        ("Sorry, I can't.", REFUSED, ""),
        ("Sorry-looking sheep stand in the rain.", OK, "Sorry-looking sheep stand in the rain."),
        (f"{PROMPT} A dog runs.", FAILED, ""),
        ("Describe this video for someone who cannot see it: a dog.", FAILED, ""),
        ("A dog runs.<|im_end|>", FAILED, ""),
        ("[INST] A dog runs.", FAILED, ""),
        ("A sign says <3 and [x].", OK, "A sign says <3 and [x]."),
        (f"{LONG} {LONG} {LONG}", TRUNCATED, LONG),
        ("A dog runs. A cat sits. A dog runs! A cat", TRUNCATED, "A dog runs. A cat sits."),
        ("It is day. It is day. A dog runs.", TRUNCATED, "It is day."),
        ("Yes. Yes. A dog runs.", OK, "Yes. Yes. A dog runs."),
        ("a man and a man and a man and a man and a man and", TRUNCATED, "a man and"),
        ("a very very very very very old dog", TRUNCATED, "a very"),
        ("a very, very, very old dog", OK, "a very, very, very old dog"),
        ("犬が公園の中をとても速く走っている。猫が座っている。犬が公園の中をとても速く走っている。",
         TRUNCATED, "犬が公園の中をとても速く走っている。 猫が座っている。"),
    ],
)  # fmt: skip
def test_what_is_kept_of_an_answer(text: str, outcome: Outcome, kept: str) -> None:
    said = guarded(text)
    assert (said.outcome, said.text) == (outcome, kept)
    assert said.detail or said.outcome is OK, "whoever has no whole text says why"


def test_an_answer_that_was_cut_ends_with_a_whole_sentence() -> None:
    assert guarded("A dog runs. It is bro", TRUNCATED).text == "A dog runs."
    assert guarded("A dog runs and it is bro", TRUNCATED).text == "A dog runs and it is"
    assert guarded("A dog runs.", TRUNCATED) == Said(TRUNCATED, "A dog runs.", "cut at 512 tokens")


def test_an_answer_longer_than_its_tokens_allow_is_cut() -> None:
    said = guarded("One dog runs. Another dog sleeps.", max_tokens=2)
    assert said == Said(TRUNCATED, "One dog runs.", "cut at 24 characters")


def test_a_short_prompt_leaks_only_whole() -> None:
    def leaks(text: str) -> bool:
        return guard(Said(OK, text), prompt="Describe the video.", max_tokens=9).outcome is FAILED

    assert leaks("Describe the video. A dog.")
    assert not leaks("The video shows a dog.")


def test_a_prompt_of_a_word_or_two_is_no_leak() -> None:
    said = guard(Said(OK, "Caption: a dog."), prompt="Caption:", max_tokens=9)
    assert said.outcome is OK


@example("00000000 0 00", OK, 1)
@given(st.text(max_size=200), st.sampled_from(Outcome), st.integers(1, 40))
def test_whatever_was_said_only_some_outcomes_have_a_text(
    text: str, outcome: Outcome, max_tokens: int
) -> None:
    said = guarded(text, outcome, max_tokens)
    assert bool(said.text) == (said.outcome in WITH_TEXT)
    assert said.text == clean_text(said.text)
    # Not as one that was cut: without a sentence's end that loses a word each time.
    whole = guard(Said(OK, said.text), prompt=PROMPT, max_tokens=max_tokens)
    assert whole.text == said.text, "guarded once is all"
    assert len(said.text) <= 12 * max_tokens


@given(st.lists(st.sampled_from(["A dog runs.", "A cat sits.", "Wow!"]), max_size=8))
def test_what_is_kept_is_a_beginning_without_repetition(sentences: list[str]) -> None:
    text = " ".join(sentences)
    kept = before_repetition(text)
    assert text.startswith(kept)
    assert kept.count("A dog runs.") <= 1
    assert before_repetition(kept) == kept


@given(st.text(alphabet="ab .!", max_size=60).map(clean_text).filter(bool))
def test_whole_sentences_are_a_beginning(text: str) -> None:
    kept = whole_sentences(text)
    assert kept
    assert text.startswith(kept)


def test_a_caption_is_as_good_as_its_worst_part() -> None:
    assert worst([OK, TRUNCATED, OK]) is TRUNCATED
    assert worst([OK, REFUSED, TRUNCATED]) is REFUSED
    assert worst([OK, FAILED, REFUSED]) is FAILED
    assert worst([EMPTY, OK]) is OK
    assert worst([EMPTY, EMPTY]) is EMPTY
