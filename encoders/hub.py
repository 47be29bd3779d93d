"""Files of models, whatever library they are of: where a spec's name points, and what is in them.

KIND:FOLDER  ─▶ folder_of ─▶ its path             KIND:HUB_ID ─▶ None, and then
a file ─▶ digest_of_file                          Repository ─▶ fetch, first_of, snapshot
an index ─▶ named_in_index
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
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


class Repository:
    """On the Hugging Face hub, or what this machine's cache holds of it.

    Of a hub out of reach (its client tries for half a minute) nothing more is asked: what then
    comes is what the cache has. `named` is how a spec has it, with which every message begins.
    """

    def __init__(self, named: str, where: str) -> None:
        """`where` is ORG/NAME or ORG/NAME@REVISION."""
        self._named = named
        self.id, _, revision = where.partition("@")
        self.revision = revision or None  # a commit, once it is known: a branch may move
        self._out_of_reach: Exception | None = None

    def fetch(self, name: str, cached: bool = False) -> Path | None:
        """A file, of the cache alone where that is asked; None where there is none.

        Raises UsageError where the hub gives nothing of the repository.
        """
        import huggingface_hub as hub
        from huggingface_hub import errors

        cached = cached or self._out_of_reach is not None
        try:
            return Path(
                hub.hf_hub_download(self.id, name, revision=self.revision, local_files_only=cached)
            )
        except errors.LocalEntryNotFoundError as error:
            if not cached:
                self._out_of_reach = error
            return None
        except errors.EntryNotFoundError:
            return None
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise self._refused(error) from error

    def first_of(self, names: Sequence[str]) -> Path:
        """The first of these files that there is. Raises UsageError where there is none."""
        for name in names:
            found = self.fetch(name)
            if found is not None:
                return found
        self.check_reached(f"{' or '.join(names)} of {self.id}")
        raise UsageError(f"{self._named}: the hub's {self.id} has no {' or '.join(names)}")

    def snapshot(self, names: Sequence[str]) -> Path:
        """The cache's folder with the files of these names, or patterns of names, in it.

        Raises UsageError where the hub gives nothing of the repository.
        """
        import huggingface_hub as hub
        from huggingface_hub import errors

        try:
            return Path(
                hub.snapshot_download(self.id, revision=self.revision, allow_patterns=list(names))
            )
        except errors.LocalEntryNotFoundError as error:
            raise self._unreached(error, "all of it") from error
        except Exception as error:  # of the client or of what it speaks over: there is no model
            raise self._refused(error) from error

    def check_reached(self, missing: str = "all of it") -> None:
        """Raises UsageError where the hub was asked and out of reach."""
        if self._out_of_reach is not None:
            raise self._unreached(self._out_of_reach, missing) from self._out_of_reach

    def _unreached(self, error: Exception, missing: str) -> UsageError:
        return UsageError(
            f"{self._named}: the hub is out of reach ({error.__cause__ or error}), and this "
            f"machine's cache does not hold {missing}: check the connection and HF_HUB_OFFLINE, or "
            "give a folder or file that is here"
        )

    def _refused(self, error: Exception) -> UsageError:
        from huggingface_hub import errors

        if isinstance(error, errors.RevisionNotFoundError):
            return UsageError(
                f"{self._named}: the hub's {self.id} has no revision {self.revision!r}; give a "
                "branch, a tag or a commit"
            )
        if isinstance(error, errors.GatedRepoError):
            return UsageError(
                f"{self._named}: the hub gives {self.id} only to those who were let in: ask for "
                f"access on its page, then log in with `hf auth login` ({error})"
            )
        return UsageError(
            f"{self._named}: there is no such file or folder here, and the hub does not give "
            f"{self.id}: {error}; check the name, and whether it needs a login (`hf auth login`)"
        )
