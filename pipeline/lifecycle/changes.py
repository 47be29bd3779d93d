"""What of all that decides a build's bytes differs between two builds, key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from telecine.manifests.fingerprint import canonical_json, fingerprint, flat
from telecine.manifests.schemas import Build
from telecine.manifests.specs import ABOUT_CLIPS

if TYPE_CHECKING:
    from telecine.pipeline.build.identity import Generation

_ENCODER = "vae.encoder"
_TOLD = ("name", "class", "weights", "dtype", "posterior", "normalise", "streaming")
LONG = 40  # characters of a value that is shown whole
_DIGEST = re.compile("[0-9a-f]{32,}")


@dataclass(frozen=True, slots=True)
class Change:
    """One key of a build's spec or of its encoder's identity; None where there is no such key."""

    key: str  # as in vae.encoder.dtype
    old: Any
    new: Any

    def __str__(self) -> str:
        old, new = shortened(self.old), shortened(self.new)
        return f"{self.key}: {old} → {new}"


def changes(old: Build | None, new: Generation) -> list[Change]:
    """From a build that is there, or none, to one that is to be made: what makes it another."""
    asked = _facts(new.spec, canonical_json(new.encoder.identity()))
    return [] if old is None else _differences(_facts(old.spec, old.vae), asked)


def differences(old: Build, new: Build) -> list[Change]:
    """Between two builds that are there, in the order of the keys."""
    return _differences(_facts(old.spec, old.vae), _facts(new.spec, new.vae))


def told(changes: Sequence[Change]) -> list[str]:
    """A line for each, for people. Of two kinds of encoder everything differs: the rest is left."""
    by_key = {change.key: change for change in changes}
    if not any(by_key.get(f"{_ENCODER}.{key}") for key in ("name", "class")):
        return [str(change) for change in changes]
    shown = [
        change
        for change in changes
        if not change.key.startswith(f"{_ENCODER}.")
        or change.key.removeprefix(f"{_ENCODER}.") in _TOLD
    ]
    left = len(changes) - len(shown)
    rest = f"{_ENCODER}: another kind of encoder, {left} more keys differ"
    return [*map(str, shown), *([rest] if left else [])]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    return [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _facts(spec: str, identity: str) -> dict[str, Any]:
    """All that the build's id is made of, flat: of [vae] the encoder is what it is, not where."""
    known: dict[str, Any] = json.loads(spec)
    asked = known.get("vae", {})
    known["vae"] = {
        "encoder": json.loads(identity),
        **{key: value for key, value in asked.items() if key in ABOUT_CLIPS},
    }
    return flat(known)


def shortened(value: Any) -> str:
    """A value in one short piece; of a long one its beginning, and the beginning of its digest."""
    if value is None:
        return "none"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return f"{value[:12]}…"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= LONG:
        return text
    return f"{text[: LONG - 15]}… ({fingerprint(value)[:8]})"
