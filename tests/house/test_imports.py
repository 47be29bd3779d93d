"""What a command loads: looking costs the tables' libraries, help costs none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from telecine.infra.extras import EXTRAS
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset
from tests.support.rows import make_clip

PREPARING = {*(module for brought in EXTRAS.values() for module in brought), "boto3", "webdataset"}
TABLES = {"pyarrow", "deltalake", "duckdb", "pydantic", "numpy", "fsspec"}
COMMAND = {"typer", "rich", "importlib.metadata", "logging", "asyncio"}

RUN = """
import atexit, sys
atexit.register(lambda: print("loaded", *sys.modules, file=sys.stderr))
from telecine.pipeline.cli.main import main
main()
"""


def loaded(code: str, *words: str) -> set[str]:
    """Modules that a fresh Python has loaded at its end; the code says them on standard error."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("loaded "))
    return set(line.split()[1:])


def test_the_package_alone_loads_next_to_nothing() -> None:
    found = loaded("import telecine, sys; print('loaded', *sys.modules, file=sys.stderr)")
    assert "telecine" in found
    assert not found & (PREPARING | TABLES | COMMAND)


@pytest.mark.parametrize("words", [["--help"], ["ingest", "--help"], ["export", "--help"]])
def test_help_loads_no_table_and_no_model(words: list[str]) -> None:
    pydantic = {"pydantic"}  # which typer itself looks for
    assert not loaded(RUN, *words) & (PREPARING | TABLES - pydantic)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    made = create_dataset(str(folder / "dataset"), Storage(), None)
    made.tables.append("clips", [make_clip()])
    return folder / "dataset"


@pytest.mark.parametrize(
    "words",
    [
        ["inspect"],
        ["inspect", "clips", "--where", "width > 8"],
        ["query", "SELECT count(*) FROM dataset"],
    ],
    ids=" ".join,
)
def test_looking_loads_what_reads_tables_and_no_more(words: list[str], dataset: Path) -> None:
    command, *rest = words
    found = loaded(RUN, command, str(dataset), *rest)
    assert found >= {"duckdb", "pyarrow"}
    assert not found & PREPARING
