"""What a command writes beside a dataset: one check of where, before any work, and one way.

refused: another machine's name · no folder for it · in the dataset, by whatever name · a folder, or
no regular file · there already, without --overwrite · where this user may make no file
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from telecine.infra.errors import UsageError
from telecine.infra.store import disk
from telecine.infra.store.uris import is_s3


def check_file(path: Path, option: str, *, dataset: str, overwrite: bool) -> None:
    """Refuse a file that cannot or must not be written; `option`: what gave it, as in -o.

    Raises UsageError; AccessDenied or another StorageError where the disk says no.
    """
    given = f"{option} {path}"
    with disk.explained(str(path)):
        _refuse_remote(path, given, "file")
        if not path.parent.is_dir():
            raise UsageError(f"{given}: there is no folder {path.parent} on this machine; make it")
        _refuse_within(path, given, dataset)
        if path.is_dir():
            raise UsageError(f"{given}: this is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise UsageError(f"{given}: this is no regular file; name another one")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already: name another file, or add --overwrite")
        _probe(path.parent)


def check_folder(folder: Path, *, dataset: str, overwrite: bool) -> Path:
    """Refuse a folder likewise, which need not be there; returns it, absolute and without links."""
    target = Path(os.path.realpath(folder.expanduser()))
    with disk.explained(str(target)):
        _refuse_remote(folder, str(folder), "folder")
        _refuse_within(target, str(folder), dataset)
        if target.exists() and not target.is_dir():
            raise UsageError(f"{folder} is a file: name a folder")
        there = [p.name for p in target.iterdir()] if target.is_dir() else []
        if not overwrite and any(not name.startswith(disk.PART_PREFIX) for name in there):
            raise UsageError(
                f"{folder} is not empty: name another folder, or add --overwrite, which replaces "
                "files of the same names and what an earlier export of this format left"
            )
        _probe(next(above for above in (target, *target.parents) if above.exists()))
    return target


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """The file is there whole or not at all, and what the disk says is said in our words."""
    with disk.explained(str(path)), disk.replacing(path) as file:
        yield file


def _refuse_remote(path: Path, given: str, what: str) -> None:
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path))
    if scheme and not Path(path.parts[0]).exists():
        raise UsageError(f"{given}: name a {what} on this machine; upload it from there")


def _refuse_within(path: Path, given: str, dataset: str) -> None:
    """Also where a link leads there, or one of the dataset's own folders is a link."""
    if is_s3(dataset):
        return
    root, real = Path(dataset), Path(os.path.realpath(path))
    links = [entry for entry in root.iterdir() if entry.is_symlink()] if root.is_dir() else []
    for part in (root, *links):
        if real.is_relative_to(os.path.realpath(part)):
            raise UsageError(f"{given} lies in the dataset {dataset}, which this leaves as it is")


def _probe(folder: Path) -> None:
    """Make a file there, and take it away again."""
    part = folder / (disk.PART_PREFIX + secrets.token_hex(8))
    part.touch(exist_ok=False)
    part.unlink()
