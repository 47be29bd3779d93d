"""What a dataset holds, in a form that two runs can be compared by."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telecine.manifests.schemas import TABLES
from telecine.manifests.tables import Tables

# How many commits a run made is its own affair.
PINS = tuple(f"{name}_version" for name in TABLES)


def tables_of(dataset: Path) -> dict[str, list[Any]]:
    """Every table's rows, in an order of their own."""
    tables = Tables(str(dataset))
    return {
        name: sorted(
            (
                {k: v for k, v in dataclasses.asdict(r).items() if k not in PINS}
                for r in tables.rows(row)
            ),
            key=repr,
        )
        for name, row in TABLES.items()
    }


def shards_of(dataset: Path) -> Mapping[str, str]:
    """SHA-256 of each file under shards/, by relative path."""
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((dataset / "shards").rglob("*"))
        if path.is_file()
    }


def assert_same(left: Path, right: Path) -> None:
    for name, rows in tables_of(left).items():
        assert rows == tables_of(right)[name], f"table {name} differs"
    assert shards_of(left) == shards_of(right)
