"""The list of every module in docs/ARCHITECTURE.md, made from the first sentences in them.

By hand, after a module was added, moved or given another first line:

    python -m tests.support.architecture
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
ROOMS = ("telecine", "pipeline", "encoders", "manifests", "infra")
BEGIN, END = (
    "<!-- modules: made by tests/support/architecture.py -->\n",
    "<!-- end of modules -->\n",
)


def first_sentence(path: Path) -> str:
    """Without the module's own name before it, as in `plan: from the clips …`."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence = re.match(r".*?[.?!](?= |$)|.*", paragraph)
    said = re.sub(r"^\w+: ", "", sentence[0]) if sentence else ""
    return said[:1].upper() + said[1:]


def modules(folder: Path) -> list[Path]:
    """Of one folder alone, in the order of their names."""
    return sorted(p for p in folder.glob("*.py") if p.name != "__init__.py")


def folders() -> list[Path]:
    """Every folder with modules, each below the one that it lies in."""
    found = [
        path.parent
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
        if not any(parent.is_symlink() for parent in path.parents)
    ]
    return sorted(set(found), key=lambda p: (ROOMS.index(p.relative_to(ROOT).parts[0]), p))


def listing() -> str:
    lines: list[str] = []
    for folder in folders():
        lines += [
            f"### {folder.relative_to(ROOT)}/",
            "",
            first_sentence(folder / "__init__.py"),
            "",
        ]
        lines += [f"- `{path.name}`: {first_sentence(path)}" for path in modules(folder)]
        if modules(folder):
            lines.append("")
    return "\n".join(lines)


def with_listing(page: str) -> str:
    """The page with the list between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{listing()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_listing(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
