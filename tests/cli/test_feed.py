"""telecine feed: what is said of an epoch is what its order has; an index holds what it takes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from typer.testing import CliRunner

from telecine.infra.errors import UsageError
from telecine.manifests.index.samples import SampleIndex, read_samples
from telecine.pipeline.cli.main import app
from telecine.pipeline.cli.train.feed import Told, print_told
from telecine.pipeline.feed.plan.options import OrderOptions
from telecine.pipeline.feed.plan.order import Order
from telecine.pipeline.feed.plan.report import report
from telecine.pipeline.feed.plan.steps import Source
from tests.support.exports import made

FIRST = "dct-"  # with a film and images; of them "films" has the film, and "second", current, all


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return made(tmp_path_factory.getbasetemp())


def asked(dataset: Path, *options: str) -> Any:
    done = CliRunner().invoke(app, ["feed", str(dataset), *options, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(dataset: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["feed", str(dataset), *options])
    assert isinstance(done.exception, UsageError), done.output
    return str(done.exception)


def index_at(path: Path) -> SampleIndex:
    return read_samples(pa.memory_map(str(path)), path.name)


def beside(dataset: Path, build: str) -> Path:
    """The index that the build wrote."""
    (path,) = (dataset / "shards").glob(f"{build}*/samples-*.arrow")
    return path


def test_what_is_said_is_what_the_order_has(dataset: Path) -> None:
    told = asked(dataset, f"--build={FIRST}", "--tokens=800", "--packs-per-step=2", "--seed=3")
    order = Order([Source(index_at(beside(dataset, FIRST)))], OrderOptions(800, 2, seed=3))
    steps = list(order.steps())
    sizes = [size for step in steps for size in step.tokens]
    assert (told["packs"], told["steps"]) == (len(sizes), len(steps))
    assert told["tokens"] == sum(sizes)
    assert told["padding"] == pytest.approx(1 - sum(sizes) / (800 * len(sizes)))
    assert told["images"] == {"samples": 4, "tokens": 100 * 3 + 300}
    (named,) = told["builds"]
    assert named["samples"] == 5
    assert named["build"].startswith(FIRST)
    assert named["digest"] == order.sources[0].index.facts.digest


def test_bytes_a_second_follow_the_steps(dataset: Path) -> None:
    one = asked(dataset, "--tokens=500", "--packs-per-step=1")
    fast = asked(dataset, "--tokens=500", "--packs-per-step=1", "--steps-per-second=20")
    assert one["bytes_a_second"] == one["tokens"] / one["steps"] * 128  # 16 channels, 2 × 2 values
    assert fast["bytes_a_second"] == 20 * one["bytes_a_second"]


def test_builds_share_by_weight(dataset: Path) -> None:
    told = asked(dataset, "--build=second=3", "--build=films=1", "--tokens=4000")
    assert [(b["build"], b["weight"]) for b in told["builds"]] == [("second", 3), ("films", 1)]
    assert told["sources"][0]["samples"] > told["sources"][1]["samples"] > 0


def test_an_index_holds_what_a_condition_takes(dataset: Path, tmp_path: Path) -> None:
    """Of a build that is not current too; the same question gives the same bytes."""
    place = tmp_path / "x.arrow"
    line = [f"--build={FIRST}", "--where=kind = 'image' AND width > 300", f"--index={place}"]
    told = asked(dataset, *line)
    whole, found = index_at(beside(dataset, FIRST)), index_at(place)
    wide = [r for r in whole.rows.to_pylist() if r["shape"][1:] == [1, 30, 40]]
    assert found.rows.to_pylist() == wide
    assert 0 < len(wide) < whole.rows.num_rows
    assert found.facts.build == whole.facts.build
    assert found.facts.digest not in ("", whole.facts.digest)
    assert told["index"] == {"file": str(place), "size_bytes": place.stat().st_size}
    before = place.read_bytes()
    assert "--overwrite" in refused(dataset, *line)
    asked(dataset, *line, "--overwrite")
    assert place.read_bytes() == before


def test_a_build_without_an_index_of_its_own_is_read_by_the_tables(
    dataset: Path, tmp_path: Path
) -> None:
    """As one that an older version made."""
    written = beside(dataset, "second")
    kept = written.rename(tmp_path / "kept")
    try:
        asked(dataset, f"--index={tmp_path / 'x.arrow'}")
    finally:
        kept.rename(written)
    assert (tmp_path / "x.arrow").read_bytes() == written.read_bytes()


def test_measure_reads_what_was_said(dataset: Path) -> None:
    line = ["--tokens=700", "--packs-per-step=1", "--where=width > 32"]
    told = asked(dataset, *line, "--measure")
    measured = told["measured"]
    assert measured["packs"] == told["packs"]
    assert measured["size_bytes"] == told["tokens"] * 128
    assert measured["seconds"] > 0
    done = CliRunner().invoke(app, ["feed", str(dataset), *line, "--measure"])
    assert "a CPU second" in done.stdout
    assert asked(dataset, *line)["measured"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--build=films=0"], "the weight is a number above 0, as in films=0.7"),
        (["--build=films=inf"], "the weight is a number above 0"),
        (["--build=nonesuch"], "there is no build 'nonesuch'"),
        (["--split=half"], "choose of prefix, windows, leave"),
        (["--tokens=3"], "make packs longer"),
        (["--build=films", "--where=kind = 'image'"], "build films has no samples that --where"),
        (["--where=kind = 'sound'"], "takes none of the clips"),
        (["--where=nonesuch > 1"], "clips have the columns"),
        (["--index=x.parquet"], "name a file that ends in .arrow"),
        (["--index=x.arrow", "--build=films", "--build=films"], "write one for each"),
    ],
)
def test_what_it_cannot_do_it_says(dataset: Path, options: list[str], words: str) -> None:
    assert words in refused(dataset, *options)
    assert not Path("x.arrow").exists()


@pytest.mark.parametrize("width", [40, 200])
def test_on_a_terminal(dataset: Path, width: int) -> None:
    order = Order([Source(index_at(beside(dataset, FIRST)), 2.0)], OrderOptions(300, 4))
    console = Console(file=io.StringIO(), width=width)
    print_told(Told(report(order), order.options, order.sources), 10, False, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for words in (
        ": 5 samples, weight 2",
        "epoch     5 samples in 4 packs of 300 tokens, 1 step of 4",
        "1 sample shortened to what fits, by ",
        "a second at 10 steps a second, all ranks together",
    ):
        assert words in said
    assert {"videos", "images", "144/1x1/image"} <= set(said.split())
