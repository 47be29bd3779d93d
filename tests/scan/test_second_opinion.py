"""A second opinion: asked where there is doubt, heeded both ways, the same however frames come."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.shots.interface import HEIGHT, WIDTH, Frames, Opinion
from telecine.pipeline.media.color import color_map
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.second_opinion import SecondOpinion, pictures
from telecine.pipeline.scan.segment import CutDetector

COLORS = color_map("bt709", "full")


@dataclass
class Says:
    """A network that is as sure of a cut as neighbouring pictures differ, by `scale` levels."""

    scale: float
    asked: list[int] = field(default_factory=list)  # frames, each time

    def judge(self, frames: Frames) -> Opinion:
        self.asked.append(len(frames))
        change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
        sure = np.append(np.minimum(change / self.scale, 1), 0).astype(np.float32)
        return Opinion(sure, sure)


CERTAIN_OF_ALL, CERTAIN_OF_NONE = 1e-3, 1e9


def film(*shots: tuple[int, int], share: float = 1.0) -> Grid:
    """Shots of (frames, seed): a texture, of which a share is the seed's own, and faint noise."""
    planes = []
    for frames, seed in shots:
        rng, common = np.random.default_rng(seed), np.random.default_rng(0)
        own, other = (one.integers(30, 220, (9, 16)) for one in (rng, common))
        wide = (share * own + (1 - share) * other).repeat(4, axis=0).repeat(4, axis=1)
        for _ in range(frames):
            one = wide + rng.normal(0, 1, (36, 64))
            planes.append(one.clip(0, 255).astype(np.uint8))
    luma = np.stack(planes)
    chroma = np.full((len(luma), 18, 32), 128, np.uint8)
    return Grid(luma, chroma, chroma)


def cuts_of(detector: CutDetector | SecondOpinion, grid: Grid, chunk: int) -> list[int]:
    found: list[int] = []
    for start in range(0, len(grid), chunk):
        found += detector.push(grid[start : start + chunk])
        assert all(cut < detector.decided for cut in found)
    return found + detector.finish()


def second(network: Says, everywhere: bool = False) -> SecondOpinion:
    return SecondOpinion(CutDetector(True), network, COLORS, everywhere)


def test_what_is_certain_is_not_asked() -> None:
    network = Says(CERTAIN_OF_NONE)
    assert cuts_of(second(network), film((60, 1), (60, 2)), 32) == [60]
    assert not network.asked


def doubtful() -> Grid:
    """A cut between pictures so alike that the detector's score leaves it open."""
    return film((70, 1), (70, 2), share=0.15)


def test_a_doubt_is_settled_by_the_network() -> None:
    alone = CutDetector(True)
    found = cuts_of(alone, doubtful(), 32)
    assert 70 in alone.take_doubts(), "the film leaves no doubt: it tests nothing"
    sure, unsure = Says(CERTAIN_OF_ALL), Says(CERTAIN_OF_NONE)
    assert 70 in cuts_of(second(sure), doubtful(), 32)
    assert 70 not in cuts_of(second(unsure), doubtful(), 32)
    undecided = Says(9 / 0.3)  # neither certain enough to add nor to take away
    assert cuts_of(second(undecided), doubtful(), 32) == found
    assert max(sure.asked) < 140, "the network was asked of the whole film"


@pytest.mark.parametrize("everywhere", [False, True])
@given(chunk=st.integers(1, 150))
def test_cuts_do_not_depend_on_how_frames_come(everywhere: bool, chunk: int) -> None:
    whole = cuts_of(second(Says(12), everywhere), doubtful(), 140)
    assert cuts_of(second(Says(12), everywhere), doubtful(), chunk) == whole


@pytest.mark.parametrize("places", [(1,), (48, 52), (50,), (51, 100), (3, 60, 119)])
def test_asked_of_all_it_finds_every_cut_and_no_other(places: tuple[int, ...]) -> None:
    bounds = [0, *places, 120]
    shots = [(b - a, seed) for seed, (a, b) in enumerate(itertools.pairwise(bounds))]
    assert cuts_of(second(Says(30), True), film(*shots), 32) == list(places)
    # What the detector found and the network does not see is none.
    assert cuts_of(second(Says(CERTAIN_OF_NONE), True), film(*shots), 32) == []


@pytest.mark.parametrize("frames", [1, 2, 3, 49, 50, 51])
def test_few_frames(frames: int) -> None:
    for everywhere in (False, True):
        assert cuts_of(second(Says(30), everywhere), film((frames, 5)), 32) == []


@pytest.mark.parametrize(("height", "width"), [(36, 64), (64, 36), (1, 64), (27, 48), (5, 3)])
def test_pictures_have_the_colours_of_the_grid(height: int, width: int) -> None:
    red = color_map("bt709", "limited")
    luma = np.full((2, height, width), 63, np.uint8)
    cb, cr = (np.full((2, -(-height // 2), -(-width // 2)), v, np.uint8) for v in (102, 240))
    made = pictures(Grid(luma, cb, cr), red)
    assert made.shape == (2, HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(made.reshape(-1, 3).mean(0), (255, 0, 0), atol=3)
