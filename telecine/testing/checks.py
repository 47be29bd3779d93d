"""What the contracts share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from telecine.manifests.fingerprint import JsonValue, canonical_json, fingerprint


class Named(Protocol):
    """What has an identity: every model."""

    def identity(self) -> dict[str, JsonValue]: ...

    @property
    def fingerprint(self) -> str: ...


@contextmanager
def refused(error: type[Exception], *words: str) -> Iterator[None]:
    """The block raises `error`, with one of the words in its message."""
    said = None
    try:
        yield
    except error as raised:
        said = str(raised)
    assert said is not None, f"expected {error.__name__}: nothing was raised"
    assert any(word in said for word in words), f"expected one of {words} in {said!r}"


def check_identity(one: Named, other: Named) -> None:
    """Of two that were made alike."""
    assert one.fingerprint == fingerprint(one.identity()), "a fingerprint is that of the identity"
    assert one.fingerprint == other.fingerprint, "another process must come to the same identity"
    assert one.identity()["name"], "an identity has a name"
    text = canonical_json(one.identity())
    assert json.loads(text) == json.loads(canonical_json(other.identity()))
