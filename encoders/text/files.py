"""Where a text encoder lies, and what it is called: by what is in its files.

    t5:FOLDER               model and tokenizer as save_pretrained() writes them; or a folder with
                            text_encoder/ and tokenizer/ in it, as diffusers writes a pipeline
    t5:HUB_ID[@revision]    the same files on the Hugging Face hub, or in its cache

Only safetensors are read: a .bin is a pickle, which can run code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telecine.encoders.caption.vlm.files import CONFIG, INDEX, TENSORS, TEXTS, tensor_files
from telecine.encoders.hub import Repository, digest_of_file, folder_of, named_in_index, read_json
from telecine.encoders.pretrained import transformers
from telecine.infra.errors import UsageError

MODEL, TOKENIZER = "text_encoder", "tokenizer"  # folders of a pipeline
TOKENIZER_CONFIG = "tokenizer_config.json"
# Model types that each kind takes; None: any that the library has.
TYPES: dict[str, frozenset[str] | None] = {
    "t5": frozenset({"t5"}),
    "umt5": frozenset({"umt5"}),
    "clip": frozenset({"clip", "clip_text_model"}),
    "transformers": None,
}


@dataclass(frozen=True, slots=True)
class Place:
    """The two folders of a model, which may be one."""

    named: str  # as a spec has it
    model: Path
    tokenizer: Path

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.model / CONFIG)

    def digest(self) -> str:
        """SHA-256 over names and contents of all files that change an embedding."""
        said = {f"{TOKENIZER}/{path.name}": path for path in _texts(self.tokenizer)}
        said |= {path.name: path for path in (*_texts(self.model), *tensor_files(self.model))}
        digest = hashlib.sha256()
        for name, path in sorted(said.items()):
            digest.update(f"{name}\0{digest_of_file(path)}\0".encode())
        return digest.hexdigest()


def library() -> Any:
    """The transformers library. Raises UsageError where it is not installed."""
    return transformers("a text encoder")


def weights_of(named: str) -> str:
    """SHA-256 of the files of the model that `KIND:WHERE` names."""
    return locate(named).digest()


def locate(named: str) -> Place:
    """Downloads from the hub what is not here.

    Raises UsageError where there is no such folder, repository or revision, or another model in it.
    """
    kind, _, where = named.partition(":")
    folder = folder_of(kind, where)
    return _checked(named, folder) if folder is not None else _from_hub(named, where)


def _checked(named: str, folder: Path) -> Place:
    model = folder if (folder / CONFIG).is_file() else folder / MODEL
    if not (model / CONFIG).is_file():
        raise UsageError(
            f"{named}: expected {CONFIG} in {folder}, as save_pretrained() of transformers writes "
            f"it, or a folder {MODEL}/ with it"
        )
    beside = (model, model / TOKENIZER, model.parent / TOKENIZER)
    tokenizer = next((f for f in beside if (f / TOKENIZER_CONFIG).is_file()), None)
    if tokenizer is None:
        raise UsageError(
            f"{named}: there is no tokenizer ({TOKENIZER_CONFIG}) in {model} or in {TOKENIZER}/ "
            "beside it: save_pretrained() the model's tokenizer there"
        )
    place = Place(named, model, tokenizer)
    _check_type(place)
    return place


def _check_type(place: Place) -> None:
    kind, found = place.named.partition(":")[0], place.config.get("model_type")
    types = TYPES[kind]
    if types is not None and found not in types:
        others = [name for name, some in TYPES.items() if some and found in some]
        raise UsageError(
            f"{place.named}: the model is a {found!r}, and {kind}: takes "
            f"{' or '.join(sorted(types))}; write {(others or ['transformers'])[0]}: for it"
        )
    if "auto_map" in place.config and found not in library().CONFIG_MAPPING:
        raise UsageError(f"{place.named}: a {found!r} needs code of its own, which is not run")


def _texts(folder: Path) -> set[Path]:
    return {path for pattern in TEXTS for path in folder.glob(pattern) if path.is_file()}


def _from_hub(named: str, where: str) -> Place:
    """Configs first: what is no model for us is refused before its weights come."""
    repository = Repository(named, where)
    folder = repository.snapshot(
        [*TEXTS, *(f"{part}/{name}" for part in (MODEL, TOKENIZER) for name in TEXTS)]
    )
    place = _checked(named, folder)
    repository.revision = folder.name  # a branch may move while we read
    below = place.model.relative_to(folder)
    index = place.model / INDEX
    names = [TENSORS, *(named_in_index(index) if index.is_file() else [])]
    return _checked(named, repository.snapshot([(below / name).as_posix() for name in names]))
