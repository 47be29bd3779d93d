"""Plug-ins: what other installed distributions add, found by their entry points.

    [project.entry-points."telecine.captioners"]      in the plug-in's pyproject.toml
    echo = "telecine_echo:CAPTIONER"                  "echo:REST" in a spec means what is there

    installed ─▶ Plugin: name, distribution, version ─▶ load: imported only when it is asked for

A plug-in is called by its distribution and version, which go into the fingerprint of what it makes
(`Plugin.identity`): another version makes other captions, scores and builds.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from telecine.infra.errors import TelecineError, UsageError

if TYPE_CHECKING:  # it costs more than all of `import telecine`, and every command reads this file
    from importlib.metadata import EntryPoint

ENCODERS = "telecine.encoders"
CAPTIONERS = "telecine.captioners"
SCORERS = "telecine.scorers"
TEXT_ENCODERS = "telecine.text_encoders"
EXPORTERS = "telecine.exporters"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point of an installed distribution. Nothing of it has been imported yet."""

    group: str
    name: str  # what a spec or an option calls it
    distribution: str
    version: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    def identity(self) -> dict[str, str]:
        """What goes into the fingerprint of all that it makes, beside its own identity."""
        return {"distribution": self.distribution, "version": self.version}

    def load(self, expected: type[T]) -> T:
        """What the entry point names. Raises UsageError where that fails, or is another thing."""
        try:
            loaded: Any = self.entry.load()
        except TelecineError:
            raise
        except Exception as error:  # whatever goes wrong in code that is not ours
            raise UsageError(
                f"{self.name} is a plug-in of {self}, which does not load: "
                f"{type(error).__name__}: {error} ({self.entry.value}); install what it needs, "
                f"or another version of it, or remove it: pip uninstall {self.distribution}"
            ) from error
        if not isinstance(loaded, expected):
            raise UsageError(
                f"{self.name} is a plug-in of {self}, and {self.entry.value} is "
                f"{_article(type(loaded).__name__)}: an entry point of {self.group} names "
                f"{_article(expected.__name__)} (docs/extending.md)"
            )
        return loaded


def installed(group: str) -> tuple[Plugin, ...]:
    """All plug-ins of a group, by name. Imports none of them."""
    return _scanned(group, tuple(sys.path))


def find(group: str, name: str, built_in: Collection[str] = ()) -> Plugin | None:
    """The plug-in of that name; None where nobody offers it, or Telecine itself does.

    Raises UsageError where more than one does: which is meant would hang on what else is installed.
    """
    offered = [plugin for plugin in installed(group) if plugin.name == name]
    rivals = [*(["Telecine itself"] if name in built_in else []), *map(str, offered)]
    if len(rivals) > 1:
        removed = " or ".join(plugin.distribution for plugin in offered)
        raise UsageError(
            f"{name} is offered by {' and '.join(rivals)} ({group}): a name has one meaning; "
            f"pip uninstall {removed}"
        )
    return offered[0] if offered else None


def listed(group: str, form: str = "{}") -> list[str]:
    """For messages and help: each plug-in's name in its form, and whose it is."""
    return [f"{form.format(plugin.name)} (plug-in of {plugin})" for plugin in installed(group)]


@functools.cache
def _scanned(group: str, _path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Asked once for a search path: it reads a file of every distribution that is installed."""
    from importlib.metadata import entry_points

    found = [
        Plugin(group, entry.name, entry.dist.name, entry.dist.version, entry)
        for entry in entry_points(group=group)
        if entry.dist is not None
    ]
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.distribution)))


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
