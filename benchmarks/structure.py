"""How the code is laid out, in numbers: circles of rooms, sizes, and what a command must import.

    python benchmarks/structure.py
    python benchmarks/structure.py --list        every function that is counted, by name

A room is a folder of modules. Two rooms in a circle cannot be read, tested or replaced one without
the other; imports inside functions count, those for types alone do not. A function's lines are
those from `def` to its end, its docstring included; `self` is no argument. The options of a command
are the arguments of a function, so commands are counted apart.

Import costs are CPU seconds of new processes, in turn, the median of RUNS of each: `telecine
inspect` of an empty dataset, and the trainer's side where it is there, beside an interpreter that
does nothing.

Measured on two cores that others shared: no circle among 24 rooms or 217 files, the longest file
472 lines, half of 2,072 functions of at most 7 lines; 2 over 40 lines and 6 over 6 arguments, and
of the command line, where each option is an argument, 7 and 10. `python -c pass` 0.04 CPU s,
`telecine inspect` 1.3 CPU s, 30 times as much. What a change touches: docs/extending.md.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset
from telecine.manifests.specs import DatasetSpec

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("telecine", "infra", "manifests", "encoders", "pipeline")
COMMANDS = "pipeline.cli"
MAX_LINES, MAX_ARGUMENTS = 40, 6
RUNS = 9

Graph = Mapping[str, set[str]]


# ── rooms ────────────────────────────────────────────────────────────────────────────────────────


def modules() -> dict[str, Path]:
    """By dotted name without `telecine.`; a package by its folder's."""
    found = {}
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> set[str]:
    """Modules of ours that a file imports, whether at its top or inside a function."""
    names: set[str] = set()
    for node in _run(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {n for n in inner if n.removeprefix("telecine.") in known} or {node.module}
    return {short for name in names if (short := name.removeprefix("telecine.")) in known}


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _run(child)


def circles(graph: Graph) -> list[list[str]]:
    """Sets of more than one node of which each leads to each: Tarjan's strong components."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            start = stack.index(node)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def rooms(files: Graph, known: Mapping[str, Path]) -> dict[str, set[str]]:
    """Who imports whom, folder by folder.

    The folders of `infra` are one room, and those of `encoders`; each file in pipeline/ itself is
    one: some are below the steps, the recipes above.
    """

    def room(module: str) -> str:
        folder = known[module].parent.relative_to(ROOT).parts
        if folder == ("pipeline",):
            return module
        return ".".join(folder[:1] if folder[0] in ("infra", "encoders") else folder)

    graph: dict[str, set[str]] = {room(module): set() for module in files}
    for module, others in files.items():
        graph[room(module)] |= {room(other) for other in others} - {room(module)}
    return graph


# ── functions ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, order=True)
class Function:
    lines: int
    arguments: int
    name: str  # with its module's


def functions(module: str, path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(lines, count, f"{module}.{node.name}")


# ── imports ──────────────────────────────────────────────────────────────────────────────────────


def costs(dataset: str) -> dict[str, float]:
    """Median CPU seconds of a new process, by what it does."""
    command = "import sys; from telecine.pipeline.cli.main import main; main()"
    asked = {
        "python -c pass": ["pass"],
        "telecine inspect": [command, "inspect", dataset],
    }
    for name in ("telecine.feed", "telecine.pipeline.feed"):
        if importlib.util.find_spec(name) is not None:
            asked[f"import {name}"] = [f"import {name}"]
            break
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(RUNS):
        for name, words in asked.items():
            taken[name].append(_cpu_seconds(words))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _cpu_seconds(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def print_sizes(known: Mapping[str, Path]) -> None:
    files = {module: imported(path, known) for module, path in known.items()}
    between = rooms(files, known)
    for what, graph in (("rooms", between), ("files", files)):
        found = circles(graph)
        print(f"circles of {what:<12} {len(found)} of {len(graph)} {what}")
        for circle in found:
            print(f"  {' ↔ '.join(circle)}")
    widths: dict[Path, int] = {}
    for path in known.values():
        widths[path.parent] = widths.get(path.parent, 0) + (path.name != "__init__.py")
    width, folder = max((n, str(p.relative_to(ROOT))) for p, n in widths.items())
    print(f"widest folder         {width} modules: {folder}/")
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in known.values()}
    length, longest = max((n, str(p.relative_to(ROOT))) for p, n in lengths.items())
    print(f"longest file          {length} lines: {longest}")


def print_functions(known: Mapping[str, Path], listed: bool) -> None:
    found = [f for module, path in known.items() for f in functions(module, path)]
    commands = [f for f in found if f.name.startswith(COMMANDS)]
    others = [f for f in found if not f.name.startswith(COMMANDS)]
    median = statistics.median(f.lines for f in found)
    print(f"functions             {len(found)}, half of them of at most {median:.0f} lines")
    for what, some in (("", others), (" of commands", commands)):
        long = sorted((f for f in some if f.lines > MAX_LINES), reverse=True)
        many = sorted((f for f in some if f.arguments > MAX_ARGUMENTS), key=lambda f: -f.arguments)
        print(f"over {MAX_LINES} lines         {len(long)}{what}")
        print(*(f"  {f.lines:3} {f.name}" for f in long if listed), sep="\n", end="\n" * listed)
        print(f"over {MAX_ARGUMENTS} arguments      {len(many)}{what}")
        print(*(f"  {f.arguments:3} {f.name}" for f in many if listed), sep="\n", end="\n" * listed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--list", action="store_true", help="name the functions that are counted")
    options = parser.parse_args()
    known = modules()
    print_sizes(known)
    print_functions(known, options.list)
    with tempfile.TemporaryDirectory() as folder:
        create_dataset(folder, Storage(), DatasetSpec())
        seconds = costs(folder)
    least = seconds["python -c pass"]
    for name, spent in seconds.items():
        print(f"{name:<21} {spent:.2f} CPU s, {spent / least:.1f} × python -c pass")


if __name__ == "__main__":
    main()
