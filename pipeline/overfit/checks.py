"""What must be true of an overfitted model, number by number, and which faults each one sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from telecine.pipeline.overfit.compare import Compared
from telecine.pipeline.overfit.fed import Fed

LOSS = 0.25  # of the Gaussian predictor's: it knows each feature's mean and variance alone
OVER_FLAT_DB = 3.0
MEAN = 0.75  # root mean square over the channels
DEVIATION = (0.5, 1.75)  # likewise
HELD_OUT = 0.92
CONTROL = 1.05  # times the loss of what the feed gives


@dataclass(frozen=True)
class Check:
    """One number against its bound."""

    name: str
    value: float
    bound: float
    at_most: bool  # else at least
    sees: str  # what is wrong where it fails
    detail: str = ""  # which clips

    @property
    def passed(self) -> bool:
        """False also of a number that is none"""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        said = f"{self.name}: {self.value:.4g}, must be {sign} {self.bound:g}"
        if self.passed:
            return said
        return f"{said}: {self.sees}" + (f" ({self.detail})" if self.detail else "")


def data_checks(given: Fed, captions: Mapping[str, str], grids: Mapping[str, Grid]) -> list[Check]:
    """Whether the feed gave the clips that were asked for, with their own captions and grids."""
    missing = [key for key in captions if key not in given.keys]
    wrong = [
        k for k, text in zip(given.keys, given.captions, strict=True) if captions.get(k) != text
    ]
    fed = [tuple(int(n) + 1 for n in given.positions[span].amax(0)) for span in given.spans]
    off = [k for k, grid in zip(given.keys, fed, strict=True) if not _is_prefix(grid, grids[k])]
    return [
        Check("clips missing", len(missing), 0, True, "the feed leaves out clips", _some(missing)),
        Check(
            "captions of others", len(wrong), 0, True,
            "samples come with another text than the tables have for them", _some(wrong),
        ),
        Check(
            "grids of others", len(off), 0, True,
            "positions are not those of the sample's shape: axes exchanged, or another clip's",
            _some(off),
        ),
    ]  # fmt: skip


Grid = tuple[int, int, int]  # patches: t, h, w


def _is_prefix(fed: tuple[int, ...], stored: Grid) -> bool:
    return fed[1:] == stored[1:] and fed[0] <= stored[0]


def latent_checks(sequences: Sequence[Fed]) -> list[Check]:
    """Whether mean and deviation of the build's latents are what a model is made for: 0 and 1.

    Root mean squares over the channels of each one's mean and deviation: a channel that is flat in
    few films weighs little in them, and one that is not normalised much. Of the embedded encoder
    they are 0.1 and 1.2 over real footage, 1.5 and 3.9 of its raw latents.
    """
    latents = [one.flatten(1) for given in sequences for one in given.latents()]
    values = torch.cat(latents, 1).double()
    mean, deviation = (float(v.square().mean().sqrt()) for v in (values.mean(1), values.std(1)))
    low, high = DEVIATION
    says = "latents are not normalised with the encoder's latents_mean and latents_std"
    return [
        Check("mean of the channels", mean, MEAN, True, says),
        Check("deviation of the channels, most", deviation, high, True, says),
        Check("deviation of the channels, least", deviation, low, False, says),
    ]


def sample_checks(ratio: float, found: Iterable[Compared]) -> list[Check]:
    """Whether the clips were learned, and are those of the footage."""
    found = list(found)
    fed = "what was fed is not the clip: axes, channels or latents of another clip"
    wrong = [one for one in found if one.nearest != one.clip_id]
    bad = [
        one
        for one in found
        if one.round_trip_over_flat_db < OVER_FLAT_DB or one.fed_nearest != one.clip_id
    ]
    flat = [one for one in found if one.over_flat_db < OVER_FLAT_DB]
    return [
        Check(
            "loss ÷ Gaussian", ratio, LOSS, True,
            "the model did not learn the clips: give it more --minutes, or fewer --clips",
        ),
        Check(
            "fed clips unlike their footage", len(bad), 0, True, fed,
            _some([c.clip_id for c in bad]),
        ),
        Check(
            "samples nearest to another clip", len(wrong), 0, True,
            "a caption gives another clip: texts or latents are exchanged",
            _some([f"{c.clip_id[:8]} gives {c.nearest[:8]}" for c in wrong]),
        ),
        Check(
            "sample over flat colour, dB", min(c.over_flat_db for c in found), OVER_FLAT_DB, False,
            fed if bad else "the model did not learn the clips: give it more --minutes",
            _some([c.clip_id for c in flat]),
        ),
    ]  # fmt: skip


def held_out_checks(ratio: float, control: float) -> list[Check]:
    """Whether what was learned holds for clips of other sources."""
    return [
        Check(
            "held-out loss ÷ Gaussian", ratio, HELD_OUT, True,
            "nothing that neighbouring patches have in common was learned: axes or channels are "
            "read in another order, or --minutes are too few",
        ),
        Check(
            "held-out control ÷ held-out", control / ratio, CONTROL, False,
            "patches whose axes are exchanged are learned as well or better: the feed's are "
            "exchanged, or these clips show nothing: give more and other footage",
        ),
    ]  # fmt: skip


def _some(clip_ids: Sequence[str]) -> str:
    more = f" and {len(clip_ids) - 4} more" if len(clip_ids) > 4 else ""
    return ", ".join(one[:24] for one in clip_ids[:4]) + more
