"""Environments of their own: Telecine as a wheel, beside no more than what is asked for.

Third-party packages are linked from this environment, so nothing is downloaded; the source tree is
not on the path.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
TREE = (
    "pyproject.toml", "setup.py", "MANIFEST.in", "constraints.txt", "README.md", "LICENSE",
    "CHANGELOG.md", "telecine", "pipeline", "encoders", "manifests", "infra", "tests",
    "docs", "benchmarks",
)  # fmt: skip


def copy_tree(folder: Path) -> Path:
    """The source tree, links as links, without what running it leaves behind."""
    for name in TREE:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(kind: str, tree: Path, out: Path) -> Path:
    """A `wheel` or an `sdist` of a tree, by the backend that pyproject.toml names."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@dataclass(frozen=True)
class Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of the environment, which knows of no other. `words[0]` is in its bin/."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AWS_", "RAY_"))}
        return subprocess.run(
            [str(self.folder / "bin" / words[0]), *words[1:]],
            cwd=cwd, env=kept | variables, capture_output=True, text=True,
        )  # fmt: skip


def environment(folder: Path, wheel: Path, *extras: str) -> Environment:
    """A new one that has the wheel and what it requires with these extras, and nothing else."""
    made = Environment(folder)
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(venv, check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(made.python), "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)]
    # Else the source tree on PYTHONPATH counts as Telecine, installed already.
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run([*pip, *offline], check=True, env=alone)
    (site,) = folder.glob("lib/python*/site-packages")
    (about,) = site.glob("telecine-*.dist-info")
    for each in closure(Distribution.at(about).requires or [], extras).values():
        _link(each, site)
    return made


def closure(requirements: Iterable[str], extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """Installed distributions that are required, and what these require, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(text, frozenset(extras)) for text in requirements]
    seen = set(waiting)
    while waiting:
        text, wanted = waiting.pop()
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
            continue
        if requirement.name == "telecine":  # an extra that takes in others
            more = {(each, frozenset(requirement.extras)) for each in requirements}
        else:
            found[requirement.name] = _installed(requirement.name)
            required = found[requirement.name].requires or []
            more = {(each, frozenset(requirement.extras)) for each in required}
        waiting += more - seen
        seen |= more
    return found


@functools.cache
def _installed(name: str) -> Distribution:
    return distribution(name)


def _link(each: Distribution, site: Path) -> None:
    """Its folders and modules, and what is known of it."""
    names = {file.parts[0] for file in each.files or []} - {"..", "__pycache__"}
    for name in names:
        target = Path(str(each.locate_file(name))).resolve()
        if not (site / name).exists():
            (site / name).symlink_to(target)
        elif not (site / name).samefile(target):
            _merge(site / name, target)


def _merge(there: Path, target: Path) -> None:
    """A folder that two distributions share."""
    if there.is_symlink():
        first = there.resolve()
        there.unlink()
        there.mkdir()
        _merge(there, first)
    for part in target.iterdir():
        if not (there / part.name).exists():
            (there / part.name).symlink_to(part)
