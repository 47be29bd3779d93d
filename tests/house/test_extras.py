"""What pyproject.toml declares is used, what is used is declared, what make installs was run."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from telecine.infra.extras import EXTRAS, extra_of

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads("\n".join(LINES))["project"]
OPTIONAL = PROJECT["optional-dependencies"]
TREES = ("telecine", "pipeline", "encoders", "manifests", "infra")
# Modules of other distributions than that which pyproject.toml names for them.
COMES_WITH = {"botocore": "boto3", "httpx2": "openai"}
ELSEWHERE = {"_typeshed", "mypy_boto3_s3", "pytest"}  # for type checkers, and who runs tests
SHOWN = {"webdataset"}  # the reader of README.md, which our own code has no need of


def names(requirements: list[str]) -> set[str]:
    found = {Requirement(text) for text in requirements}
    return {canonicalize_name(each.name) for each in found if each.name != "telecine"}


BASE = names(PROJECT["dependencies"])
BROUGHT = {extra: names(texts) for extra, texts in OPTIONAL.items()}
DISTRIBUTIONS = packages_distributions()


def declared_as(module: str) -> str:
    name = COMES_WITH.get(module) or DISTRIBUTIONS.get(module, [module])[0]
    return canonicalize_name(name)


def shipped() -> Iterator[Path]:
    for tree in TREES:
        yield from (ROOT / tree).rglob("*.py")


def modules_of(node: ast.AST) -> list[str]:
    """What a node imports; `load` is that of infra/extras.py."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module):
            return [str(module)]
        case ast.Call(func=ast.Name(id="load"), args=[ast.Constant(value=str(module)), *_]):
            return [module]
    return []


def imported() -> dict[str, set[str]]:
    """Modules of others that shipped files import, and who does."""
    found: dict[str, set[str]] = {}
    for path in shipped():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module in modules_of(node):
                found.setdefault(module.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    ours = {*sys.stdlib_module_names, "telecine", "megatron", "torchvision", *ELSEWHERE}
    return {module: users for module, users in found.items() if module not in ours}


IMPORTED = imported()


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    used = {declared_as(module): users for module, users in IMPORTED.items()}
    declared = BASE.union(*(BROUGHT[extra] for extra in EXTRAS))
    assert not {name: users for name, users in used.items() if name not in declared}
    assert declared - set(used) == SHOWN
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"import {module}" in readme for module in SHOWN)


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_brings_is_known_where_it_is_missing(extra: str) -> None:
    assert {declared_as(module) for module in EXTRAS[extra]} == BROUGHT[extra]
    for module in EXTRAS[extra]:
        named = extra_of(f"{module}.part")
        assert named is not None
        assert module in EXTRAS[named]
        assert declared_as(module) not in BASE
    assert extra_of("json") is None


def test_all_takes_in_every_extra_but_the_tools() -> None:
    (text,) = OPTIONAL["all"]
    assert Requirement(text).extras == set(EXTRAS)
    assert OPTIONAL.keys() == {*EXTRAS, "all", "dev"}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pinned}


def test_ranges_hold_the_versions_that_were_run() -> None:
    run = constraints()
    for requirements in (PROJECT["dependencies"], *OPTIONAL.values()):
        for requirement in map(Requirement, requirements):
            name = canonicalize_name(requirement.name)
            if name in BASE or any(name in BROUGHT[extra] for extra in EXTRAS):
                assert requirement.specifier.contains(run[name]), name
            assert not {"==", "==="} & {each.operator for each in requirement.specifier}, (
                f"{requirement}: a pin belongs into constraints.txt"
            )


def test_every_line_says_what_it_earns() -> None:
    """Or its first one does, where two extras bring one package."""
    told: set[str] = set()
    for line in LINES[LINES.index("dependencies = [") : LINES.index("dev = [")]:
        if match := re.match(r'  "([A-Za-z0-9_-]+)[^"]*",(\s+# \w)?', line):
            if match[1] not in ("telecine", *told):
                assert match[2], line
            told.add(match[1])
    assert {canonicalize_name(name) for name in told - {"telecine"}} >= BASE


def test_make_and_the_image_install_what_was_run() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    image = (ROOT / "infra" / "deploy" / "Containerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install .*", makefile.split("# A stamp")[1] + image)
    assert len(installs) == 2
    assert all("-c constraints.txt" in line for line in installs), installs
