"""A caption never lands on another clip: workers that ask, and replies that went astray."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.caption.interface import (
    CaptionReply,
    Outcome,
    Speaker,
    reply,
)
from telecine.encoders.caption.signal import describe
from telecine.encoders.load import load_captioner
from telecine.infra.store.storage import Storage
from telecine.manifests.specs import CaptionSpec
from telecine.pipeline.caption.worker import CaptionTask, CaptionWorker, accept
from telecine.testing.captioners import make_request
from tests.support.asking import Looker, write_sidecar

SIDECAR, SIGNAL = (load_captioner(CaptionSpec(captioner=n)) for n in ("sidecar", "signal"))

NUMBER = 5
REQUESTS = [make_request(i) for i in range(NUMBER)]
BATCH = [CaptionTask(request) for request in REQUESTS]
TRUE = SIGNAL.caption(REQUESTS)
number = st.integers(0, NUMBER - 1)


@st.composite
def astray(draw: st.DrawFn) -> list[CaptionReply]:
    """True replies, some lost, doubled, shuffled, re-keyed or by somebody else."""
    replies = draw(st.lists(st.sampled_from(TRUE), max_size=2 * NUMBER))
    changes: list[dict[str, Any]] = [
        {}, {}, {}, {"clip_id": f"clip{draw(number)}"}, {"clip_id": "stranger"},
        {"stills_digest": f"stills{draw(number)}"}, {"speaker": Speaker("stranger", "f")},
    ]  # fmt: skip
    return [dataclasses.replace(r, **draw(st.sampled_from(changes))) for r in replies]


@given(astray())
def test_a_reply_lands_on_the_clip_whose_keys_it_bears_or_nowhere(
    replies: list[CaptionReply],
) -> None:
    rows = accept(SIGNAL, BATCH, replies)
    assert [row.clip_id for row in rows] == [request.clip_id for request in REQUESTS]
    for row, request, true in zip(rows, REQUESTS, TRUE, strict=True):
        keys = (request.clip_id, request.stills_digest)
        mine = [r for r in replies if (r.clip_id, r.stills_digest) == keys]
        assert row.input_digest == request.input_digest
        if len(mine) == 1 and mine[0].speaker == true.speaker:
            assert (row.outcome, row.text) == ("ok", describe(request.facts))
        else:
            assert (row.outcome, row.text) == ("failed", "")
            assert row.detail


@given(st.permutations(TRUE))
def test_the_order_of_replies_is_nothing(replies: list[CaptionReply]) -> None:
    assert accept(SIGNAL, BATCH, replies) == accept(SIGNAL, BATCH, TRUE)


def test_replies_to_nobody_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    rows = accept(SIGNAL, BATCH[:1], TRUE[:2])
    assert [row.outcome for row in rows] == ["ok"]
    assert "answered about clips it was not asked about" in caplog.text
    assert "clip1" in caplog.text


@pytest.mark.parametrize(
    ("outcome", "text", "row"),
    [
        (Outcome.OK, " a\ndog \ud800", ("ok", "a dog")),
        (Outcome.OK, " \n", ("empty", "")),
        (Outcome.TRUNCATED, "a dog that", ("truncated", "a dog that")),
        (Outcome.REFUSED, "I cannot help with that", ("refused", "")),
        (Outcome.FAILED, "half a", ("failed", "")),
    ],
)
def test_only_an_answer_is_a_caption(outcome: Outcome, text: str, row: tuple[str, str]) -> None:
    answer = reply(REQUESTS[0], SIGNAL.speakers[0], outcome, text)
    (found,) = accept(SIGNAL, BATCH[:1], [answer])
    assert (found.outcome, found.text) == row


def test_a_captioner_that_raises_costs_the_clip_it_raises_on() -> None:
    batch = [CaptionTask(make_request(i)) for i in range(4)]
    looker = Looker(raises_on="clip2")
    rows = accept(looker, batch, CaptionWorker(looker, Storage())(batch))
    assert [row.outcome for row in rows] == ["ok", "ok", "failed", "ok"]
    assert rows[2].detail.startswith("RuntimeError: the model choked")


def test_the_sidecar_of_a_source_is_read_once(tmp_path: Path) -> None:
    columns = write_sidecar(tmp_path / "footage", "a.txt", b"a dog")
    worker = CaptionWorker(SIDECAR, Storage())
    tasks = [
        CaptionTask(make_request(i), columns["sidecar_uri"], columns["sidecar_version"])
        for i in range(4)
    ]
    first = worker(tasks[:2])
    Path(columns["sidecar_uri"]).unlink()
    assert [r.text for r in first + worker(tasks[2:])] == ["a dog"] * 4
