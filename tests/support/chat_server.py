"""A server of chat completions on loopback that may misbehave: what a vision model's looks like.

    with ChatServer(behave) as server:      server.url, server.received
    behave(Received) -> Answer              Answer() is that of a good server

A good server answers with a sentence that tells which stills and which texts it got, so that a
test can tell whose answer it holds. By hand: python tests/support/chat_server.py PORT [KEY]
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

MODEL = "tiny-vision"
COMPLETIONS = "/v1/chat/completions"
MODELS = "/v1/models"
AT_ONCE = {"Retry-After-Ms": "1"}  # keeps a client's retries from taking seconds


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    number: int  # from 0, in the order of arrival
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any = None  # of JSON; None where there is none

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Of the last message."""
        content = self.body["messages"][-1]["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def texts(self) -> list[str]:
        return [part["text"] for part in self.parts if part["type"] == "text"]

    @property
    def stills(self) -> list[bytes]:
        urls = [p["image_url"]["url"] for p in self.parts if p["type"] == "image_url"]
        return [base64.b64decode(url.partition(";base64,")[2], validate=True) for url in urls]


@dataclass(frozen=True)
class Answer:
    """What goes back. Without a status and a body: what a good server says."""

    status: int | None = None
    body: bytes | dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None  # of the status line
    delay_seconds: float = 0.0
    hang_up: bool = False  # closes the connection instead of answering
    cut_at: int | None = None  # closes it after so many bytes of the body
    drip_seconds: float = 0.0  # between the bytes of the body
    unasked: bytes = b""  # sent after the answer, on the same connection


def sentence(stills: Sequence[bytes], texts: Sequence[str]) -> str:
    """Of these and no others, and such that a caption's guards find nothing wrong with it."""
    digest = hashlib.sha256()
    for part in (*stills, b"", *(text.encode() for text in texts)):
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"A view of {len(stills)} stills, whose mark is {digest.hexdigest()[:24]}."


def completion(text: object, finish: object = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def refusing(status: int, message: str = "no", **answer: Any) -> Answer:
    """An error as vLLM words it; a client that retries does so at once."""
    headers = {**AT_ONCE, **answer.pop("headers", {})}
    return Answer(status, {"error": {"message": message}}, headers, **answer)


Behave = Callable[[Received], Answer]


class ChatServer:
    """Serves from its construction to the end of the `with`, each connection in its own thread."""

    def __init__(
        self,
        behave: Behave = lambda received: Answer(),
        *,
        key: str = "",
        models: Sequence[str] = (MODEL,),
        port: int = 0,
    ) -> None:
        self.behave = behave
        self.key = key  # asked for as a bearer token, where there is one
        self.models = tuple(models)
        self.received: list[Received] = []
        self.most_at_once = 0  # requests that were being answered at one time
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.chat = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[Received]:
        """The requests for a completion."""
        return [r for r in self.received if r.path == COMPLETIONS]

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Answers that are delayed go out now; nobody is listened to after."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # What the handler asks

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Answer:
        with self._lock:
            received = Received(len(self.received), method, path, headers, body)
            self.received.append(received)
        answer = self.behave(received)
        self.wait(answer.delay_seconds)
        if answer.body is not None:
            return answer
        status, body = self._good(received)
        return replace(answer, status=answer.status or status, body=body)

    def wait(self, seconds: float) -> None:
        """Until then, or until the server is to close."""
        if seconds:
            self._closing.wait(seconds)

    def _good(self, received: Received) -> tuple[int, dict[str, Any]]:
        if self.key and received.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if (received.method, received.path) == ("GET", MODELS):
            return 200, {"object": "list", "data": [{"id": name} for name in self.models]}
        if (received.method, received.path) != ("POST", COMPLETIONS):
            return 404, {"detail": "Not Found"}
        if received.body["model"] not in self.models:
            message = f"The model `{received.body['model']}` does not exist."
            return 404, {"error": {"message": message, "type": "NotFoundError", "code": 404}}
        return 200, completion(sentence(received.stills, received.texts))


class _Server(ThreadingHTTPServer):
    chat: ChatServer
    daemon_threads = False  # so that closing the server waits for the answers
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may go away
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, unless the client closes them
    disable_nagle_algorithm = True
    timeout = 60  # of a kept connection on which nothing comes

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        chat = cast(_Server, self.server).chat
        headers = {name.lower(): value for name, value in self.headers.items()}
        with chat.answering():  # until just before the client can know of an answer
            answer = chat.answer(self.command, self.path, headers, body)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.close_connection |= answer.hang_up or answer.cut_at is not None
        if answer.hang_up:
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status or 200, answer.reason)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (headers | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        sent = body[: answer.cut_at] + answer.unasked
        at_once = 1 if answer.drip_seconds else max(1, len(sent))
        for start in range(0, len(sent), at_once):
            cast(_Server, self.server).chat.wait(answer.drip_seconds)
            self.wfile.write(sent[start : start + at_once])

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    """Serves until it is interrupted, any model's name, and says what it is asked."""
    port, key = int(sys.argv[1]), "".join(sys.argv[2:3])

    def say(received: Received) -> Answer:
        if received.path != COMPLETIONS:
            print(received.method, received.path, flush=True)
            return Answer()
        told = sentence(received.stills, received.texts)
        print(f"{received.body['model']} {received.texts[-1][:60]!r} -> {told}", flush=True)
        unauthorised = key and received.headers.get("authorization") != f"Bearer {key}"
        return Answer() if unauthorised else Answer(200, completion(told))

    with ChatServer(say, key=key, port=port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.url} answers until it is interrupted", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
