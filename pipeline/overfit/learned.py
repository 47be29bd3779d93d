"""Clips that are learned by heart: the model, its samples, and how near the footage they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from telecine.encoders.frames import Pixels
from telecine.encoders.small_dit import Gaussian, sample
from telecine.pipeline.overfit.checks import (
    LOSS,
    OVER_FLAT_DB,
    Check,
    Grid,
    data_checks,
    latent_checks,
    sample_checks,
)
from telecine.pipeline.overfit.compare import Compared, compared, side_by_side
from telecine.pipeline.overfit.fed import PATCH, Fed
from telecine.pipeline.overfit.material import Material
from telecine.pipeline.overfit.train import Clock, Trainer

PROMISING = 0.6 * LOSS  # samples are worth a look
SHOWN = 180  # px: height of a picture in the table of them


@dataclass
class Learned:
    """What is being learned, and what became of it when it was looked at last."""

    material: Material
    captions: Mapping[str, str]  # by the tables, in the order of choice
    given: Fed
    trainer: Trainer
    clock: Clock
    ratio: float = float("inf")  # loss ÷ Gaussian
    found: list[Compared] = field(default_factory=list)
    pictures: list[list[Pixels]] = field(default_factory=list)

    def is_good(self) -> bool:
        """Whether more training is not needed; samples are made only where the loss is promising"""
        self.ratio = self.trainer.ratio(Gaussian(self.given.patches), [self.given])
        if self.ratio > PROMISING:
            return False
        self.look()
        # Half of what the picture could have over a flat colour: the bound itself is a poor sample.
        return all(
            one.nearest == one.clip_id
            and one.over_flat_db >= max(OVER_FLAT_DB + 1, one.round_trip_over_flat_db / 2)
            for one in self.found
        )

    def look(self) -> None:
        """Sample every clip from noise by its caption, decode, and compare with the footage."""
        self.ratio = self.trainer.ratio(Gaussian(self.given.patches), [self.given])
        made = self._pictures(self._sampled())
        fed = self._pictures(self.given.patches)
        footage = {key: self.material.footage(key, len(frames)) for key, frames in fed.items()}
        self.found = [compared(key, made[key], fed[key], footage) for key in footage]
        self.pictures = [[footage[k][-1], fed[k][-1], made[k][-1]] for k in footage]

    def _sampled(self) -> Tensor:
        """[S, F] from noise, by the captions that the tables have."""
        texts = [self.captions.get(key, "") for key in self.given.keys]
        told = self.given.packed_with(texts)
        generator = torch.Generator().manual_seed(0)
        features = self.given.patches.shape[1]
        return sample(self.trainer.average, told, features, generator)

    def _pictures(self, patches: Tensor) -> dict[str, Pixels]:
        """uint8 RGB [T, H, W, 3] of each clip, decoded by the build's encoder."""
        latents = [one.half().cpu().numpy() for one in self.given.latents(patches)]
        decode = self.material.encoder.decode
        return {
            key: np.concatenate(list(decode(one)))
            for key, one in zip(self.given.keys, latents, strict=True)
        }

    def picture(self) -> Pixels:
        """uint8 RGB [H, W, 3]: a row a clip, its last frame that was learned."""
        return side_by_side(self.pictures, SHOWN)

    def checks(self, statistics: list[Fed]) -> list[Check]:
        """Every number; `statistics` are packs of the whole build."""
        return [
            *data_checks(self.given, self.captions, self._grids()),
            *latent_checks(statistics),
            *sample_checks(self.ratio, self.found),
        ]

    def _grids(self) -> dict[str, Grid]:
        """Patches of each clip as it is stored, by the index"""
        rows = self.material.kept(list(self.captions)).rows
        shapes = zip(rows["clip_id"].to_pylist(), rows["shape"].to_pylist(), strict=True)
        return {key: (t, h // PATCH, w // PATCH) for key, (_, t, h, w) in shapes}
