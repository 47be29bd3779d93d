"""Latents and their column of texts read together by readers that know nothing of Telecine."""

from __future__ import annotations

import functools
import io
import json
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import yaml

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.pipeline import recipes
from telecine.pipeline.export.energon import _prepare
from telecine.pipeline.export.export import export
from tests.support import inline, text_models
from tests.support.lab import Lab

# webdataset leaves a file that it read to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TEXTS = {f"Picture number {number}." for number in range(4)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Four images of two sizes, their captions in a column alone."""
    folder = tmp_path_factory.mktemp("lab")
    t5 = text_models.save(folder / "t5")
    lab = Lab(folder)
    for number in range(4):
        lab.image(f"{number}", seed=number, size=(160 + 160 * (number % 2),) * 2)
        lab.text(f"{number}", f"Picture number {number}.")
    spec = {"shards": {"captions": "column"}, "embed": {"encoder": t5}}
    inline.ingest(str(lab.footage), str(lab.dataset), spec)
    recipes.embed(inline.run_of(open_dataset(str(lab.dataset), Storage())))
    return lab


def tars(lab: Lab) -> list[tuple[Path, Path]]:
    """Each shard with the tar beside it, as index.json says."""
    name = lab.current().name
    column = lab.dataset / "columns" / "t5"
    said = json.loads((column / name / "index.json").read_text())
    shards = lab.dataset / "shards" / name
    return [(shards / tar["beside"], column / tar["path"]) for tar in said["shards"]]


def test_two_webdatasets_side_by_side_have_the_same_keys(lab: Lab) -> None:
    found = set()
    for pair in tars(lab):
        sides = [
            webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False).decode()
            for tar in pair
        ]
        for sample, said in zip(*sides, strict=True):
            assert sample["__key__"] == said["__key__"] == sample["json"]["clip_id"]
            assert list(sample["latent.npy"].shape) == sample["json"]["latent"]["shape"]
            assert said["text.npy"].dtype == np.float16
            assert said["text.npy"].shape == (len(said["txt"]) + 1, text_models.WIDTH)
            found.add(said["txt"])
    assert found == TEXTS


@functools.cache
def sample_type(library: Any) -> Any:
    space = {"__annotations__": {"latent": Any, "text": str, "embedding": Any}}
    return library.edataclass(type("Joined", (library.Sample,), space))


@pytest.mark.slow
def test_energon_takes_a_column_as_an_auxiliary_dataset(lab: Lab, tmp_path: Path) -> None:
    library = pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")
    export(open_dataset(str(lab.dataset), Storage()), tmp_path / "latents", "energon")
    (tmp_path / "texts").mkdir()
    for _, tar in tars(lab):
        (tmp_path / "texts" / tar.name).symlink_to(tar)
    _prepare(tmp_path / "texts")
    meta = {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {"train": {"path": "./latents", "aux": {"texts": "./texts"}}},
    }
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(meta))

    def cook(raw: dict[str, Any], texts: Any) -> Any:
        key = raw["__key__"].rpartition("/")[2]
        return sample_type(library)(
            **library.basic_sample_keys(raw),
            latent=raw["latent.npy"],
            text=texts._get_raw(f"{key}.txt")[0].decode(),
            embedding=np.load(io.BytesIO(texts._get_raw(f"{key}.text.npy")[0])),
        )

    cook.__annotations__["texts"] = library.FileStore
    task = type(
        "Task",
        (library.DefaultTaskEncoder,),
        {"cookers": [library.Cooker(library.stateless(cook))]},
    )
    dataset = library.get_train_dataset(
        str(tmp_path / "both.yaml"),
        worker_config=library.WorkerConfig(rank=0, world_size=1, num_workers=0),
        task_encoder=task(),
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        found = list(islice(library.get_loader(dataset), len(TEXTS)))
    assert {sample.text for sample in found} == TEXTS
    for sample in found:
        assert sample.latent.dtype == np.float16
        assert sample.embedding.shape == (len(sample.text) + 1, text_models.WIDTH)
