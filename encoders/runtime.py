"""Where and how a model runs: what no fingerprint knows of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A key that no log, table or error is to show."""

    value: str = ""

    def __repr__(self) -> str:
        return "Secret(***)" if self.value else "Secret()"


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """What changes how fast a model answers, and nothing of what it says."""

    device: str = "cpu"  # of torch
    batch: int | None = None  # windows a local model takes at once; None: its own default
    url: str = field(default="", repr=False)  # of a server; it may hold a password
    key: Secret = Secret()
    concurrency: int = 16  # requests to a server at once, from this process
    timeout_seconds: float = 300.0  # of one request


DEFAULT_RUNTIME = ModelRuntime()
