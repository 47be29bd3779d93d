"""House rules: help on every command, a README that is true; walls are in test_walls.py."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tests.support.documents import README, ROOT, blocks, commands_in


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function, by its dotted name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full names, not relative ones"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_what_tests_share_is_in_support() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        tests = (name for name in imports(path) if within(name, "tests"))
        assert not [name for name in tests if re.search(r"\.(test_\w+|conftest)\b", name)], path


def test_no_test_gives_a_wait_a_time() -> None:
    """A busy machine is no failure: pytest's own `timeout` ends what hangs."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given = node.keywords if isinstance(node, ast.Call) else []
            times = [k for k in given if k.arg == "timeout" and isinstance(k.value, ast.Constant)]
            assert not times, f"{path}:{times[0].value.lineno}"


# The command line


def command_line() -> Any:
    from telecine.pipeline.cli.main import app

    return typer.main.get_command(app)


def commands(command: Any, path: tuple[str, ...] = ("telecine",)) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def test_every_command_and_option_has_help() -> None:
    without = []
    for name, command in commands(command_line()):
        if not command.help:
            without.append(name)
        without += [f"{name} {p.name}" for p in command.params if not getattr(p, "help", None)]
    assert not without


@pytest.mark.parametrize("words", [["nonesuch"], ["ingest"], ["inspect", "--nonesuch"]])
def test_a_wrong_command_is_refused_in_a_few_words(words: list[str]) -> None:
    telecine = Path(sys.executable).with_name("telecine")
    done = subprocess.run([telecine, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert 0 < len(done.stderr.splitlines()) < 10


# The README


def shown_commands() -> list[list[str]]:
    """Of the README and all that is in docs/."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "infra" / "deploy" / "README.md"]
    return commands_in(README, *(page.read_text(encoding="utf-8") for page in pages))


def test_the_readme_shows_the_two_commands() -> None:
    assert ["make", "demo"] in shown_commands()
    assert ["make", "test"] in shown_commands()


def test_shown_make_targets_exist() -> None:
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for words in shown_commands():
        if words[0] == "make":
            assert set(words[1:]) <= set(rules), words


def test_shown_commands_are_understood() -> None:
    """Each parses as the command line parses it: commands, options and their values."""
    root = command_line()
    shown = [words for words in shown_commands() if words[0] == "telecine"]
    assert shown
    for words in shown:
        child = root.commands.get(words[1])
        assert child is not None, f"no such command: {shlex.join(words)}"
        child.make_context(words[1], words[2:])  # raises on what it does not know


def tree() -> dict[str, str]:
    """The README's annotated tree: path → comment."""
    block = next(b for b in blocks("text") if "pipeline/" in b)
    listed: dict[str, str] = {}
    folder = ""
    for line in block.splitlines():
        name, _, comment = line.strip().partition(" ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            listed[name] = comment.strip()
        else:
            listed[folder + name] = comment.strip()
    return listed


def test_the_tree_lists_every_room_and_nothing_else() -> None:
    listed = tree()
    rooms = {f"{p.parent.relative_to(ROOT)}/" for p in ROOT.glob("pipeline/*/__init__.py")}
    assert {name for name in listed if re.fullmatch(r"pipeline/\w+/", name)} == rooms
    assert all((ROOT / name).exists() for name in listed), listed
    assert all(listed.values()), "a comment for every room"


def test_the_cluster_runs_the_ray_that_is_installed() -> None:
    job = yaml.safe_load((ROOT / "infra" / "deploy" / "rayjob.yaml").read_text(encoding="utf-8"))
    cluster = job["spec"]["rayClusterSpec"]
    run = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={cluster['rayVersion']}" in run
    image = (ROOT / "infra" / "deploy" / "Containerfile").read_text(encoding="utf-8")
    assert '-c constraints.txt ".[$EXTRAS]" "ray[default]"' in image
    rooms = re.findall(r"^COPY (\w+) \1$", image, re.MULTILINE)
    assert {*rooms} == {"telecine", "infra", "manifests", "encoders", "pipeline"}
    root = command_line()
    words = shlex.split(job["spec"]["entrypoint"])
    root.commands[words[1]].make_context(words[1], words[2:])
