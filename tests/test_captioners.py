"""The contract of a captioner, over every one there is, and what `auto` makes of two of them."""

from __future__ import annotations

import pytest
from asking import make_request

from encoders.captioner import (
    WITH_TEXT,
    Captioner,
    CaptionRequest,
    Input,
    Outcome,
    Sidecar,
    clean_text,
)
from encoders.load import load_captioner
from infra.errors import UsageError
from manifests.fingerprint import fingerprint

SPECS = ("auto", "sidecar", "signal")


@pytest.fixture(params=SPECS)
def captioner(request: pytest.FixtureRequest) -> Captioner:
    return load_captioner(request.param)


def requests() -> list[CaptionRequest]:
    """What a captioner meets: sidecars that are there, missing, empty or broken; no stills."""
    return [
        make_request(0),
        make_request(1, sidecar=None),
        make_request(2, sidecar=Sidecar("a.json", b"{")),
        make_request(3, sidecar=Sidecar("a.srt", b"")),
        make_request(4, stills=()),
        make_request(5, sidecar=Sidecar("a.exe", b"\x00\x01")),
    ]


def test_replies_echo_the_keys_in_the_order_asked(captioner: Captioner) -> None:
    asked = requests()[::-1]
    keys = [(r.clip_id, r.stills_digest) for r in captioner.caption(asked)]
    assert keys == [(r.clip_id, r.stills_digest) for r in asked]


def test_an_empty_batch_has_no_replies(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_the_same_request_gets_the_same_reply_whoever_stands_beside_it(
    captioner: Captioner,
) -> None:
    together = captioner.caption(requests())
    alone = [load_captioner(captioner.name).caption([r])[0] for r in requests()]
    assert together == alone


def test_outcomes_are_of_the_closed_set_and_only_some_have_a_text(captioner: Captioner) -> None:
    for reply in captioner.caption(requests()):
        assert isinstance(reply.outcome, Outcome)
        assert bool(reply.text) == (reply.outcome in WITH_TEXT)
        assert reply.text == clean_text(reply.text)
        assert reply.detail or reply.outcome is Outcome.OK, "whoever has no text says why"


def test_replies_name_one_of_the_speakers(captioner: Captioner) -> None:
    assert {r.speaker for r in captioner.caption(requests())} <= set(captioner.speakers)


def test_the_fingerprint_is_that_of_the_identity(captioner: Captioner) -> None:
    assert captioner.fingerprint == fingerprint(captioner.identity())
    assert captioner.name == captioner.identity()["name"]


def test_what_is_not_used_changes_nothing(captioner: Captioner) -> None:
    asked = make_request(0)
    others = {
        Input.STILLS: make_request(0, stills=((0.5, b"another"),)),
        Input.FACTS: make_request(0, facts=make_request(9).facts),
        Input.SIDECAR: make_request(0, sidecar=Sidecar("b.txt", b"another")),
    }
    for used, other in others.items():
        if used not in captioner.uses:
            assert captioner.caption([asked]) == captioner.caption([other])


def test_captioners_differ_in_fingerprint() -> None:
    assert len({load_captioner(spec).fingerprint for spec in SPECS}) == len(SPECS)


def test_an_unknown_captioner_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no captioner 'oracle'; choose one of auto, sidecar, s"):
        load_captioner("oracle")


# ── auto ─────────────────────────────────────────────────────────────────────────────────────────


def test_auto_is_the_sidecar_where_it_has_a_text_and_else_signal() -> None:
    auto, sidecar, signal = map(load_captioner, SPECS)
    assert auto.speakers == (*sidecar.speakers, *signal.speakers)
    asked = requests()
    spoke = [reply.speaker.name for reply in auto.caption(asked)]
    assert spoke == ["sidecar", "signal", "signal", "signal", "sidecar", "signal"]
    for reply, by_sidecar, by_signal in zip(
        auto.caption(asked), sidecar.caption(asked), signal.caption(asked), strict=True
    ):
        expected = by_sidecar if reply.speaker.name == "sidecar" else by_signal
        assert (reply.outcome, reply.text) == (expected.outcome, expected.text)


def test_auto_keeps_why_a_sidecar_failed_but_not_that_there_is_none() -> None:
    replies = load_captioner("auto").caption(requests())
    assert replies[1].detail == ""
    assert replies[2].detail.startswith("sidecar failed: a.json is malformed JSON: Expecting")
    assert replies[3].detail == ""
    assert replies[5].detail == "sidecar failed: a.exe holds binary data, not text"


# ── text ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("  a\t b\r\n\u2028c\u00a0d ", "a b c d"),
        ("a\x00b\x1b[0m\x9dc\ufeff", "ab[0mc"),
        ("\u202eevil\u202c\u2066x\u2069", "evilx"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
        ("\x85\x0b\x0c", ""),
    ],
)
def test_clean_text_is_one_line_that_any_table_can_hold(given: str, cleaned: str) -> None:
    assert clean_text(given) == cleaned
    assert clean_text(cleaned) == cleaned
    cleaned.encode()
