"""What an event of a build says of the tables it was planned from."""

from __future__ import annotations

from telecine.manifests.schemas import Build

PINNED = ("sources", "clips", "captions", "scores", "duplicates", "samples", "builds")


def pinned(event: Build) -> dict[str, int]:
    """The table versions that a plan is a pure function of."""
    return {name: getattr(event, f"{name}_version") for name in PINNED}
