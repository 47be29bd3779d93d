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
    path = Path(where).expanduser()
    if path.is_dir():
        return _vae_folder(path.absolute())
    if where.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(where):
        raise UsageError(f"diffusers:{where}: there is no folder {path.absolute()}")
    return _from_hub(where)


def absolute(encoder: str) -> str:
    """`encoder` with a folder's path made absolute, so that it holds in any working directory."""
    name, _, where = encoder.partition(":")
    path = Path(where).expanduser()
    if name != "diffusers" or not where or not path.is_dir():
        return encoder
    return f"{name}:{path.resolve()}"


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object: it is not the config of a model")
    return content


def tensor_files(folder: Path) -> list[Path]:
    """The files of the weights, sorted by name. Raises UsageError where there are none to read."""
    if (folder / TENSORS).is_file():
        return [folder / TENSORS]
    if not (folder / INDEX).is_file():
        others = [path.name for path in sorted(folder.glob("*")) if path.name != CONFIG]
        raise UsageError(
            f"{folder} has no {TENSORS}, only {', '.join(others) or CONFIG}: "
            "load the model with diffusers and save_pretrained() it; pickled weights are not read"
        )
    names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
    paths = [folder / name for name in names]
    missing = [path.name for path in paths if path.parent != folder or not path.is_file()]
    if missing or not names:
        raise UsageError(f"{folder / INDEX} names {', '.join(missing) or 'no file'}: not there")
    return paths


def weights_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the tensor files. Read once in a process."""
    files = [(path, path.stat()) for path in tensor_files(folder)]
    digest = hashlib.sha256()
    for path, facts in files:
        content = _file_digest(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()


@functools.cache
def _file_digest(path: Path, *version: int) -> str:
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
    repository, _, revision = where.partition("@")
    for layout in LAYOUTS:
        config = _fetch(where, repository, layout + CONFIG, revision or None)
        if config is not None:
            break
    else:
        raise UsageError(
            f"diffusers:{where}: there is no such folder, and no vae/{CONFIG} or {CONFIG} of it on "
            "the hub; where the hub is out of reach or offline mode is on, not in this machine's "
            "cache either: check the name and the revision, or give a folder"
        )
    kind_of(str(read_json(config).get("_class_name")))
    commit = config.parents[layout.count("/")].name  # a branch may move while we read
    if _fetch(where, repository, layout + TENSORS, commit) is None:
        index = _fetch(where, repository, layout + INDEX, commit)
        for name in set(read_json(index).get("weight_map", {}).values()) if index else ():
            _fetch(where, repository, layout + name, commit)
    return config.parent


def _fetch(where: str, repository: str, name: str, revision: str | None) -> Path | None:
    """A file of a repository; None where it has none, or it is neither cached nor to be had."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except errors.EntryNotFoundError:
        return None
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"diffusers:{where}: the hub's {repository} has no revision {revision!r}; "
            "give a branch, a tag or a commit"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise UsageError(
            f"diffusers:{where}: there is no such folder, and the hub does not give it: {error}; "
            "check the name, and whether it needs a login (`hf auth login`)"
        ) from error
