"""Learned encoders on a device: in which precision they compute, and in how much memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from telecine.encoders import device
from telecine.encoders.device import Device, picture
from telecine.encoders.frames import FrameBlock, Latents
from telecine.encoders.video import tiles
from telecine.encoders.video.diffusers import DiffusersEncoder
from telecine.encoders.video.model import _check_equal
from telecine.infra.errors import OutOfDeviceMemory, UsageError
from telecine.manifests.specs import VaeSpec
from telecine.testing.media import cut, noise, smooth
from tests.support.live_bytes import LiveBytes
from tests.support.vaes import TINY, save

Encoder = Callable[..., DiffusersEncoder]
FRAMES = 25  # valid for every class


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """By name and options."""
    folder: Callable[[str], Path] = functools.cache(
        lambda name: save(name, tmp_path_factory.mktemp(name))
    )
    return lambda name, dtype="float32", **options: DiffusersEncoder(
        VaeSpec(encoder=f"diffusers:{folder(name)}", dtype=dtype, **options)
    )


def encode(encoder: DiffusersEncoder, clip: FrameBlock) -> Latents:
    frames = clip.shape[0]
    return encoder.encode(cut(clip, encoder.block_sizes(frames)), frames)


def clip_for(encoder: DiffusersEncoder, frames: int = FRAMES) -> FrameBlock:
    return smooth(frames, 2 * encoder.spatial_stride, 3 * encoder.spatial_stride)


# Precision


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in TINY if name != "cosmos"])  # not on a CPU
def test_half_precision_is_near_to_full(name: str, dtype: str, encoder: Encoder) -> None:
    full, half = encoder(name), encoder(name, dtype)
    clip = clip_for(full)
    expected = encode(full, clip).astype(np.float32)
    error = encode(half, clip) - expected
    assert 0 < np.sqrt(np.mean(error**2)) < 0.05 * expected.std()


@pytest.fixture
def allowed() -> Iterator[list[Any]]:
    """Where TF32 is allowed; put back as it was."""
    settings: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = True
    yield settings
    for setting, value in zip(settings, before, strict=True):
        setting.allow_tf32 = value


def test_float32_is_no_tf32_while_it_computes(allowed: list[Any]) -> None:
    def failing() -> None:
        with Device("cpu", torch.float32).computing():
            assert not any(setting.allow_tf32 for setting in allowed)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert all(setting.allow_tf32 for setting in allowed)


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        (torch.float16, "float16: set .* 'bfloat16' or 'float32'"),
        (torch.bfloat16, "bfloat16: set .* 'float32'"),
        (torch.float32, "float32: its weights are damaged"),
    ],
)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_overflows_is_not_blamed_on_the_config(
    dtype: torch.dtype, advice: str, bad: float
) -> None:
    good = torch.ones(3, dtype=dtype)
    for pair in ((good, good * bad), (good * bad, good), (good * bad, good * bad)):
        with pytest.raises(UsageError, match=f"gives NaN or infinity in {advice}"):
            _check_equal("two", *pair)
    _check_equal("two", good, good)


def test_a_model_that_overflows_float16_says_so_at_the_first_clip(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = encoder("wan21", "float16")
    monkeypatch.setattr(
        torch.nn.Conv3d, "forward", lambda self, x: self._conv_forward(x, self.weight * 1e4, None)
    )
    with pytest.raises(UsageError, match=r"NaN or infinity in float16: .*'bfloat16'"):
        encode(half, clip_for(half))


# Memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_are_converted_a_few_at_a_time(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = noise(32, 64, 64)
    host = Device("cpu", dtype)
    at_once = host.pixels(block)
    monkeypatch.setattr(device, "PIXELS_AT_ONCE", 3 * 64 * 64)
    with LiveBytes() as count:
        by_few = host.pixels(block)
    assert torch.equal(at_once, by_few)
    kept = by_few.nbytes + sum(plane.nbytes for plane in block.planes)
    assert kept < count.peak < kept + 3 * 64 * 64 * 32  # 32 B for each of three frames' pixels


def test_pixels_become_a_picture_frame_by_frame() -> None:
    pixels = torch.rand((1, 3, 32, 64, 64)) * 2.2 - 1.1
    with LiveBytes() as count:
        made = picture(pixels)
    expected = (pixels[0] + 1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    assert np.array_equal(made, expected.permute(1, 2, 3, 0))
    assert count.peak < pixels.nbytes + 1.5 * made.nbytes


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[torch.nn.Module]], None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return lambda module: monkeypatch.setattr(module, "forward", refuse)


Refuse = Callable[[type[torch.nn.Module]], None]


def test_a_model_too_large_for_its_probe_is_not_blamed_on_its_config(
    encoder: Encoder, too_large: Refuse
) -> None:
    ours = encoder("wan21")
    too_large(torch.nn.Conv3d)
    with pytest.raises(OutOfDeviceMemory, match=r"weights in .* do not fit .*--gpus 1"):
        encode(ours, clip_for(ours))


@pytest.mark.parametrize("name", ["wan21", "hunyuan", "mochi"])
def test_a_clip_too_large_says_what_to_set(name: str, encoder: Encoder, too_large: Refuse) -> None:
    ours = encoder(name)
    clip = clip_for(ours)
    latents = encode(ours, clip)
    most = max(ours.block_sizes(FRAMES))
    too_large(torch.nn.Conv3d)
    asked = rf"24×16, {most} frames at once, do not fit .*tile.*window.*--gpus 1"
    with pytest.raises(OutOfDeviceMemory, match=asked):
        encode(ours, clip)
    with pytest.raises(OutOfDeviceMemory, match=r"latents \(4, .*do not fit.*CUDA_VISIBLE"):
        list(ours.decode(latents))


def test_what_tiles_weigh_is_worked_out_once_for_a_clip(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def weights(spans: list[tuple[int, int]], side: int) -> list[torch.Tensor]:
        calls.append(side)
        return real(spans, side)

    real = tiles.weights
    monkeypatch.setattr(tiles, "weights", weights)
    ours = encoder("wan21", tile=32, tile_overlap=16)
    encode(ours, smooth(FRAMES, 48, 64))
    assert calls == [6, 8]
