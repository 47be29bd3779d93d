"""One file scanned without tables, and its clips as an encoder would see them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from telecine.encoders.frames import Pixels
from telecine.infra.store.storage import Storage
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.media.decode import Cut, decode_clip
from telecine.pipeline.media.geometry import Crop
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import Scanned, scan_source
from tests.support.movies import Movie, Planes, write_movie


def scan_file(path: Path, spec: DatasetSpec | None = None) -> Scanned:
    info = Storage().stat(str(path))
    task = ScanTask(Found(info.uri, info.version, info.size_bytes), 0)
    return scan_source(task, Storage(), spec or DatasetSpec())


def clip_pixels(
    path: Path, scanned: Scanned, clip: int = 0, count: int = 1, from_start: bool = False
) -> Pixels:
    """uint8 [count, H, W, 3]: a clip's first frames."""
    one = scanned.clips[clip]
    rate = Fraction(one.fps_num, one.fps_den)
    cut = Cut(rate, count, Crop(0, 0, one.width, one.height), iter([count]))
    with path.open("rb") as file:
        blocks = decode_clip(file, scanned.source, one, cut, DatasetSpec().pixels, from_start)
        return next(iter(blocks)).rgb()


def still_pixels(scanned: Scanned, clip: int = 0) -> Pixels:
    """uint8 [h, w, 3]: a clip's first still."""
    of = scanned.clips[clip].clip_id
    jpeg = next(still.jpeg for still in scanned.stills if still.clip_id == of)
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def write_parts(path: Path, parts: Sequence[tuple[Movie, Sequence[Planes]]]) -> Path:
    """One transport stream of several encodes, each with its own headers and tags."""
    start, joined = 0, b""
    for number, (movie, pictures) in enumerate(parts):
        one = path.with_name(f"{number}-{path.name}")
        step = int(1 / (movie.rate * movie.time_base))
        stamps = [start + k * step for k in range(len(pictures))]
        start = stamps[-1] + step
        joined += write_movie(one, pictures, movie, stamps).read_bytes()
        one.unlink()
    path.write_bytes(joined)
    return path
