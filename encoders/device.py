"""Between frames in host memory and tensors on a torch device.

    planes uint8 ──▶ pinned ──copy stream──▶ RGB, rounded and clipped ──▶ [1, 3, t, H, W] in [-1, 1]
    latents float16 ◀── pinned ◀── compute stream, landing while the next blocks are computed

On a CPU the same functions compute, without streams and on one thread: so latents are the same
bytes however many cores and workers there are.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from telecine.encoders.frames import FrameBlock, Latents, Pixels
from telecine.infra.errors import OutOfDeviceMemory, UsageError

IN_FLIGHT = 2  # pushes whose results have not landed: bounds pinned memory and the queue
PIXELS_AT_ONCE = 1 << 20  # converted: in float32 they need many times what they came as
CUDNN_FOR_BFLOAT16 = 91500  # 9.15: older ones have no good bfloat16 3-D convolutions


class Device:
    """A torch device with, on CUDA, a stream to copy on and one to compute on."""

    def __init__(
        self, name: str, dtype: torch.dtype, pixel_dtype: torch.dtype | None = None
    ) -> None:
        """Computes in `dtype`, and gives pixels in it where `pixel_dtype` says no other.

        Raises UsageError where there is no such device.
        """
        self.dtype, self.pixel_dtype = dtype, pixel_dtype or dtype
        try:
            self.torch = torch.device(name)
            torch.empty(0, device=self.torch)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"there is no torch device {name!r} here: {error}") from error
        self.cuda = self.torch.type == "cuda"
        if self.cuda:
            _warn_of_slow_convolutions(dtype)
            self._copying = torch.cuda.Stream(self.torch)  # type: ignore[no-untyped-call]
            self._computing = torch.cuda.Stream(self.torch)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Everything inside is inference, on the device's own stream or on one thread."""
        with torch.inference_mode(), _without_tf32():
            if self.cuda:
                self._computing.wait_stream(torch.cuda.default_stream(self.torch))
                with torch.cuda.stream(self._computing):
                    yield
                return
            with threads(1):
                yield

    @contextlib.contextmanager
    def fitting(self, what: str, advice: str) -> Iterator[None]:
        """Raises OutOfDeviceMemory, with both, where what is done inside is too much for a GPU."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            size = ""
            if self.cuda:
                _, total = torch.cuda.mem_get_info(self.torch)
                size = f"{total / 2**30:.0f} GiB of "
            raise OutOfDeviceMemory(
                f"{what} do not fit in the {size}memory of {self.torch}: {advice}"
            ) from error

    def send(self, array: torch.Tensor) -> torch.Tensor:
        """A host tensor on the device; on CUDA, copied while it computes."""
        if not self.cuda:
            return array.to(self.torch)
        with torch.cuda.stream(self._copying):
            sent = array.pin_memory().to(self.torch, non_blocking=True)
        self._computing.wait_stream(self._copying)
        sent.record_stream(self._computing)
        return sent

    def pixels(self, block: FrameBlock) -> torch.Tensor:
        """[1, 3, t, H, W] in [-1, 1]: `FrameBlock.rgb()` / 127.5 - 1, a few frames at a time."""
        sx, sy = block.subsampling
        frames, height, width = block.shape
        planes = [self.send(torch.from_numpy(np.ascontiguousarray(p))) for p in block.planes]
        matrix = np.array(block.colors.matrix, np.float32).reshape(3, 3)
        pixels = torch.empty(
            (1, 3, frames, height, width), dtype=self.pixel_dtype, device=self.torch
        )
        # A tensor, since CUDA divides by a number as it multiplies by its inverse.
        half = torch.full((), 127.5, device=self.torch)
        step = max(PIXELS_AT_ONCE // (height * width), 1)
        for span in (slice(start, start + step) for start in range(0, frames, step)):
            y, cb, cr = (
                _replicated(plane[span], *by).float()
                for plane, by in zip(planes, ((1, 1), (sy, sx), (sy, sx)), strict=True)
            )
            for channel, ((a, b, c), d) in enumerate(zip(matrix, block.colors.offset, strict=True)):
                # One product and one sum at a time, in rgb()'s order: exactly its rounding.
                mapped = ((y * float(a) + cb * float(b)) + cr * float(c)) + float(np.float32(d))
                pixels[0, channel, span] = mapped.round_().clamp_(0, 255).div_(half).sub_(1)
        return pixels


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes on so many cores of the CPU inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def picture(pixels: torch.Tensor) -> Pixels:
    """[1, 3, t, H, W] in [-1, 1] as uint8 [t, H, W, 3], rounded and clipped; by single frames."""
    frames = pixels[0].permute(1, 2, 3, 0)
    rgb = torch.empty(frames.shape, dtype=torch.uint8, device=pixels.device)
    for made, frame in zip(rgb, frames, strict=True):
        made.copy_(frame.float().add(1).mul_(127.5).round_().clamp_(0, 255))
    return rgb.cpu().numpy()


def _replicated(plane: torch.Tensor, sy: int, sx: int) -> torch.Tensor:
    frames, height, width = plane.shape
    wide = plane[:, :, None, :, None].expand(frames, height, sy, width, sx)
    return wide.reshape(frames, height * sy, width * sx)


class Landing:
    """Latents on their way from the device into one array, in the order in which they are made."""

    def __init__(self, device: Device, latents: Latents) -> None:
        self._cuda = device.cuda
        self._latents = latents
        self._done = 0
        self._flying: deque[tuple[torch.Tensor, torch.cuda.Event | None]] = deque()

    def land(self, made: torch.Tensor) -> None:
        """[C, t', H', W']: the next latent frames, of any t' ≥ 0. Waits for all but the last few.

        Raises ValueError where they do not fit.
        """
        event = None
        made = made.to(torch.float16)
        if self._cuda:
            host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
            host.copy_(made, non_blocking=True)
            # Else a thread that waits for it keeps a core busy.
            event, made = torch.cuda.Event(blocking=True), host  # type: ignore[no-untyped-call]
            event.record()
        self._flying.append((made, event))
        while len(self._flying) > IN_FLIGHT:
            self._settle()

    def finish(self) -> None:
        """Waits for what is left. Raises ValueError where latent frames are missing."""
        while self._flying:
            self._settle()
        if self._done != self._latents.shape[1]:
            raise ValueError(f"{self._done} latent frames came: expected {self._latents.shape[1]}")

    def _settle(self) -> None:
        made, event = self._flying.popleft()
        if event is not None:
            event.synchronize()
        span = slice(self._done, self._done + made.shape[1])
        if self._latents[:, span].shape != made.shape:
            raise ValueError(f"latents {tuple(made.shape)} do not fit {self._latents.shape}")
        self._latents[:, span] = made.numpy()
        self._done = span.stop


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """float32 with all its bits: cuDNN's convolutions else keep 10 of the 23 after the point."""
    settings: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [setting.allow_tf32 for setting in settings]
    try:
        for setting in settings:
            setting.allow_tf32 = False
        yield
    finally:
        for setting, allowed in zip(settings, before, strict=True):
            setting.allow_tf32 = allowed


@functools.cache
def _warn_of_slow_convolutions(dtype: torch.dtype) -> None:
    cudnn = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
    slow = dtype == torch.bfloat16 and cudnn < CUDNN_FOR_BFLOAT16
    if slow or torch.__version__.startswith("2.9.0"):
        logging.getLogger("telecine").warning(
            "torch %s with cuDNN %s: 3-D convolutions in %s may take many times their time and "
            "memory; use torch 2.9.1 or later with cuDNN 9.15 or later",
            torch.__version__, cudnn, dtype,
        )  # fmt: skip
