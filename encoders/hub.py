"""Files of models, whatever library they are of: where a spec's name points, and what is in them.

KIND:FOLDER  ─▶ folder_of ─▶ its path             KIND:HUB_ID ─▶ None
a file ─▶ digest_of_file      an index ─▶ named_in_index
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from telecine.infra.errors import UsageError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[^@]+)?")


def folder_of(kind: str, where: str) -> Path | None:
    """The local folder that `KIND:WHERE` names; None where it is a hub's id.

    Raises UsageError where it can only be a folder, and is none.
    """
    path = expanded(f"{kind}:{where}", where)
    if path.is_dir():
        return path.absolute()
    if where.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(where):
        raise UsageError(f"{kind}:{where}: there is no folder {path.absolute()}")
    return None


def absolute_folder(kind: str, named: str) -> str:
    """`named` with a folder's path made absolute, so that it holds in any working directory; as it
    is where it is of another kind.
    """
    name, _, where = named.partition(":")
    if name != kind or not where or not expanded(named, where).is_dir():
        return named
    return f"{name}:{expanded(named, where).resolve()}"


def expanded(named: str, path: str) -> Path:
    """With the user's folder in place of ~; `named` is how a spec has it."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~user of a user that is not there
        raise UsageError(f"{named}: there is no such folder: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object: it is not the config of a model")
    return content


def named_in_index(index: Path) -> list[str]:
    """The files that an index names, sorted. Raises UsageError unless they lie beside it."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UsageError(
            f"{index} does not say which tensor is in which file beside it: expected "
            '"weight_map": {"tensor": "name.safetensors"}; save_pretrained() the model again'
        )
    return sorted(set(names))


def digest_of_file(path: Path) -> str:
    """SHA-256. A file that has not changed is read once."""
    facts = path.stat()
    version = facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino
    return _digest(path, *version)


@functools.cache
def _digest(path: Path, *version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
