"""What the tests of captioning by a server share: describers, views, and what is to come back."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from telecine.encoders.caption.chat.chat import ChatDescriber
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.windows import View
from telecine.encoders.runtime import ModelRuntime, Secret
from telecine.manifests.specs import CaptionSpec
from tests.support.chat_server import COMPLETIONS, MODEL, Answer, ChatServer, Received, sentence

KEY = "sk-hush-0123456789abcdef"
PROMPT = "Say what is shown."


@contextmanager
def short_waits() -> Iterator[None]:
    """The library waits half a second before it tries a broken connection again: not here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
        for name in [n for n in os.environ if n.startswith("OPENAI_")]:
            patch.delenv(name)
        yield


def describer(url: str, key: str = "", retries: int = 2, **options: Any) -> ChatDescriber:
    spec = {k: options.pop(k) for k in ("max_tokens", "temperature") if k in options}
    runtime = ModelRuntime(url=url, key=Secret(key), **options)
    caption = CaptionSpec(captioner=f"openai:{MODEL}", **spec)
    return ChatDescriber(caption, runtime, max_retries=retries, patience_seconds=0.0)


def view(number: int = 0, stills: int = 2) -> View:
    frames = tuple((float(i), f"still {i} of view {number}".encode()) for i in range(stills))
    return View(PROMPT, frames, 0.0, float(stills))


def expected(asked: View) -> str:
    """What a good server says of a video."""
    labels = [f"{seconds:.1f} s:" for seconds, _ in asked.stills]
    return sentence([jpeg for _, jpeg in asked.stills], [*labels, asked.prompt])


def on_completions(behave: Callable[[Received], Answer]) -> Callable[[Received], Answer]:
    """Only there; the list of models is a good server's."""
    return lambda received: behave(received) if received.path == COMPLETIONS else Answer()


def always(given: Answer) -> Callable[[Received], Answer]:
    return on_completions(lambda received: given)


def describe(given: Answer, **options: Any) -> Said:
    with ChatServer(always(given)) as server:
        (said,) = describer(server.url, **options).describe([view()])
    return said


def told(error: BaseException | None) -> str:
    """All that could be printed of an error, the errors behind it included."""
    if error is None:
        return ""
    whole = "".join(traceback.format_exception(error))
    return f"{error!r} {error} {whole} {told(error.__cause__)} {told(error.__context__)}"
