"""latents: what a build stores of a clip, to look at.

decoded     the film or picture that the latents decode to: pipeline/look/decode.py, one at a time,
            into a temporary folder, where it stays until others need the room
channels    the middle latent frame of each channel, side by side, each in its own greys
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from telecine.infra.errors import NotFound
from telecine.manifests.dataset import Dataset
from telecine.manifests.schemas import Sample, from_arrow
from telecine.manifests.tar import DTYPE, NPY_HEADER, values_offset
from telecine.pipeline.browse.snapshot import Snapshot

FOLDER_BYTES = 512 * 2**20
TILE, GAP = 160, 4  # px: the longer side of a channel at least, and between two
ACROSS = 8  # channels in a row, at most
WIDEST = 0.01  # of the values on either side are black and white


def find_sample(snapshot: Snapshot, build_id: str, clip_id: str) -> Sample:
    """Raises NotFound where the build does not keep the clip."""
    query = (
        "SELECT * FROM live_samples WHERE build_id = $build AND clip_id = $clip "
        "AND outcome = 'kept' LIMIT 1"
    )
    params = {"build": build_id, "clip": clip_id}
    with snapshot.asking(hurry=True) as con:
        found = from_arrow(con.sql(query, params=params).to_arrow_table(), Sample)
    if not found:
        raise NotFound(f"build {build_id!r} keeps no clip {clip_id!r}")
    return found[0]


class Films:
    """Decoded latents. A clip is decoded when it is asked for, and one at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="telecine-browse-")
        self._turn = threading.Lock()
        self._numbers = itertools.count()
        self._there: OrderedDict[tuple[str, str, str], Path] = OrderedDict()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    def get(self, snapshot: Snapshot, build_id: str, clip_id: str) -> Path:
        """An .mp4, or a .png where it is one frame. Waits for whatever is being decoded.

        Raises NotFound where the build does not keep the clip, UsageError where the encoder is
        not to be had.
        """
        sample = find_sample(snapshot, build_id, clip_id)
        key = (build_id, clip_id, sample.latent_sha256)
        with self._turn:
            path = self._there.get(key)
            if path is None:
                path = self._decode(snapshot.dataset, sample)
                self._there[key] = path
                self._make_room()
            self._there.move_to_end(key)
            return path

    def _decode(self, dataset: Dataset, sample: Sample) -> Path:
        from telecine.pipeline.look.decode import View, decode

        suffix = ".png" if sample.encoded_frames == 1 else ".mp4"
        path = Path(self._folder.name) / f"{next(self._numbers)}{suffix}"
        decode(dataset, View(sample.clip_id, sample.build_id), path, overwrite=True)
        return path

    def _make_room(self) -> None:
        """Whoever is being sent a file goes on reading it."""
        sizes = {key: path.stat().st_size for key, path in self._there.items()}
        while sum(sizes.values()) > FOLDER_BYTES and len(self._there) > 1:
            key, path = self._there.popitem(last=False)
            del sizes[key]
            path.unlink(missing_ok=True)


# ── channels ─────────────────────────────────────────────────────────────────────────────────────


def channels_png(dataset: Dataset, sample: Sample) -> bytes:
    """The channels from left to right and from top to bottom, the first one first.

    Raises StorageError where the shard does not hold what the tables say.
    """
    sheet = contact_sheet(middle_frame(dataset, sample))
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue()


def middle_frame(dataset: Dataset, sample: Sample) -> npt.NDArray[np.float32]:
    """float32 [C, H, W]: of a clip's latents one frame; no other byte of it is read."""
    shard = dataset.path(sample.shard_path)
    channels, frames, height, width = sample.latent_shape
    head = min(NPY_HEADER, sample.latent_bytes)
    data = dataset.storage.read_range(shard, sample.latent_offset, head)
    start = sample.latent_offset + values_offset(data, sample, shard, sample.latent_bytes)
    size = height * width
    pictures = [
        dataset.storage.read_range(shard, start + 2 * (c * frames + frames // 2) * size, 2 * size)
        for c in range(channels)
    ]
    values = np.frombuffer(b"".join(pictures), DTYPE).astype(np.float32)
    return values.reshape(channels, height, width)


def contact_sheet(planes: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 2], grey and opacity, of float [C, H, W]; whole pixels, made larger if small."""
    count, height, width = planes.shape
    zoom = max(1, -(-TILE // max(height, width)))
    across = min(ACROSS, math.ceil(math.sqrt(count)))
    down = -(-count // across)
    tall, wide = zoom * height + GAP, zoom * width + GAP
    sheet = np.zeros((down * tall - GAP, across * wide - GAP, 2), np.uint8)
    for index, plane in enumerate(planes):
        top, left = index // across * tall, index % across * wide
        tile = sheet[top : top + zoom * height, left : left + zoom * width]
        tile[..., 0] = np.kron(_greys(plane), np.ones((zoom, zoom), np.uint8))
        tile[..., 1] = 255
    return sheet


def _greys(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """From black to white over nearly all of its values; one grey where they are all equal."""
    low, high = np.quantile(plane, [WIDEST, 1 - WIDEST])
    if not low < high:
        return np.full(plane.shape, 128, np.uint8)
    greys: npt.NDArray[np.uint8] = np.clip((plane - low) / (high - low) * 255, 0, 255).astype(
        np.uint8
    )
    return greys
