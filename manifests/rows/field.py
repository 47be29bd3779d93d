"""A column of a table, as its row type declares it."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any


def column(text: str, default: Any = dataclasses.MISSING, *, since: str = "") -> Any:
    """A field with its line of documentation, and the Telecine that began it (empty: the first)."""
    return field(default=default, metadata={"text": text, "since": since})
