"""Small distributions, as `pip` would leave them: a module, and what is said of it beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from telecine.infra import plugins


class Install(Protocol):
    def __call__(
        self, distribution: str, version: str, module: str, code: str, offers: Mapping[str, str]
    ) -> None:
        """`offers`: group → name of what the module calls OFFER."""


def install_into(folder: Path) -> Install:
    """Into a folder that is on the search path."""
    return functools.partial(_install, folder)


def _install(
    folder: Path,
    distribution: str,
    version: str,
    module: str,
    code: str,
    offers: Mapping[str, str],
) -> None:
    (folder / f"{module}.py").write_text(code)
    about = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    )
    groups = (f"[{group}]\n{name} = {module}:OFFER\n" for group, name in offers.items())
    (about / "entry_points.txt").write_text("\n".join(groups))
    plugins._scanned.cache_clear()  # what is on a search path changes here alone
