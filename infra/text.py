"""Numbers, sizes, times and other people's text, in words: for messages, pages and terminals.

File names, captions and decoders' messages are other people's text: shown as they are, with control
characters (terminal escapes, line breaks, text direction) escaped.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any


def counted(number: int, noun: str) -> str:
    """As in 1 clip, 2,000 clips."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """As in 512 B, 3.2 MB: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.3g} PB"


def length(seconds: float) -> str:
    """As in 7.3 s, 4:12 min, 3.10 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d} min"
    return f"{seconds / 3600:,.2f} h"


def one_line(value: Any) -> str:
    """Any value in one line that a terminal takes for no command."""
    text = cell(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(text: str) -> str:
    """What a detail says in short: below it may stand a traceback."""
    return text.partition("\n")[0]


def cell(value: Any) -> str:
    """Any value of a table as it is shown: six digits, what has parts as JSON, null as nothing."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict | bytes):
        return json.dumps(json_value(value), ensure_ascii=False)
    return "" if value is None else str(value)


def json_value(value: Any) -> Any:
    """Any value of a table as JSON has it: bytes as base64, what is no number as null."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(part) for part in value]
    return value if value is None or isinstance(value, str | bool | int) else str(value)


# ── within SQL, in DuckDB's quotes; values go as parameters where they can ───────────────────────


def identifier(name: str) -> str:
    """A column's or table's name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Strings, separated by commas."""
    return ", ".join(map(literal, texts))
