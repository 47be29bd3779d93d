"""What every exporter promises (`telecine.pipeline.export.formats.Exporter`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from telecine.infra.errors import UsageError
from telecine.infra.inline import InlineCluster
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.pipeline.export.export import export
from telecine.pipeline.export.formats import Exporter, Options
from telecine.pipeline.recipes import ingest
from telecine.pipeline.run import Run
from telecine.testing.checks import refused
from telecine.testing.media import jpeg

if TYPE_CHECKING:
    import pytest

Make: TypeAlias = Callable[[], Exporter]


def small_dataset(folder: Path) -> Dataset:
    """Three pictures, in shards of the DCT's latents; made where it is not there yet."""
    where = folder / "telecine-small"
    if not where.exists():
        footage = where / "footage"
        footage.mkdir(parents=True)
        for seed in range(3):
            (footage / f"{seed}.jpg").write_bytes(jpeg(seed, 320, 240))
        made = create_dataset(str(where / "dataset"), Storage(), None)
        ingest(Run(made, InlineCluster()), [str(footage)])
    return open_dataset(str(where / "dataset"), Storage())


class ExporterContract:
    """Derive a class from it, named Test…, with a fixture `make`."""

    def test_it_writes_files_and_names_the_last_of_them(
        self, make: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        row, dataset = make(), small_dataset(tmp_path_factory.getbasetemp())
        made = export(dataset, tmp_path / "out", row.name)
        assert row.last in made.files
        assert all((tmp_path / "out" / name).exists() for name in made.files)
        assert made.num_samples == 3
        assert all(isinstance(note, str) and note.strip() for note in made.notes)
        assert row.help.strip(), "--help tells what it is"

    def test_it_leaves_the_dataset_as_it_is(
        self, make: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        dataset = small_dataset(tmp_path_factory.getbasetemp())
        before = _facts(Path(dataset.uri))
        export(dataset, tmp_path / "out", make().name)
        assert _facts(Path(dataset.uri)) == before

    def test_it_writes_the_same_again(
        self, make: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        dataset = small_dataset(tmp_path_factory.getbasetemp())
        first = export(dataset, tmp_path / "out", make().name)
        again = export(dataset, tmp_path / "out", make().name, overwrite=True)
        assert again.files == first.files

    def test_what_it_does_not_take_is_refused(
        self, make: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        row, dataset = make(), small_dataset(tmp_path_factory.getbasetemp())
        asked = {"prefix": Options(prefix="s3://b/c"), "split": Options(split="8,1,1")}
        for option in asked.keys() - set(row.takes):
            with refused(UsageError, f"--{option}"):
                export(dataset, tmp_path / "out", row.name, asked[option])
            assert not (tmp_path / "out").exists()


def _facts(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
