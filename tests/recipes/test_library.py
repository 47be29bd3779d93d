"""Telecine in somebody else's process: it changes nothing there that is not its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab import Lab

# What other packages do to the process as they are imported is theirs: they are there before.
OTHERS = (
    "av", "boto3", "botocore.config", "deltalake", "duckdb", "faulthandler", "jinja2", "numpy",
    "PIL.Image", "PIL.ImageFile", "pyarrow.dataset", "pydantic", "ray", "ray.exceptions", "rich",
    "safetensors", "starlette.applications", "torch", "typer", "uvicorn",
)  # fmt: skip

LIBRARY = f"""
import importlib, logging, os, pkgutil, signal, sys, warnings

def loggers():
    known = {{"": logging.root}} | dict(logging.root.manager.loggerDict)
    return {{
        name: (each.level, each.disabled, each.propagate, tuple(each.handlers), tuple(each.filters))
        for name, each in known.items() if isinstance(each, logging.Logger)
    }}

def state():
    os.umask(mask := os.umask(0))
    return {{
        "environment": dict(os.environ),
        "descriptors": [(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in range(3)],
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook],
        "signals": {{number: signal.getsignal(number) for number in signal.valid_signals()}},
        "filters": list(warnings.filters),
        "folder": os.getcwd(),
        "umask": mask,
        "faulthandler": faulthandler.is_enabled(),
        "threads": torch.get_num_threads(),
        "Pillow": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES),
    }}

environment = dict(os.environ)
for name in {OTHERS!r}:
    importlib.import_module(name)
import faulthandler, PIL.Image, PIL.ImageFile, torch

before, loggers_before = state(), loggers()

def check(when):
    for name, value in state().items():
        assert value == before[name], (when, name, before[name], value)
    now = loggers()
    for name, value in loggers_before.items():
        assert now[name] == value, (when, name, value, now[name])
    for name in now:
        if name.partition(".")[0] == "telecine":
            assert now[name] == (logging.NOTSET, False, True, (), ()), (when, name, now[name])

import telecine
for module in pkgutil.walk_packages(telecine.__path__, "telecine."):
    importlib.import_module(module.name)
check("imported")

from telecine.infra.inline import InlineCluster
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset
from telecine.pipeline import recipes
from telecine.pipeline.run import Run

footage, folder = sys.argv[1:]
ingested = recipes.ingest(Run(create_dataset(folder, Storage(), None), InlineCluster()), [footage])
assert ingested.build.samples == 2, ingested
check("ingested")
"""


def run(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    for number in range(2):
        made.image(f"{number}", seed=number)
    return made


def test_a_callers_process_stays_as_it_is_and_nothing_is_printed(lab: Lab) -> None:
    done = run(LIBRARY, lab.footage, lab.dataset)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


LOADED = """
import sys
{statement}
print(*sorted({{"av", "PIL", "ray", "torch", "uvicorn"}} & sys.modules.keys()))
"""
COMMAND = """
sys.argv = ["telecine", *{words}]
from telecine.pipeline.cli.main import app
try:
    app()
except SystemExit as end:
    assert not end.code
"""


def loaded(statement: str, *arguments: Path) -> str:
    done = run(LOADED.format(statement=statement), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_each_command_loads_what_it_needs(lab: Lab) -> None:
    def command(*words: str | Path) -> str:
        return loaded(COMMAND.format(words=[str(word) for word in words]))

    assert command("ingest", "--help") == ""
    ingest = ["ingest", lab.footage, "--dataset", lab.dataset, "--workers", "0"]
    assert command(*ingest) == "PIL av"
    assert command("inspect", lab.dataset) == ""
    assert command("query", lab.dataset, "SELECT count(*) FROM clips") == ""
