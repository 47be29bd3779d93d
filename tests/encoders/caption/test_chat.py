"""The captioner over a server: true questions, whose answer is whose, what an answer is."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.caption.chat.answer import answer
from telecine.encoders.caption.chat.chat import load_chat, seed
from telecine.encoders.caption.chat.client import is_this_machine
from telecine.encoders.caption.describer import MAX_TOKENS
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.windows import View
from telecine.encoders.load import load_captioner
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.errors import UsageError
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import make_request
from tests.support import chat_server
from tests.support.chat_server import (
    MODEL,
    Answer,
    ChatServer,
    Received,
    completion,
    refusing,
    sentence,
)
from tests.support.chats import (
    KEY,
    PROMPT,
    describe,
    describer,
    expected,
    on_completions,
    short_waits,
    told,
    view,
)
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module", autouse=True)
def _waits() -> Iterator[None]:
    with short_waits():
        yield


# What is asked


def test_a_view_is_its_stills_after_their_times_and_then_the_prompt() -> None:
    asked = View(PROMPT, ((8.34, b"\xff\xd8one"), (9.0, b"\xff\xd8two")), 8.3, 10.0)
    with ChatServer() as server:
        describer(server.url, max_tokens=77).describe([asked])
    (received,) = server.asked
    url = "data:image/jpeg;base64,"
    assert received.body == {
        "model": MODEL,
        "max_tokens": 77,
        "temperature": 0.0,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "8.3 s:"},
                    {"type": "image_url", "image_url": {"url": url + "/9hvbmU="}},
                    {"type": "text", "text": "9.0 s:"},
                    {"type": "image_url", "image_url": {"url": url + "/9h0d28="}},
                    {"type": "text", "text": PROMPT},
                ],
            }
        ],
    }
    assert received.headers["authorization"] == "Bearer none"


def test_an_image_has_no_time_and_a_text_no_parts() -> None:
    with ChatServer() as server:
        describer(server.url, concurrency=1).describe([View(PROMPT, ((0.0, b"j"),)), View("Join")])
    image, text = server.asked
    assert [part["type"] for part in image.parts] == ["image_url", "text"]
    assert text.body["messages"] == [{"role": "user", "content": "Join"}]


def test_the_numbers_are_those_of_the_fingerprint() -> None:
    for spec in ({}, {"max_tokens": 40, "temperature": 0.5}):
        with ChatServer() as server:
            caption = CaptionSpec(captioner=f"openai:{MODEL}", **spec)
            captioner = load_chat(caption, ModelRuntime(url=server.url))
            captioner.caption([make_request()])
        body, identity = server.asked[0].body, captioner.identity()
        assert body["max_tokens"] == identity["max_tokens"] == spec.get("max_tokens", MAX_TOKENS)
        assert body["temperature"] == identity["temperature"]


def test_a_seed_goes_with_a_temperature_and_depends_on_the_view_alone() -> None:
    views = [view(0), view(1), view(0)]
    with ChatServer() as server:
        describer(server.url, temperature=0.7, concurrency=1).describe(views)
    seeds = [received.body["seed"] for received in server.asked]
    assert seeds == [seed(v) for v in views]
    assert seeds[0] == seeds[2] != seeds[1]
    assert all(0 <= one < 2**31 for one in seeds)
    moved = dataclasses.replace(view(0), stills=((0.5, view(0).stills[0][1]), view(0).stills[1]))
    assert len({seed(view(0)), seed(moved), seed(View("Other", view(0).stills))}) == 3


def test_so_many_at_once_and_no_more() -> None:
    together = threading.Barrier(3)

    def behave(received: Received) -> Answer:
        together.wait(PATIENCE)
        return Answer(delay_seconds=0.1)  # a fourth would arrive meanwhile

    with ChatServer(behave) as server:
        said = describer(server.url, concurrency=3).describe([view(i) for i in range(9)])
    assert [one.text for one in said] == [expected(view(i)) for i in range(9)]
    assert server.most_at_once == 3


def test_the_environment_changes_neither_address_nor_headers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ChatServer() as server, ChatServer() as other:
        for name, value in {
            "OPENAI_BASE_URL": other.url,
            "OPENAI_API_KEY": "sk-of-the-environment",
            "OPENAI_ADMIN_KEY": "sk-of-the-admin",
            "OPENAI_ORG_ID": "org",
            "OPENAI_PROJECT_ID": "project",
            "OPENAI_CUSTOM_HEADERS": "Host: elsewhere\nAuthorization: Bearer x\nX-More: 1",
            "HTTP_PROXY": other.url,
            "http_proxy": other.url,
            "ALL_PROXY": other.url,
        }.items():
            monkeypatch.setenv(name, value)
        describer(server.url, KEY).describe([view()])
    (received,) = server.received
    assert not other.received
    length = received.headers["content-length"]
    assert received.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "connection": "close",
        "user-agent": "telecine",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": length,
    }


def test_a_proxy_leads_to_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server plays a proxy: it is asked for the whole URL of a name that does not exist."""
    with ChatServer(lambda received: Answer(200, completion("By proxy."))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        (said,) = describer("http://captions.invalid/v1").describe([view()])
    assert said.text == "By proxy."
    assert proxy.received[0].path == "http://captions.invalid/v1/chat/completions"
    assert proxy.received[0].headers["host"] == "captions.invalid"
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "ftp://me:my-password@proxy:1")
    with pytest.raises(UsageError, match="HTTP_PROXY") as raised:
        describer("http://captions.invalid/v1").describe([view()])
    assert "my-password" not in told(raised.value)


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("0.0.0.0", True),
     ("10.0.0.1", False), ("localhost.example", False)],
)  # fmt: skip
def test_this_machine_is_known(host: str, here: bool) -> None:
    assert is_this_machine(host) is here


# Whose answer is whose


def test_whole_captions_are_of_their_own_clips() -> None:
    """Through windows and merging: the clips' last questions are texts, joined from windows'."""
    stills = [
        tuple((float(s), f"clip {i} second {s}".encode()) for s in range(20)) for i in range(4)
    ]
    requests = [make_request(i, stills=stills[i], end_seconds=20.0) for i in range(4)]
    spec = CaptionSpec(
        captioner=f"openai:{MODEL}", prompt=PROMPT, frames=2, merge_prompt="Of these make one:"
    )
    with ChatServer() as server:
        replies = load_captioner(spec, ModelRuntime(url=server.url)).caption(requests)
    assert len(server.asked) == 4 * (2 + 1)
    for request, reply in zip(requests, replies, strict=True):
        assert reply.clip_id == request.clip_id
        assert reply.outcome is Outcome.OK
        windows = [w.text for w in reply.windows]
        merges = [r for r in server.asked if all(w in r.texts[0] for w in windows)]
        assert [reply.text] == [sentence([], r.texts) for r in merges]
        for start, window in zip((0, 10), reply.windows, strict=True):
            shown = tuple(request.stills[start + i] for i in (2, 7))  # the middle of each half
            assert window.text == expected(View(PROMPT, shown))


Plan = Callable[[Received, int], Answer]  # of a request, and how often it came before


def once(first: Answer) -> Plan:
    """The library tries again, and gets its answer."""
    return lambda received, times: first if times == 0 else Answer()


def ever(answer: Answer) -> Plan:
    return lambda received, times: answer


def cut_short(received: Received, times: int) -> Answer:
    return Answer(200, completion(sentence(received.stills, received.texts), "length"))


STALE = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + json.dumps(
    completion("A stale one.")
).encode().ljust(100)
PLANS: dict[str, tuple[Plan, Outcome]] = {
    "good": (ever(Answer()), Outcome.OK),
    "busy once": (once(refusing(429)), Outcome.OK),
    "broken once": (once(refusing(500)), Outcome.OK),
    "hung up once": (once(Answer(hang_up=True)), Outcome.OK),
    "cut off once": (once(Answer(cut_at=30)), Outcome.OK),
    "more than its answer": (ever(Answer(unasked=STALE)), Outcome.OK),
    "cut short": (cut_short, Outcome.TRUNCATED),
    "empty": (ever(Answer(200, completion(""))), Outcome.OK),
    "broken": (ever(refusing(500)), Outcome.FAILED),
    "hangs up": (ever(Answer(hang_up=True)), Outcome.FAILED),
    "refused": (ever(refusing(400, "At most 1 image may be given.")), Outcome.FAILED),
    "no JSON": (ever(Answer(200, b"<html>")), Outcome.FAILED),
    "no choice": (ever(Answer(200, {"choices": []})), Outcome.FAILED),
    "declined": (ever(Answer(200, completion(None, refusal="No."))), Outcome.REFUSED),
    "filtered": (ever(Answer(200, completion("Half", "content_filter"))), Outcome.REFUSED),
}


@given(plans=st.lists(st.tuples(st.sampled_from(sorted(PLANS)), st.integers(0, 30)), max_size=12),
       concurrency=st.integers(1, 8))  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_every_view_gets_its_own_answer_or_none(
    plans: list[tuple[str, int]], concurrency: int
) -> None:
    """Whatever the others get, in whatever order, milliseconds late."""
    views = [view(i, stills=1 + i % 3) for i in range(len(plans))]
    numbers = {tuple(j for _, j in v.stills): i for i, v in enumerate(views)}
    times: Counter[int] = Counter()

    def behave(received: Received) -> Answer:
        number = numbers[tuple(received.stills)]
        name, milliseconds = plans[number]
        given = PLANS[name][0](received, times[number])
        times[number] += 1
        return dataclasses.replace(given, delay_seconds=milliseconds / 1000)

    with ChatServer(on_completions(behave)) as server:
        answers = describer(server.url, concurrency=concurrency).describe(views)
    assert len(answers) == len(views)
    for asked, said, (name, _) in zip(views, answers, plans, strict=True):
        assert said.outcome is PLANS[name][1], (name, said)
        has_text = name == "cut short" or (PLANS[name][1] is Outcome.OK and name != "empty")
        assert said.text == (expected(asked) if has_text else "")


# What an answer is


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (completion("Two cats."), Said(Outcome.OK, "Two cats.")),
        (completion("Two", "length"), Said(Outcome.TRUNCATED, "Two")),
        (completion("Cats first.\n</think>\n\nTwo cats."), Said(Outcome.OK, "Two cats.")),
        (completion("<think>Cats", "length"),
         Said(Outcome.FAILED, "", "no answer yet at its token limit")),
        (completion(None), Said(Outcome.OK)),
        (completion("", refusal="I will not."), Said(Outcome.REFUSED, "", "I will not.")),
    ],
)  # fmt: skip
def test_an_answer_is_read(body: dict[str, Any], said: Said) -> None:
    assert answer(json.dumps(body).encode()) == said


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe\x00", b"null", b"[1]", b"[" * 100_000, b"9" * 10_000, b'{"choices": [null]}',
     b'{"choices": {"0": {}}}', b'{"choices": [{"message": "cats"}]}',
     json.dumps(completion([{"type": "text", "text": "cats"}])).encode(),
     json.dumps(completion("cats", "abort")).encode(),
     json.dumps(completion("cats", None)).encode(),
     json.dumps(completion("cats", ["stop"])).encode(),
     b'{"error": {"message": "out of memory"}}'],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_whole_answer_fails(body: bytes) -> None:
    said = describe(Answer(200, body))
    assert (said.outcome, said.text) == (Outcome.FAILED, "")
    assert 5 < len(said.detail) < 350


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "finish_reason", "refusal", "error"]),
        inner, max_size=4)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_an_answer_or_none(body: bytes) -> None:
    said = answer(body)
    assert not said.text or said.outcome in (Outcome.OK, Outcome.TRUNCATED)


# The server by hand


def test_the_test_server_is_a_program() -> None:
    program = chat_server.__file__
    command = [sys.executable, program, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        (said,) = describer(url).describe([view()])
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert f"{MODEL} '{PROMPT}' -> {said.text}" in process.stdout.read()
    assert said.text == expected(view())
