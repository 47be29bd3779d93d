"""Where a VAE lies, and what its weights are called: by what is in them.

    diffusers:FOLDER              the VAE's own folder, or a pipeline's with vae/ in it
    diffusers:HUB_ID[@revision]   the same two layouts on the Hugging Face hub, or in its cache

Only safetensors are read: a .bin is a pickle, which can run code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from encoders.vae_config import kind_of
from infra.errors import UsageError

CONFIG = "config.json"
TENSORS = "diffusion_pytorch_model.safetensors"
INDEX = f"{TENSORS}.index.json"
LAYOUTS = ("vae/", "")  # a pipeline's, the VAE's own

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[^@]+)?")


def locate(where: str) -> Path:
    """The local folder of what `diffusers:WHERE` names; downloads from the hub what is not here.

    Raises UsageError where there is no such folder, repository or revision, or nothing to be had.
    """
    path = _expanded(where)
    if path.is_dir():
        return _vae_folder(path.absolute())
    if where.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(where):
        raise UsageError(f"diffusers:{where}: there is no folder {path.absolute()}")
    return _from_hub(where)


def absolute(encoder: str) -> str:
    """`encoder` with a folder's path made absolute, so that it holds in any working directory."""
    name, _, where = encoder.partition(":")
    if name != "diffusers" or not where or not _expanded(where).is_dir():
        return encoder
    return f"{name}:{_expanded(where).resolve()}"


def _expanded(where: str) -> Path:
    try:
        return Path(where).expanduser()
    except RuntimeError as error:  # ~user of a user that is not there
        raise UsageError(f"diffusers:{where}: there is no such folder: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object: it is not the config of a model")
    return content


def tensor_files(folder: Path) -> list[Path]:
    """The files of the weights, sorted by name: of a single file and an index, what the index
    names, as the library has it.

    Raises UsageError where there are none to read.
    """
    if (folder / INDEX).is_file():
        paths = [folder / name for name in _shards(folder / INDEX)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise UsageError(f"{folder / INDEX} names {', '.join(missing)}: not there")
        return paths
    if not (folder / TENSORS).is_file():
        others = [path.name for path in sorted(folder.glob("*")) if path.name != CONFIG]
        raise UsageError(
            f"{folder} has no {TENSORS}, only {', '.join(others) or CONFIG}: "
            "load the model with diffusers and save_pretrained() it; pickled weights are not read"
        )
    return [folder / TENSORS]


def _shards(index: Path) -> list[str]:
    """The files that an index names, sorted. Raises UsageError unless they lie beside it."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UsageError(
            f"{index} does not say which tensor is in which file beside it: expected "
            '"weight_map": {"tensor": "name.safetensors"}; save_pretrained() the model again'
        )
    return sorted(set(names))


def weights_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the tensor files. Unchanged files are read once."""
    files = [(path, path.stat()) for path in tensor_files(folder)]
    digest = hashlib.sha256()
    for path, facts in files:
        version = facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino
        content = file_digest(path, *version)
        digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()


@functools.cache
def file_digest(path: Path, *version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_buffers(folder: Path, names: tuple[str, ...]) -> dict[str, list[float]]:
    """These tensors alone, of all the weights. Raises UsageError where one is not there."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, list[float]] = {}
    for path in tensor_files(folder):
        try:
            with safe_open(path, "pt") as tensors:
                for name in set(names) & set(tensors.keys()):
                    found[name] = tensors.get_tensor(name).double().flatten().tolist()
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UsageError(f"the weights in {folder} have no {', '.join(missing)}: are they whole?")
    return found


def _vae_folder(folder: Path) -> Path:
    for layout in LAYOUTS:
        if (folder / layout / CONFIG).is_file():
            return folder / layout
    raise UsageError(
        f"{folder} holds no VAE: expected {CONFIG} in it or in its vae/, as diffusers' "
        "save_pretrained() writes it"
    )


def _from_hub(where: str) -> Path:
    """Config first: what else a repository's root may hold is large and none of ours."""
    repository = _Repository(where)
    for layout in LAYOUTS:
        config = repository.fetch(layout + CONFIG)
        if config is not None:
            break
    else:
        repository.check_reached()
        raise UsageError(
            f"diffusers:{where}: there is no such folder, and the hub's repository has no "
            f"vae/{CONFIG} or {CONFIG}: check the name and the revision, or give a folder"
        )
    kind_of(str(read_json(config).get("_class_name")))
    repository.revision = config.parents[layout.count("/")].name  # a branch may move while we read
    # Where the weights are cached, the hub is not asked whether there is an index to them as well.
    whole = repository.fetch(layout + TENSORS, cached=True)
    index = repository.fetch(layout + INDEX, cached=whole is not None)
    for name in _shards(index) if index else [TENSORS]:
        if repository.fetch(layout + name) is None:
            repository.check_reached()
    return config.parent


class _Repository:
    """A hub's, or what the cache holds of it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._id, _, revision = where.partition("@")
        self.revision = revision or None
        self._out_of_reach: Exception | None = None

    def fetch(self, name: str, cached: bool = False) -> Path | None:
        """A file; None where there is none. Of a hub out of reach (the client tries for half a
        minute) nothing more is asked: what then comes is what the cache has.
        """
        import huggingface_hub as hub
        from huggingface_hub import errors

        cached = cached or self._out_of_reach is not None
        where, repository, revision = self._where, self._id, self.revision
        try:
            return Path(
                hub.hf_hub_download(repository, name, revision=revision, local_files_only=cached)
            )
        except errors.LocalEntryNotFoundError as error:
            if not cached:
                self._out_of_reach = error
            return None
        except errors.EntryNotFoundError:
            return None
        except errors.RevisionNotFoundError as error:
            raise UsageError(
                f"diffusers:{where}: the hub's {repository} has no revision {revision!r}; "
                "give a branch, a tag or a commit"
            ) from error
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise UsageError(
                f"diffusers:{where}: there is no such folder, and the hub does not give it: "
                f"{error}; check the name, and whether it needs a login (`hf auth login`)"
            ) from error

    def check_reached(self) -> None:
        """Raises UsageError where the hub was asked and out of reach."""
        error = self._out_of_reach
        if error is not None:
            raise UsageError(
                f"diffusers:{self._where}: there is no such folder, the hub is out of reach "
                f"({error.__cause__ or error}), and this machine's cache does not hold all of it: "
                "check the connection and HF_HUB_OFFLINE, or give a folder"
            ) from error
