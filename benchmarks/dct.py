"""How fast the `dct` encoder is on one core, against decoding the same pictures.

    OMP_NUM_THREADS=1 python benchmarks/dct.py

At each size it renders a short H.264 file of drifting texture, decodes it with bare PyAV on one
thread and encodes the planes it was rendered from, in turns, and prints the best of each in frames
per CPU second. Compare the ratios: a busy machine slows both. One of two cores of a virtual AMD
EPYC (Zen 4), with other work beside it:

    size         decode/s   encode/s   encode ÷ decode   to pixels/s
    848×480           912       2161              2.37           829
    1280×720          434       1077              2.48           390
    1920×1072         200        415              2.08           174
"""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial

import av
import numpy as np

from telecine.encoders.frames import ColorMap, FrameBlock, Latents, Pixels
from telecine.encoders.video.dct import DctEncoder

SIZES = ((848, 480), (1280, 720), (1920, 1072))
FRAMES = 65
ROUNDS = 5
BT709 = ColorMap(
    (1.1643836, 0.0, 1.7927411, 1.1643836, -0.2132486, -0.5329093, 1.1643836, 2.1124018, 0.0),
    (-248.10100, 76.878084, -289.01757),
)
Planes = tuple[Pixels, Pixels, Pixels]


def texture(width: int, height: int) -> Planes:
    """FRAMES frames of blurred noise that drifts a pixel or so a frame, with a little grain."""
    random = np.random.default_rng(0)

    def plane(width: int, height: int, swing: int) -> Pixels:
        field = random.normal(0, 1, (height, width + FRAMES))
        for _ in range(6):
            field += np.roll(field, 1, 0) + np.roll(field, 1, 1) + np.roll(field, -1, 1)
            field /= field.std()
        out = np.empty((FRAMES, height, width), np.uint8)
        for index in range(FRAMES):
            grain = random.normal(0, 1.5, (height, width))
            moved = 120 + swing * field[:, index : index + width] + grain
            out[index] = np.clip(moved, 16, 235)
        return out

    chroma = (width // 2, height // 2, 8)
    return plane(width, height, 30), plane(*chroma), plane(*chroma)


def h264(planes: Planes) -> bytes:
    """An MP4 at about a streaming service's quality."""
    file = io.BytesIO()
    _, height, width = planes[0].shape
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", 24, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(FRAMES):
            packed = [plane[index].ravel() for plane in planes]
            array = np.concatenate(packed).reshape(-1, width)
            frame = av.VideoFrame.from_ndarray(array, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode(data: bytes) -> None:
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in container.decode(video=0):
            pass


def encode(planes: Planes, encoder: DctEncoder) -> Latents:
    return encoder.encode(blocks(planes, encoder), FRAMES)


def invert(latents: Latents, encoder: DctEncoder) -> None:
    for _ in encoder.decode(latents):
        pass


def blocks(planes: Planes, encoder: DctEncoder) -> Iterator[FrameBlock]:
    start = 0
    for size in encoder.block_sizes(FRAMES):
        y, cb, cr = (plane[start : start + size] for plane in planes)
        yield FrameBlock((y, cb, cr), BT709)
        start += size


def per_second(*works: Callable[[], object]) -> list[float]:
    """Frames per second of each, best of ROUNDS, taken in turns."""
    best = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for index, work in enumerate(works):
            start = time.process_time()
            work()
            best[index] = min(best[index], time.process_time() - start)
    return [FRAMES / seconds for seconds in best]


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"NumPy {np.__version__}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    print("size         decode/s   encode/s   encode ÷ decode   to pixels/s")
    encoder = DctEncoder()
    for width, height in SIZES:
        planes = texture(width, height)
        data = h264(planes)
        decoded, encoded, inverted = per_second(
            partial(decode, data),
            partial(encode, planes, encoder),
            partial(invert, encode(planes, encoder), encoder),
        )
        size = f"{width}×{height}"
        ratio = encoded / decoded
        print(f"{size:<10} {decoded:10.0f} {encoded:10.0f} {ratio:17.2f} {inverted:13.0f}")


if __name__ == "__main__":
    main()
