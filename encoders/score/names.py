"""Models by open_clip's own names: their pretrained tags, and what the hub or its cache has.

MODEL ─┬─ @TAG ──▶ weights from the hub, the tag's preprocessing
       └─ @file ─▶ the file, and the preprocessing that all of MODEL's tags agree on
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from telecine.encoders.hub import Repository, expanded
from telecine.infra.errors import UsageError
from telecine.infra.extras import load

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # the better one first
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CAPTIONS = "mscoco_finetuned_"  # how the tags of CoCas that learnt to caption begin
PREPROCESSING = ("mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
LISTED = 8  # names in a message

Facts: TypeAlias = Mapping[str, Any]


def library() -> Any:
    """open_clip. Raises UsageError where it is not installed."""
    from telecine.encoders.torchvision_ops import mend_torchvision

    mend_torchvision()
    return load("open_clip", "caption", "openclip:...")


def named_model(named: str, model: str, pick: str) -> tuple[Path, Facts, Facts]:
    """Weights, architecture and preprocessing of MODEL[@TAG_OR_FILE].

    Raises UsageError where there is no such model, tag or file.
    """
    open_clip = library()
    architecture = None if ":" in model else open_clip.get_model_config(model)
    if architecture is None:
        models = open_clip.list_models()
        near = difflib.get_close_matches(model, models, LISTED, cutoff=0.5)
        raise UsageError(
            f"{named}: open_clip has no model {model!r}, and there is no such folder with a model; "
            f"it has {listed(near or models)}"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    about = {tag: open_clip.get_pretrained_cfg(model, tag) for tag in tags}
    if is_path(pick):
        return _file(named, pick), architecture, _agreed(list(about.values()))
    tag = _tag(named, model, pick, tags)
    _check_activation(named, model, tag, architecture, about[tag])
    return _pretrained(named, about[tag]), architecture, preprocessing(about[tag])


def is_path(pick: str) -> bool:
    """Tags have neither a dot nor a slash."""
    return any(mark in pick for mark in "./~")


def preprocessing(said: Facts) -> dict[str, Any]:
    """What a tag or config says of it; the rest is open_clip's default."""
    return {key: said[key] for key in PREPROCESSING if said.get(key) is not None}


def listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _file(named: str, pick: str) -> Path:
    path = expanded(named, pick).absolute()
    if not path.is_file():
        raise UsageError(f"{named}: there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{named}: weights are read from {', '.join(SUFFIXES)}, not {path.suffix}")
    return path


def _agreed(about: Sequence[Facts]) -> dict[str, Any]:
    """The preprocessing that all of them have, or open_clip's default."""
    said = [preprocessing(each) for each in about]
    return said[0] if said and all(each == said[0] for each in said) else {}


def _tag(named: str, model: str, pick: str, tags: Sequence[str]) -> str:
    cleaned = pick.lower().replace("-", "_")  # as open_clip takes them
    if cleaned in tags:
        return cleaned
    captioning = [tag for tag in tags if tag.startswith(CAPTIONS)]
    for usual in (captioning, tags):
        if not pick and len(usual) == 1:
            return usual[0]
    if not tags:
        raise UsageError(
            f"{named}: open_clip has no weights for {model}; give a file, openclip:{model}@/path"
        )
    if pick:
        raise UsageError(f"{named}: {model} has no tag {pick!r}; it has {listed(tags)}")
    raise UsageError(f"{named}: which weights? Add @ and a tag ({listed(tags)}) or a file")


def _check_activation(named: str, model: str, tag: str, architecture: Facts, about: Facts) -> None:
    """Weights that were trained with another GELU load all the same, and see a little worse."""
    trained = bool(about.get("quick_gelu"))
    other = f"{model}-quickgelu" if trained else model.removesuffix("-quickgelu")
    same = trained == bool(architecture.get("quick_gelu"))
    if not same and other != model and library().is_pretrained_cfg(other, tag):
        raise UsageError(
            f"{named}: {tag} was trained with{'' if trained else 'out'} QuickGELU: name it "
            f"openclip:{other}@{tag}"
        )


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────


def _pretrained(named: str, about: Facts) -> Path:
    """The weights of a tag. `hf_hub` is org/name/, of the usual names, or org/name/file."""
    repository, _, name = str(about.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise UsageError(f"{named}: its weights are not on the hub: download them, and give a file")
    safe = f"{name.rpartition('.')[0]}.safetensors"
    return Repository(named, repository).first_of((safe, name) if name else WEIGHTS)
