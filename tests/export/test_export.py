"""export: lists of shards read back by plain webdataset; which folder, which build."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import webdataset
from rich.console import Console
from typer.testing import CliRunner

from telecine.infra import plugins
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.infra.text import size
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.cli import export as cli_export
from telecine.pipeline.cli.export import print_exported
from telecine.pipeline.export.export import Exported, export
from telecine.pipeline.export.formats import EXPORTERS, Exporter, Options
from tests.support.exports import facts, files, listed, made, members
from tests.support.plugins import install_into
from tests.support.rows import make_build, make_sample

VALUES = {"prefix": "https://host/data", "split": "1,0,0"}  # of every option, one that is right

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


def read(urls: Path) -> dict[str, Any]:
    """What plain webdataset reads from a list."""
    reader = webdataset.WebDataset(urls.read_text().splitlines(), shardshuffle=False).decode()
    samples = list(reader)
    assert len({s["__key__"] for s in samples}) == len(samples)
    return {s["__key__"]: s for s in samples}


# ── urls ─────────────────────────────────────────────────────────────────────────────────────────


def test_lists_are_read_by_plain_webdataset(dataset: Dataset, tmp_path: Path) -> None:
    done = export(dataset, tmp_path / "out", "urls")
    everything = members(dataset)
    found = read(tmp_path / "out" / "urls.txt")
    assert found.keys() == everything.keys()
    for key, sample in found.items():
        latents = np.load(io.BytesIO(everything[key]["latent.npy"]))
        assert np.array_equal(sample["latent.npy"], latents)
    _, report = facts(dataset)
    by_bucket = {}
    for bucket in report.buckets:
        name = f"{bucket.resolution}/{bucket.aspect}/{bucket.duration}"
        by_bucket[name] = read(tmp_path / "out" / name / "urls.txt")
        assert len(by_bucket[name]) == bucket.clips
        assert {s["json"]["bucket"]["duration"] for s in by_bucket[name].values()} == {
            bucket.duration
        }
    assert len(by_bucket) >= 3
    assert sorted(key for part in by_bucket.values() for key in part) == sorted(everything)
    assert done.num_samples == len(everything)
    assert set(done.files) == listed(tmp_path / "out")


def test_indexes_agree_with_the_dataset_s_own_and_with_inspect(
    dataset: Dataset, tmp_path: Path
) -> None:
    export(dataset, tmp_path / "out", "urls")
    _, report = facts(dataset)
    theirs = json.loads(Path(dataset.uri, "shards", report.name, "index.json").read_text())
    ours = json.loads((tmp_path / "out" / "index.json").read_text())
    for key in ("build_id", "vae_fingerprint", "num_samples", "size_bytes", "digest"):
        assert ours[key] == theirs[key]
    names = ("path", "num_samples", "size_bytes", "sha256")
    assert [[s[n] for n in names] for s in ours["shards"]] == [
        [s[n] for n in names] for s in theirs["shards"]
    ]
    for shard in ours["shards"]:
        data = Path(shard["url"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (
            shard["size_bytes"], shard["sha256"],
        )  # fmt: skip
    assert [(b["duration"], b["num_samples"], b["num_shards"]) for b in ours["buckets"]] == [
        (b.duration, b.clips, b.shards)
        for b in sorted(report.buckets, key=lambda b: f"{b.resolution}/{b.aspect}/{b.duration}")
    ]
    for bucket in ours["buckets"]:
        index = json.loads((tmp_path / "out" / bucket["urls"]).with_name("index.json").read_text())
        assert {k: index[k] for k in bucket if k != "urls"} == {
            k: v for k, v in bucket.items() if k != "urls"
        }
        assert [s["url"] for s in index["shards"]] == (
            (tmp_path / "out" / bucket["urls"]).read_text().splitlines()
        )


def test_a_prefix_says_where_the_dataset_will_lie(dataset: Dataset, tmp_path: Path) -> None:
    _, report = facts(dataset)
    export(dataset, tmp_path / "web", "urls", Options(prefix="https://host/data/"))
    for url in (tmp_path / "web" / "urls.txt").read_text().splitlines():
        assert re.fullmatch(
            rf"https://host/data/shards/{report.name}/\d+/\d+x\d+/\w+/[0-9a-f]{{32}}\.tar", url
        )
    piped = Options(prefix=f"pipe:cat '{dataset.uri}/{{}}'")
    export(dataset, tmp_path / "pipe", "urls", piped)
    assert read(tmp_path / "pipe" / "urls.txt").keys() == members(dataset).keys()


def test_s3_urls_come_with_a_word_on_how_to_open_them(
    root: str, storage: Storage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = create_dataset(root, storage, None)
    path = "shards/dct-bbbbbbbb/360/16x9/2s/d.tar"
    made.tables.append("samples", [make_sample(shard_path=path, shard_samples=1)])
    made.tables.append("builds", [make_build(event="completed")])
    opened = open_dataset(root, storage)
    out = tmp_path_factory.mktemp("out")
    done = export(opened, out, "urls", build="dct")
    url = f"{root}/shards/dct-bbbbbbbb/360/16x9/2s/d.tar"
    assert (out / "urls.txt").read_text() == f"{url}\n"
    if root.startswith("s3"):
        assert done.notes[0].endswith(f"--prefix 'pipe:aws s3 cp {root}/{{}} -'")
        with pytest.raises(UsageError, match="Copy it to a disk and export there"):
            export(opened, out / "more", "energon", build="dct")
    else:
        assert done.notes == ()


# ── the folder, the build, the options ───────────────────────────────────────────────────────────


def test_a_folder_with_something_in_it_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(dataset, out, "urls", build="dct")
    (out / "mine.txt").write_text("mine")
    before = listed(out)
    with pytest.raises(UsageError, match="is not empty: name another folder, or add --overwrite"):
        export(dataset, out, "urls")
    assert listed(out) == before
    export(dataset, out, "card", overwrite=True)
    assert listed(out) == before | {"README.md", "croissant.json"}
    assert (out / "mine.txt").read_text() == "mine"


def test_an_export_takes_the_place_of_the_last_one(dataset: Dataset, tmp_path: Path) -> None:
    """A list of a bucket that is no longer there would still be read."""
    out = tmp_path / "out"
    first = export(dataset, out, "urls", build="second")
    (out / "360").mkdir(exist_ok=True)
    (out / "360" / "mine.txt").write_text("mine")
    done = export(dataset, out, "urls", build="films", overwrite=True)
    assert len(done.files) == 4 < len(first.files)
    assert listed(out) == {*done.files, "360/mine.txt"}
    again = export(dataset, out, "urls", build="second", overwrite=True)
    assert listed(out) == {*first.files, "360/mine.txt"}
    assert again == first


def test_where_an_export_may_go(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "link").symlink_to(dataset.uri)
    for folder, words in (
        (Path(dataset.uri), "lies in the dataset"),
        (Path(dataset.uri) / "shards" / "second" / "new", "lies in the dataset"),
        (tmp_path / "link" / "new", "lies in the dataset"),
        (file, "is a file: name a folder"),
        (Path("s3://bucket/folder"), "name a folder on this machine"),
    ):
        with pytest.raises(UsageError, match=words):
            export(dataset, folder, "urls", overwrite=True)
    out = tmp_path / "out"
    out.mkdir()
    shards = Path(dataset.uri) / "shards" / "second"
    for name in {p.name for p in shards.iterdir() if p.is_dir()}:
        (out / name).symlink_to(shards / name)
    with pytest.raises(UsageError, match="leads out of"):
        export(dataset, out, "urls", overwrite=True)


def test_builds_that_can_be_exported(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    tables = Tables(str(tmp_path / "copy"))
    tables.append("builds", [make_build(sequence=90, name="begun", build_id="e" * 32)])
    empty = {"name": "empty", "build_id": "f" * 32}
    tables.append("builds", [make_build(sequence=91 + n, event=event, **empty)
                             for n, event in enumerate(("planned", "completed"))])  # fmt: skip
    opened = open_dataset(str(tmp_path / "copy"), Storage())
    for form in [row.name for row in EXPORTERS]:
        for name, words in (
            ("begun", "build begun is not completed"),
            ("empty", "build empty holds no sample"),
            ("none", "there is no build 'none'"),
        ):
            with pytest.raises(UsageError, match=words):
                export(opened, tmp_path / "out", form, build=name)
    assert not (tmp_path / "out").exists()
    made = create_dataset(str(tmp_path / "new"), Storage(), DatasetSpec())
    with pytest.raises(UsageError, match="no build is current yet"):
        export(made, tmp_path / "out", "urls")


@pytest.mark.parametrize("row", EXPORTERS, ids=lambda row: str(row.name))
@pytest.mark.parametrize("option", [field.name for field in dataclasses.fields(Options)])
def test_a_format_takes_the_options_of_its_row(
    row: Exporter, option: str, dataset: Dataset, tmp_path: Path
) -> None:
    options = Options(**{option: VALUES[option]})
    if option in row.takes:
        needed(row)
        export(dataset, tmp_path / "out", row.name, options)
        assert listed(tmp_path / "out")
    else:
        with pytest.raises(UsageError, match=f"^--{option} is for --format .*, not for {row.name}"):
            export(dataset, tmp_path / "out", row.name, options)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", EXPORTERS, ids=lambda row: str(row.name))
def test_the_file_that_names_the_others_is_written(
    row: Exporter, dataset: Dataset, tmp_path: Path
) -> None:
    needed(row)
    done = export(dataset, tmp_path / "out", row.name)
    assert row.last in done.files
    assert done.format == row.name
    assert {name for name in done.files if name != f".telecine-{row.name}.json"} == listed(
        tmp_path / "out"
    )


def needed(row: Exporter) -> None:
    if row.name == "energon":
        pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")


@pytest.mark.parametrize(
    ("form", "options", "words"),
    [
        ("tar", Options(), "choose one of urls, energon, card"),
        ("card", Options(prefix="pipe:cat {}"), "write where the dataset will lie"),
        ("urls", Options(prefix="https://host/\n"), "write where the dataset will lie"),
    ],
)
def test_options_that_do_not_fit_are_explained(
    form: str, options: Options, words: str, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        export(dataset, tmp_path / "out", form, options)
    assert not (tmp_path / "out").exists()


def test_help_and_documents_name_every_format() -> None:
    help_text = " ".join(CliRunner().invoke(APP, ["--help"]).stdout.split())
    page = (Path(__file__).resolve().parents[2] / "docs" / "inspect.md").read_text()
    for row in EXPORTERS:
        assert f"{row.name}: {row.help}" in help_text
        takes = ", ".join(f"`--{name}`" for name in row.takes)
        assert f"| `{row.name}` | {row.help} | {takes} |" in page
        assert f"--format {row.name}" in page


def shown(done: Exported, as_json: bool) -> str:
    out = io.StringIO()
    print_exported(done, as_json, Console(file=out, width=40))
    return out.getvalue()


def test_what_was_written_is_named(dataset: Dataset, tmp_path: Path) -> None:
    done = export(dataset, tmp_path / "out", "urls")
    _, report = facts(dataset)
    samples = sum(b.clips for b in report.buckets)
    shards = sum(b.shards for b in report.buckets)
    first, *rest = shown(done, False).splitlines()
    assert first == (
        f"urls of build second: {samples} samples in {shards} shards, {size(done.size_bytes)}"
    )
    assert f"wrote {tmp_path}/out/urls.txt" in rest
    assert f"wrote {tmp_path}/out/index.json" in rest
    assert json.loads(shown(done, True))["num_samples"] == samples


APP = typer.Typer(rich_markup_mode=None)  # as telecine itself
APP.command(cls=cli_export.WithPlugins)(cli_export.export)


def test_the_command(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        APP,
        [dataset.uri, str(out), "--format", "urls", "--build", "dct", "--prefix", "x:/", "--json"],
    )
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["build"].startswith("dct-")
    assert (out / "urls.txt").read_text().startswith("x:/shards/dct-")
    again = CliRunner().invoke(APP, [dataset.uri, str(out), "--format", "urls"])
    assert isinstance(again.exception, UsageError)


def documented() -> str:
    """The exporter of docs/extending.md, as a module of a plug-in."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
    section = page.split("## An exporter\n")[1].split("\n## ")[0]
    function, row = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    imported = "from telecine.pipeline.export.formats import Exporter\n"
    moved = row.replace("telecine.pipeline.export.paths", "telecine_paths")
    assert moved != row
    return f"{function}\n{imported}{moved}OFFER = EXPORTER\n"


def test_a_plug_in_is_as_a_row_here(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install_into(tmp_path)(
        "telecine-paths", "1.0", "telecine_paths", documented(), {plugins.EXPORTERS: "tsv"}
    )
    out = tmp_path / "out"
    words = [dataset.uri, str(out), "--format", "tsv", "--prefix", "x:/"]
    done = CliRunner().invoke(APP, [*words, "--json"])
    assert done.exit_code == 0, done.exception
    said = json.loads(done.stdout)
    assert said["format"] == "tsv"
    lines = [line.split("\t") for line in (out / "shards.tsv").read_text().splitlines()]
    assert len(lines) == said["num_shards"]
    assert sum(int(samples) for samples, _ in lines) == said["num_samples"]
    assert all(url.startswith("x:/shards/second/") for _, url in lines)
    again = CliRunner().invoke(APP, words)
    assert "--overwrite" in str(again.exception)
    with pytest.raises(UsageError, match="--split is for --format energon, not for tsv"):
        export(dataset, tmp_path / "new", "tsv", Options(split="1,0,0"))
    offered = r"choose one of urls, .*, tsv \(plug-in of telecine-paths 1\.0\)"
    with pytest.raises(UsageError, match=offered):
        export(dataset, tmp_path / "new", "csv")
    shown_help = " ".join(CliRunner().invoke(APP, ["--help"]).stdout.split())
    assert "tsv (plug-in of telecine-paths 1.0)" in shown_help
