"""Where a VAE lies, and what its weights are called: by what is in them.

    diffusers:FOLDER              the VAE's own folder, or a pipeline's with vae/ in it
    diffusers:HUB_ID[@revision]   the same two layouts on the Hugging Face hub, or in its cache

Only safetensors are read: a .bin is a pickle, which can run code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from telecine.encoders.hub import Repository, digest_of_file, folder_of, named_in_index, read_json
from telecine.encoders.video.families.registry import family_of
from telecine.infra.errors import UsageError

KIND = "diffusers"
CONFIG = "config.json"
TENSORS = "diffusion_pytorch_model.safetensors"
INDEX = f"{TENSORS}.index.json"
LAYOUTS = ("vae/", "")  # a pipeline's, the VAE's own


def locate(where: str) -> Path:
    """The local folder of what `diffusers:WHERE` names; downloads from the hub what is not here.

    Raises UsageError where there is no such folder, repository or revision, or nothing to be had.
    """
    folder = folder_of(KIND, where)
    if folder is not None:
        return _vae_folder(folder)
    return _from_hub(where)


def tensor_files(folder: Path) -> list[Path]:
    """The files of the weights, sorted by name: of a single file and an index, what the index
    names, as the library has it.

    Raises UsageError where there are none to read.
    """
    if (folder / INDEX).is_file():
        paths = [folder / name for name in named_in_index(folder / INDEX)]
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


def weights_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the tensor files. Unchanged files are read once."""
    digest = hashlib.sha256()
    for path in tensor_files(folder):
        digest.update(f"{path.name}\0{digest_of_file(path)}\0".encode())
    return digest.hexdigest()


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
    repository = Repository(f"{KIND}:{where}", where)
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
    family_of(str(read_json(config).get("_class_name")))
    repository.revision = config.parents[layout.count("/")].name  # a branch may move while we read
    # Where the weights are cached, the hub is not asked whether there is an index to them as well.
    whole = repository.fetch(layout + TENSORS, cached=True)
    index = repository.fetch(layout + INDEX, cached=whole is not None)
    for name in named_in_index(index) if index else [TENSORS]:
        if repository.fetch(layout + name) is None:
            repository.check_reached()
    return config.parent
