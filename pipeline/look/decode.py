"""decode: a sample's latents back to pictures, to look at, beside the footage they were made from.

    shard ── the bytes of one member ──▶ latents ──▶ decoder ─┬──▶ .mp4, every frame
    footage ── the sample's own crop and rate ──▶ frames ─────┘    .png, one of them

Frames go into the file as they come, so that no clip is ever held.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, repeat
from pathlib import Path
from statistics import fmean
from typing import BinaryIO, cast

import duckdb
import numpy as np

from telecine.encoders.frames import Latents, Pixels
from telecine.encoders.kinds import RunsOn
from telecine.encoders.load import encoder_kind, load_encoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import CheckFailed, MediaError, StorageError, UsageError
from telecine.infra.store import output
from telecine.infra.store.storage import ObjectInfo
from telecine.manifests.builds import BuildState, completed_build
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect, find_clip
from telecine.manifests.schemas import Clip, Sample, Source, from_arrow
from telecine.manifests.specs import VaeSpec
from telecine.manifests.tar import DTYPE, values_offset
from telecine.pipeline.build.latents import psnr_db
from telecine.pipeline.media.decode import Cut, decode_clip
from telecine.pipeline.media.film import write_mp4, write_png
from telecine.pipeline.media.geometry import Crop, reduced_size
from telecine.pipeline.progress import SILENT, Progress, Step

_ALONE = "Without --side-by-side the decoded frames are written alone"


@dataclass(frozen=True)
class Decoded:
    """What was written, and how far it is from the footage where that was asked for."""

    path: Path
    clip_id: str
    build: str  # name
    frames: int
    width: int  # px, of both pictures where they are side by side
    height: int  # px
    rate: Fraction  # frames per second; 0 of a picture
    psnr_db: tuple[float, ...] = ()  # of each frame against the original

    def __str__(self) -> str:
        frames = f"{self.frames} frames at {float(self.rate):g} fps" if self.rate else "1 frame"
        said = (
            f"{self.path}: {frames}, {self.width} × {self.height} px, "
            f"of clip {self.clip_id} in build {self.build}"
        )
        if not self.psnr_db:
            return said
        worst = min(self.psnr_db)
        said += f"\nPSNR against the original: {fmean(self.psnr_db):.2f} dB"
        if not self.rate:
            return said
        return said + f" on average, {worst:.2f} dB at worst (frame {self.psnr_db.index(worst)})"


@dataclass(frozen=True)
class View:
    """Which sample to look at, and how."""

    clip_id: str  # or how it begins
    build: str | None = None  # None: the current one
    side_by_side: bool = False  # beside the footage
    frame: int = 0  # of a .png
    vae: str | None = None  # where the build's weights lie now


def decode(
    dataset: Dataset,
    view: View,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Decoded:
    """Write the sample's pictures into a file, which is there whole or not at all.

    Raises UsageError where what is named is not to be had, StorageError where shard or footage
    cannot be read.
    """
    _check_form(out, view.frame)
    output.check_file(out, "-o", dataset=dataset.uri, overwrite=overwrite)
    con = connect(dataset.tables)
    found = completed_build(con, view.build)
    sample = sample_of(con, found, view.clip_id)
    _check_frames(out, view.frame, sample)
    pictures = _Pictures(encoder_of(found, view.vae), _latents(dataset, sample), sample, out, view)
    psnr: list[float] = []
    if view.side_by_side:
        footage = Footage.of(dataset, con, found, sample)
        try:
            psnr = pictures.write(footage.frames(), progress)
        except MediaError:  # a container's index can be wrong; decoding from the beginning cannot
            psnr = pictures.write(footage.frames(from_start=True), progress)
    else:
        pictures.write(None, progress)
    return Decoded(
        path=out,
        clip_id=sample.clip_id,
        build=found.name,
        frames=pictures.count if pictures.film else 1,
        width=sample.encoded_width * (2 if view.side_by_side else 1),
        height=sample.encoded_height,
        rate=pictures.rate,
        psnr_db=tuple(psnr if pictures.film else psnr[-1:]),
    )


@dataclass(frozen=True)
class _Pictures:
    """A sample's latents, and the file that shows them."""

    encoder: VideoEncoder
    latents: Latents
    sample: Sample
    out: Path
    view: View

    @property
    def film(self) -> bool:
        return self.out.suffix == ".mp4"

    @property
    def count(self) -> int:
        """Frames to decode: of a picture those before it too."""
        return self.sample.encoded_frames if self.film else self.view.frame + 1

    @property
    def rate(self) -> Fraction:
        """Frames per second; 0 of a picture"""
        return Fraction(self.sample.fps_num, self.sample.fps_den) if self.film else Fraction(0)

    def write(self, originals: Iterator[Pixels] | None, progress: Progress) -> list[float]:
        """Gives each frame's PSNR against the originals, which stand to its left."""
        psnr: list[float] = []
        shown = _exactly(self.count, chain.from_iterable(self.encoder.decode(self.latents)))
        if originals is not None:
            shown = _beside(originals, shown, psnr)
        with (
            output.writing(self.out) as file,
            Step(progress, "decode", "frames", self.count, self.count) as step,
        ):
            if self.film:
                write_mp4(file, _counted(shown, step), self.rate)
            else:
                write_png(file, deque(_counted(shown, step), maxlen=1).pop())
        return psnr


def _check_form(out: Path, frame: int) -> None:
    if out.suffix not in (".mp4", ".png"):
        raise UsageError(f"-o {out}: name a file that ends in .mp4, or in .png for one frame")
    if frame and out.suffix != ".png":
        raise UsageError(f"--frame {frame} is the one frame of a .png; {out} gets them all")


def _check_frames(out: Path, frame: int, sample: Sample) -> None:
    if frame >= sample.encoded_frames:
        raise UsageError(
            f"--frame {frame}: clip {sample.clip_id} was encoded with {sample.encoded_frames} "
            f"frames; its last is {sample.encoded_frames - 1}"
        )
    if sample.encoded_frames == 1 and out.suffix == ".mp4":
        raise UsageError(f"clip {sample.clip_id} is one frame: name a .png for it, not {out}")


# ── what is to be decoded ────────────────────────────────────────────────────────────────────────


def sample_of(con: duckdb.DuckDBPyConnection, build: BuildState, clip_id: str) -> Sample:
    """The build's sample whose clip_id begins so. Raises UsageError where there is none."""
    rows = f"(FROM live_samples WHERE build_id = '{build.build_id}')"
    whole = find_clip(con, clip_id, rows, f"build {build.name}")
    query = f"FROM {rows} WHERE clip_id = ?"
    (sample,) = from_arrow(con.sql(query, params=[whole]).to_arrow_table(), Sample)
    if sample.outcome != "kept":
        raise UsageError(
            f"clip {sample.clip_id} was left out of build {build.name}: "
            f"{sample.reason}: {sample.detail}"
        )
    return sample


def _vae(build: BuildState) -> VaeSpec:
    return VaeSpec.model_validate(json.loads(build.last.spec)["vae"])


def encoder_of(build: BuildState, vae: str | None) -> VideoEncoder:
    """The encoder of the build; `vae` is where its weights lie now."""
    spec = _vae(build)
    if vae is not None:
        spec = spec.model_copy(update={"encoder": vae})
    moved = f"If the weights of build {build.name} lie elsewhere now, say where with --vae"
    try:
        encoder = load_encoder(spec, _device(spec))
        given = encoder.fingerprint
    except UsageError as error:
        raise UsageError(f"{error}\n{moved}") from error
    if given != build.last.vae_fingerprint:
        raise UsageError(
            f"{spec.encoder} is not the encoder of build {build.name}: its fingerprint is "
            f"{given[:12]}..., the build's {build.last.vae_fingerprint[:12]}...\n{moved}"
        )
    return encoder


def _device(spec: VaeSpec) -> str:
    """A GPU where there is one: a learned decoder takes longer than the encoder."""
    if encoder_kind(spec.encoder).runs_on == RunsOn.CPU:
        return "cpu"
    from telecine.encoders.device import fastest

    return fastest()


def _latents(dataset: Dataset, sample: Sample) -> Latents:
    """float16, of the shape that the table says; no other byte of the shard is read."""
    shard = dataset.path(sample.shard_path)
    data = dataset.storage.read_range(shard, sample.latent_offset, sample.latent_bytes)
    start = values_offset(data, sample, shard, len(data))
    values = np.frombuffer(data, DTYPE, offset=start)
    return values.reshape(sample.latent_shape).copy()  # of its own memory, that may be written to


def _footage(con: duckdb.DuckDBPyConnection, sample: Sample) -> tuple[Clip, Source]:
    """What the clip was when it was encoded, also where its source has been replaced since."""
    clips = con.sql("SELECT * FROM clips WHERE clip_id = ? LIMIT 1", params=[sample.clip_id])
    (clip,) = from_arrow(clips.to_arrow_table(), Clip)
    sources = con.sql(
        "SELECT * FROM sources WHERE source_id = ? AND status = 'scanned' "
        "ORDER BY revision DESC LIMIT 1",
        params=[clip.source_id],
    )
    (source,) = from_arrow(sources.to_arrow_table(), Source)
    return clip, source


@dataclass(frozen=True)
class Footage:
    """What a sample was encoded from, by the pixel contract."""

    dataset: Dataset
    sample: Sample
    clip: Clip
    source: Source
    size: tuple[int, int] | None  # px, of the picture that was made smaller

    @classmethod
    def of(
        cls, dataset: Dataset, con: duckdb.DuckDBPyConnection, build: BuildState, sample: Sample
    ) -> Footage:
        """Of a sample of the build"""
        clip, source = _footage(con, sample)
        size = reduced_size(clip.width, clip.height, _vae(build).short_side)
        return cls(dataset, sample, clip, source, size)

    def first(self, count: int) -> Pixels:
        """uint8 RGB [count, H, W, 3]: so many frames. Raises StorageError."""
        try:
            return np.stack(list(islice(self.frames(), count)))
        except MediaError:
            return np.stack(list(islice(self.frames(from_start=True), count)))

    def frames(self, *, from_start: bool = False) -> Iterator[Pixels]:
        """uint8 RGB [H, W, 3]: the frames as the encoder saw them.

        Raises MediaError where others come of a seek, StorageError where they are not to be had.
        """
        sample, source = self.sample, self.source
        cut = Cut(
            Fraction(sample.fps_num, sample.fps_den),
            sample.encoded_frames,
            Crop(sample.crop_x, sample.crop_y, sample.encoded_width, sample.encoded_height),
            repeat(1, sample.encoded_frames),
            size=self.size,
        )
        info = ObjectInfo(source.uri, source.size_bytes, source.version)
        try:
            with self.dataset.storage.open(info) as file:
                pixels = self.dataset.spec.pixels
                blocks = decode_clip(
                    cast("BinaryIO", file), source, self.clip, cut, pixels, from_start
                )
                for block in blocks:
                    yield block.rgb()[0]
        except StorageError as error:
            raise type(error)(f"{error}\n{_ALONE}") from error
        except MediaError as error:
            if not from_start:
                raise
            raise StorageError(
                f"{source.uri!r} no longer gives the frames that were encoded: {error.detail}\n"
                f"{_ALONE}"
            ) from error


# ── frames ───────────────────────────────────────────────────────────────────────────────────────


def _exactly(count: int, frames: Iterator[Pixels]) -> Iterator[Pixels]:
    """The first `count` of the frames. Raises CheckFailed where there are fewer."""
    got = 0
    for frame in islice(frames, count):
        got += 1
        yield frame
    if got < count:
        raise CheckFailed(f"the decoder gave {got} frames where {count} were encoded")


def _beside(
    originals: Iterator[Pixels], decoded: Iterator[Pixels], psnr: list[float]
) -> Iterator[Pixels]:
    """[H, 2 W, 3]: the original on the left; each frame's PSNR is put on the list."""
    for ours, theirs in zip(decoded, originals, strict=False):
        psnr.append(psnr_db(theirs, ours))
        yield np.concatenate((theirs, ours), axis=1)


def _counted(frames: Iterator[Pixels], step: Step) -> Iterator[Pixels]:
    for frame in frames:
        yield frame
        step.advance(frames=1)
