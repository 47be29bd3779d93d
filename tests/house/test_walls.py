"""Walls: who may import whom, followed to the end; nothing in a circle, no crowded folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.architecture import BEGIN, END, PAGE

ROOT = Path(__file__).resolve().parents[2]
TOP = ("infra", "manifests", "encoders", "pipeline")
MODULES = {
    ".".join(("telecine", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for folder in TOP
    for path in sorted((ROOT / folder).rglob("*.py"))
} | {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (ROOT / "telecine", ROOT / "telecine" / "testing")
    for path in sorted(folder.glob("*.py"))
}

# From the ground up. A module imports of its own room and of the floors below; rooms of one floor
# do not know each other. A name with a dot is one file of pipeline/.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("infra",),
    ("manifests",),
    ("encoders", "feed"),
    ("pipeline.commit", "pipeline.progress"),
    ("pipeline.run",),
    ("pipeline.models",),
    ("catalog", "media", "side"),
    ("scan", "build"),
    ("caption", "score", "embed", "lifecycle"),
    ("pipeline.recipes", "look"),
    ("export", "browse", "terminal", "demo", "overfit"),
    ("cli", "telecine", "testing"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# A library of another project, and the only rooms (or files) that know it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "ray": ("telecine.infra.ray",),
    "boto3": ("telecine.infra.store.s3",),
    "botocore": ("telecine.infra.store.s3",),
    "av": ("telecine.pipeline.media", "telecine.pipeline.demo"),
    "torch": ("telecine.encoders", "telecine.pipeline.feed", "telecine.pipeline.overfit"),
    "starlette": ("telecine.pipeline.browse",),
    "uvicorn": ("telecine.pipeline.browse",),
    "jinja2": ("telecine.pipeline.browse",),
    "markupsafe": ("telecine.pipeline.browse",),
    "typer": ("telecine.pipeline.cli",),
    "rich": ("telecine.pipeline.cli", "telecine.pipeline.terminal"),
}

HEAVY = frozenset({"ray", "av", "torch"})


def light(module: str) -> bool:
    """Whether it must load no HEAVY library: what asks the tables, and what decides on a plan."""
    if within(module, "telecine.pipeline.look"):
        return module != "telecine.pipeline.look.decode"
    rooms = ("telecine.infra.text", "telecine.manifests", "telecine.pipeline.catalog")
    return module == "telecine.pipeline.build.plan" or any(within(module, r) for r in rooms)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def room(module: str) -> str:
    """Of FLOORS: a folder, or a file that lies in none."""
    _, *parts = module.split(".")
    if not parts:
        return "telecine"
    if parts[0] != "pipeline":
        return parts[0]
    if MODULES[module].parent == ROOT / "pipeline":
        return "pipeline" if len(parts) == 1 else f"pipeline.{parts[1]}"
    return parts[1]


# ── who imports whom ─────────────────────────────────────────────────────────────────────────────


def imported(nodes: Iterator[ast.AST] | list[ast.stmt], path: Path) -> Iterator[str]:
    """Dotted names, as the import statements among the nodes spell them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full names, not relative ones"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def run(tree: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """What runs, at import or ever (`functions`): not what is there for types alone."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not for_types and (functions or not inner):
            yield from run(child, functions=functions)


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
IMPORTS = {m: set(imported(ast.walk(tree), MODULES[m])) for m, tree in TREES.items()}
LOADS = {m: set(imported(run(t, functions=False), MODULES[m])) for m, t in TREES.items()}


def loaded(module: str) -> set[str]:
    """Every module and library that importing one brings in, through ours; its packages too."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            parts = name.split(".")
            packages = (".".join(parts[:n]) for n in range(1, len(parts)))
            waiting += [*LOADS.get(name, ()), *(p for p in packages if p in MODULES)]
    return seen


# ── floors ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_down(module: str) -> None:
    here = room(module)
    if here == "pipeline":  # the package's own __init__
        assert not IMPORTS[module]
        return
    for name in sorted(IMPORTS[module] & MODULES.keys()):
        there = room(name)
        down = there == here or FLOOR[there] < FLOOR[here]
        assert down, f"{module} imports {name}: {there} is not below {here}"


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES} - {"pipeline"}
    assert rooms <= FLOOR.keys()


def test_what_looks_knows_none_of_those_who_work() -> None:
    """What both must know lies further down."""
    for module in MODULES:
        if room(module) == "look":
            workers = {n for n in IMPORTS[module] if n in MODULES and room(n) in WORKERS}
            assert not workers, module


WORKERS = {"scan", "caption", "score", "pipeline.recipes", "pipeline.run", "browse"}


def test_no_files_import_each_other_in_a_circle() -> None:
    """For types alone they may: that is no order in which to read or load them."""
    names = {m: set(imported(run(t, functions=True), MODULES[m])) for m, t in TREES.items()}
    assert not circles({m: found & MODULES.keys() for m, found in names.items()})


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [{"b", "c"}, {"d"}]


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of names that can be reached from each other, in order."""

    @cache
    def reached(start: str) -> frozenset[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        return frozenset(seen)

    found = {
        frozenset({n for n in reached(name) if name in reached(n)})
        for name in graph
        if name in reached(name)
    }
    return sorted(map(set, found), key=sorted)


# ── libraries ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_in_its_place_alone(library: str) -> None:
    users = {m for m, names in IMPORTS.items() if any(within(n, library) for n in names)}
    assert not {m for m in users if not any(within(m, place) for place in ONLY_IN[library])}


@pytest.mark.parametrize("module", [m for m in MODULES if light(m)])
def test_what_asks_the_tables_loads_nothing_heavy(module: str) -> None:
    outside = {name.split(".")[0] for name in loaded(module) | IMPORTS[module]}
    assert not outside & HEAVY


def test_nor_does_it_when_it_is_really_imported() -> None:
    """Other projects import each other as well."""
    names = [m for m in MODULES if light(m)]
    assert not imported_for_real(names) & HEAVY


def test_recipes_are_given_their_cluster_and_print_nothing() -> None:
    """Whoever opens it and prints is above them: the command, or a program of the user's."""
    assert not {"ray", "rich", "typer"} & loaded("telecine.pipeline.recipes")


def test_the_command_says_its_help_without_what_its_work_needs() -> None:
    there = imported_for_real(["telecine.pipeline.cli.main"])
    assert not there & (HEAVY | {"duckdb", "pyarrow", "deltalake", "boto3", "PIL", "starlette"})


def imported_for_real(modules: list[str]) -> set[str]:
    """Packages that a fresh process has after importing modules."""
    program = "import importlib, sys\nfor m in sys.argv[1:]: importlib.import_module(m)\n"
    program += "print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", program, *modules]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


# ── names, prints, sizes ─────────────────────────────────────────────────────────────────────────

SOURCES = [
    *MODULES.values(),
    *(p for folder in ("tests", "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))),
]


def test_nobody_imports_a_folder_by_its_bare_name() -> None:
    """A trainer's own repository may have folders of the same names."""
    for path in SOURCES:
        names = imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), path)
        assert not {name for name in names if name.split(".")[0] in TOP}, path


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) not in ("cli", "terminal")])
def test_only_the_command_prints(module: str) -> None:
    calls = {
        ast.unparse(node.func) for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)
    }
    assert not calls & {"print", "sys.stdout.write", "sys.stderr.write", "console.print"}


WIDEST, LONGEST = 13, 500

# Folders with more: why.
CROWDED = {
    "tests/support": "what tests share, each a file that others import by its name",
}


def test_no_folder_is_crowded() -> None:
    folders = {path.parent for path in SOURCES}
    counts = {
        str(f.relative_to(ROOT)): sum(p.name != "__init__.py" for p in f.glob("*.py"))
        for f in folders
    }
    assert {f: n for f, n in counts.items() if n > WIDEST}.keys() <= CROWDED.keys()


def test_no_file_is_long() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    lengths = {p: len(by_hand(p).splitlines()) for p in [*SOURCES, *pages]}
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > LONGEST}


def by_hand(path: Path) -> str:
    """Without the list of modules, which is looked up in rather than read."""
    text = path.read_text(encoding="utf-8")
    return text.partition(BEGIN)[0] + text.partition(END)[2] if path == PAGE else text
