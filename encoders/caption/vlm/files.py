"""Where a vision-language model lies, and what it is called: by what is in its files.

    vlm:FOLDER              where model and processor were saved with save_pretrained()
    vlm:HUB_ID[@revision]   the same files on the Hugging Face hub, or in its cache

Only safetensors are read: a .bin is a pickle, which can run code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from telecine.encoders.hub import Repository, digest_of_file, folder_of, named_in_index, read_json
from telecine.encoders.pretrained import transformers
from telecine.infra.errors import UsageError

KIND = "vlm"
CONFIG = "config.json"
TENSORS = "model.safetensors"
INDEX = f"{TENSORS}.index.json"
# Everything beside the tensors that changes a text: configs of model, generation, processors and
# tokenizer, chat templates, vocabularies.
TEXTS = (
    "*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.model", "merges.txt", "vocab.txt",
)  # fmt: skip
ELSEWHERE = ("adapter_config.json",)  # would have the library read weights that we do not know of


def library() -> Any:
    """The transformers library. Raises UsageError where it is not installed."""
    return transformers("a captioner vlm:...")


def locate(where: str) -> Path:
    """The local folder of what `vlm:WHERE` names; downloads from the hub what is not here.

    Raises UsageError where there is no such folder, repository or revision, or nothing to be had.
    """
    folder = folder_of(KIND, where)
    if folder is not None:
        check_kind(folder)
        return folder
    return _from_hub(where)


def check_kind(folder: Path) -> None:
    """Raises UsageError unless the config is that of a model which this library can have here."""
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"{folder} holds no model: expected {CONFIG} in it, as save_pretrained() of "
            "transformers writes it"
        )
    library()
    from transformers.models.auto import modeling_auto

    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        why = "takes no pictures, or this version of transformers does not know it"
        if "auto_map" in config:
            why = "needs code of its own, which is not run"
        raise UsageError(
            f"the model in {folder} is a {kind!r}, which {why}: give a vision-language model of "
            "the library's own, as Qwen2.5-VL, Qwen3-VL or LLaVA-OneVision"
        )
    if "transformers_weights" in config or any((folder / name).is_file() for name in ELSEWHERE):
        raise UsageError(
            f"the model in {folder} takes weights from elsewhere ({', '.join(ELSEWHERE)} or "
            f"transformers_weights in {CONFIG}): load it, merge them, and save_pretrained() it"
        )


def tensor_files(folder: Path) -> list[Path]:
    """The files of the weights, sorted by name: of a single file and an index, the single file, as
    the library has it.

    Raises UsageError where there are none to read.
    """
    names = [TENSORS]
    if not (folder / TENSORS).is_file():
        names = _shards(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder / INDEX} names {', '.join(missing)}: not there")
    return [folder / name for name in names]


def _shards(folder: Path) -> list[str]:
    """The files that the index names, sorted. Raises UsageError unless they lie beside it."""
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.glob("*") if path.suffix != ".json")
        raise UsageError(
            f"{folder} has no {TENSORS}, only {', '.join(others) or CONFIG}: load the model with "
            "transformers and save_pretrained() it; pickled weights are not read"
        )
    return named_in_index(folder / INDEX)


def weights_digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files that change a text. Unchanged files are read
    once.
    """
    texts = {path for pattern in TEXTS for path in folder.glob(pattern)}
    digest = hashlib.sha256()
    for path in sorted(texts.union(tensor_files(folder))):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{digest_of_file(path)}\0".encode())
    return digest.hexdigest()


def _from_hub(where: str) -> Path:
    """Configs first: what is no model for us is refused before its weights come."""
    repository = Repository(f"{KIND}:{where}", where)
    folder = repository.snapshot(TEXTS)
    check_kind(folder)
    repository.revision = folder.name  # a branch may move while we read
    names = _shards(folder) if (folder / INDEX).is_file() else []
    return repository.snapshot([TENSORS, *names])
