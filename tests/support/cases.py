"""Inputs that failed once, with their right values: a folder beside the project, not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CASES = Path(
    os.environ.get("TELECINE_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases")
)


def case(name: str) -> Path:
    """The file of that name; the test skips visibly where the folder is absent."""
    path = CASES / "media" / name
    if not path.exists():
        pytest.skip(f"no {name} at {CASES}; set TELECINE_CASES to run this test")
    return path
