"""Strides, channels and constants from a VAE's config: a test for every rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from telecine.encoders.video.config import VaeConfig, read_config
from telecine.encoders.video.families.registry import FAMILIES, REFUSED
from telecine.encoders.video.weights import read_buffers
from telecine.infra.errors import UsageError
from tests.support.vaes import SAMPLES, TINY, constants, save

MEAN, STD = (constants(4)[name] for name in ("latents_mean", "latents_std"))
BUFFERS = {"latents_mean": [0.5] * 128, "latents_std": [2.0] * 128}


def read(class_name: str, **config: Any) -> VaeConfig:
    return read_config({"_class_name": class_name, **config})


@pytest.mark.parametrize("name", TINY)
def test_the_grid_is_that_of_the_config(name: str, tmp_path: Path) -> None:
    config = json.loads((save(name, tmp_path) / "config.json").read_text())
    family, sample = SAMPLES[name]
    buffers = read_buffers(tmp_path, ("latents_mean", "latents_std")) if family.buffers else {}
    read = read_config(config, buffers)
    grid = (read.temporal_stride, read.spatial_stride, read.channels)
    assert grid == (sample.temporal_stride, sample.spatial_stride, sample.channels)
    assert read.family is family
    assert read.chunk % read.temporal_stride == 0


@pytest.mark.parametrize(
    ("class_name", "grid"),
    [
        ("AutoencoderKLWan", (4, 8, 16)),
        ("AutoencoderKLQwenImage", (4, 8, 16)),
        ("AutoencoderKLHunyuanVideo", (4, 8, 16)),
        ("AutoencoderKLHunyuanVideo15", (4, 16, 32)),
        ("AutoencoderKLCogVideoX", (4, 8, 16)),
        ("AutoencoderKLCosmos", (8, 8, 16)),
        ("AutoencoderKLMochi", (6, 8, 12)),
    ],
)
def test_what_a_config_leaves_out_is_the_default_of_its_class(
    class_name: str, grid: tuple[int, int, int]
) -> None:
    config = read(class_name)
    assert (config.temporal_stride, config.spatial_stride, config.channels) == grid
    assert len(config.latents_mean) % config.channels == 0


@pytest.mark.parametrize("class_name", ["AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video"])
def test_ltx_counts_what_each_block_halves(class_name: str) -> None:
    """The library's own formula says 64 and 16 of the second of these."""

    def strides(**config: Any) -> tuple[int, int]:
        read = read_config({"_class_name": class_name, "patch_size": 4, **config}, BUFFERS)
        return read.spatial_stride, read.temporal_stride

    new = {
        "down_block_types": ["LTXVideo095DownBlock3D"] * 4,
        "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
    }
    conv = new | {"downsample_type": ["conv"] * 4}
    assert strides(**new, spatio_temporal_scaling=[True] * 4) == (32, 8)
    assert strides(**new, spatio_temporal_scaling=[False, True, True, False]) == (8, 4)
    assert strides(**conv, spatio_temporal_scaling=[True, True, True, False]) == (32, 8)
    assert strides(**conv, spatio_temporal_scaling=True) == (64, 16)
    old = new | {"down_block_types": ["LTXVideoDownBlock3D"] * 4}
    assert strides(**old, spatio_temporal_scaling=[True, True, True, False]) == (32, 8)
    assert strides(spatial_compression_ratio=16, temporal_compression_ratio=2) == (16, 2)


def test_wan_22_says_its_strides_itself() -> None:
    config = read(
        "AutoencoderKLWan", z_dim=48, patch_size=2, scale_factor_spatial=16,
        latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
    )  # fmt: skip
    assert (config.spatial_stride, config.temporal_stride, config.channels) == (16, 4, 48)


def test_constants_of_the_config_stand_as_they_are() -> None:
    config = read("AutoencoderKLWan", z_dim=4, latents_mean=MEAN, latents_std=STD)
    assert (list(config.latents_mean), list(config.latents_std)) == (MEAN, STD)


def test_a_scaling_factor_divides_the_deviation() -> None:
    scaled = read("AutoencoderKLHunyuanVideo", latent_channels=2, scaling_factor=0.5)
    assert (scaled.latents_mean, scaled.latents_std) == ((0.0, 0.0), (2.0, 2.0))
    both = read(
        "AutoencoderKLMochi", latent_channels=4, scaling_factor=0.5,
        latents_mean=MEAN, latents_std=STD,
    )  # fmt: skip
    assert both.latents_std == tuple(2 * value for value in STD)
    shifted = read("AutoencoderKLCogVideoX", latent_channels=2, scaling_factor=2, shift_factor=0.3)
    assert (shifted.latents_mean, shifted.latents_std) == ((0.3, 0.3), (0.5, 0.5))


def test_cogvideox_15_inverts_its_factor_for_still_conditions_alone() -> None:
    plain, inverted = (
        read("AutoencoderKLCogVideoX", scaling_factor=0.7, invert_scale_latents=flag)
        for flag in (False, True)
    )
    assert plain.latents_std == inverted.latents_std == (1 / 0.7,) * 16


def test_cosmos_has_constants_per_latent_frame_and_half_the_deviation() -> None:
    config = read("AutoencoderKLCosmos")
    assert len(config.latents_mean) == len(config.latents_std) == 16 * 16
    default = diffusers.models.autoencoders.autoencoder_kl_cosmos.LATENTS_STD
    assert config.latents_std == tuple(2 * value for value in default)
    bare = read("AutoencoderKLCosmos", latents_mean=None, latents_std=None)
    assert (bare.latents_mean, bare.latents_std) == ((0.0,) * 16, (2.0,) * 16)


def test_ltx_has_its_constants_among_the_weights(tmp_path: Path) -> None:
    names = ("latents_mean", "latents_std")
    buffers = read_buffers(save("ltx090", tmp_path), names)
    config = read_config(json.loads((tmp_path / "config.json").read_text()), buffers)
    mean, std = (constants(8)[name] for name in names)
    assert config.latents_mean == pytest.approx(mean)
    assert config.latents_std == pytest.approx([value / 0.9 for value in std])  # scaling_factor


@pytest.mark.parametrize(
    "config",
    [
        {"latents_std": None},
        {"latents_mean": [0.0] * 5, "latents_std": [1.0] * 5},
        {"latents_mean": [0.0] * 16, "latents_std": [0.0] * 16},
        {"latents_mean": [float("nan")] * 16},
        {"latents_mean": [], "latents_std": []},
        {"scale_factor_spatial": 7.5},
        {"scale_factor_temporal": "four"},
        {"z_dim": None},
        {"scale_factor_temporal": None, "temperal_downsample": None},
    ],
)
def test_a_config_that_contradicts_itself_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"AutoencoderKLWan.*config\.json"):
        read("AutoencoderKLWan", **config)


def test_keys_of_the_library_itself_are_left_out() -> None:
    config = read("AutoencoderKLWan", _diffusers_version="0.1", _name_or_path="/x", z_dim=16)
    assert config.full["z_dim"] == 16
    assert not [key for key in config.full if key.startswith("_")]


def test_what_latents_depend_on_has_the_defaults_and_nothing_of_the_decoder() -> None:
    config = read("AutoencoderKLMochi", latent_channels=12)
    assert config.encoding["latent_channels"] == 12
    assert config.encoding["temporal_expansions"] == (1, 2, 3)
    assert "encoder_block_out_channels" in config.encoding
    assert "decoder_block_out_channels" not in config.encoding


@pytest.mark.parametrize("class_name", [*REFUSED, "AutoencoderTiny", "UNet2DModel", "None"])
def test_other_classes_are_refused_by_name(class_name: str) -> None:
    with pytest.raises(UsageError, match=rf"an {class_name}, which is not.*AutoencoderKLWan"):
        read(class_name)


def test_the_library_has_every_class_that_is_named() -> None:
    taken = [family.class_name for family in FAMILIES]
    assert all(hasattr(diffusers, name) for name in [*taken, *REFUSED])
