"""The way to a server of chat completions: an address, a key that nothing shows, a client.

    ModelRuntime ─▶ server_of ─▶ Server ─▶ client_of ─▶ openai.AsyncOpenAI: retries, backoff
                                     │            └─▶ a connection per request, our headers alone
                                     └─▶ hide, quoted: text without the key

Every request has a connection of its own. On one that is kept, what a server sends beyond its
answer is read as the answer to the next request: another clip's text. The price is a handshake,
which is little beside a caption.

Proxies of the environment (HTTP_PROXY and its like) are used, except on the way to this machine.
OPENAI_* variables are not: neither the address nor a header of a request comes from them.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import ipaddress
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from telecine.encoders.caption.interface import clean_text
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.errors import UsageError

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

CONNECT_SECONDS = 10.0
QUOTED = 300  # characters of a server's message
PLACEHOLDER = 12  # characters; a shorter key may be a word that a caption has as well

_EXPECTED = "expected http://HOST:PORT/v1 or https://..., as --caption-url or OPENAI_BASE_URL"
_LOGGERS = ("openai", "httpx2", "httpcore2")


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """Where requests go, and the one header that says by whose leave."""

    url: str  # without user and password
    authorization: str
    secrets: tuple[str, ...]  # in every form in which they might come back, longest first

    def __repr__(self) -> str:
        return f"Server({self.name})"

    @property
    def name(self) -> str:
        return self.hide(self.url)

    def hide(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def quoted(self, text: str) -> str:
        """What the server said, for a message: one short line without the key."""
        line = self.hide(clean_text(text))  # before it is cut, or half a key would stay
        return f"{line[:QUOTED]}…" if len(line) > QUOTED else line

    def betrayed_by(self, text: str) -> bool:
        """Whether a text holds the key."""
        return any(secret in text for secret in self.secrets if len(secret) >= PLACEHOLDER)


def server_of(runtime: ModelRuntime, captioner: str) -> Server:
    """Raises UsageError where there is no address, or it or the key cannot be sent."""
    import httpx2

    if not runtime.url:
        raise UsageError(
            f"{captioner} is asked of a server: give its address with --caption-url or "
            "OPENAI_BASE_URL, as http://HOST:PORT/v1"
        )
    try:
        url = httpx2.URL(runtime.url)
    except httpx2.InvalidURL:
        raise UsageError(f"the captioning server's address is no URL; {_EXPECTED}") from None
    key, password = runtime.key.value, url.password
    shown = str(url.copy_with(userinfo=b"", query=None, fragment=None))
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 65536:
        shown = shown.rpartition("@")[2]  # without a scheme a password is not seen as one
        raise UsageError(f"the captioning server's address is {shown!r}; {_EXPECTED}")
    if url.query or url.fragment:
        raise UsageError(f"{shown} is given with a ?query or #fragment after it; {_EXPECTED}")
    if not re.fullmatch("[!-~]*", key):
        raise UsageError(
            "the captioning server's key holds a space, a line break or a character outside "
            "ASCII: check OPENAI_API_KEY"
        )
    if key and url.userinfo:
        raise UsageError(
            f"{shown} is given with a user and password, and there is a key as well: a request "
            "takes one of them; leave the key (OPENAI_API_KEY) or user:password@ out"
        )
    login = base64.b64encode(f"{url.username}:{password}".encode()).decode()
    authorization = f"Basic {login}" if url.userinfo else f"Bearer {key or 'none'}"
    secrets = _forms(key) | _forms(password) | (_forms(login) if url.userinfo else set())
    return Server(shown, authorization, tuple(sorted(secrets, key=lambda s: (-len(s), s))))


def _forms(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1]} - {""}


def client_of(server: Server, timeout_seconds: float, max_retries: int) -> AsyncOpenAI:
    """For one event loop; to be closed in it. Raises UsageError where a proxy is none."""
    import httpx2
    import openai

    timeout = httpx2.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS))
    return openai.AsyncOpenAI(
        api_key="none",  # `_transport` puts in the true one
        base_url=server.url,
        http_client=_transport(server, timeout),
        timeout=timeout,
        max_retries=max_retries,
    )


def _transport(server: Server, timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    """A connection for each request, which carries our headers alone."""
    import httpx2

    async def prepare(request: httpx2.Request) -> None:
        request.headers = _headers(server, request)

    try:
        return _patient()(
            event_hooks={"request": [prepare]},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=timeout,
            trust_env=not is_this_machine(httpx2.URL(server.url).host),
        )
    except (ValueError, httpx2.InvalidURL, ImportError) as error:
        why = error if isinstance(error, ImportError) else "it is not the URL of a proxy"
        raise UsageError(
            f"{server.name} is to be reached by a proxy (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY): "
            f"{why}; correct it, or name the server in NO_PROXY"
        ) from None


@functools.cache
def _patient() -> type[httpx2.AsyncClient]:
    """A client with a limit to the whole of an exchange: the library's is for each wait in it."""
    import httpx2
    import openai

    class Patient(httpx2.AsyncClient):
        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            retried = request.headers.get("x-stainless-retry-count", "0") != "0"
            seconds = request.extensions["timeout"]["read"]
            try:
                async with asyncio.timeout(seconds):
                    return await super().send(request, **options)
            except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout):
                if retried:  # what took all its time twice will hardly do better
                    raise openai.APITimeoutError(request) from None
                raise httpx2.ReadTimeout("no answer in time", request=request) from None

    return Patient


def _headers(server: Server, request: httpx2.Request) -> httpx2.Headers:
    """All that are sent."""
    import httpx2

    body = {"Content-Type": "application/json", "Content-Length": str(len(request.content))}
    return httpx2.Headers(
        {
            "Host": request.url.netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "close",
            "User-Agent": "telecine",
            "Authorization": server.authorization,
            **(body if request.content else {}),
        }
    )


def is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@contextmanager
def hidden_in_logs(server: Server) -> Iterator[None]:
    """The libraries log no request's headers, but what servers echo in theirs, and URLs."""

    def hide(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (hidden := server.hide(message)) != message:
            record.msg, record.args = hidden, None
        return True

    # A filter holds for the records of one logger, not for those of the loggers below it.
    names = [n for n in logging.root.manager.loggerDict if n.partition(".")[0] in _LOGGERS]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(hide)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(hide)
