"""export --format energon: read back by Megatron-Energon."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import shutil
import sys
import tarfile
import warnings
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from telecine.infra.errors import CheckFailed, StorageError, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.builds import find_build, shards_of
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.queries import connect
from telecine.pipeline.export.energon import _split, _split_yaml, write_energon
from telecine.pipeline.export.export import export
from telecine.pipeline.export.formats import Content, Options
from tests.support import inline
from tests.support.exports import files, made, members
from tests.support.lab import Lab

# webdataset leaves a file that it read to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied before anything of it is changed."""
    return made(tmp_path_factory.getbasetemp())


@pytest.fixture
def dataset(folder: Path) -> Iterator[Dataset]:
    before = files(folder)
    yield open_dataset(str(folder), Storage())
    assert files(folder) == before, "an export changed the dataset"


def energon() -> Any:
    return pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")


def cook(raw: dict[str, Any]) -> Any:
    """A cooker that keeps everything."""
    return sample_type()(
        **energon().basic_sample_keys(raw),
        latent=raw["latent.npy"],
        facts=raw["json"],
        caption=raw["txt"],
    )


@functools.cache
def sample_type() -> Any:
    """Of energon's samples, which are data classes of its own making."""
    library = energon()
    space = {"__annotations__": {"latent": Any, "facts": Any, "caption": str}}
    return library.edataclass(type("Kept", (library.Sample,), space))


def loaded(folder: Path, part: str, count: int, **methods: Callable[..., Any]) -> list[Any]:
    """The first samples, or batches, that Energon's loader gives of a part."""
    library = energon()
    task = type(
        "Task", (library.DefaultTaskEncoder,),
        {"cookers": [library.Cooker(library.stateless(cook))], **methods},
    )  # fmt: skip
    dataset = library.get_train_dataset(
        str(folder),
        split_part=part,
        worker_config=library.WorkerConfig(rank=0, world_size=1, num_workers=0),
        task_encoder=task(),
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
    )
    with warnings.catch_warnings():
        # torch's, of every loader that asks for pinned memory where there is no GPU
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        return list(islice(library.get_loader(dataset), count))


def test_energon_reads_every_sample_once(dataset: Dataset, tmp_path: Path) -> None:
    energon()
    done = export(dataset, tmp_path / "out", "energon")
    everything = members(dataset)
    found = loaded(tmp_path / "out", "train", len(everything))
    assert sorted(sample.__key__ for sample in found) == sorted(everything)
    for sample in found:
        mine = everything[sample.__key__]
        assert np.array_equal(sample.latent, np.load(io.BytesIO(mine["latent.npy"])))
        assert sample.latent.dtype == np.float16
        assert sample.facts == json.loads(mine["json"])
        assert sample.caption == mine["txt"].decode()
    info = json.loads((tmp_path / "out" / ".nv-meta" / ".info.json").read_text())
    con = connect(dataset.tables)
    shards = shards_of(con, find_build(con, done.build).build_id)
    assert info["shard_counts"] == {
        shard.path.removeprefix(f"shards/{done.build}/"): shard.num_samples for shard in shards
    }
    for name in info["shard_counts"]:
        assert (tmp_path / "out" / name).is_symlink()
    split = yaml.safe_load((tmp_path / "out" / ".nv-meta" / "split.yaml").read_text())
    assert split["split_parts"] == {"train": list(info["shard_counts"]), "val": [], "test": []}
    assert done.notes[0] == f"train: {len(everything)} samples in {len(shards)} shards"
    assert (tmp_path / "out" / ".nv-meta" / "index.uuid").is_file()
    # Another split of the same shards.
    names = list(info["shard_counts"])
    parts = {"train": names[1:], "val": names[:1], "test": []}
    (tmp_path / "out" / ".nv-meta" / "split.yaml").write_text(_split_yaml(parts))
    count = info["shard_counts"][names[0]]
    with tarfile.open(tmp_path / "out" / names[0]) as tar:
        keys = {name.partition(".")[0] for name in tar.getnames()}
    assert {sample.__key__ for sample in loaded(tmp_path / "out", "val", count)} == keys


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported: one bucket with three shapes, a sample of each, and another bucket."""
    energon()
    lab = Lab(tmp_path_factory.mktemp("unlike"))
    for side in (160, 176, 192):
        lab.image(f"{side}", seed=side, size=(side, side))
    lab.image("wide", seed=1, size=(320, 160))
    inline.ingest(str(lab.footage), str(lab.dataset))
    out = lab.dataset.with_name("out")
    export(open_dataset(str(lab.dataset), Storage()), out, "energon")
    return out


BY_SHAPE = lambda facts: tuple(facts["latent"]["shape"])  # noqa: E731
BY_BUCKET = lambda facts: tuple(facts["bucket"].values())  # noqa: E731


@pytest.mark.parametrize(("group", "given"), [(BY_SHAPE, {160, 176, 192, 320}), (BY_BUCKET, {320})])
def test_batches_by_shape_lose_no_sample_and_batches_by_bucket_do(
    group: Callable[[Any], Hashable], given: set[int], unlike: Path
) -> None:
    """What the export advises, and what it does not: Energon goes on after a batch that fails."""

    def batch_group_criterion(_: Any, sample: Any) -> tuple[Hashable, int]:
        return group(sample.facts), 2

    def batch(_: Any, samples: list[Any]) -> list[Any]:
        assert torch.stack([torch.from_numpy(s.latent) for s in samples]).shape[0] == 2
        return samples

    with contextlib.redirect_stderr(io.StringIO()):  # it prints the errors of batches
        batches = loaded(
            unlike, "train", 8, batch_group_criterion=batch_group_criterion, batch=batch
        )
    assert {sample.facts["width"] for samples in batches for sample in samples} == given


def test_a_shard_is_damaged(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    opened = open_dataset(str(tmp_path / "copy"), Storage())
    energon()
    con = connect(opened.tables)
    shard = tmp_path / "copy" / shards_of(con, find_build(con, "second").build_id)[0].path
    data = shard.read_bytes()
    shard.write_bytes(data[:-512])
    with pytest.raises(StorageError, match=r"has [\d,]+ bytes, where the tables say [\d,]+ bytes"):
        export(opened, tmp_path / "out", "energon")
    shard.unlink()
    with pytest.raises(StorageError, match=r"is not there, where the tables say"):
        export(opened, tmp_path / "out", "energon")
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(CheckFailed, match=r"energon prepare gave up: .*has no samples"):
        export(opened, tmp_path / "out", "energon")
    assert not (tmp_path / "out").exists()


NAMES = [f"360/16x9/2s/{hashlib.md5(bytes([n])).hexdigest()}.tar" for n in range(200)]


def test_shards_are_split_by_their_ids_alone() -> None:
    split = _split(NAMES, "8,1,1")
    assert sorted(name for names in split.values() for name in names) == sorted(NAMES)
    assert len(split["train"]) == pytest.approx(160, abs=20)
    assert all(len(split[part]) == pytest.approx(20, abs=15) for part in ("val", "test"))
    assert _split(NAMES, "0.8,0.1,0.1") == split
    fewer = _split(NAMES[::-1][:150], "8,1,1")
    for part, names in fewer.items():
        assert set(names) <= set(split[part])
    elsewhere = _split([name.replace("360/16x9", "720/1x1") for name in NAMES], "8,1,1")
    assert {
        part: [name.replace("720/1x1", "360/16x9") for name in names]
        for part, names in elsewhere.items()
    } == split
    assert _split(NAMES, None) == {"train": NAMES, "val": [], "test": []}
    assert _split(NAMES, "0,1,0") == {"train": [], "val": NAMES, "test": []}
    assert _split(NAMES, "0,0,3") == {"train": [], "val": [], "test": NAMES}
    with pytest.raises(
        UsageError, match=r"no shard falls to (train|val|test), and each goes whole"
    ):
        _split(NAMES[:2], "1,1,1")


@pytest.mark.parametrize("split", ["1", "1,0", "a,b,c", "1,-1,1", "0,0,0", "nan,0,1", "inf,1,1"])
def test_wrong_shares_are_explained(split: str) -> None:
    with pytest.raises(UsageError, match=r"write the shares of train, val and test, as in"):
        _split(NAMES, split)


def test_without_energon_it_is_said_what_to_install(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "megatron"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "megatron", None)
    with pytest.raises(UsageError, match="pip install megatron-energon"):
        export(dataset, tmp_path / "out", "energon")
    assert not (tmp_path / "out").exists()


def test_names_that_energon_cannot_take(dataset: Dataset, tmp_path: Path) -> None:
    energon()
    part = tmp_path / "a[b]" / "part"
    build = find_build(connect(dataset.tables), "second")
    content = Content(dataset, connect(dataset.tables), build, [], Options())
    with pytest.raises(UsageError, match=r"Energon takes no \* \? \[ \]"):
        write_energon(part, content)


def test_nothing_is_left_of_an_export_that_failed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    energon()
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="--split"):
        export(dataset, out, "energon", Options(split="1,2"))
    assert not out.exists()
    out.mkdir()
    with pytest.raises(UsageError, match="--split"):
        export(dataset, out, "energon", Options(split="1,2"))
    assert list(out.iterdir()) == []
