"""overfit on a right build, and on one wrong in each way that it is there to notice."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from telecine.encoders.video.dct import MEAN, STD
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.pipeline.export.export import export
from telecine.pipeline.overfit.fed import Fed, axes_exchanged, rewritten
from telecine.pipeline.overfit.step import Overfitted, overfit
from telecine.pipeline.overfit.work import Options, unchanged
from tests.support import scenes
from tests.support.documents import ROOT, blocks
from tests.support.lab import Lab

# Enough for these clips on any machine: steps bound them, not the clock.
SMALL = Options(clips=4, minutes=60, tokens=100, steps=200)
LANDSCAPE, PORTRAIT = (128, 96), (96, 128)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two films and two pictures, upright and not."""
    lab = Lab(tmp_path_factory.mktemp("overfit"))
    scenes.still(lab, 1, LANDSCAPE)
    scenes.still(lab, 2, PORTRAIT)
    scenes.film(lab, 3, LANDSCAPE)
    scenes.film(lab, 4, PORTRAIT)
    return scenes.dataset(lab)


def run(
    dataset: str, out: Path, options: Options = SMALL, fault: Callable[[Fed], Fed] = unchanged
) -> Overfitted:
    return overfit(open_dataset(dataset, Storage()), options, out, fault=fault)


# ── faults: what the feed gives is changed, all else is as in a run ──────────────────────────────


def channels_in_another_order(given: Fed) -> Fed:
    return rewritten(given, [latents.flip(0) for latents in given.latents()])


def captions_swapped(given: Fed) -> Fed:
    return dataclasses.replace(given, captions=(*given.captions[1:], given.captions[0]))


def not_normalised(given: Fed) -> Fed:
    std, mean = (torch.tensor(each)[:, None, None, None] for each in (STD, MEAN))
    return rewritten(given, [latents * std + mean for latents in given.latents()])


def frames_of_another_clip(given: Fed) -> Fed:
    first, *others = given.latents()
    return rewritten(given, [*others, first])


NORMALISED = {"mean of the channels", "deviation of the channels, most"}
UNLIKE = {"fed clips unlike their footage", "sample over flat colour, dB"}
OTHERS = "samples nearest to another clip"
# As docs/train.md says it: which numbers see a fault for certain.
SEEN = {
    axes_exchanged: {"grids of others", *UNLIKE},
    channels_in_another_order: {OTHERS, *UNLIKE},
    captions_swapped: {"captions of others", OTHERS, "sample over flat colour, dB"},
    not_normalised: {*NORMALISED, *UNLIKE},
    frames_of_another_clip: {OTHERS, *UNLIKE},
}


@pytest.mark.slow
def test_a_right_build_is_learned(dataset: str, tmp_path: Path) -> None:
    learned = run(dataset, tmp_path / "out.png")
    assert not learned.failed, str(learned)
    assert (
        learned.tokens == 288
    )  # of each film two latent frames of 48 patches, of each picture one
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 3 * 90
    assert json.loads(json.dumps(learned.to_json()))["passed"] is True


@pytest.mark.slow
@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.__name__)
def test_a_fault_is_seen(fault: Callable[[Fed], Fed], dataset: str, tmp_path: Path) -> None:
    learned = run(dataset, tmp_path / "out.png", fault=fault)
    assert {check.name for check in learned.failed} >= SEEN[fault], str(learned)


@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.__name__)
def test_the_page_says_which_numbers_see_a_fault(fault: Callable[[Fed], Fed]) -> None:
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {said(fault)} |")]
    assert SEEN[fault] == {name.strip() for name in row.split("|")[2].split(";")}


def said(fault: Callable[[Fed], Fed]) -> str:
    return fault.__name__.replace("_", " ")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3), ids=["torch", "accelerate", "energon"])
def test_the_loops_of_the_page_run(number: int, dataset: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    program = blocks("python", page)[number]
    if number:
        pytest.importorskip(("accelerate", "megatron.energon")[number - 1])
    if number == 2:
        export(open_dataset(dataset, Storage()), tmp_path / "energon", "energon")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "dataset").symlink_to(dataset)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)


# ── what cannot be done ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dataclasses.replace(SMALL, clips=5), "has 4 clips to learn"),
        (dataclasses.replace(SMALL, tokens=20), "0 of 4 samples are so small"),
        (dataclasses.replace(SMALL, build="none"), "no build"),
    ],
)
def test_too_little_is_said(dataset: str, tmp_path: Path, options: Options, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(dataset, tmp_path / "out.png", options)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_is_there_is_kept(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        run(dataset, tmp_path / "out.png")
    with pytest.raises(UsageError, match=r"ends in \.png"):
        run(dataset, tmp_path / "out.jpg")
