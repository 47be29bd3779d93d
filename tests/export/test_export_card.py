"""export --format card: what it says is what the tables and the tars say."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from telecine.infra.store.storage import Storage
from telecine.infra.text import length, size
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.schemas import Caption
from telecine.manifests.tables import Tables
from telecine.pipeline.export.export import export
from telecine.pipeline.export.formats import Options
from tests.support.exports import facts, files, made, members

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


def tables_of(text: str) -> list[list[list[str]]]:
    """Every table of a page of Markdown: its lines of cells."""
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        cells = [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        ]
        found.append([cells[0], *cells[2:]])
    return found


def section(text: str, title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return str(found)


def test_a_card_says_what_inspect_says(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "out", "card")
    text = (tmp_path / "out" / "README.md").read_text()
    found, report = facts(dataset)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "license": None,
        "pretty_name": "dataset-second",
        "tags": ["video", "image", "latents", "webdataset", "telecine"],
        "size_categories": ["n<1K"],
    }
    buckets = tables_of(section(text, "Buckets"))[0][1:]
    assert [row[:7] for row in buckets] == [
        [str(b.resolution), b.aspect, b.duration, str(b.clips), length(3600 * b.hours),
         size(b.latent_bytes), str(b.shards)]
        for b in report.buckets
    ]  # fmt: skip
    everything = members(dataset)
    kinds = [json.loads(sample["json"]) for sample in everything.values()]
    contents = tables_of(section(text, "What it holds"))[0][1:]
    assert [row[:3] for row in contents] == [
        [
            kind,
            str(sum(f["kind"] == kind for f in kinds)),
            str(sum(f["num_frames"] for f in kinds if f["kind"] == kind)),
        ]
        for kind in ("video", "image")
    ]
    left_out = section(text, "What was left out")
    assert tables_of(left_out) == [[["clips dropped from this build", "number"],
                                    ["no_bucket", "1"]]]  # fmt: skip
    assert report.dropped == {"no_bucket": 1}
    assert found.rejected == {}
    assert "sources rejected: none" in left_out
    assert "```sql\nwidth > 32\n```" in left_out
    assert report.vae_fingerprint in section(text, "Latents")
    assert json.loads(re.findall("```json\n(.*?)```", section(text, "Latents"), re.DOTALL)[0]) == (
        json.loads(report.vae)
    )
    assert report.pixel_fingerprint in section(text, "Pixels")
    assert dataset.uri not in text


def test_a_card_s_measurements_are_those_of_the_samples(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "out", "card")
    text = (tmp_path / "out" / "README.md").read_text()
    said = {row[0].strip("`"): row[2:] for row in tables_of(section(text, "Measurements"))[0][1:]}
    samples = [json.loads(s["json"])["measurements"] for s in members(dataset).values()]
    assert said.keys() == {name for one in samples for name in one} - {"dominant_colors"}
    for name, numbers in said.items():
        values = [sample[name] for sample in samples if name in sample]  # else it is unknown
        expected = [min(values), sum(values) / len(values), max(values)]
        assert [float(n) for n in numbers] == pytest.approx(expected, rel=1e-3, abs=1e-9), name


def test_a_card_says_whose_captions_the_samples_have(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    opened = open_dataset(str(tmp_path / "copy"), Storage())
    names = [json.loads(s["json"])["captioner"] for s in members(opened).values()]
    expected = {name: names.count(name) for name in names}
    assert expected == {"sidecar": 1, "signal": len(names) - 1}

    def said() -> dict[str, int]:
        export(opened, tmp_path / "out", "card", overwrite=True)
        text = (tmp_path / "out" / "README.md").read_text()
        rows = tables_of(section(text, "Captions"))[0][1:]
        return {row[0]: int(row[1]) for row in rows}

    assert said() == expected
    # Another text is in force since: what the tars say is no longer what would be said.
    (other,) = [c for c in opened.tables.arrow("captions").to_pylist()
                if c["captioner"] == "sidecar" and c["outcome"] == "ok"]  # fmt: skip
    changed = Caption(**{**other, "text": "A" + other["text"], "windows": ()})
    Tables(opened.uri).append("captions", [changed])
    opened = open_dataset(opened.uri, Storage())
    assert said() == {"no longer in force": 1, "signal": len(names) - 1}


def test_what_a_card_shows_to_load_the_dataset_runs(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    export(dataset, tmp_path / "out", "card")
    text = (tmp_path / "out" / "README.md").read_text()
    (program,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    exec(compile(program, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == len(members(dataset))


def croissant(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "croissant.json").read_text()))


def test_croissant_describes_the_shards_and_their_samples(dataset: Dataset, tmp_path: Path) -> None:
    """Croissant 1.0: every name resolves, and every path and pattern finds what it says."""
    export(dataset, tmp_path / "out", "card")
    found = croissant(tmp_path / "out")
    assert found["@type"] == "sc:Dataset"
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    everything = members(dataset)
    objects = [d for d in found["distribution"] if d["@type"] == "cr:FileObject"]
    sets = {d["@id"]: d for d in found["distribution"] if d["@type"] == "cr:FileSet"}
    assert len(objects) + len(sets) == len(found["distribution"])
    inside: list[str] = []
    for each in objects:
        data = Path(each["contentUrl"]).read_bytes()
        assert each["sha256"] == hashlib.sha256(data).hexdigest()
        assert each["contentSize"] == f"{len(data)} B"
        assert each["encodingFormat"] == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            inside += tar.getnames()
    assert len(inside) == 3 * len(everything)
    for name in inside:
        assert sum(fnmatch.fnmatch(name, each["includes"]) for each in sets.values()) == 1
    for each in sets.values():
        assert [part["@id"] for part in each["containedIn"]] == [o["@id"] for o in objects]
    fields = {f["@id"]: f for records in found["recordSet"] for f in records["field"]}
    ids = [*(d["@id"] for d in found["distribution"]), *(r["@id"] for r in found["recordSet"]),
           *fields]  # fmt: skip
    assert len(ids) == len(set(ids))
    for records in found["recordSet"]:
        assert records["key"]["@id"] in {f["@id"] for f in records["field"]}
    assert {"samples/clip_id", "samples/caption", "samples/latent"} <= fields.keys()
    for field in fields.values():
        check_field(field, fields, sets, inside, everything)
    joined = fields["samples/clip_id"]["references"]["field"]["@id"]
    assert joined.split("/")[0] == fields["samples/latent"]["source"]["field"]["@id"].split("/")[0]
    used = set(re.findall(r'"([A-Za-z]\w*)":', json.dumps(found["recordSet"])))
    assert used <= found["@context"].keys() | {"name", "description"}


def check_field(
    field: dict[str, Any],
    fields: dict[str, Any],
    sets: dict[str, Any],
    inside: list[str],
    everything: dict[str, dict[str, bytes]],
) -> None:
    source = field["source"]
    if "field" in source:
        assert source["field"]["@id"] in fields
        return
    chosen = sets[source["fileSet"]["@id"]]
    names = [name for name in inside if fnmatch.fnmatch(name, chosen["includes"])]
    ((how, what),) = source["extract"].items()
    if how == "jsonPath":
        values = [dig(json.loads(sample["json"]), what) for sample in everything.values()]
        kinds = {"sc:Text": str, "sc:Integer": int, "sc:Float": float}
        assert {type(value) for value in values} == {kinds[field["dataType"]]}, field["@id"]
    elif what == "filename":
        pattern = re.compile(source["transform"]["regex"])
        keys = [pattern.match(name).group(1) for name in names]  # type: ignore[union-attr]
        assert sorted(keys) == sorted(everything)
    else:
        assert what == "content"


def dig(value: Any, path: str) -> Any:
    for name in path.removeprefix("$.").split("."):
        value = value[name]
    return value


def test_mlcroissant_finds_nothing_wrong(dataset: Dataset, tmp_path: Path) -> None:
    library = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    export(dataset, tmp_path / "out", "card")
    found = library.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    everything = members(dataset)
    for kind, member in (("latent", "latent.npy"), ("caption", "txt")):
        records = list(found.records(f"{kind}_files"))
        assert {
            r[f"{kind}_files/clip_id"].decode(): r[f"{kind}_files/{kind}"] for r in records
        } == {clip_id: sample[member] for clip_id, sample in everything.items()}
        assert len(records) == len(everything)


def test_what_is_not_known_is_left_to_be_filled_in(dataset: Dataset, tmp_path: Path) -> None:
    done = export(dataset, tmp_path / "out", "card", Options(prefix="https://host/data"))
    found = croissant(tmp_path / "out")
    unknown = {"license", "url", "creator", "datePublished"}
    assert {key for key, value in found.items() if value is None} == unknown
    assert all(name in done.notes[0] for name in unknown)
    assert len(done.notes) == 1
    assert found["distribution"][0]["contentUrl"].startswith("https://host/data/shards/second/")
    assert "paths of this machine" in export(dataset, tmp_path / "here", "card").notes[1]
