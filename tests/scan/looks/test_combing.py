"""Fields woven from moving pictures, and progressive pictures whose rows look like them."""

from __future__ import annotations

import numpy as np
import pytest

from telecine.pipeline.scan.looks.combing import combed_share
from telecine.pipeline.scan.looks.detail import examine, summarise_details
from tests.support.pictures import gaussian, leaves, levels

HEIGHT, WIDTH = 192, 256
SCENERY = leaves(HEIGHT, WIDTH + 32, 1)
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH]


def woven(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.where(np.mgrid[: len(first), : first.shape[1]][0] % 2, second, first)


def panned(by: int, blur: float = 0.0) -> np.ndarray:
    scenery = gaussian(SCENERY, blur)
    return woven(scenery[:, :WIDTH], scenery[:, by : WIDTH + by])


@pytest.mark.parametrize("by", [2, 4, 8, 16])
@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_a_pan_in_two_fields_is_combed(by: int, blur: float) -> None:
    found = combed_share(levels(panned(by, blur)), 0)
    assert found is not None
    assert found > 0.03
    assert combed_share(levels(128 + 0.5 * (panned(by, blur) - 128)), 0) > 0.005


def test_a_subject_that_moves_is_combed_at_its_edges() -> None:
    before, after = SCENERY[:, :WIDTH].copy(), SCENERY[:, :WIDTH].copy()
    before[40:160, 80:120], after[40:160, 86:126] = 230, 230
    assert combed_share(levels(woven(before, after)), 0) > 0.01


PROGRESSIVE = {
    "scenery": SCENERY[:, :WIDTH],
    "fine scenery": leaves(HEIGHT, WIDTH, 3, least=1),
    "soft scenery": gaussian(SCENERY[:, :WIDTH], 2),
    "rows in turn": 128 + 60 * (-1.0) ** ROW,
    "checks": 128 + 60 * (-1.0) ** (ROW + COLUMN),
    "three rows": 128 + 60 * np.cos(2 * np.pi * ROW / 3),
    "a slant": 128 + 60 * np.cos(np.pi * (0.95 * ROW + 0.3 * COLUMN)),
    "blinds": np.where(ROW % 2, SCENERY[:, :WIDTH], 15),
    "scan lines": np.where(ROW % 2, 1, 0.5) * SCENERY[:, :WIDTH],
    "noise": 128 + np.random.default_rng(0).normal(0, 20, ROW.shape),
}


@pytest.mark.parametrize("picture", PROGRESSIVE.values(), ids=PROGRESSIVE)
def test_textures_are_not_combed(picture: np.ndarray) -> None:
    assert combed_share(levels(picture), 0) < 0.001


def test_depth_does_not_matter() -> None:
    picture = levels(panned(4))
    assert combed_share(picture.astype(np.uint16) << 4, 4) == combed_share(picture, 0)


def test_a_clip_is_combed_by_the_mean_of_its_stills() -> None:
    combed, whole = (examine(levels(p)) for p in (panned(6), SCENERY))
    values = summarise_details([combed, whole, whole, whole])
    assert values["combing"] == pytest.approx((combed.combed or 0) / 4, rel=1e-4)
    assert summarise_details([examine(np.zeros((8, 300), np.uint8))])["combing"] is None
