"""Reasons: a closed set that users select and report by."""

from __future__ import annotations

from pathlib import Path

import pytest

from telecine.infra.errors import Reason

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained_to_users(reason: Reason) -> None:
    rows = [row for row in (DOCS / "inspect.md").read_text().splitlines() if row.startswith("| `")]
    assert sum(f"`{reason}`" in row.split("|")[1] for row in rows) == 1
