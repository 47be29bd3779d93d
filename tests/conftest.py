"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Ray's worker processes import what the tests hand them.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)


@pytest.fixture(scope="session")
def footage() -> Path:
    """Folder of real footage; a test that needs it skips visibly where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "footage"
    folder = Path(os.environ.get("TELECINE_FOOTAGE", default))
    if not (folder / "INDEX.csv").exists():
        pytest.skip(f"no footage at {folder}; set TELECINE_FOOTAGE to run this test")
    return folder
