"""A plug-in installed as any other distribution is, into an environment of its own, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.fingerprint import JsonValue, fingerprint
from telecine.manifests.queries import connect
from telecine.testing.media import smooth
from tests.support.movies import write_movie

ROOT = Path(__file__).resolve().parents[2]
RUN = "from telecine.pipeline.cli.main import main; main()"
SPEC = """
[vae]
encoder = "mosaic"
[caption]
captioner = "facts:Footage"
[score]
scorer = "tint"
prompts = { red = "red" }
"""


class Environment:
    """A fresh one, that sees the libraries which this process sees, and Telecine itself."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self._python = folder / "bin" / "python"
        (packages,) = folder.glob("lib/python*/site-packages")
        seen = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "libraries.pth").write_text("\n".join([str(ROOT), *seen]))

    def install(self, source: Path) -> None:
        self.run(
            *("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--quiet", "--disable-pip-version-check", str(source)),
        )

    def telecine(self, *words: str, code: int = 0) -> str:
        return self.run("-c", RUN, *words, code=code)

    def planned(self, dataset: Path) -> dict[str, Any]:
        """What a rebuild of it would do here."""
        found: dict[str, Any] = json.loads(
            self.telecine("rebuild", str(dataset), "--dry-run", "--json")
        )
        return found

    def run(self, *words: str, code: int = 0, cwd: Path | None = None) -> str:
        """Its standard output, or standard error where it is to fail."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [self._python, *words],
            capture_output=True, text=True, env=environment, cwd=cwd, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in's, where building it may leave files."""
    folder = tmp_path_factory.mktemp("plugin") / "telecine-example"
    return Path(shutil.copytree(ROOT / "tests" / "plugin", folder))


@pytest.fixture(scope="module")
def environment(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.install(source)
    return made


@pytest.fixture(scope="module")
def dataset(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made with every model of the plug-in."""
    folder = tmp_path_factory.mktemp("data")
    footage = folder / "footage"
    footage.mkdir()
    planes = smooth(30, 160, 256).planes
    write_movie(footage / "waves.mp4", [tuple(p[i] for p in planes) for i in range(30)])
    Image.new("RGB", (320, 192), (200, 30, 20)).save(footage / "red.png")
    (folder / "spec.toml").write_text(SPEC)
    environment.telecine(
        *("ingest", str(footage), "--dataset", str(folder / "dataset")),
        *("--config", str(folder / "spec.toml"), "--workers", "0"),
    )
    return folder / "dataset"


def identity(**own: JsonValue) -> str:
    return fingerprint({**own, "plugin": {"distribution": "telecine-example", "version": "1.0"}})


def test_the_authors_own_tests_pass(environment: Environment, source: Path) -> None:
    said = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=source)
    assert " passed" in said
    assert "skipped" not in said


def test_what_it_makes_is_called_by_its_distribution_and_version(dataset: Path) -> None:
    con = connect(open_dataset(str(dataset), Storage()).tables)
    ((vae,),) = con.sql("SELECT DISTINCT vae_fingerprint FROM builds").fetchall()
    assert vae == identity(name="mosaic", side=16, mean=127.5, std=64.0)
    captions = con.sql("SELECT DISTINCT captioner, captioner_fingerprint FROM captions").fetchall()
    assert captions == [("facts", identity(name="facts", word="Footage"))]
    scores = con.sql("SELECT DISTINCT scorer_fingerprint FROM scores").fetchall()
    assert scores == [(identity(name="tint", colors=["red", "green", "blue"]),)]
    kept = con.sql("SELECT latent_shape FROM samples WHERE outcome = 'kept'").fetchall()
    assert sorted(shape for (shape,) in kept) == [[3, 1, 12, 20], [3, 30, 10, 16]]


def test_it_is_shown_in_help_and_exports(
    environment: Environment, dataset: Path, tmp_path: Path
) -> None:
    said = environment.telecine("--help")
    assert "--captioner facts  telecine-example 1.0" in said
    out = tmp_path / "sums"
    environment.telecine("export", str(dataset), str(out), "--format", "manifest")
    sums = (out / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == 2
    for line in sums:
        digest, path = line.split("  ")
        assert (dataset / path).is_file()
        assert len(digest) == 64


def test_where_it_is_not_installed_that_is_said_without_a_traceback(
    dataset: Path, tmp_path: Path
) -> None:
    bare = Environment(tmp_path / "bare")
    said = bare.telecine("rebuild", str(dataset), "--dry-run", code=2)
    assert "there is no scorer 'tint'" in said
    assert "has to be installed" in said
    assert "Traceback" not in said


def test_another_version_makes_another_build(
    environment: Environment, dataset: Path, source: Path, tmp_path: Path
) -> None:
    same = environment.planned(dataset)
    assert same["to"]["build_id"] == same["from"]["build_id"]
    assert same["samples"]["to_encode"] == 0
    newer = Environment(tmp_path / "newer")
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "1.0"', 'version = "1.1"'))
    newer.install(source)
    other = newer.planned(dataset)
    assert other["to"]["build_id"] != other["from"]["build_id"]
    assert other["samples"]["uncaptioned"] == 2, "its captions are others too, and to be made"
