"""render: templates, and how values look in them.

Everything is escaped (Jinja's autoescape); control characters and marks of text direction in other
people's text are shown as what they are, as on a terminal.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from telecine.infra.text import cell, json_value, length, size

HERE = Path(__file__).parent
STATIC = HERE / "static"

# Line breaks, and what joins emoji and letters of some scripts: harmless where text is shown.
_LEFT = frozenset("\n\t\u200c\u200d")


@cache
def environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "shown": shown,
        "number": number,
        "figure": figure,
        "duration": length,
        "size": size,
        "percent": percent,
        "address": address,
        "link": link,
        "json_data": json_data,
    }
    return found


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def shown(value: Any) -> str:
    """Text of a value, nothing in it invisible or turning what stands around it."""
    text = {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else cell(value)
    return "".join(
        c if c.isprintable() or c in _LEFT else c.encode("unicode_escape").decode() for c in text
    )


def number(value: float) -> str:
    return f"{value:,}"


def figure(value: float | None) -> str:
    """Three digits; nothing where there is no number."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"


def percent(share: float) -> str:
    """As in 3.2 %, 0.05 %, 100 %; what is there is not 0 %, what lacks something not 100 %."""
    percents = 100 * share
    if 0 < percents < 0.01:
        return "< 0.01 %"
    if 99.95 <= percents < 100:
        return "> 99.9 %"
    digits = 2 if 0 < percents < 0.1 else 1
    return f"{percents:.{digits}f}".removesuffix(".0") + " %"


def address(uri: str) -> str:
    """The last part of a path or URI."""
    return shown(uri.rstrip("/").rpartition("/")[2] or uri)


def link(path: str, *parts: Any, **query: Any) -> str:
    """A path on this server: each part quoted, and what of the query says something."""
    where = path + "".join(f"/{quote(str(part), safe='')}" for part in parts)
    said = {name: value for name, value in query.items() if value not in ("", None, False)}
    return f"{where}?{urlencode(said, quote_via=quote)}" if said else where


def json_data(value: Any) -> Markup:
    """For a <script type="application/json">: nothing in it can end the element."""
    text = json.dumps(json_value(value), separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # every character that HTML gives a meaning is escaped
