"""markdown: tables and blocks of code, whatever the text in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def code(value: Mapping[str, Any]) -> str:
    """A line per key."""
    lines = [f"  {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()]
    return fenced("json", "{\n" + ",\n".join(lines) + "\n}")


def fenced(language: str, text: str) -> str:
    """A fence longer than any within."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
