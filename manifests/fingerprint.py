"""Names for things by what they are: SHA-256 of canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)


def canonical_json(value: JsonValue) -> str:
    """One text per value: sorted keys, no spaces, no NaN, Unicode as it is."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def fingerprint(value: JsonValue) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    # A lone surrogate (a file name that is not UTF-8) has no UTF-8 form but must have a name.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def sha256_of(*parts: bytes | memoryview) -> str:
    """SHA-256 of bytes that lie in parts, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def short_id(kind: str, *parts: JsonValue) -> str:
    """128-bit identifier of a row: 32 hexadecimal digits, safe as a WebDataset key (no dot)."""
    return fingerprint([kind, *parts])[:32]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Tables within tables by their dotted keys, as in `vae.fps`; a list is one value."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: item
        for name, part in value.items()
        for key, item in flat(part, f"{prefix}.{name}" if prefix else name).items()
    }
