"""What the documentation shows, taken from its blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands_in(*texts: str) -> list[list[str]]:
    """Every command line in their blocks of shell, continued lines joined."""
    joined = "\n".join(b for text in texts for b in blocks("sh", text)).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in joined.splitlines() if line.strip()]
