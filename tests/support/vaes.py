"""Tiny random models of every family of VAEs, by its record's samples: real strides, few channels.

Weights are seeded, and the latents' constants are none of them trivial.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from telecine.encoders.frames import FrameBlock, Latents
from telecine.encoders.video.config import library_class
from telecine.encoders.video.diffusers import DiffusersEncoder
from telecine.encoders.video.families.registry import FAMILIES
from telecine.manifests.specs import VaeSpec
from telecine.testing.media import cut, smooth

SEED = 7
FRAMES = 25  # valid for every class


def constants(count: int) -> dict[str, list[float]]:
    """Means about 0 and standard deviations about 1, all of them different."""
    return {
        "latents_mean": [round(0.05 * (i % 7) - 0.1 + 0.001 * i, 4) for i in range(count)],
        "latents_std": [round(0.8 + 0.1 * (i % 5) + 0.001 * i, 4) for i in range(count)],
    }


SAMPLES = {sample.name: (family, sample) for family in FAMILIES for sample in family.samples}


def tiny(name: str) -> Any:
    """The model of that sample, always with the same weights; leaves torch's own seed alone."""
    family, sample = SAMPLES[name]
    given = constants(sample.constants) if sample.constants else {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        vae = library_class(family.class_name)(**sample.arguments, **given)
        if family.buffers:
            for key, values in constants(sample.channels).items():
                getattr(vae, key).copy_(torch.tensor(values))
        vae = vae.eval().requires_grad_(False)
        for module in vae.encoder.modules():
            # As torch starts them, the biases drown the picture on its way through the layers.
            if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
                module.weight.mul_(2)
        return vae


TINY: dict[str, Callable[[], Any]] = {name: partial(tiny, name) for name in SAMPLES}


def save(name: str, folder: Path) -> Path:
    """The model as `save_pretrained` writes it; gives `folder`."""
    tiny(name).save_pretrained(folder)
    return folder


def encoder(path: Path, device: str = "cpu", **options: Any) -> DiffusersEncoder:
    options = {"dtype": "float32", **options}
    return DiffusersEncoder(VaeSpec(encoder=f"diffusers:{path}", **options), device)


def encode(encoder: DiffusersEncoder, clip: FrameBlock, seed: int = 0) -> Latents:
    frames = clip.shape[0]
    return encoder.encode(cut(clip, encoder.block_sizes(frames)), frames, seed)


def clip_for(encoder: DiffusersEncoder, frames: int = FRAMES) -> FrameBlock:
    return smooth(frames, 2 * encoder.spatial_stride, 3 * encoder.spatial_stride)


def change(path: Path, **values: Any) -> None:
    """Rewrites keys of the config in this folder."""
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))
