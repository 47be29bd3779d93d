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

import numpy as np
import torch

from encoders.frames import FrameBlock, Latents, Pixels
from infra.errors import UsageError

IN_FLIGHT = 2  # pushes whose results have not landed: bounds pinned memory and the queue
CUDNN_FOR_BFLOAT16 = 91500  # 9.15: older ones have no good bfloat16 3-D convolutions


class Device:
    """A torch device with, on CUDA, a stream to copy on and one to compute on."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        """Raises UsageError where there is no such device."""
        self.dtype = dtype
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
        with torch.inference_mode():
            if self.cuda:
                self._computing.wait_stream(torch.cuda.default_stream(self.torch))
                with torch.cuda.stream(self._computing):
                    yield
                return
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                yield
            finally:
                torch.set_num_threads(threads)

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
        """[1, 3, t, H, W] in [-1, 1]: `FrameBlock.rgb()` / 127.5 - 1."""
        sx, sy = block.subsampling
        planes = [self.send(torch.from_numpy(np.ascontiguousarray(p))) for p in block.planes]
        y, cb, cr = planes[0].float(), *(_replicated(p, sy, sx).float() for p in planes[1:])
        matrix = np.array(block.colors.matrix, np.float32).reshape(3, 3)
        # One product and one sum at a time, in rgb()'s order: exactly its rounding.
        channels = [
            ((y * float(a) + cb * float(b)) + cr * float(c)) + float(np.float32(d))
            for (a, b, c), d in zip(matrix, block.colors.offset, strict=True)
        ]
        rgb = torch.stack(channels).round_().clamp_(0, 255)
        # By a tensor, since CUDA divides by a number as it multiplies by its inverse.
        return rgb.div_(rgb.new_full((), 127.5)).sub_(1)[None].to(self.dtype)


def picture(pixels: torch.Tensor) -> Pixels:
    """[1, 3, t, H, W] in [-1, 1] as uint8 [t, H, W, 3], rounded and clipped."""
    rgb = pixels[0].float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(rgb.permute(1, 2, 3, 0).cpu().numpy())


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
            event, made = torch.cuda.Event(), host  # type: ignore[no-untyped-call]
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
