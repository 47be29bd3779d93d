"""A column of texts beside a build: made once, in step with captions, wherever a run is killed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from telecine.infra.errors import CheckFailed
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.index.columns import ColumnIndex, read_column
from telecine.manifests.index.samples import read_samples
from telecine.pipeline import recipes
from telecine.pipeline.cli.main import app
from telecine.pipeline.embed.state import column_states
from telecine.pipeline.embed.step import EmbedOutcome
from telecine.pipeline.lifecycle.gc import collect, delete
from tests.support import inline, text_models
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    return text_models.save(tmp_path_factory.mktemp("models") / "t5")


def filled(folder: Path) -> Lab:
    """Six images of two sizes, two of them with one text."""
    lab = Lab(folder)
    for number in range(6):
        lab.image(f"{number}", seed=number, size=(160 + 160 * (number % 2),) * 2)
        lab.text(f"{number}", f"Picture number {max(number, 1)}.")
    lab.ingest()
    return lab


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """To be copied, not changed; a copy's clips are those of the original footage."""
    return filled(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def lab(made: Lab, tmp_path: Path) -> Lab:
    shutil.copytree(made.footage.parent, tmp_path, dirs_exist_ok=True)
    return Lab(tmp_path)


def embed(lab: Lab, encoder: str, **options: Any) -> EmbedOutcome:
    asked = inline.asked(str(lab.dataset), {"embed": {"encoder": encoder, "weights": None}})
    return recipes.embed(inline.run_of(asked, **options))


def column(lab: Lab, name: str = "t5") -> tuple[dict[str, Any], ColumnIndex]:
    folder = lab.dataset / "columns" / name / lab.current().name
    said = json.loads((folder / "index.json").read_text())
    file = folder / said["samples"]
    return said, read_column(pa.memory_map(str(file)), file.name)


def samples(lab: Lab) -> pa.Table:
    folder = lab.dataset / "shards" / lab.current().name
    file = folder / json.loads((folder / "index.json").read_text())["samples"]
    return read_samples(pa.memory_map(str(file)), file.name).rows


def member(lab: Lab, name: str, row: dict[str, Any], kind: str) -> bytes:
    offset, size = ("text_offset", "text_bytes") if kind == "txt" else ("offset", "size_bytes")
    with (lab.dataset / "columns" / name / row["shard"]).open("rb") as file:
        file.seek(row[offset])
        return file.read(row[size])


def files(lab: Lab) -> dict[str, str]:
    """Everything of columns/ and shards/ by its digest."""
    return {
        path.relative_to(lab.dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("columns", "shards")
        for path in sorted((lab.dataset / part).rglob("*"))
        if path.is_file()
    }


def test_a_column_has_the_keys_of_its_build_in_order_with_text_and_embedding(
    lab: Lab, t5: str
) -> None:
    outcome = embed(lab, t5)
    said, index = column(lab)
    build = samples(lab)

    assert (outcome.samples, outcome.embedded, outcome.failed) == (6, 6, 0)
    assert outcome.encoded == 6, "five texts, one of them of two clips, and the null prompt"
    assert index.rows["clip_id"].to_pylist() == build["clip_id"].to_pylist()
    assert index.rows["text_digest"].to_pylist() == build["text_digest"].to_pylist()
    assert said["num_samples"] == sum(shard["num_samples"] for shard in said["shards"]) == 6
    assert [shard["beside"] for shard in said["shards"]] == build["shard"].unique().to_pylist()
    for row in index.rows.to_pylist():
        text, data = (member(lab, "t5", row, kind) for kind in ("txt", "npy"))
        assert hashlib.sha256(text).digest() == row["text_digest"]
        assert hashlib.sha256(data).digest() == row["sha256"]
        embedding = np.load(io.BytesIO(data))
        assert embedding.dtype == np.float16
        assert embedding.shape == (row["tokens"], index.facts.dimensions) == (len(text) + 1, 16)
    null = (lab.dataset / "columns" / "t5" / index.facts.null_file).read_bytes()
    assert hashlib.sha256(null).hexdigest() == index.facts.null_sha256
    assert np.load(io.BytesIO(null)).shape == (1, 16)


def test_tars_have_the_build_s_members_one_by_one(lab: Lab, t5: str) -> None:
    embed(lab, t5)
    said, _ = column(lab)
    shards = lab.dataset / "shards" / lab.current().name
    for tar in said["shards"]:
        with (
            tarfile.open(lab.dataset / "columns" / "t5" / tar["path"]) as texts,
            tarfile.open(shards / tar["beside"]) as latents,
        ):
            names = texts.getnames()
            keys = list(dict.fromkeys(name.partition(".")[0] for name in latents.getnames()))
        assert names == [f"{key}.{kind}" for key in keys for kind in ("txt", "text.npy")]


def test_a_second_run_encodes_and_writes_nothing(lab: Lab, t5: str) -> None:
    embed(lab, t5)
    before = files(lab)
    again = embed(lab, t5)
    assert (again.encoded, again.tars_written, again.embedded) == (0, 0, 6)
    assert files(lab) == before


def test_after_other_captions_their_texts_alone_are_encoded(tmp_path: Path, t5: str) -> None:
    lab = filled(tmp_path)
    embed(lab, t5)
    _, before = column(lab)
    lab.text("5", "Another picture.")
    lab.ingest()
    outcome = embed(lab, t5)
    _, after = column(lab)

    assert outcome.encoded == 1
    old, new = ({r["clip_id"]: r for r in i.rows.to_pylist()} for i in (before, after))
    changed = [key for key in new if new[key]["sha256"] != old[key]["sha256"]]
    assert len(changed) == 1
    assert member(lab, "t5", new[changed[0]], "txt") == b"Another picture."
    for row in before.rows.to_pylist():  # who reads by the older index goes on
        assert hashlib.sha256(member(lab, "t5", row, "npy")).digest() == row["sha256"]


def test_what_is_gone_is_made_again_with_the_same_bytes(lab: Lab, t5: str) -> None:
    embed(lab, t5)
    before = files(lab)
    for path in (lab.dataset / "columns").rglob("*.tar"):
        path.unlink()
    assert embed(lab, t5).encoded == 6
    assert files(lab) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["committed:text_embeddings", "committed:column_samples", "committed:arrow"]
)
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    lab: Lab, made: Lab, t5: str, point: str, tmp_path: Path
) -> None:
    lab.killed(point, "embed", given={"embed": {"encoder": t5}})
    embed(lab, t5)
    killed = files(lab)
    whole = tmp_path / "whole"
    shutil.copytree(made.footage.parent, whole)
    embed(Lab(whole), t5)
    assert killed == files(Lab(whole))


def test_a_column_of_texts_alone_needs_no_model(lab: Lab) -> None:
    outcome = embed(lab, "none")
    said, index = column(lab, "text")
    assert (outcome.encoded, outcome.samples, outcome.embedded) == (0, 6, 0)
    assert said["null"]["path"] == ""
    for row in index.rows.to_pylist():
        assert hashlib.sha256(member(lab, "text", row, "txt")).digest() == row["text_digest"]
        assert row["sha256"] is None


@pytest.mark.slow
def test_the_encoder_of_a_column_stays_in_force(tmp_path: Path, t5: str) -> None:
    lab = filled(tmp_path)
    embed(lab, t5)
    dataset = open_dataset(str(lab.dataset), Storage())
    assert dataset.spec.embed.encoder == t5
    assert dataset.spec.embed.weights
    lab.image("7", seed=7)
    lab.text("7", "One more.")
    assert lab.ingest().samples, "no part of a build: nothing is planned anew for it"
    assert len(lab.builds()) == 1
    assert recipes.embed(inline.run_of(open_dataset(str(lab.dataset), Storage()))).encoded == 1


def command(*words: str, verb: str = "embed") -> str:
    """What it prints. Raises what the command does."""
    done = CliRunner().invoke(app, [verb, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_makes_a_column_and_counts_what_left_it(tmp_path: Path) -> None:
    lab = filled(tmp_path)
    folder = str(lab.dataset)
    with pytest.raises(CheckFailed, match="has no column"):
        command(folder, "--check")
    said = command(folder, "--encoder", "none", "--workers", "0")
    assert "6 samples in 2 tars, 2 written" in said
    assert "none: 6 of 6 samples" in command(folder, "--check")

    assert "column text  none: 6 of 6 samples" in command(folder, verb="inspect")
    rows = command(folder, "column_samples", "--columns", "clip_id", "--json", verb="inspect")
    assert len(rows.splitlines()) >= 6

    lab.text("5", "Another picture.")
    lab.ingest()
    with pytest.raises(CheckFailed, match="are not in step"):
        command(folder, "--check")
    (state,) = column_states(open_dataset(folder, Storage()))
    assert (state.fresh, state.stale, state.missing) == (5, 1, 0)


@pytest.mark.slow
def test_gc_takes_what_no_index_of_a_column_names_once_nobody_reads_by_it(
    tmp_path: Path, t5: str
) -> None:
    lab = filled(tmp_path)
    embed(lab, t5)
    lab.text("5", "Another picture.")
    lab.ingest()
    embed(lab, t5)
    dataset = open_dataset(str(lab.dataset), Storage())
    assert not collect(dataset).column_files, "a trainer may read by the older index"

    garbage = collect(dataset, retention_hours=0)
    kinds = sorted(info.uri.partition("/t5/")[2].partition("/")[0] for info in garbage.column_files)
    assert kinds == [lab.current().name, "tars"], "the index before, and its other tar"
    delete(dataset, garbage)
    again = embed(lab, t5)
    assert (again.encoded, again.tars_written) == (0, 0)
