"""A column of texts as telecine.feed gives it: each sample's own, or none at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from telecine.feed import Feed
from telecine.infra.errors import Unreadable, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.index.columns import SCHEMA, ColumnIndex, read_column
from telecine.pipeline import recipes
from tests.support import inline, text_models
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Four images, their captions in a column alone. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder)
    for number in range(4):
        lab.image(f"{number}", seed=number, size=(160, 160))
        lab.text(f"{number}", f"Picture number {number}.")
    spec = {
        "shards": {"captions": "column"},
        "embed": {"encoder": text_models.save(folder / "t5")},
    }
    inline.ingest(str(lab.footage), str(lab.dataset), spec)
    embed(lab.dataset)
    return lab


def embed(dataset: Path) -> None:
    recipes.embed(inline.run_of(open_dataset(str(dataset), Storage())))


def column(dataset: Path) -> ColumnIndex:
    (file,) = (dataset / "columns").rglob("column-*.arrow")
    return read_column(file.read_bytes(), file.name)


def stored(dataset: Path, shard: str, offset: int, size: int) -> bytes:
    with (dataset / "columns/t5" / shard).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def values(data: bytes, width: int) -> Any:
    return np.frombuffer(data[128:], "<f2").reshape(-1, width)


def test_each_sample_has_its_text_and_embedding_or_the_null_prompt(made: Lab) -> None:
    index = column(made.dataset)
    width = index.facts.dimensions
    wanted = {
        row["clip_id"]: (
            stored(made.dataset, row["shard"], row["text_offset"], row["text_bytes"]).decode(),
            values(stored(made.dataset, row["shard"], row["offset"], row["size_bytes"]), width),
        )
        for row in index.rows.to_pylist()
    }
    null = values((made.dataset / "columns/t5" / index.facts.null_file).read_bytes(), width)
    drops = set()
    for epoch in range(2):
        feed = Feed(made.dataset, text="t5", text_dropout=0.5, packs_per_step=1)
        for pack in feed.epoch(epoch):
            assert pack.text_embedding is not None
            parts = np.split(pack.text_embedding, pack.text_cu_seqlens[1:-1])
            for key, said, part, dropped in zip(
                pack.keys, pack.captions, parts, pack.text_dropped, strict=True
            ):
                drops.add(dropped)
                assert said == ("" if dropped else wanted[key][0])
                assert np.array_equal(part, null if dropped else wanted[key][1])
    assert drops == {True, False}


def test_what_has_no_embedding_is_refused_with_its_count(made: Lab, tmp_path: Path) -> None:
    shutil.copytree(made.dataset, tmp_path / "copy")
    (file,) = (tmp_path / "copy/columns").rglob("column-*.arrow")
    index = column(made.dataset)
    rows = index.rows.to_pylist()
    rows[1] |= {"size_bytes": 0, "tokens": 0, "sha256": None}  # as of a text that failed
    for left, words in ((rows, "has no embedding of 1 of 4"), (rows[:3], "texts than 1 of 4")):
        table = pa.Table.from_pylist(left, SCHEMA)
        file.write_bytes(ColumnIndex(index.facts, table).to_bytes())
        with pytest.raises(UsageError, match=words):
            Feed(tmp_path / "copy", text="t5")


def test_a_damaged_null_prompt_is_not_served(made: Lab, tmp_path: Path) -> None:
    shutil.copytree(made.dataset, tmp_path / "copy")
    (file,) = (tmp_path / "copy/columns/t5").glob("null-*.npy")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Unreadable, match="is not the null prompt"):
        Feed(tmp_path / "copy", text="t5")
