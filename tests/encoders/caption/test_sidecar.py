"""Sidecar files as people write them, and as nobody should."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.caption.interface import Outcome, Sidecar, clean_text
from telecine.encoders.caption.sidecar import (
    MAX_BYTES,
    MAX_CHARACTERS,
    SidecarCaptioner,
    UnusableSidecar,
    parse_srt,
    read_sidecar,
    shorten,
)
from telecine.testing.captioners import make_request

SRT = """\
1
00:00:01,000 --> 00:00:02,500
A dog runs.

2
00:00:02,500 --> 00:00:04,000
It <i>barks</i>,
{\\an8}twice &amp; loudly.

3
00:00:10,000 --> 00:00:11,000
42
"""


def read(name: str, data: bytes | str, start: float = 0.0, end: float = 60.0) -> str:
    return read_sidecar(Sidecar(name, data.encode() if isinstance(data, str) else data), start, end)


# ── .txt and encodings ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_a_text_is_read_whole_in_any_usual_encoding(encoding: str) -> None:
    assert read("A B.TXT", "Café crème,\r\n  ça va? \n".encode(encoding)) == "Café crème, ça va?"


def test_windows_1252_has_quotes_where_latin_1_has_controls() -> None:
    assert read("a.txt", b"a \x93dog\x94 \x96 caf\xe9") == "a “dog” – café"


def test_what_windows_1252_lacks_is_dropped() -> None:
    assert read("a.txt", b"caf\xe9 " * 50 + b"\x81") == " ".join(["café"] * 50)


@pytest.mark.parametrize("data", [b"", b" \r\n\t ", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_text_without_words_is_empty(data: bytes) -> None:
    assert read("a.txt", data) == ""


@pytest.mark.parametrize("data", [bytes(1000), bytes(range(256)) * 8, b"\x89PNG\r\n\x1a\n\0\0\0\r"])
def test_binary_data_is_no_text(data: bytes) -> None:
    with pytest.raises(UnusableSidecar, match="holds binary data"):
        read("a.txt", data)


def test_a_text_as_large_as_allowed_is_read_and_one_byte_more_is_not() -> None:
    assert len(read("a.txt", b"x" * MAX_BYTES)) == MAX_BYTES
    with pytest.raises(UnusableSidecar, match="larger than the 1048576 bytes"):
        read("a.txt", b"x" * (MAX_BYTES + 1))


@pytest.mark.parametrize("name", ["a.vtt", "a", "a.txt.bak", ".txt"])
def test_other_extensions_are_refused(name: str) -> None:
    with pytest.raises(UnusableSidecar, match=r"is not \.txt, \.json or \.srt"):
        read(name, "text")


# ── .json ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"caption": "a dog"}, "a dog"),
        ({"text": "a dog"}, "a dog"),
        ({"description": "a dog"}, "a dog"),
        ({"description": "third", "text": "second", "caption": "first"}, "first"),
        ({"caption": "  ", "text": None, "description": "a\ndog"}, "a dog"),
        ({"caption": ["a dog", "runs"]}, "a dog runs"),
        ({"caption": ["a dog", 7], "text": "runs"}, "runs"),
        ({"caption": {"text": "a dog"}}, "a dog"),
        ({"id": 7, "meta": {"author": "x"}, "data": {"caption": "a dog"}}, "a dog"),
        ({"data": {"caption": "nested"}, "text": "own"}, "own"),
        ({"data": {"inner": {"caption": "too deep"}}}, ""),
        ("a dog", "a dog"),
        (["a dog", "runs"], "a dog runs"),
        ([{"caption": "a list of objects is nothing we know"}], ""),
        ({"title": "no key of ours"}, ""),
        ({"Caption": "keys are lower case"}, ""),
        ({"caption": "lone \ud800 surrogate"}, "lone surrogate"),
        ([], ""), ({}, ""), (7, ""), (None, ""),
    ],
)  # fmt: skip
def test_json_has_its_text_under_the_keys_named(value: Any, text: str) -> None:
    assert read("a.json", json.dumps(value)) == text


@pytest.mark.parametrize(
    "data",
    ["{", "{'caption': 'x'}", "caption: x", '{"caption": "x"} {"caption": "y"}',
     "[" * 200_000, '{"a":' * 100_000, "1" * 5000],
)  # fmt: skip
def test_malformed_json_says_so(data: str) -> None:
    with pytest.raises(UnusableSidecar, match=r"a\.json is malformed JSON"):
        read("a.json", data)


def test_an_empty_json_file_is_empty_and_a_bom_is_no_fault() -> None:
    assert read("a.json", " \n") == ""
    assert read("a.json", '{"caption": "a dog"}'.encode("utf-8-sig")) == "a dog"
    assert read("a.json", '{"caption": "a dog"}'.encode("utf-16")) == "a dog"


# ── .srt ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (0.0, 1.0, ""),
        (0.0, 1.001, "A dog runs."),
        (2.499, 2.5, "A dog runs."),
        (2.5, 4.0, "It barks, twice & loudly."),
        (2.0, 3.0, "A dog runs. It barks, twice & loudly."),
        (4.0, 10.0, ""),
        (0.0, 60.0, "A dog runs. It barks, twice & loudly. 42"),
        (3.0, 3.0, "It barks, twice & loudly."),  # an image
        (2.5, 2.5, "It barks, twice & loudly."),
        (4.0, 4.0, ""),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_lines_of_overlapping_cues_in_order(
    start: float, end: float, text: str, newline: str
) -> None:
    assert read("a.srt", SRT.replace("\n", newline), start, end) == text


def test_bad_cues_cost_themselves_alone() -> None:
    text = (
        "1\n00:00:01,000 --> 00:00:00,500\nends before it begins\n\n"
        "2\n00:00:61,000 --> 00:01:03,000\nno such second\n\n"
        "3\nyesterday --> tomorrow\nno such time\n\n"
        "4\n00:00:01.0 --> 00:00:02.0 X1:40 Y1:20\nkept\n\n"
        "5\n00:01,5 --> 00:02\nkept too\n\n"
        "6\n00:00:03,000 -> 00:00:04,000\nan arrow too short\n"
    )
    cues = list(parse_srt(text))
    assert [(c.start_seconds, c.end_seconds, c.lines[0]) for c in cues] == [
        (1.0, 2.0, "kept"), (1.5, 2.0, "kept too"),
    ]  # fmt: skip


def test_cues_without_blank_lines_or_numbers_between_them() -> None:
    text = "00:00:01,000 --> 00:00:02,000\none\n2\n00:00:02,000 --> 00:00:03,000\ntwo\n\nand a half"
    assert [cue.lines for cue in parse_srt(text)] == [("one",), ("two", "and a half")]


def test_a_line_that_is_a_number_is_text_unless_it_counts_the_next_cue() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n7\n\n2\n00:00:02,000 --> 00:00:03,000\n8"
    assert [cue.lines for cue in parse_srt(text)] == [("7",), ("8",)]


def test_rolling_captions_are_said_once() -> None:
    text = (
        "00:00:01,000 --> 00:00:02,000\na\nb\n\n"
        "00:00:02,000 --> 00:00:03,000\nb\nc\n\n"
        "00:00:03,000 --> 00:00:04,000\nb\n"
    )
    assert read("a.srt", text) == "a b c b"


def test_comparisons_are_no_tags() -> None:
    text = '00:00:01,000 --> 00:00:02,000\n1 < 2 > 0 <font color="#fff">I <3 U</font> {really}'
    assert read("a.srt", text) == "1 < 2 > 0 I <3 U {really}"


def test_a_file_without_any_cue_is_broken_and_an_empty_one_is_empty() -> None:
    with pytest.raises(UnusableSidecar, match="no cue with a valid time"):
        read("a.srt", "just some words")
    assert read("a.srt", "\n") == ""
    assert read("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n<b></b>\n") == ""


@pytest.mark.parametrize("unit", ["<", "<a", "{\\", "-->\n", "1\n", "0:0:0,0 --> ", "&#", "[", '"'])
@pytest.mark.parametrize("name", ["a.srt", "a.json", "a.txt"])
def test_hostile_repetition_is_read_in_linear_time(name: str, unit: str) -> None:
    data = (unit * MAX_BYTES)[:MAX_BYTES].encode()
    began = time.process_time()
    text, reason = read_or_reason(name, data)
    assert time.process_time() - began < 10
    assert text or len(reason) < 300


def read_or_reason(
    name: str, data: bytes, start: float = 0.0, end: float = 60.0
) -> tuple[str, str]:
    try:
        return read(name, data, start, end), ""
    except UnusableSidecar as error:
        return "", str(error)


@given(st.binary(max_size=300), st.sampled_from(["a.srt", "a.json", "a.txt"]))
def test_any_bytes_give_a_clean_text_or_a_reason(data: bytes, name: str) -> None:
    text, reason = read_or_reason(name, data)
    assert text == clean_text(text)
    assert not reason or name in reason


@given(st.text(alphabet="01:,->\n <i>a{\\}&;", max_size=200), st.floats(0, 10), st.floats(0, 10))
def test_any_srt_like_text_gives_a_clean_text_or_a_reason(text: str, a: float, b: float) -> None:
    found, reason = read_or_reason("a.srt", text.encode(), min(a, b), max(a, b))
    assert found == clean_text(found)
    assert not reason or "no cue" in reason


# ── the captioner ────────────────────────────────────────────────────────────────────────────────


def ask(**changes: Any) -> tuple[Outcome, str, str]:
    (reply,) = SidecarCaptioner().caption([make_request(**changes)])
    return reply.outcome, reply.text, reply.detail


def test_outcomes() -> None:
    assert ask(sidecar=Sidecar("a.txt", b"a dog")) == (Outcome.OK, "a dog", "")
    assert ask(sidecar=None) == (Outcome.EMPTY, "", "no sidecar")
    empty = ask(sidecar=Sidecar("a.srt", SRT.encode()), start_seconds=5.0, end_seconds=9.0)
    assert empty == (Outcome.EMPTY, "", "a.srt: no text for this clip")
    outcome, text, detail = ask(sidecar=Sidecar("a.json", b"{"))
    assert (outcome, text) == (Outcome.FAILED, "")
    assert "malformed JSON" in detail


def test_each_clip_has_the_lines_of_its_own_span() -> None:
    sidecar = Sidecar("a.srt", SRT.encode())
    outcome, text, _ = ask(sidecar=sidecar, start_seconds=2.5, end_seconds=4.0)
    assert (outcome, text) == (Outcome.OK, "It barks, twice & loudly.")


def test_an_over_long_text_is_cut_at_a_word_and_says_so() -> None:
    outcome, text, _ = ask(sidecar=Sidecar("a.txt", b"words " * MAX_CHARACTERS))
    assert outcome is Outcome.TRUNCATED
    assert text.endswith("words")
    assert MAX_CHARACTERS - 6 < len(text) <= MAX_CHARACTERS


def test_a_text_of_just_the_length_allowed_is_whole() -> None:
    words = "a" * (MAX_CHARACTERS - 2) + " b"
    assert shorten(words) == words
    assert shorten(words + " c") == words
    assert shorten("a" * (MAX_CHARACTERS + 5)) == "a" * MAX_CHARACTERS
