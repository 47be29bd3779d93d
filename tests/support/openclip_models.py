"""Tiny random models of open_clip, in the layouts that Telecine reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from telecine.encoders.score.names import library

open_clip = library()

CONFIG, TENSORS = "open_clip_config.json", "open_clip_model.safetensors"
SEED = 7
SIDE = 32  # px of the square that the models see
CONTEXT = 20  # tokens
TOKENS = 49408
NAME = "telecine-tiny-coca"  # of the CoCa's architecture, where `add_names` was called

_VISION = {"image_size": SIDE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
_TEXT = {
    "context_length": CONTEXT, "vocab_size": TOKENS, "width": 32, "heads": 2, "layers": 1
}  # fmt: skip
CLIP: dict[str, Any] = {"embed_dim": 32, "vision_cfg": _VISION, "text_cfg": _TEXT}
COCA: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": _VISION
    | {
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 8,
        "output_tokens": True,
    },
    "text_cfg": _TEXT | {"embed_cls": True, "output_tokens": True},
    "multimodal_cfg": _TEXT | {"attn_pooler_heads": 2},
    "custom_text": True,
}


def tiny(architecture: dict[str, Any]) -> Any:
    """The model of that architecture, always with the same weights; leaves torch's own seed alone.

    They are larger than at the start of a training: pictures must tell in what is said of them.
    """
    given = {key: value for key, value in architecture.items() if key != "custom_text"}
    make = open_clip.CoCa if "multimodal_cfg" in architecture else open_clip.CLIP
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        net = make(**given).eval().requires_grad_(False)
        for name, tensor in net.named_parameters():
            if tensor.ndim > 1:
                tensor.normal_(std=2 * tensor.shape[-1] ** -0.5)
            elif name.endswith("cls_emb"):
                tensor.normal_()
    return net


def scripted(tokens: Sequence[int], loudness: float = 10.0) -> Any:
    """A CoCa that says these tokens of every picture: its n-th position knows the n-th of them.

    Whatever mixes positions is silenced, so a position's vector is its own unit vector.
    """
    net = tiny(COCA)
    with torch.no_grad():
        blocks = [
            *net.text.transformer.resblocks,
            *net.text_decoder.resblocks,
            *net.text_decoder.cross_attn,
        ]
        for block in blocks:
            for layer in (block.attn.out_proj, block.mlp.c_proj):
                layer.weight.zero_()
                layer.bias.zero_()
        net.text.token_embedding.weight.zero_()
        net.text.positional_embedding.copy_(torch.eye(CONTEXT + 1, _TEXT["width"]))
        net.text_decoder.text_projection.zero_()
        for position, token in enumerate(tokens):
            net.text_decoder.text_projection[position, token] = loudness
    return net


def save_folder(
    net: Any, architecture: dict[str, Any], folder: Path, preprocess: Any = None
) -> Path:
    """open_clip's own layout; gives `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": architecture} | ({"preprocess_cfg": preprocess} if preprocess else {})
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(net.state_dict(), folder / TENSORS)
    return folder


def copied(folder: Path, to: Path, **changes: Any) -> Path:
    """The folder, with other values at the top of its config."""
    shutil.copytree(folder, to)
    config = json.loads((to / CONFIG).read_text())
    (to / CONFIG).write_text(json.dumps(config | changes))
    return to


def add_names(folder: Path) -> None:
    """Has open_clip know the tiny CoCa by `NAME`, as it knows its own models."""
    (folder / f"{NAME}.json").write_text(json.dumps(COCA))
    open_clip.add_model_config(folder / f"{NAME}.json")
