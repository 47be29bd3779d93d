"""Where an open_clip model lies, and what it is called: by what it is made of.

    openclip:MODEL               its only pretrained tag; of a CoCa, the one that learnt to caption
    openclip:MODEL@TAG           weights from the Hugging Face hub, or its cache
    openclip:MODEL@/path/file    weights in a file: safetensors, or a state dict of torch
    openclip:/folder             open_clip's own layout: its config, and the weights beside it
    openclip:hf-hub:ORG/NAME     the same layout on the hub, or in its cache

The digest is over the weights, the architecture and the preprocessing, and over no path.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telecine.encoders.hub import Repository, digest_of_file, expanded, read_json
from telecine.encoders.score.names import (
    WEIGHTS,
    Facts,
    is_path,
    listed,
    named_model,
    preprocessing,
)
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import fingerprint

CONFIG = "open_clip_config.json"
# Of a folder. In open_clip's order: where one is there, it takes none that is not listed.
FILES = (
    WEIGHTS[0], "open_clip_pytorch_model.safetensors", WEIGHTS[1], "open_clip_pytorch_model.pth"
)  # fmt: skip
HUB = "hf-hub:"
TOWERS = ("vision_cfg", "text_cfg")
# What a tokenizer of transformers may consist of.
VOCABULARIES = ("tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Place:
    """A model that is here."""

    named: str  # as a spec names it
    model: str  # as open_clip's create_model() takes it: a name, or local-dir:FOLDER
    tokenizer: str  # as its get_tokenizer() takes it
    weights: Path
    architecture: Facts  # open_clip's model_cfg
    preprocessing: Facts
    vocabulary: tuple[Path, ...] = ()

    def digest(self) -> str:
        """SHA-256 over all that it is made of. Unchanged files are read once."""
        return fingerprint(
            {
                "architecture": self.architecture,
                "preprocessing": self.preprocessing,
                "weights": digest_of_file(self.weights),
                "vocabulary": {path.name: digest_of_file(path) for path in self.vocabulary},
            }
        )


def weights_of(named: str) -> str:
    """The digest of the model that `named` names, which is downloaded where it is not here.

    Raises UsageError where it is not to be had.
    """
    return locate(named).digest()


def locate(named: str) -> Place:
    """Raises UsageError where there is no such model, tag, folder, file or repository."""
    where = named.partition(":")[2]
    if where.startswith(HUB):
        return _on_hub(named, where.removeprefix(HUB))
    folder = _folder(named)
    if folder is not None:
        return _in_folder(named, folder)
    model, _, pick = where.partition("@")
    weights, architecture, said = named_model(named, model, pick)
    return Place(named, model, model, weights, architecture, said)


def absolute(named: str) -> str:
    """`named` with a path in it made absolute, so that it holds in any working directory."""
    name, _, where = named.partition(":")
    if name != "openclip" or where.startswith(HUB):
        return named
    folder = _folder(named)
    if folder is not None:
        return f"{name}:{folder.resolve()}"
    model, _, pick = where.partition("@")
    return f"{name}:{model}@{expanded(named, pick).resolve()}" if is_path(pick) else named


def known_architecture(named: str) -> Facts | None:
    """What can be read of it at once: nothing is downloaded, and open_clip is not imported."""
    where = named.partition(":")[2]
    folder = None if where.startswith(HUB) else _folder(named)
    if folder is not None:
        return _architecture(folder / CONFIG) if (folder / CONFIG).is_file() else None
    model = where.partition("@")[0]
    package = importlib.util.find_spec("open_clip")
    if package is None or not re.fullmatch(r"[\w.-]+", model):
        return None
    for root in package.submodule_search_locations or ():
        path = Path(root) / "model_configs" / f"{model}.json"
        if path.is_file():
            return read_json(path)
    return None


def _folder(named: str) -> Path | None:
    """The folder that is named, whether it is there or not; None of a model's name."""
    where = named.partition(":")[2]
    path = expanded(named, where)
    if where.startswith((".", "/", "~")) or (where and (path / CONFIG).is_file()):
        return path.absolute()
    return None


def _in_folder(named: str, folder: Path, tokenizer: str = "") -> Place:
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"{named}: {folder} holds no model: expected {CONFIG} in it, and beside it "
            f"{FILES[0]}, as open_clip writes them"
        )
    architecture = _architecture(folder / CONFIG)
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if not found:
        others = sorted(path.name for path in folder.glob("*") if path.name != CONFIG)
        raise UsageError(
            f"{named}: {folder} has none of {', '.join(FILES)}, only {listed(others) or CONFIG}"
        )
    vocabulary: set[Path] = set()
    if not tokenizer and architecture["text_cfg"].get("hf_tokenizer_name"):
        vocabulary = {path for pattern in VOCABULARIES for path in folder.glob(pattern)}
    return Place(
        named,
        f"local-dir:{folder}",
        tokenizer or f"local-dir:{folder}",
        found[0],
        architecture,
        preprocessing(read_json(folder / CONFIG).get("preprocess_cfg") or {}),
        tuple(sorted(vocabulary)),
    )


def _architecture(config: Path) -> dict[str, Any]:
    """Raises UsageError where it is not the config of a model, or would run code of its own."""
    architecture = read_json(config).get("model_cfg")
    if not isinstance(architecture, dict) or not all(
        isinstance(architecture.get(tower), dict) for tower in TOWERS
    ):
        raise UsageError(
            f"{config} is not open_clip's: expected a model_cfg with {' and '.join(TOWERS)} in it"
        )
    if (architecture["text_cfg"].get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise UsageError(f"{config} asks for a tokenizer with code of its own, which is not run")
    return architecture


def _on_hub(named: str, repository: str) -> Place:
    on_hub = Repository(named, repository)
    config = on_hub.first_of([CONFIG])
    text = _architecture(config)["text_cfg"]
    on_hub.revision = config.parent.name  # a branch may move while we read
    on_hub.first_of(WEIGHTS)
    theirs = f"{HUB}{repository}" if text.get("hf_tokenizer_name") else ""
    return _in_folder(named, config.parent, theirs)
