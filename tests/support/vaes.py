"""Tiny random models of every class of video VAE that Telecine takes: real strides, few channels.

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
from telecine.encoders.torchvision_ops import mend_torchvision
from telecine.encoders.video.diffusers import DiffusersEncoder
from telecine.manifests.specs import VaeSpec
from tests.support.blocks import cut, smooth

mend_torchvision()

import diffusers  # noqa: E402

SEED = 7
FRAMES = 25  # valid for every class


def constants(count: int) -> dict[str, list[float]]:
    """Means about 0 and standard deviations about 1, all of them different."""
    return {
        "latents_mean": [round(0.05 * (i % 7) - 0.1 + 0.001 * i, 4) for i in range(count)],
        "latents_std": [round(0.8 + 0.1 * (i % 5) + 0.001 * i, 4) for i in range(count)],
    }


def with_buffers(vae: Any) -> Any:
    """LTX keeps its constants among the weights."""
    for name, values in constants(vae.config.latent_channels).items():
        getattr(vae, name).copy_(torch.tensor(values))
    return vae


def wan21() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, num_res_blocks=1, **constants(4)
    )  # fmt: skip


def wan22() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=6, num_res_blocks=1, is_residual=True, in_channels=12, out_channels=12,
        patch_size=2, scale_factor_spatial=16, **constants(6),
    )  # fmt: skip


def qwen() -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, num_res_blocks=1, **constants(4)
    )  # fmt: skip


def hunyuan() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1,
        norm_num_groups=4, scaling_factor=0.476986,
    )  # fmt: skip


def hunyuan15() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 8, 16, 16, 16), layers_per_block=1,
        scaling_factor=1.03682,
    )  # fmt: skip


def ltx090() -> Any:
    return with_buffers(
        diffusers.AutoencoderKLLTXVideo(
            latent_channels=8, block_out_channels=(8, 8, 16, 16),
            decoder_block_out_channels=(8, 8, 16, 16), layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1), scaling_factor=0.9,
        )
    )  # fmt: skip


def ltx095() -> Any:
    return with_buffers(
        diffusers.AutoencoderKLLTXVideo(
            latent_channels=8, block_out_channels=(8, 16, 32, 64, 64),
            down_block_types=("LTXVideo095DownBlock3D",) * 4,
            decoder_block_out_channels=(8, 16, 32), layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1), spatio_temporal_scaling=(True,) * 4,
            decoder_spatio_temporal_scaling=(True,) * 3,
            decoder_inject_noise=(False,) * 4,
            downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            upsample_residual=(True,) * 3, upsample_factor=(2,) * 3,
            spatial_compression_ratio=32, temporal_compression_ratio=8,
        )
    )  # fmt: skip


def ltx2() -> Any:
    return with_buffers(
        diffusers.AutoencoderKLLTX2Video(
            latent_channels=8, block_out_channels=(16, 32, 64, 64),
            decoder_block_out_channels=(8, 16, 32), layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            spatial_compression_ratio=32, temporal_compression_ratio=8,
        )
    )  # fmt: skip


def cogvideox() -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 16, 16), latent_channels=4, layers_per_block=1,
        norm_num_groups=4, scaling_factor=1.15258426,
    )  # fmt: skip


def cosmos() -> Any:
    return diffusers.AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8, 16, 16, 16),
        decode_block_out_channels=(8, 16, 16, 16), num_layers=1, **constants(4 * 5),
    )  # fmt: skip


def mochi() -> Any:
    return diffusers.AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32), decoder_block_out_channels=(32, 32, 32, 32),
        latent_channels=4, layers_per_block=(1, 1, 1, 1, 1), **constants(4),
    )  # fmt: skip


_MODELS: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        wan21, wan22, qwen, hunyuan, hunyuan15, ltx090, ltx095, ltx2, cogvideox, cosmos, mochi,
    )
}  # fmt: skip


def tiny(name: str) -> Any:
    """The model of that name, always with the same weights; leaves torch's own seed alone."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        vae = _MODELS[name]().eval().requires_grad_(False)
        for module in vae.encoder.modules():
            # As torch starts them, the biases drown the picture on its way through the layers.
            if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
                module.weight.mul_(2)
        return vae


TINY: dict[str, Callable[[], Any]] = {name: partial(tiny, name) for name in _MODELS}


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
