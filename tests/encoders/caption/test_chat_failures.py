"""The captioner over a server that fails: whose fault it is, and no word of the key."""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.load import load_captioner
from telecine.encoders.runtime import ModelRuntime, Secret
from telecine.infra.errors import ServerError, TelecineError, UsageError
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import make_request
from tests.support.chat_server import (
    AT_ONCE,
    COMPLETIONS,
    MODEL,
    MODELS,
    Answer,
    ChatServer,
    Received,
    completion,
    refusing,
)
from tests.support.chats import (
    KEY,
    describe,
    describer,
    expected,
    on_completions,
    short_waits,
    told,
    view,
)
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module", autouse=True)
def _waits() -> Iterator[None]:
    with short_waits():
        yield


# Whose fault it is


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_does_not_take_is_this_views_failure(status: int) -> None:
    said = describe(refusing(status, "Too many\nimages. " * 100))
    assert said.outcome is Outcome.FAILED
    assert said.detail.startswith(f"HTTP {status}: Too many images. Too many")
    assert len(said.detail) < 330


@pytest.mark.parametrize(
    ("given", "tries", "detail"),
    [
        (refusing(500, "CUDA out of memory"), 3, "HTTP 500: CUDA out of memory"),
        (Answer(503, b"<h1>Busy</h1>", AT_ONCE), 3, "HTTP 503: <h1>Busy</h1>"),
        (refusing(409), 3, "HTTP 409: no"),
        (Answer(hang_up=True), 3, "RemoteProtocolError"),
        (Answer(cut_at=30), 3, "RemoteProtocolError"),
        (Answer(headers={"Content-Encoding": "gzip"}), 3, "DecodingError"),
        (Answer(delay_seconds=PATIENCE), 2, "no answer in time"),
        (Answer(drip_seconds=0.02), 2, "no answer in time"),  # never silent for so long
    ],
)
@pytest.mark.parametrize("lists_models", [True, False])
def test_a_failing_server_is_asked_whether_it_lives(
    given: Answer, tries: int, detail: str, lists_models: bool
) -> None:
    dead = Answer(500) if lists_models is False else Answer()
    timeout = 1.0 if "time" in detail else PATIENCE  # a request that counts reaches the server
    with ChatServer(lambda r: given if r.path == COMPLETIONS else dead) as server:
        asks = describer(server.url, timeout_seconds=timeout)
        if lists_models:
            (said,) = asks.describe([view()])
            assert said.outcome is Outcome.FAILED
            assert said.detail.startswith(detail)
        else:
            with pytest.raises(ServerError, match="no longer lists its models") as raised:
                asks.describe([view()])
            assert detail in str(raised.value)
    assert len(server.asked) == tries
    assert [r.method for r in server.received if r.path == MODELS] == ["GET"]


def test_a_busy_server_is_given_the_time_it_asks_for() -> None:
    busy = Answer(429, {"error": {"message": "later"}}, {"Retry-After": "0.5"})

    def behave(received: Received) -> Answer:
        return Answer() if received.number else busy

    with ChatServer(behave) as server:
        started = time.monotonic()
        (said,) = describer(server.url).describe([view()])
    assert said.text == expected(view())
    assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (refusing(401, "Bad key"), "refuses the key .HTTP 401: Bad key"),
        (refusing(403), "refuses the key"),
        (refusing(429, "Quota spent"), "takes no more requests now .HTTP 429: Quota spent"),
        (refusing(418), "does not answer as a server of chat completions"),
        (Answer(302, b"", {"Location": "http://elsewhere.invalid/"}), "HTTP 302"),
    ],
)
def test_what_ends_the_run(given: Answer, says: str) -> None:
    with pytest.raises(ServerError, match=says) as raised:
        describe(given)
    assert raised.value.exit_code == 7


def test_a_model_that_is_not_served_is_told_from_those_that_are() -> None:
    with ChatServer(models=["other", "another"]) as server:
        with pytest.raises(ServerError, match=f"no model '{MODEL}'.*it has other, another"):
            describer(server.url).describe([view()])
        with pytest.raises(ServerError, match=r"lists no models.*ends in /v1"):
            describer(server.url.removesuffix("/v1")).describe([view()])


@pytest.mark.parametrize("host", ["127.0.0.1", "captions.invalid"])
def test_a_server_out_of_reach_ends_the_run(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match=r"is out of reach \(ConnectError"):
        describer(f"http://{host}:{port}/v1").describe([view()])


def test_the_end_of_a_run_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Some are refused, some wait for their answers, some for their turn."""
    refused = {view(i).stills[0][1] for i in (1, 3)}

    def behave(received: Received) -> Answer:
        if not refused & set(received.stills):
            return Answer(delay_seconds=PATIENCE)
        until(lambda: len(server.asked) >= 5)
        return refusing(401)

    before = threading.active_count()
    with (
        ChatServer(on_completions(behave)) as server,
        pytest.raises(ServerError, match="refuses the key"),
    ):
        describer(server.url, concurrency=5).describe([view(i) for i in range(9)])
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert threading.active_count() == before


# Nothing shows the key


def echo(received: Received) -> str:
    return received.headers["authorization"].removeprefix("Basic ")


ECHOES: dict[str, Callable[[str], Answer]] = {
    **{str(n): lambda key, n=n: refusing(n, f"not for {key}") for n in
       (400, 401, 403, 404, 418, 422, 429, 500)},
    "in a page": lambda key: Answer(500, f"<p>{key} {key}</p>".encode(), AT_ONCE),
    "cut in half": lambda key: refusing(400, "x" * 280 + key),
    "hidden": lambda key: refusing(400, f"{key[:9]}\u200b{key[9:]}"),
    "in the status line": lambda key: Answer(401, reason=f"No {key}"),
    "in a header": lambda key: Answer(headers={"X-Request-Id": key, "X-Echo": key}),
    "as an answer": lambda key: Answer(200, completion(f"The key is {key}.")),
    "as no answer": lambda key: Answer(200, {"you sent": key}),
    "as a refusal": lambda key: Answer(200, completion(None, refusal=f"Not with {key}.")),
    "as a reason": lambda key: Answer(200, completion("Cats.", key)),
}  # fmt: skip


@pytest.mark.parametrize("way", ECHOES)
@pytest.mark.parametrize("login", [False, True], ids=["key", "login"])
def test_a_server_that_echoes_the_key_does_not_get_it_shown(
    way: str, login: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer(on_completions(lambda r: ECHOES[way](echo(r))), models=[KEY]) as server:
        url = server.url.replace("://", f"://me:{KEY}@") if login else server.url
        asks = describer(url, "" if login else KEY, retries=1)
        try:
            shown = repr(asks.describe([view()]))
        except TelecineError as error:
            shown = told(error)
    (first, *_) = server.asked
    secrets = [KEY, echo(first).removeprefix("Bearer ")]
    assert secrets[1] == (base64.b64encode(f"me:{KEY}".encode()).decode() if login else KEY)
    assert "HTTP Request: POST" in caplog.text
    for text in (shown, caplog.text, repr(asks), "" if login else repr(vars(asks))):
        assert not [secret for secret in secrets if secret[:12] in text]
    if way not in ("in a header", "as an answer"):
        assert "***" in shown + caplog.text


def test_records_are_let_through_as_they_are_after_a_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer() as server:
        describer(server.url, "a").describe([view()])  # a key that is in every message
    logging.getLogger("httpx2").info("a %s", "a")
    assert caplog.messages[-1] == "a a"
    assert all("a" not in record.getMessage() for record in caplog.records if record.args is None)


@pytest.mark.parametrize("key", ["two words", "xyzzy\n", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(key: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as raised:
        describer("http://127.0.0.1:1/v1", key).describe([view()])
    assert key.strip() not in told(raised.value)


# Before a server is asked


def test_what_a_caption_is_called_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    spec = CaptionSpec(captioner=f"openai:{MODEL}")
    here = load_captioner(spec)
    there = load_captioner(
        spec, ModelRuntime(url="http://me:pass@h/v1", key=Secret(KEY), concurrency=3)
    )
    assert here.name == "openai"
    assert here.fingerprint == there.fingerprint
    assert KEY not in json.dumps(there.identity())
    other = load_captioner(CaptionSpec(captioner="openai:other"))
    assert other.fingerprint != here.fingerprint
    with pytest.raises(UsageError, match=r"telecine\[caption\]"):
        there.caption([make_request()])


def test_without_an_address_it_says_how_to_give_one() -> None:
    captioner = load_captioner(CaptionSpec(captioner=f"openai:{MODEL}"))
    with pytest.raises(UsageError, match=r"--caption-url or OPENAI_BASE_URL"):
        captioner.caption([make_request()])


def test_the_server_decides_its_dtype() -> None:
    with pytest.raises(UsageError, match=r"dtype = 'float32'"):
        load_captioner(CaptionSpec(captioner="openai:m", dtype="float32"))


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "me:my-password@host/v1", "ftp://host/v1", "http:///v1", "http://h:99999/v1",
     "http://host/v1?key=my-password", "http://host/v1#my-password", "http://ho\x00st"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"address|given with") as raised:
        describer(url).describe([view()])
    assert "my-password" not in told(raised.value)


def test_a_request_has_room_for_one_credential() -> None:
    url = "http://me:my-password@host/v1"
    with pytest.raises(UsageError, match="takes one of them") as raised:
        describer(url, KEY).describe([view()])
    assert not {s for s in ("my-password", KEY) if s in told(raised.value)}


def test_a_checked_key_is_sent() -> None:
    with ChatServer(key=KEY) as server:
        (said,) = describer(server.url, KEY).describe([view()])
        assert said == Said(Outcome.OK, expected(view()))
        with pytest.raises(ServerError, match="refuses the key"):
            describer(server.url, "another").describe([view()])
