from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fed import write_build


@pytest.fixture(scope="session")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset to read from; copy it before changing any of it."""
    return write_build(tmp_path_factory.mktemp("fed") / "dataset")
