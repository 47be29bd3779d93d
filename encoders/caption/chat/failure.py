"""A request to a captioning server that got no answer, after all retries: whose fault is it?

    400, 413, 422                              the view's: `failed`
    500 and above, 408, 409, time-out, cut off the view's, if the server still lists its models;
                                               if not, as below
    401, 403, 404, 429, any other status,      the server's, or of who named it: ServerError
    never connected

A ServerError ends the run, and the view is asked about again in the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telecine.encoders.caption.chat.answer import complaint, model_names
from telecine.encoders.caption.chat.client import Server
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.infra.errors import ServerError

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

PROBE_SECONDS = 10.0
LISTED = 10  # models that a message names

_VIEW_REFUSED = (400, 413, 422)
_MAY_PASS = (408, 409)  # retried, as those of 500 and above


async def failure(server: Server, client: AsyncOpenAI, model: str, error: APIError) -> Said:
    """The view's `failed`. Raises ServerError where no other view would fare better."""
    import openai

    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        why = f"HTTP {status}: {server.quoted(complaint(error.response.content))}"
        if status in _VIEW_REFUSED:
            return Said(Outcome.FAILED, "", why)
        if status < 500 and status not in _MAY_PASS:
            raise await _refusal(server, client, model, status, why)
    else:
        why = server.quoted(_connection_problem(error))
        if _never_connected(error):
            raise ServerError(
                f"{server.name} is out of reach ({why}): check that the server runs and that "
                "this is its address, then run again"
            )
    alive, _ = await _models(client)
    if alive:
        return Said(Outcome.FAILED, "", why)
    raise ServerError(
        f"{server.name} failed ({why}) and no longer lists its models: look at its log, start it "
        "again, then run again"
    )


def _never_connected(error: APIError) -> bool:
    import httpx2

    causes = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)
    return isinstance(error.__cause__, causes)


def _connection_problem(error: APIError) -> str:
    import openai

    if isinstance(error, openai.APITimeoutError) and not _never_connected(error):
        return "no answer in time"
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".removesuffix(": ")


async def _refusal(
    server: Server, client: AsyncOpenAI, model: str, status: int, why: str
) -> ServerError:
    if status in (401, 403):
        return ServerError(f"{server.name} refuses the key ({why}): check OPENAI_API_KEY")
    if status == 429:
        return ServerError(
            f"{server.name} takes no more requests now ({why}): run again later, or with fewer "
            "requests at once"
        )
    if status == 404:
        _, names = await _models(client)
        listed = server.quoted(", ".join(names[:LISTED])) + (" ..." if names[LISTED:] else "")
        has = f"it has {listed}" if names else "it lists no models"
        return ServerError(
            f"{server.name} has no model {model!r} ({why}); {has}. Give one that it has, as "
            "openai:MODEL, and check the address, which for most servers ends in /v1"
        )
    return ServerError(
        f"{server.name} does not answer as a server of chat completions ({why}): check the "
        "address, which for most servers ends in /v1"
    )


async def _models(client: AsyncOpenAI) -> tuple[bool, list[str]]:
    """Whether the server answers at all, and what it serves, where it says so."""
    import httpx2
    import openai

    try:
        response = await client.get(
            "/models",
            cast_to=httpx2.Response,
            options={"max_retries": 0, "timeout": PROBE_SECONDS},
        )
    except openai.APIStatusError as error:
        return error.status_code < 500, []  # not every server has a list
    except openai.APIError:
        return False, []
    return True, model_names(response.content)
