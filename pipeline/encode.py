"""encode: one clip's frames through the encoder, in bounded memory.

decode thread   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
encoder            ████████████████      at most `ahead` blocks wait in between
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO, TypeVar, cast

import numpy as np

from encoders.frames import Latents
from encoders.video import VideoEncoder
from infra.errors import MediaError, Reason
from infra.storage import ObjectInfo, Storage
from manifests.schemas import Clip, Source
from manifests.specs import PixelSpec
from pipeline.decode import decode_clip
from pipeline.plan import Encoding

Value = TypeVar("Value")


def encode_clip(
    clip: Clip,
    source: Source,
    encoding: Encoding,
    *,
    encoder: VideoEncoder,
    pixels: PixelSpec,
    storage: Storage,
    ahead: int,
) -> tuple[Latents, int]:
    """Normalised latents float16 [C, T', H', W'] of one clip, and the bytes read for them.

    Raises MediaError where the footage no longer gives the frames that the scan saw, or the
    latents are not finite; StorageError where it cannot be read.
    """

    def attempt(from_start: bool) -> tuple[Latents, int]:
        with storage.open(ObjectInfo(source.uri, source.size_bytes, source.version)) as file:
            blocks = decode_clip(
                cast("BinaryIO", file),
                source,
                clip,
                encoding.rate,
                encoding.frames,
                encoding.crop,
                encoder.block_sizes(encoding.frames),
                pixels,
                from_start,
            )
            latents = encoder.encode(run_ahead(blocks, ahead), encoding.frames)
            return latents, file.bytes_read

    try:
        latents, bytes_read = attempt(from_start=False)
    except MediaError as error:
        if error.reason is not Reason.FRAMES_MISMATCH:
            raise
        # A container's index can be wrong; decoding from the beginning cannot.
        latents, bytes_read = attempt(from_start=True)
    if not np.isfinite(latents).all():
        raise MediaError(Reason.NOT_FINITE, "the encoder returned NaN or infinity")
    return latents, bytes_read


def run_ahead(values: Iterator[Value], ahead: int) -> Iterator[Value]:
    """The same values, made on a thread of their own up to `ahead` early; 0: made when asked for.

    An error of the maker is raised where its value would have come. A reader that stops early
    stops the maker.
    """
    if ahead == 0:
        yield from values
        return
    ready: queue.Queue[tuple[Value | None, BaseException | None]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: tuple[Value | None, BaseException | None]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def make() -> None:
        try:
            for value in values:
                put((value, None))
                if stopped.is_set():
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, StopIteration()))

    maker = threading.Thread(target=make, name="decode", daemon=True)
    maker.start()
    try:
        while True:
            value, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        maker.join()
