"""rebuild --dry-run: which build from which, why, how much, how long; and the rates behind it."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from telecine.encoders.video.dct import DctEncoder
from telecine.infra.errors import StorageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset
from telecine.manifests.fingerprint import canonical_json
from telecine.manifests.schemas import Build
from telecine.manifests.shards import RATES_PATH
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.preview import (
    Estimate,
    Preview,
    Rate,
    estimate,
    record_rate,
)
from telecine.pipeline.cli.rebuild import print_foreseen
from telecine.pipeline.lifecycle.changes import Change, changes, differences, shortened
from telecine.pipeline.lifecycle.promote import Promotion
from telecine.pipeline.recipes import Foreseen
from tests.support.rows import make_build

OLD, NEW = "o" * 32, "n" * 32
ENCODER = DctEncoder()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return create_dataset(str(tmp_path / "dataset"), Storage(), None)


def preview(**facts: Any) -> Preview:
    usual: dict[str, Any] = {
        "build_id": NEW, "name": "wan-8a7b6c5d", "follows": "", "resumed": False,
        "fresh": 0, "replaced": 0, "shards": 17, "dropped": 2, "uncaptioned": 0, "encoded": 120,
        "copied": 0, "frames_to_decode": 9600, "frames_to_encode": 9540,
        "pixels_to_encode": 4_000_000_000, "seconds_to_encode": 320.0,
        "bytes_of_footage": 1_200_000_000, "bytes_to_copy": 0, "bytes_to_write": 310_000_000,
    }  # fmt: skip
    return Preview(**{**usual, **facts})


def shown(
    found: Preview,
    old: Build | None = None,
    why: tuple[Change, ...] = (),
    time: Estimate | None = None,
    promotion: Promotion | None = None,
    as_json: bool = False,
) -> str:
    out = io.StringIO()
    foreseen = Foreseen(found, old, tuple(why), time, promotion)
    print_foreseen(foreseen, as_json, Console(file=out, width=40))
    return out.getvalue()


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def test_another_encoder_makes_every_shard_stale() -> None:
    why = (Change("vae.encoder.name", "dct", "wan"), Change("vae.fps", None, "24"))
    old = make_build(build_id=OLD, name="dct-1f0c2f6e")
    time = Estimate(750.0, 2, Rate(2_666_666.6, 1))
    assert shown(preview(follows=OLD), old, why, time).splitlines() == [
        "from     dct-1f0c2f6e",
        "to       wan-8a7b6c5d, laid out in the same shards and order",
        "changed  vae.encoder.name: dct → wan",
        "         vae.fps: none → 24",
        "shards   0 fresh, 17 stale, 17 to write",
        "samples  120 to encode, 0 to copy, 2 to leave out",
        "frames   9,600 to decode, 9,540 to encode (5:20 min of footage)",
        "bytes    1.2 GB of footage and 0 B of latents to read, 310 MB to write",
        "time     about 12:30 min with 2 workers at 2.67 million pixels/s each, as last measured",
    ]


def test_the_same_build_has_the_shards_stale_that_are_replaced() -> None:
    found = preview(fresh=12, replaced=5, shards=4, uncaptioned=3)
    text = shown(found, make_build(build_id=NEW, name="wan-8a7b6c5d"))
    assert "the same build: its spec and encoder are as they were" in text
    assert "shards   12 fresh, 5 stale, 4 to write\n" in text
    assert "2 to leave out, 3 without a caption\n" in text
    assert "changed" not in text


def test_without_a_measured_rate_there_is_no_estimate() -> None:
    text = shown(preview(resumed=True))
    assert "from     nothing: no build is current\n" in text
    assert "going on with the plan that an earlier run began" in text
    assert text.endswith("time     not measured yet: no run under this encoder\n")


def test_copies_take_no_encoding() -> None:
    text = shown(preview(encoded=0, copied=120, pixels_to_encode=0, bytes_to_copy=2_000))
    assert "and 2 kB of latents to read" in text
    assert text.endswith("time     nothing is encoded\n")


def test_nothing_to_do_is_said() -> None:
    text = shown(preview(fresh=17, shards=0, dropped=0, encoded=0))
    assert text.endswith("nothing to encode, copy or write\n")


def test_what_becomes_current_is_said() -> None:
    idle = preview(fresh=17, shards=0, dropped=0, encoded=0)
    text = shown(idle, promotion=Promotion("old", "wan", if_gates_allow=True))
    assert text.endswith("copy or write\ncurrent  old → wan, if the gates allow\n")
    text = shown(preview(), promotion=Promotion("", "wan", if_gates_allow=False))
    assert text.endswith("\ncurrent  none → wan\n")


def test_as_json() -> None:
    why = (Change("vae.encoder.weights", None, "c" * 64),)
    old = make_build(build_id=OLD, name="old")
    found = json.loads(shown(preview(), old, why, Estimate(7.5, 2, Rate(1e6, 2)), as_json=True))
    assert found["from"] == {"build_id": OLD, "name": "old"}
    assert found["changed"] == [{"key": "vae.encoder.weights", "old": None, "new": "c" * 64}]
    assert found["shards"] == {"fresh": 0, "stale": 17, "to_write": 17}
    assert found["bytes"]["footage_to_read"] == 1_200_000_000
    assert found["estimate"]["seconds"] == 7.5
    assert json.loads(shown(preview(), as_json=True))["estimate"] is None


# ── what changed ─────────────────────────────────────────────────────────────────────────────────


def built(generation: Generation) -> Build:
    encoder = generation.encoder
    return make_build(
        build_id=generation.build_id,
        spec=generation.spec,
        vae=canonical_json(encoder.identity()),
        vae_fingerprint=encoder.fingerprint,
    )


def test_a_generation_equal_to_the_build_changes_nothing(dataset: Dataset) -> None:
    generation = Generation.of(dataset, ENCODER)
    assert changes(built(generation), generation) == []
    assert changes(None, generation) == []


def test_what_makes_a_generation_another_build_is_listed(dataset: Dataset) -> None:
    old = Generation.of(dataset, ENCODER)
    given = {"select": {"where": "motion > 0.1"}, "vae": {"patch": 4, "encoder": "diffusers:/a"}}
    spec = dataset.spec.overlaid(given)
    asked = Dataset(dataset.uri, dataset.storage, spec, dataset.tables)
    new = Generation.of(asked, DctEncoder(latents_mean=(0.0,) * 16))
    found = changes(built(old), new)
    assert [change.key for change in found] == [
        "select.where",
        "vae.encoder.latents_mean",
        "vae.patch",
    ]
    assert str(found[0]) == "select.where: none → motion > 0.1"
    assert str(found[2]) == "vae.patch: 2 → 4"
    assert differences(built(old), built(new)) == found
    assert new.build_id != old.build_id


def test_long_values_are_shortened_and_stay_apart() -> None:
    assert shortened("a" * 64) == "aaaaaaaaaaaa…"
    assert shortened(None) == "none"
    assert shortened(True) == "true"
    zeros, last = [0.0] * 100, [0.0] * 99 + [1.0]
    assert len(shortened(zeros)) <= 40
    assert shortened(zeros) != shortened(last)


# ── rates ────────────────────────────────────────────────────────────────────────────────────────


def test_a_measured_rate_gives_an_estimate(dataset: Dataset) -> None:
    assert estimate(dataset, ENCODER, pixels=100, shards=9) is None
    record_rate(dataset, ENCODER, pixels=6_000_000, seconds=2.0, workers=3)
    assert estimate(dataset, ENCODER, pixels=30_000_000, shards=9) == Estimate(
        10.0, 3, Rate(1e6, 3)
    )
    assert estimate(dataset, ENCODER, pixels=30_000_000, shards=9, workers=1) == Estimate(
        30.0, 1, Rate(1e6, 3)
    )


@pytest.mark.parametrize(("shards", "workers"), [(9, 3), (2, 2), (0, 1)])
def test_no_more_workers_than_shards_have_work(shards: int, workers: int, dataset: Dataset) -> None:
    record_rate(dataset, ENCODER, pixels=6_000_000, seconds=2.0, workers=3)
    for asked in (None, 3):
        found = estimate(dataset, ENCODER, pixels=30_000_000, shards=shards, workers=asked)
        assert found == Estimate(30 / workers, workers, Rate(1e6, 3))


def test_each_encoder_has_the_rate_of_its_last_run(dataset: Dataset) -> None:
    other = DctEncoder(latents_mean=(0.0,) * 16)
    record_rate(dataset, ENCODER, pixels=100, seconds=1.0, workers=1)
    assert estimate(dataset, other, pixels=100, shards=9) is None
    record_rate(dataset, other, pixels=900, seconds=1.0, workers=1)
    record_rate(dataset, ENCODER, pixels=200, seconds=1.0, workers=1)
    seconds = [estimate(dataset, e, pixels=1800, shards=9) for e in (ENCODER, other)]
    assert [found and found.seconds for found in seconds] == [9.0, 2.0]


def test_a_run_that_encoded_nothing_measured_nothing(dataset: Dataset) -> None:
    for pixels, seconds, workers in ((0, 1.0, 1), (1, 0.0, 1), (1, 1.0, 0)):
        record_rate(dataset, ENCODER, pixels=pixels, seconds=seconds, workers=workers)
    assert not Path(dataset.path(RATES_PATH)).exists()


KEY = f"dct-{ENCODER.fingerprint}"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b"[" * 100_000,
        b'{"dct": 1}',
        json.dumps({KEY: 5}).encode(),
        json.dumps({KEY: {"pixels_per_second": "fast", "workers": 1}}).encode(),
        json.dumps({KEY: {"pixels_per_second": 0, "workers": 1}}).encode(),
        json.dumps({KEY: {"pixels_per_second": float("nan"), "workers": 1}}).encode(),
        json.dumps({KEY: {"pixels_per_second": 5, "workers": float("inf")}}).encode(),
        json.dumps({KEY: {"pixels_per_second": 5, "workers": None}}).encode(),
        json.dumps({KEY: {"pixels_per_second": 5}}).encode(),
    ],
)
def test_a_damaged_file_is_no_estimate_and_is_written_anew(text: bytes, dataset: Dataset) -> None:
    Path(dataset.path(RATES_PATH)).write_bytes(text)
    assert estimate(dataset, ENCODER, pixels=100, shards=9) is None
    record_rate(dataset, ENCODER, pixels=100, seconds=1.0, workers=1)
    found = estimate(dataset, ENCODER, pixels=100, shards=9)
    assert found is not None
    assert found.seconds == 1.0


class ReadOnly(Storage):
    def write_bytes(self, uri: str, data: bytes, *_: Any, **__: Any) -> Any:
        raise StorageError("read-only")


def test_a_rate_that_cannot_be_written_ends_no_run(dataset: Dataset) -> None:
    dataset = dataclasses.replace(dataset, storage=ReadOnly())
    record_rate(dataset, ENCODER, pixels=100, seconds=1.0, workers=1)
    assert estimate(dataset, ENCODER, pixels=100, shards=9) is None
