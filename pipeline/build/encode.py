"""encode: one clip's frames through the encoder, in bounded memory.

decode thread   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
encoder            ████████████████      at most `ahead` blocks wait in between
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from telecine.encoders.frames import FrameBlock, Latents
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import MediaError, Reason
from telecine.infra.prefetch import Values, run_ahead
from telecine.infra.store.storage import ObjectInfo, Storage
from telecine.manifests.schemas import Clip, Source
from telecine.manifests.specs import PixelSpec
from telecine.pipeline.build.latents import Canary
from telecine.pipeline.build.plan import Encoding
from telecine.pipeline.media.aside import Aside
from telecine.pipeline.media.decode import Cut, decode_clip
from telecine.pipeline.media.timing import Shown


class ClipFrames:
    """The frames of one clip that an encoding takes, in the encoder's blocks.

    Decoding begins at once and runs `ahead` blocks ahead of who reads them; with 0, it waits to be
    asked. Close it.
    """

    def __init__(
        self,
        clip: Clip,
        source: Source,
        encoding: Encoding,
        encoder: VideoEncoder,
        *,
        pixels: PixelSpec,
        storage: Storage,
        ahead: int,
        asides: Sequence[Aside] = (),
    ) -> None:
        """`asides`: other cuts of the clip, that are made while this one is decoded."""
        self.clip, self.encoding = clip, encoding
        self._asides = tuple(asides)
        self.bytes_read = 0
        self._shown = Shown()
        self._source, self._encoder = source, encoder
        self._pixels, self._storage = pixels, storage
        self._ahead = ahead
        self.blocks = self._started(from_start=False)

    def close(self) -> None:
        self.blocks.close()

    def restart(self) -> None:
        """Once more, from the source's beginning: its index cannot be trusted."""
        self.close()
        self.blocks = self._started(from_start=True)

    @property
    def shown(self) -> dict[str, int]:
        """What was made of the clip's native frames, once all blocks are read."""
        return _shown(self.clip, self._shown)

    def _started(self, from_start: bool) -> Values[FrameBlock]:
        return run_ahead(self._decoded(from_start), self._ahead, "decode")

    def _decoded(self, from_start: bool) -> Generator[FrameBlock, None, None]:
        source, encoding = self._source, self.encoding
        cut = dataclasses.replace(_cut(encoding, self._encoder), asides=self._asides)
        self._shown = cut.shown
        with self._storage.open(ObjectInfo(source.uri, source.size_bytes, source.version)) as file:
            try:
                yield from decode_clip(
                    cast("BinaryIO", file), source, self.clip, cut, self._pixels, from_start
                )
            finally:
                self.bytes_read += file.bytes_read


def aside_of(clip: Clip, encoding: Encoding, encoder: VideoEncoder) -> Aside:
    """For an encoding whose frames come while the clip is decoded for another one."""
    return Aside(clip, _cut(encoding, encoder))


def _cut(encoding: Encoding, encoder: VideoEncoder) -> Cut:
    return Cut(
        encoding.rate,
        encoding.frames,
        encoding.crop,
        encoder.block_sizes(encoding.frames),
        encoding.left_out,
        size=encoding.size,
    )


def _shown(clip: Clip, shown: Shown) -> dict[str, int]:
    """Columns of the sample's row.

    num_frames - frames_resampled_away + frames_repeated = encoded_frames + frames_left_out
    """
    if not shown.outputs:  # frame for frame
        return {"frames_resampled_away": 0, "frames_repeated": 0}
    return {
        "frames_resampled_away": clip.num_frames - shown.native,
        "frames_repeated": shown.repeated,
    }


@dataclass(frozen=True, slots=True)
class Encoded:
    latents: Latents  # float16 [C, T', H', W'], as stored
    psnr_db: float  # of a canary's round trip; else 0
    shown: Mapping[str, int]  # columns of the sample's row: frames that were picked by time


def encode_clip(frames: ClipFrames, encoder: VideoEncoder, *, canary: bool = False) -> Encoded:
    """The clip's latents, and of a canary how well its first frames come back from them.

    Raises MediaError where the footage no longer gives the frames that the scan saw, StorageError
    where it cannot be read.
    """
    try:
        return _encode(frames, encoder, canary)
    except MediaError as error:
        if error.reason is not Reason.FRAMES_MISMATCH:
            raise
    # A container's index can be wrong; decoding from the beginning cannot.
    frames.restart()
    return _encode(frames, encoder, canary)


def encode_aside(
    aside: Aside, clip: Clip, encoding: Encoding, encoder: VideoEncoder, *, canary: bool
) -> Encoded:
    """The same of frames that were laid aside, all of them."""
    blocks = aside.blocks()
    latents, psnr = _latents(blocks, encoding.frames, clip, encoder, canary)
    return Encoded(latents, psnr, _shown(clip, aside.shown))


def _encode(frames: ClipFrames, encoder: VideoEncoder, canary: bool) -> Encoded:
    count = frames.encoding.frames
    latents, psnr = _latents(frames.blocks, count, frames.clip, encoder, canary)
    return Encoded(latents, psnr, frames.shown)


def _latents(
    blocks: Iterator[FrameBlock], count: int, clip: Clip, encoder: VideoEncoder, canary: bool
) -> tuple[Latents, float]:
    """And a canary's PSNR in dB, else 0."""
    seed = int(clip.clip_id[:16], 16)  # the same for the same clip, whatever the build
    if not canary:
        return encoder.encode(blocks, count, seed), 0.0
    watcher = Canary(encoder, count)
    with contextlib.closing(watcher.watch(blocks)) as watched:
        latents = encoder.encode(watched, count, seed)
    return latents, watcher.psnr_db(latents)
