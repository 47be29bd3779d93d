"""A captioner that asks a server: vLLM, SGLang or any other with OpenAI's chat completions.

    views ─▶ question ─▶ POST chat/completions, so many at once ─▶ answer ─▶ Said, in their order
             0.0 s: [still] 1.0 s: [still] prompt      └ none ─▶ chat_failure: whose fault is it?

The library retries what may pass: 429, 5xx, broken connections, time-outs once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from telecine.encoders.caption.chat.answer import VERSION as ANSWERS
from telecine.encoders.caption.chat.answer import answer
from telecine.encoders.caption.chat.client import Server, client_of, hidden_in_logs, server_of
from telecine.encoders.caption.chat.failure import failure
from telecine.encoders.caption.describer import MAX_TOKENS, ModelCaptioner, Unfinished
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.windows import View
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.errors import ServerError, UsageError
from telecine.infra.extras import load
from telecine.manifests.fingerprint import JsonValue, fingerprint
from telecine.manifests.specs import CaptionSpec

if TYPE_CHECKING:
    from openai import AsyncOpenAI

VERSION = 1  # rises when the same view would be asked about in other words
MAX_RETRIES = 5  # after 0.5, 1, 2, 4, 8 s, or as long as the server says
PATIENCE_SECONDS = 300.0  # with 429 beyond that: limits are by the minute
PAUSE_SECONDS = 10.0


def load_chat(spec: CaptionSpec, runtime: ModelRuntime) -> ModelCaptioner:
    """The captioner `openai:MODEL`. Asks nothing of the server before the first view.

    Raises UsageError where the spec asks what only a local model can do.
    """
    default = CaptionSpec().dtype
    if spec.dtype != default:
        raise UsageError(
            f"[caption] dtype = {spec.dtype!r}: the server of {spec.captioner} decides what it "
            f"computes in; leave it out, or {default!r}"
        )
    return ModelCaptioner(ChatDescriber(spec, runtime), spec)


class ChatDescriber:
    """`Describer` over a server. Keeps nothing open between calls."""

    name = "openai"

    def __init__(
        self,
        spec: CaptionSpec,
        runtime: ModelRuntime,
        *,
        max_retries: int = MAX_RETRIES,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._model = spec.captioner.partition(":")[2]
        self._max_tokens = spec.max_tokens or MAX_TOKENS  # as `ModelCaptioner` reckons
        self._temperature = spec.temperature
        self._runtime = runtime
        self._max_retries = max_retries
        self._patience_seconds = patience_seconds

    def identity(self) -> dict[str, JsonValue]:
        """What is asked, and of which model; not of which server."""
        return {
            "kind": "openai-chat",
            "model": self._model,
            "images": "jpeg-data-url",
            "version": VERSION,
            "answers": ANSWERS,
        }

    def describe(self, views: Sequence[View]) -> list[Said]:
        load("openai", "caption", "a captioner openai:...")
        server = server_of(self._runtime, f"openai:{self._model}")
        return asyncio.run(self._describe(server, views))

    async def _describe(self, server: Server, views: Sequence[View]) -> list[Said]:
        client = client_of(server, self._runtime.timeout_seconds, self._max_retries)
        slots = asyncio.Semaphore(max(1, self._runtime.concurrency))

        async def ask(view: View) -> Said:
            async with slots:
                return await self._ask(server, client, view)

        with hidden_in_logs(server):
            async with client:
                tasks = [asyncio.create_task(ask(view)) for view in views]
                try:
                    return await asyncio.gather(*tasks)
                except ServerError as error:
                    if answered := _answered(tasks):
                        raise Unfinished(error, answered) from error
                    raise
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, server: Server, client: AsyncOpenAI, view: View) -> Said:
        import httpx2
        import openai

        until = time.monotonic() + self._patience_seconds
        while True:
            try:
                response = await client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=self._request(view)
                )
            except openai.RateLimitError as caught:
                error: openai.APIError = caught
                if time.monotonic() < until:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
            except openai.APIError as caught:
                error = caught
            else:
                return _shown(server, answer(response.content))
            break
        # Not within the handler: the library's errors hold the server's message as it is.
        return await failure(server, client, self._model, error)

    def _request(self, view: View) -> dict[str, object]:
        request: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": question(view)}],
            "max_tokens": self._max_tokens,
            "temperature": self._temperature,
        }
        return request | ({"seed": seed(view)} if self._temperature > 0 else {})


def _answered(tasks: Sequence[asyncio.Task[Said]]) -> dict[int, Said]:
    """By their places."""
    return {
        place: task.result()
        for place, task in enumerate(tasks)
        if task.done() and not task.cancelled() and task.exception() is None
    }


def _shown(server: Server, said: Said) -> Said:
    if server.betrayed_by(said.text):
        return Said(Outcome.FAILED, "", "the answer has the server's key in it")
    return Said(said.outcome, said.text, server.quoted(said.detail))


def question(view: View) -> str | list[dict[str, object]]:
    """The content of the one message: a video's stills each after their time, and the prompt.

    Servers whose chat template knows no order of parts put the images first; the times then stand
    in a row, still in the order of the images.
    """
    if not view.stills:
        return view.prompt
    video = view.end_seconds > view.start_seconds
    parts: list[dict[str, object]] = []
    for seconds, jpeg in view.stills:
        if video:
            parts.append(_text(f"{seconds:.1f} s:"))
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return [*parts, _text(view.prompt)]


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def seed(view: View) -> int:
    """Of 31 bits, by what is asked: the same view is answered alike whatever ran before it."""
    stills: list[JsonValue] = [[s, hashlib.sha256(jpeg).hexdigest()] for s, jpeg in view.stills]
    return int(fingerprint({"prompt": view.prompt, "stills": stills})[:8], 16) >> 1
