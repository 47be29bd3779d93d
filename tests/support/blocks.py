"""Frame blocks of real footage, read with bare PyAV, and how near two pictures are."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from telecine.encoders.frames import ColorMap, FrameBlock, Pixels
from telecine.testing.media import BT709


def real(path: Path, frames: int, skip: int = 0, colors: ColorMap = BT709) -> FrameBlock:
    """Consecutive yuv420p frames of a file, cropped at the right and bottom to multiples of 16."""
    planes: tuple[list[Pixels], ...] = ([], [], [])
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= skip + frames:
                break
            if index >= skip:
                height, width = frame.height // 16 * 16, frame.width // 16 * 16
                for plane, kept, step in zip(frame.planes, planes, (1, 2, 2), strict=True):
                    samples: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(
                        -1, plane.line_size
                    )
                    kept.append(samples[: height // step, : width // step].copy())
    y, cb, cr = (np.stack(plane) for plane in planes)
    return FrameBlock((y, cb, cr), colors)


def psnr(given: Pixels, expected: Pixels) -> float:
    """dB over all samples of 8-bit pictures; 120 where they are equal."""
    error = np.subtract(given, expected, dtype=np.float32)
    return float(10 * np.log10(255**2 / max(np.mean(error**2), 255**2 * 1e-12)))
