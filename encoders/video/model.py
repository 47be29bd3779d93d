"""A VAE in memory: loaded from its folder, and held against what its config says of it.

The probe encodes two short clips of noise, at the smallest sizes, as the library itself would and
as we stream them. A config that lies, a class that the library changed, or a stream that has come
to differ from the model's own `encode` is found before it makes a single latent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from telecine.encoders.device import Device
from telecine.encoders.video.config import VaeConfig, library_class
from telecine.encoders.video.families.base import Streaming
from telecine.infra.errors import UsageError

ENCODER = ("encoder.", "quant_conv.")  # how the tensors begin that make latents

Encode = Callable[[torch.Tensor], torch.Tensor]

SIDES = (2, 3)  # latents of the probe, down and across
PUSHES = 3  # of the clip that is streamed: a first, one that needs what came before, a last
MOST_FRAMES = 64  # of the clip that is streamed
# Largest difference between streamed and own parameters, as a share of the largest of these.
# Another number of frames at a time makes torch choose other algorithms, which round otherwise.
_NOT_FINITE = {
    "float16": "set [vae] dtype = 'bfloat16' or 'float32'",
    "bfloat16": "set [vae] dtype = 'float32'",
    "float32": "its weights are damaged",
}
TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def load(folder: Path, config: VaeConfig, device: Device, streaming: Streaming) -> Any:
    """The model, ready to encode and decode. Raises UsageError where it is not what it says."""
    try:
        vae, loading = library_class(config.class_name).from_pretrained(
            folder,
            torch_dtype=device.dtype,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # True needs accelerate, and builds buffers without values
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(f"the {config.class_name} in {folder} does not load: {error}") from error
    absent = [*loading["missing_keys"], *loading["mismatched_keys"]]
    if absent:
        raise UsageError(
            f"the weights in {folder} lack what their config asks for, as {absent[0]}: they are "
            f"those of another model ({len(absent)} tensors missing or of another shape)"
        )
    surplus = [key for key in loading["unexpected_keys"] if key.startswith(ENCODER)]
    if surplus:
        raise UsageError(
            f"the weights in {folder} hold {surplus[0]}, which their config does not ask for: it "
            f"is that of another model ({len(surplus)} tensors of the encoder unused)"
        )
    vae = vae.eval().requires_grad_(False).to(device.torch)
    config.family.prepare(vae, device.dtype)
    with device.computing():
        _probe(vae, config, device, streaming, str(folder))
    return vae


def _probe(vae: Any, config: VaeConfig, device: Device, streaming: Streaming, folder: str) -> None:
    def own(pixels: torch.Tensor) -> torch.Tensor:
        parameters: torch.Tensor = vae.encode(pixels).latent_dist.parameters
        return parameters

    def streamed(pixels: torch.Tensor) -> torch.Tensor:
        return stream_clip(vae, streaming, pixels)

    try:
        clip = _noise(config, device, _frames_to_push(config, streaming))
        for encode in (own, streamed):
            for frames in (1, 1 + 2 * config.chunk, clip.shape[2]):
                _check_shape(encode, clip[:, :, :frames], config)
        if config.causal:
            _check_equal("its first latent and that of its first frame alone",
                         own(clip[:, :, :1]), own(clip)[:, :, :1])  # fmt: skip
        if streaming.identity() is None:
            _check_equal("the streamed latents and its own", streamed(clip), own(clip))
    except torch.OutOfMemoryError:
        raise  # it says nothing of the config
    except NotImplementedError as error:
        raise UsageError(
            f"the {config.class_name} in {folder} does not compute in {device.dtype} on "
            f"{device.torch.type} ({error}): set [vae] dtype = 'float32'"
        ) from error
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the {config.class_name} in {folder} is not what its config says: {error}"
        ) from error


def stream_clip(vae: Any, streaming: Streaming, pixels: torch.Tensor) -> torch.Tensor:
    """Parameters [1, P, T', H', W'] of a clip [1, 3, T, H, W], pushed in pieces."""
    frames = pixels.shape[2]
    stream = streaming.open(vae, frames)
    pieces = torch.split(pixels, list(streaming.chunks(frames)), dim=2)
    return torch.cat([stream.push(piece) for piece in pieces], dim=2)


def _frames_to_push(config: VaeConfig, streaming: Streaming) -> int:
    """The shortest clip of several pushes; where all frames go at once, of three latent frames."""
    for frames in range(1 + 2 * config.chunk, MOST_FRAMES, config.chunk):
        if len(list(itertools.islice(streaming.chunks(frames), PUSHES))) == PUSHES:
            return frames
    return 1 + 2 * config.chunk


def _noise(config: VaeConfig, device: Device, frames: int) -> torch.Tensor:
    height, width = (config.spatial_stride * side for side in SIDES)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((1, 3, frames, height, width), generator=generator)
    return (noise * 2 - 1).to(device.torch, device.pixel_dtype)


def _check_shape(encode: Encode, clip: torch.Tensor, config: VaeConfig) -> None:
    """Raises ValueError where strides or channels are others than the config's."""
    frames, height, width = clip.shape[2:]
    channels = config.channels * (2 if config.family.gaussian else 1)
    expected = (channels, 1 + (frames - 1) // config.temporal_stride, *SIDES)
    given = tuple(encode(clip).shape[1:])
    if given != expected:
        raise ValueError(
            f"{frames} frames of {width}×{height} became {given} of channels, frames, rows and "
            f"columns; expected {expected}, for strides {config.temporal_stride} (time) and "
            f"{config.spatial_stride} (space) and {config.channels} latent channels"
        )


def _check_equal(what: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """Raises ValueError where they differ by more than their rounding, UsageError where one is
    not finite.
    """
    if not (a.isfinite().all() and b.isfinite().all()):
        dtype = str(b.dtype).removeprefix("torch.")
        raise UsageError(f"the VAE gives NaN or infinity in {dtype}: {_NOT_FINITE[dtype]}")
    largest = float((a.float() - b.float()).abs().max() / b.float().abs().max())
    if not largest <= TOLERANCE[b.dtype]:
        raise ValueError(f"{what} differ by {largest:.2g} of the largest, more than by rounding")
