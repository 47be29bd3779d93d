"""An exception that no footage is to blame for, in words that it can be reported with."""

from __future__ import annotations

import functools
import re
import traceback
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from telecine.infra.errors import Reason
from telecine.infra.text import first_line

MOST_CALLS = 20  # of a traceback, the innermost

_PLACE = re.compile(r'File "([^"]*)"')


@functools.cache
def telecine_version() -> str:
    """As it is installed; empty where it is not."""
    try:
        return version("telecine")
    except PackageNotFoundError:
        return ""


def bug(error: BaseException) -> str:
    """One line that says what happened, in which Telecine; below it the traceback.

    Files are named from their package on: the same on every machine, and nothing of its folders.
    """
    limited = traceback.TracebackException.from_exception(error, limit=-MOST_CALLS)
    lines = "".join(limited.format()).rstrip("\n")
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{what} (Telecine {telecine_version()})\n{_PLACE.sub(_named, lines)}"


def failure(error: BaseException) -> tuple[Reason, str]:
    """Reason and detail of what an unexpected exception cost."""
    if isinstance(error, MemoryError):
        return Reason.OUT_OF_MEMORY, str(error) or "no memory left"
    return Reason.INTERNAL, bug(error)


@dataclass
class Bug:
    """An INTERNAL failure, however often it was met."""

    detail: str
    first: str  # the source or clip that met it first
    times: int = 1

    @property
    def what(self) -> str:
        return first_line(self.detail)


class Bugs(dict[str, Bug]):
    """Each different one of a run by its detail, to be reported when it ends."""

    def note(self, reason: str, detail: str, where: str) -> None:
        """Of one failure; of another reason than INTERNAL it is none."""
        if reason != Reason.INTERNAL:
            return
        if detail in self:
            self[detail].times += 1
        else:
            self[detail] = Bug(detail, where)

    def add(self, others: Bugs) -> None:
        for other in others.values():
            self.note(Reason.INTERNAL, other.detail, other.first)
            self[other.detail].times += other.times - 1


def _named(place: re.Match[str]) -> str:
    path = place[1].replace("\\", "/")
    _, within, rest = path.rpartition("/site-packages/")
    if not within:
        _, within, rest = path.rpartition("/telecine/")
        rest = f"telecine/{rest}" if within else path.rpartition("/")[2]
    return f'File "{rest}"'
