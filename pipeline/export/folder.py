"""export_folder: the folder an export goes into.

Files are made in a part of it and then moved to their place, each whole, the one that names the
others last. A record says what there is of an export, so that the next one can take its place.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from telecine.infra.errors import UsageError
from telecine.infra.store import disk


@contextlib.contextmanager
def part_of(folder: Path) -> Iterator[Path]:
    """A folder within the folder that is gone afterwards; so is the folder itself if left empty."""
    new = not folder.exists()
    part = folder / (disk.PART_PREFIX + secrets.token_hex(8))
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def place(part: Path, folder: Path, form: str, last: str) -> tuple[str, ...]:
    """Move what was made to its place, and remove what the last export of this format had more.

    Returns the files, relative to the folder.
    """
    record = f".telecine-{form}.json"
    made = [p for p in part.rglob("*") if p.is_symlink() or p.is_file()]
    files = sorted((p.relative_to(part).as_posix() for p in made), key=lambda n: n == last)
    old = _recorded(folder / record) - {record}
    write_json(part / record, {"files": sorted({*files, *old})})
    for name in [record, *files]:
        target = _within(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (part / name).replace(target)
    for name in sorted(old - {*files}):
        stale = _within(folder, name)
        if stale.is_symlink() or stale.is_file():
            disk.delete(str(stale), str(folder))
    write_json(part / record, {"files": sorted(files)})
    (part / record).replace(folder / record)
    return tuple(sorted(files))


def _recorded(record: Path) -> set[str]:
    """Files of the last export of this format into this folder."""
    try:
        return set(map(str, json.loads(record.read_text())["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _within(folder: Path, name: str) -> Path:
    found = folder / PurePosixPath(name)
    if not found.parent.resolve().is_relative_to(folder):
        raise UsageError(f"{found} leads out of {folder}: name another folder")
    return found


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
