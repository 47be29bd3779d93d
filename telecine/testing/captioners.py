"""What every captioner promises (`telecine.encoders.caption.interface.Captioner`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from telecine.encoders.caption.interface import (
    WITH_TEXT,
    Captioner,
    CaptionRequest,
    ClipFacts,
    Input,
    Outcome,
    Sidecar,
    clean_text,
)
from telecine.testing.checks import check_identity
from telecine.testing.media import jpeg

Make: TypeAlias = Callable[[], Captioner]


def make_facts(**changes: Any) -> ClipFacts:
    """A landscape video in which nothing stands out."""
    facts = ClipFacts(
        kind="video", duration_seconds=2.0, width=640, height=360, camera_x=0.0, camera_y=0.0,
        subject_motion=0.005, change=0.08, brightness=0.5, contrast=0.15, saturation=0.2,
        dominant_colors=("grey", "blue"),
    )  # fmt: skip
    return dataclasses.replace(facts, **changes)


def make_request(number: int = 0, **changes: Any) -> CaptionRequest:
    """Requests of different numbers differ in their keys and in what is to be said of them."""
    request = CaptionRequest(
        clip_id=f"clip{number}",
        stills_digest=f"stills{number}",
        input_digest=f"input{number}",
        facts=make_facts(width=640 + number),
        start_seconds=0.0,
        end_seconds=2.0,
        stills=((0.0, b"first"), (1.0, b"second")),
        sidecar=Sidecar("a.txt", f"text of clip {number}".encode()),
    )
    return dataclasses.replace(request, **changes)


def seen_request(number: int, **changes: Any) -> CaptionRequest:
    """One whose stills are pictures."""
    stills = tuple((seconds, jpeg(10 * number + i)) for i, seconds in enumerate((0.0, 0.9, 1.4)))
    return make_request(number, **{"stills": stills, **changes})


def every_request() -> list[CaptionRequest]:
    """What a captioner meets: sidecars that are there, missing, empty or broken; stills that are
    whole, missing or broken; an image.
    """
    return [
        seen_request(0),
        seen_request(1, sidecar=None),
        seen_request(2, sidecar=Sidecar("a.json", b"{")),
        seen_request(3, sidecar=Sidecar("a.srt", b"")),
        seen_request(4, stills=()),
        seen_request(5, sidecar=Sidecar("a.exe", b"\x00\x01")),
        seen_request(6, stills=((0.0, b"no JPEG"), (1.5, jpeg(6)))),
        seen_request(7, start_seconds=3.0, end_seconds=3.0, stills=((0.0, jpeg(7)),)),
    ]


class CaptionerContract:
    """Derive a class from it, named Test…, with a fixture `make`."""

    def test_replies_echo_the_keys_in_the_order_asked(self, make: Make) -> None:
        asked = every_request()[::-1]
        keys = [(r.clip_id, r.stills_digest) for r in make().caption(asked)]
        assert keys == [(r.clip_id, r.stills_digest) for r in asked]

    def test_an_empty_batch_has_no_replies(self, make: Make) -> None:
        assert make().caption([]) == []

    def test_the_same_request_gets_the_same_reply_whoever_stands_beside_it(
        self, make: Make
    ) -> None:
        together = make().caption(every_request())
        other = make()
        assert together == [other.caption([request])[0] for request in every_request()]

    def test_outcomes_are_of_the_closed_set_and_only_some_have_a_text(self, make: Make) -> None:
        for reply in make().caption(every_request()):
            assert isinstance(reply.outcome, Outcome)
            assert bool(reply.text) == (reply.outcome in WITH_TEXT)
            assert reply.text == clean_text(reply.text), "one line of printable text"
            assert reply.detail or reply.outcome is Outcome.OK, "whoever has no text says why"

    def test_replies_name_one_of_the_speakers(self, make: Make) -> None:
        captioner = make()
        assert {r.speaker for r in captioner.caption(every_request())} <= set(captioner.speakers)

    def test_the_fingerprint_is_that_of_the_identity(self, make: Make) -> None:
        captioner = make()
        check_identity(captioner, make())
        assert captioner.name == captioner.identity()["name"]
        assert captioner.speakers == make().speakers

    def test_what_is_not_used_changes_nothing(self, make: Make) -> None:
        captioner, asked = make(), seen_request(0)
        others = {
            Input.STILLS: seen_request(0, stills=((0.5, jpeg(99)),)),
            Input.FACTS: seen_request(0, facts=seen_request(9).facts),
            Input.SIDECAR: seen_request(0, sidecar=Sidecar("b.txt", b"another")),
        }
        for used, other in others.items():
            if used not in captioner.uses:
                assert captioner.caption([asked]) == captioner.caption([other])
