"""decode: what is written is what the latents decode to, beside the footage they came from."""

from __future__ import annotations

import dataclasses
import importlib
import io
import shutil
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from telecine.encoders.frames import Pixels
from telecine.encoders.video.dct import DctEncoder
from telecine.infra import plugins
from telecine.infra.errors import (
    NotFound,
    StorageError,
    UsageError,
)
from telecine.infra.store.reader import ObjectReader
from telecine.infra.store.storage import ObjectInfo, Storage
from telecine.manifests.builds import find_build
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Sample
from telecine.pipeline.look.decode import Decoded, View, decode
from telecine.pipeline.media.film import write_mp4
from telecine.pipeline.media.geometry import Crop
from telecine.testing.media import smooth
from tests.support.blocks import psnr
from tests.support.inline import ingest, rebuild
from tests.support.lacking import Lacking
from tests.support.movies import Movie, read_blocks, write_movie
from tests.support.plugins import install_into

FRAMES, LEFT_OUT, RATE = 31, 2, 30
WIDTH, HEIGHT = 200, 160  # encoded as 192 × 160
CROP = Crop(4, 0, 192, 160)


def write_waves(path: Path, frames: int = FRAMES) -> None:
    pictures = list(zip(*smooth(FRAMES, HEIGHT, WIDTH).planes, strict=True))
    write_movie(path, pictures[:frames], Movie(rate=RATE, time_base=Fraction(1, 15360)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One video and one image, ingested."""
    folder = tmp_path_factory.mktemp("view")
    (folder / "footage").mkdir()
    write_waves(folder / "footage" / "waves.mp4")
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(noise).resize((192, 160)).save(folder / "footage" / "still.png")
    ingest(str(folder / "footage"), str(folder / "dataset"))
    return open_dataset(str(folder / "dataset"), Storage())


def sample_of(dataset: Dataset, frames: int = FRAMES - LEFT_OUT) -> Sample:
    (found,) = (s for s in dataset.tables.rows(Sample) if s.encoded_frames == frames)
    return found


def expected(dataset: Dataset, sample: Sample) -> Pixels:
    """[T, H, W, 3]: the member of the tar, decoded."""
    with tarfile.open(dataset.path(sample.shard_path)) as tar:
        member = tar.extractfile(f"{sample.clip_id}.latent.npy")
        assert member is not None
        latents = np.load(io.BytesIO(member.read()))
    return np.concatenate(list(DctEncoder().decode(latents)))


def view(
    dataset: Dataset, clip_id: str, out: Path, *, overwrite: bool = False, **options: Any
) -> Decoded:
    return decode(dataset, View(clip_id, **options), out, overwrite=overwrite)


def read(path: Path, frames: int = 29) -> Pixels:
    """uint8 RGB [T, H, W, 3], as the pixel contract has it."""
    return read_blocks(path, frames).rgb()


def test_a_film_has_every_frame_at_its_rate_in_its_colours(
    dataset: Dataset, tmp_path: Path
) -> None:
    sample, out = sample_of(dataset), tmp_path / "out.mp4"
    decoded = view(dataset, sample.clip_id, out)
    pictures = expected(dataset, sample)
    assert (decoded.frames, decoded.width, decoded.height) == (29, 192, 160)
    shown = read(out)
    assert shown.shape == pictures.shape == (29, 160, 192, 3)
    assert min(psnr(a, b) for a, b in zip(shown, pictures, strict=True)) > 36
    assert np.abs(shown.mean((0, 1, 2)) - pictures.mean((0, 1, 2))).max() < 0.5
    with av.open(str(out)) as container:
        (stream,) = container.streams.video
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = context.colorspace, context.color_range, context.color_trc, context.color_primaries
        assert tags == (1, 1, 1, 1)
        assert stream.average_rate == RATE
        assert stream.frames == 29
        times = [frame.time for frame in container.decode(video=0)]
        assert times == pytest.approx([k / RATE for k in range(29)])


@pytest.mark.parametrize("frame", [0, 1, 28])
def test_a_picture_is_one_frame_exactly(dataset: Dataset, tmp_path: Path, frame: int) -> None:
    sample, out = sample_of(dataset), tmp_path / "out.png"
    decoded = view(dataset, sample.clip_id, out, frame=frame)
    assert np.array_equal(np.asarray(Image.open(out)), expected(dataset, sample)[frame])
    assert (decoded.frames, decoded.rate) == (1, 0)


def test_an_image_beside_its_original(dataset: Dataset, tmp_path: Path) -> None:
    sample, out = sample_of(dataset, 1), tmp_path / "out.png"
    decoded = view(dataset, sample.clip_id, out, side_by_side=True)
    original = np.asarray(Image.open(Path(dataset.uri).parent / "footage" / "still.png"))
    ours = expected(dataset, sample)[0]
    assert np.array_equal(np.asarray(Image.open(out)), np.hstack((original, ours)))
    assert decoded.psnr_db == pytest.approx([psnr(original, ours)], abs=0.001)
    assert "PSNR against the original" in str(decoded)


def test_a_film_beside_its_original(dataset: Dataset, tmp_path: Path) -> None:
    sample, out = sample_of(dataset), tmp_path / "out.mp4"
    decoded = view(dataset, sample.clip_id, out, side_by_side=True)
    footage = Path(dataset.uri).parent / "footage" / "waves.mp4"
    originals = read_blocks(footage, 29, CROP).rgb()
    ours = expected(dataset, sample)
    each = [psnr(a, b) for a, b in zip(originals, ours, strict=True)]
    assert decoded.psnr_db == pytest.approx(each, abs=0.001)
    shown = read(out)
    assert shown.shape == (29, 160, 384, 3)
    assert psnr(shown[:, :, :192], originals) > 33
    assert psnr(shown[:, :, 192:], ours) > 36
    worst = int(np.argmin(each))
    assert f"{np.mean(each):.2f} dB on average" in str(decoded)
    assert f"{min(each):.2f} dB at worst (frame {worst})" in str(decoded)


def test_one_of_many_frames_beside_its_original(dataset: Dataset, tmp_path: Path) -> None:
    sample, out = sample_of(dataset), tmp_path / "out.png"
    decoded = view(dataset, sample.clip_id, out, side_by_side=True, frame=7)
    footage = Path(dataset.uri).parent / "footage" / "waves.mp4"
    original = read_blocks(footage, 8, CROP).rgb()[7]
    ours = expected(dataset, sample)[7]
    assert np.array_equal(np.asarray(Image.open(out)), np.hstack((original, ours)))
    assert decoded.psnr_db == pytest.approx([psnr(original, ours)], abs=0.001)


class Watched(Storage):
    """Storage that says what it reads; and gives, of ranges, what `changed` makes of them."""

    def __init__(self, changed: Callable[[bytes], bytes] = bytes, shift: int = 0) -> None:
        super().__init__()
        self._changed, self._shift = changed, shift
        self.read: list[tuple[str, int, int]] = []  # of ranges
        self.whole: list[str] = []

    def read_range(self, uri: str, offset: int, length: int) -> bytes:
        self.read.append((uri, offset, length))
        return self._changed(super().read_range(uri, offset + self._shift, length))

    def read_bytes(self, uri: str) -> bytes:
        self.whole.append(uri)
        return super().read_bytes(uri)

    def open(self, info: ObjectInfo) -> ObjectReader:
        self.whole.append(info.uri)
        return super().open(info)


def test_the_latents_alone_are_read_of_the_shard(dataset: Dataset, tmp_path: Path) -> None:
    sample, storage = sample_of(dataset), Watched()
    view(dataclasses.replace(dataset, storage=storage), sample.clip_id, tmp_path / "out.mp4")
    assert not storage.whole
    assert storage.read == [
        (dataset.path(sample.shard_path), sample.latent_offset, sample.latent_bytes)
    ]


def test_the_beginning_of_an_id_is_enough_where_it_is_one_clips(
    dataset: Dataset, tmp_path: Path
) -> None:
    a, b = sorted(s.clip_id for s in dataset.tables.rows(Sample))
    length = next(n for n in range(1, 33) if a[:n] != b[:n])
    assert view(dataset, a[:length], tmp_path / "a.png").clip_id == a
    with pytest.raises(UsageError, match=rf"begins with ''; near it are {a}, {b}"):
        view(dataset, "", tmp_path / "b.png")
    with pytest.raises(UsageError, match=rf"begins with 'zebra'; near it are {a}, {b}"):
        view(dataset, "zebra", tmp_path / "b.png")


@pytest.mark.parametrize(
    ("frames", "name", "options", "words"),
    [
        (29, "out.avi", {}, r"name a file that ends in \.mp4"),
        (29, "out.mp4", {"frame": 3}, "the one frame of a .png"),
        (29, "out.png", {"frame": 29}, "its last is 28"),
        (1, "out.mp4", {}, "is one frame: name a .png"),
        (29, "none/out.mp4", {}, "there is no folder"),
        (29, "out.png", {"build": "nonesuch"}, "there is no build 'nonesuch'"),
        (29, "out.png", {"vae": "vqgan"}, "no video encoder 'vqgan'.*say where with --vae"),
    ],
)
def test_what_cannot_be_done_is_said(
    dataset: Dataset, tmp_path: Path, frames: int, name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        view(dataset, sample_of(dataset, frames).clip_id, tmp_path / name, **options)
    assert not any(tmp_path.iterdir())


def test_a_file_is_replaced_only_where_that_is_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    sample, out = sample_of(dataset), tmp_path / "out.png"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"is there already.*--overwrite"):
        view(dataset, sample.clip_id, out)
    assert out.read_bytes() == b"mine"
    view(dataset, sample.clip_id, out, overwrite=True)
    assert np.array_equal(np.asarray(Image.open(out)), expected(dataset, sample)[0])


# A plug-in: the DCT as a learned encoder, whose decoder needs more memory than there is.
LARGE = """
from telecine.encoders.kinds import EncoderKind, RunsOn
from telecine.encoders.video.dct import DctEncoder
from telecine.infra.errors import OutOfDeviceMemory

DEVICES = []

class Large(DctEncoder):
    def decode(self, latents):
        yield next(super().decode(latents))
        raise OutOfDeviceMemory("too little memory")

def make(spec, device):
    DEVICES.append(device)
    return Large()

OFFER = EncoderKind(rests=("MODEL",), make=make, runs_on=RunsOn.DEVICE)
"""


@pytest.fixture
def large(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A copy with a second build, `large`, by the plug-in."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    install_into(folder)("telecine-large", "1.0", "large_vae", LARGE, {plugins.ENCODERS: "large"})
    shutil.copytree(dataset.uri, tmp_path / "dataset")
    rebuild(str(tmp_path / "dataset"), {"vae": {"encoder": "large:x"}}, name="large", promote=False)
    return open_dataset(str(tmp_path / "dataset"), Storage())


def test_other_weights_are_not_the_builds(large: Dataset, tmp_path: Path) -> None:
    found = find_build(connect(large.tables), "large").last.vae_fingerprint
    clip_id = large.tables.rows(Sample)[0].clip_id
    with pytest.raises(UsageError, match=f"its fingerprint is {found[:12]}"):
        view(large, clip_id, tmp_path / "out.png", vae="large:x")


def test_a_learned_encoder_decodes_on_a_gpu_that_may_be_too_small(
    large: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    clip_id = next(s.clip_id for s in large.tables.rows(Sample) if s.encoded_frames > 1)
    out = tmp_path / "out"
    out.mkdir()
    devices = importlib.import_module("large_vae").DEVICES
    devices.clear()
    with pytest.raises(UsageError, match="too little memory"):
        view(large, clip_id, out / "out.mp4", build="large")
    view(large, clip_id, out / "out.png")
    assert devices == ["cuda"]  # the DCT of the current build takes none
    assert [path.name for path in out.iterdir()] == ["out.png"]


def test_footage_that_is_gone_costs_its_side_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sample_of(dataset)
    footage = Path(dataset.uri).parent / "footage" / "waves.mp4"
    footage.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(NotFound, match=r"waves\.mp4(?s:.*)Without --side-by-side"):
            view(dataset, sample.clip_id, tmp_path / "out.mp4", side_by_side=True)
        view(dataset, sample.clip_id, tmp_path / "alone.mp4")
    finally:
        (tmp_path / "elsewhere").rename(footage)
    assert [path.name for path in tmp_path.iterdir()] == ["alone.mp4"]


@pytest.mark.parametrize("mends", [True, False])
def test_footage_that_lacks_frames_is_decoded_twice(
    dataset: Dataset, tmp_path: Path, mends: bool
) -> None:
    """The first time by the container's index, which can be wrong."""
    sample = sample_of(dataset)
    short = tmp_path / "short" / "waves.mp4"
    short.parent.mkdir()
    write_waves(short, FRAMES - 10)
    storage = Lacking(short, times=1 if mends else 2)
    lacking, out = dataclasses.replace(dataset, storage=storage), tmp_path / "out.mp4"
    if mends:
        assert len(view(lacking, sample.clip_id, out, side_by_side=True).psnr_db) == 29
        assert len(read(out)) == 29
    else:
        with pytest.raises(StorageError, match="no longer gives the frames"):
            view(lacking, sample.clip_id, out, side_by_side=True)
        assert not out.exists()
    assert storage.opened == 2


@pytest.mark.parametrize("damage", ["shifted", "cut", "another shape"])
def test_a_shard_that_disagrees_with_its_row(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    sample = sample_of(dataset)
    damaged = {
        "shifted": Watched(shift=-512),
        "cut": Watched(lambda data: data[:-2]),
        "another shape": Watched(lambda d: d.replace(b"(16, 8, 20, 24)", b"(16, 8, 24, 20)")),
    }[damage]
    with pytest.raises(StorageError, match="telecine verify"):
        view(dataclasses.replace(dataset, storage=damaged), sample.clip_id, tmp_path / "out.mp4")
    assert not any(tmp_path.iterdir())


def test_a_clip_that_was_left_out_has_a_reason(dataset: Dataset, tmp_path: Path) -> None:
    sample = sample_of(dataset)
    con = connect(dataset.tables)
    build = find_build(con, sample.build_id)
    dropped = dataclasses.replace(
        sample, clip_id="d" * 32, outcome="dropped", reason="no_bucket", detail="8×8", shard_id=""
    )
    dataset.tables.append("samples", [dropped])
    with pytest.raises(UsageError, match=f"left out of build {build.name}: no_bucket: 8×8"):
        view(dataset, "d" * 32, tmp_path / "out.mp4")


def test_a_rate_that_is_no_whole_number(tmp_path: Path) -> None:
    pictures = [np.full((32, 48, 3), (200, 30, 90), np.uint8)] * 5
    with (tmp_path / "out.mp4").open("wb") as file:
        write_mp4(file, iter(pictures), Fraction(30000, 1001))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
    shown = read(tmp_path / "out.mp4", 5)
    assert np.abs(shown.astype(int) - pictures[0]).max() <= 2
