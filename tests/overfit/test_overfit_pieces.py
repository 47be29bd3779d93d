"""The small transformer, what it is fed and how it is judged, on made-up latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from telecine.encoders.small_dit import (
    Gaussian,
    Noise,
    Packed,
    Sizes,
    SmallDit,
    losses,
    sample,
    words,
)
from telecine.pipeline.overfit.checks import (
    data_checks,
    held_out_checks,
    latent_checks,
    sample_checks,
)
from telecine.pipeline.overfit.compare import compared, nearest, shrunk, side_by_side
from telecine.pipeline.overfit.fed import Fed, axes_exchanged, cut, fed, joined, placed, rewritten
from telecine.pipeline.overfit.train import Clock, Trainer, measured

SHAPES = ((4, 2, 4, 6), (4, 1, 6, 4), (4, 1, 4, 4))
KEYS, CAPTIONS = ["a", "b", "c"], ["a red hill", "a blue sea", "snow"]


def made_up(seed: int = 0) -> Fed:
    generator = torch.Generator().manual_seed(seed)
    parts = [cut(torch.randn(shape, generator=generator)) for shape in SHAPES]
    return fed(parts, KEYS, CAPTIONS)


class Pack:
    """A pack as the feed gives them, in the fields that are asked for."""

    def __init__(self, given: Fed) -> None:
        self._patches = given.patches.half()
        self.positions = given.positions.int().numpy()
        self.cu_seqlens = np.array(given.cu_seqlens, np.int32)
        self.keys, self.captions = given.keys, given.captions

    def patches(self, order: str) -> torch.Tensor:
        assert order == "c t h w"
        return self._patches


# ── what is fed ──────────────────────────────────────────────────────────────────────────────────


def test_patches_are_put_where_their_positions_say() -> None:
    latents = torch.randn(3, 2, 4, 6)
    patches, positions = cut(latents)
    order = torch.randperm(len(patches))
    assert torch.equal(placed(patches[order], positions[order]), latents)
    assert torch.equal(patches[4], latents[:, 0, 2:4, 2:4].flatten())


def test_packs_are_joined_and_repeats_left_out() -> None:
    given = made_up()
    both = joined([Pack(given), Pack(given)])
    assert (both.keys, both.captions) == (tuple(KEYS), tuple(CAPTIONS))
    assert both.cu_seqlens == (0, 12, 18, 22)
    assert torch.equal(both.patches, given.patches.half().float())
    assert torch.equal(both.positions, given.positions)


def test_exchanged_axes_keep_the_numbers_and_change_what_is_beside_what() -> None:
    given = made_up()
    control = axes_exchanged(given)
    assert [tuple(one.shape) for one in control.latents()] == [
        (4, 2, 6, 4),
        (4, 1, 4, 6),
        (4, 1, 4, 4),
    ]
    assert torch.equal(control.latents()[0].flatten(), given.latents()[0].flatten())
    assert torch.equal(axes_exchanged(control).patches, given.patches)


# ── the model ────────────────────────────────────────────────────────────────────────────────────


def test_a_sample_does_not_see_its_neighbours() -> None:
    given = made_up()
    torch.manual_seed(0)
    model = SmallDit(Sizes(16, width=32, blocks=2, heads=2))
    for parameter in model.parameters():  # none is left at zero
        torch.nn.init.normal_(parameter, std=0.1)
    t = torch.tensor([0.3, 0.6, 0.9])
    with torch.no_grad():
        whole = model(given.patches, t, given.packed)
        for at, span in enumerate(given.spans):
            text = given.packed.text[at : at + 1]
            alone = Packed(given.positions[span], (0, span.stop - span.start), text)
            apart = model(given.patches[span], t[at : at + 1], alone)
            assert torch.allclose(whole[span], apart, atol=1e-5)


def test_captions_are_told_apart_and_long_ones_are_cut() -> None:
    text = words(["red hill", "red sea", "", "word " * 500])
    assert text.shape == (4, 96)
    assert text[0, 0] == text[1, 0] != text[0, 1] != text[1, 1]
    assert not text[2].any()


def test_an_untrained_model_is_near_the_gaussian_predictor() -> None:
    """It is one of mean 0 and variance 1 to begin with."""
    given = made_up()
    model = SmallDit(Sizes(16))
    fresh, floor = measured(model, [given]), measured(Gaussian(given.patches), [given])
    assert floor < fresh < 1.5 * floor
    noise = Noise.drawn(given.patches, 3, torch.Generator().manual_seed(2))
    assert losses(model, given.patches, given.packed, noise).shape == (3,)


def test_clips_are_learned_by_heart_and_come_back_by_their_captions() -> None:
    """A caption decides: grids are equal, and the clips are sampled in another order."""
    parts = [cut(torch.full((4, 1, 4, 4), value)) for value in (-1.0, 0.0, 1.0)]
    given = fed(parts, KEYS, CAPTIONS)
    trainer, clock = Trainer(16, "cpu"), Clock(600, 100)
    while clock.share < 1:
        trainer.step(given, clock.rate)
        clock.done += 1
    assert trainer.ratio(Gaussian(given.patches), [given]) < 0.25
    told = given.packed_with([CAPTIONS[2], CAPTIONS[0], CAPTIONS[1]])
    made = sample(trainer.average, told, 16, torch.Generator().manual_seed(0), steps=8)
    means = [float(made[span].mean()) for span in given.spans]
    assert means == pytest.approx([1, -1, 0], abs=0.3)


# ── the comparison ───────────────────────────────────────────────────────────────────────────────


def films() -> dict[str, np.ndarray]:
    """Of two frames, 24 × 32 and 32 × 24 px."""
    random = np.random.default_rng(0)
    shapes = {"a": (2, 24, 32, 3), "b": (2, 32, 24, 3)}
    return {
        key: np.repeat(
            np.repeat(random.integers(0, 256, (2, h // 8, w // 8, 3), np.uint8), 8, 1), 8, 2
        )
        for key, (_, h, w, _) in shapes.items()
    }


def test_a_sample_is_held_against_its_own_footage() -> None:
    footage = films()
    good = compared("a", footage["a"] // 2 * 2, footage["a"], footage)
    assert (good.nearest, good.round_trip_db) == ("a", 100)
    assert good.over_flat_db > 20
    turned = compared("a", footage["b"], footage["b"], footage)
    assert (turned.nearest, turned.psnr_db) == ("b", float("-inf"))


def test_failures_say_which_number_and_which_clip() -> None:
    footage = films()
    good = [compared(key, one, one, footage) for key, one in footage.items()]
    assert not [str(c) for c in sample_checks(0.1, good) if not c.passed]
    bad = [compared("a", footage["b"], footage["a"], footage), good[1]]
    failed = [c for c in sample_checks(0.3, bad) if not c.passed]
    assert [c.name for c in failed] == [
        "loss ÷ Gaussian", "samples nearest to another clip", "sample over flat colour, dB",
    ]  # fmt: skip
    assert "a gives b" in str(failed[1])
    assert "more --minutes" in str(failed[2])
    fed_wrong = [compared("a", footage["b"], footage["b"], footage), good[1]]
    assert "fed clips unlike their footage" in [
        c.name for c in sample_checks(0.1, fed_wrong) if not c.passed
    ]


def test_what_is_fed_is_held_against_the_tables() -> None:
    given = made_up()
    captions = dict(zip(KEYS, CAPTIONS, strict=True))
    grids = {"a": (5, 2, 3), "b": (1, 3, 2), "c": (1, 2, 2)}
    assert all(check.passed for check in data_checks(given, captions, grids))
    names = [c.name for c in data_checks(axes_exchanged(given), captions, grids) if not c.passed]
    assert names == ["grids of others"]
    others = captions | {"a": "snow", "d": "missing"}
    names = [c.name for c in data_checks(given, others, grids) if not c.passed]
    assert names == ["clips missing", "captions of others"]


@pytest.mark.parametrize(
    ("scale", "shift", "good"), [(1, 0, True), (3, 0, False), (0.2, 0, False), (1, 2, False)]
)
def test_latents_must_be_near_0_and_1(scale: float, shift: float, good: bool) -> None:
    given = made_up()
    changed = rewritten(given, [one * scale + shift for one in given.latents()])
    assert all(check.passed for check in latent_checks([changed])) is good


def test_pictures_of_any_size_stand_in_rows() -> None:
    footage = films()
    shown = side_by_side([[one[0], one[1]] for one in footage.values()], 48, gap=2)
    assert shown.shape == (102, 134, 3)
    ramp = np.tile(np.arange(8, dtype=np.uint8)[:, None, None], (1, 4, 3))
    assert shrunk(ramp, 2, 2)[:, 0, 0].tolist() == [1.5, 5.5]
    assert nearest(footage["a"], footage) == "a"


def test_a_held_out_loss_is_held_against_its_control() -> None:
    assert all(check.passed for check in held_out_checks(0.72, 0.80))
    assert [check.passed for check in held_out_checks(0.80, 0.72)] == [True, False]
    assert [check.passed for check in held_out_checks(0.95, 1.1)] == [False, True]
