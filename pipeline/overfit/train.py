"""Trains the small transformer on what the feed gave, until it is good or the time is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from telecine.encoders.small_dit import Gaussian, Noise, Sizes, SmallDit, losses
from telecine.pipeline.overfit.fed import Fed

DRAWS = 6  # of noise under which a loss is measured: always the same ones
RATE = 2e-3
MUON_RATE = 0.02
AVERAGED_OVER = 0.97  # of the average the share that stays at a step


@dataclass
class Clock:
    """Wall time and steps that training may take."""

    seconds: float
    steps: int
    began: float = field(default_factory=time.monotonic)
    done: int = 0  # steps

    @property
    def spent(self) -> float:
        """Seconds"""
        return time.monotonic() - self.began

    @property
    def share(self) -> float:
        """Of the budget that is used: 1 when it is over."""
        return min(max(self.spent / self.seconds, self.done / self.steps), 1.0)

    @property
    def rate(self) -> float:
        """Share of the full learning rate: it rises over 20 steps and falls in the last third."""
        return min((self.done + 1) / 20, (1 - self.share) * 3, 1.0)


class Trainer:
    """A model, its average over the last steps, and how to train it."""

    def __init__(self, features: int, device: str, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = SmallDit(Sizes(features)).to(device)
        averaged: Any = get_ema_multi_avg_fn(AVERAGED_OVER)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self.model, multi_avg_fn=averaged)
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizers = _optimizers(self.model)

    @property
    def average(self) -> nn.Module:
        """The model to sample from: it wavers less than the last step's."""
        return self._average.module

    def step(self, given: Fed, rate: float) -> None:
        """One step, at a share of the full learning rate."""
        noise = Noise.drawn(given.patches, len(given.keys), self._generator)
        loss = losses(self.model, given.patches, given.packed, noise).mean()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full"] * rate
            optimizer.step()
        self._average.update_parameters(self.model)

    def ratio(self, floor: nn.Module, sequences: list[Fed]) -> float:
        """Loss under fixed noise ÷ that of the Gaussian predictor, over all samples."""
        return measured(self.average, sequences) / measured(floor, sequences)


def _optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices = [
        p for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n and "adapt" not in n
    ]
    those = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in those]
    adam = torch.optim.AdamW(
        [{"params": rest, "full": RATE}], lr=RATE, betas=(0.9, 0.98), weight_decay=0.0
    )
    muon = torch.optim.Muon(
        [{"params": matrices, "full": MUON_RATE}], lr=MUON_RATE, weight_decay=0.0
    )
    return [adam, muon]


def average_of(patches: list[Tensor]) -> Gaussian:
    """The predictor that knows mean and variance of each feature of patches [S, F] of sequences."""
    return Gaussian(torch.cat(patches))


@torch.no_grad()
def measured(model: nn.Module, sequences: list[Fed], seed: int = 1) -> float:
    """Mean loss of a sample under fixed noise."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    for given in sequences:
        for _ in range(DRAWS):
            noise = Noise.drawn(given.patches, len(given.keys), generator)
            found.append(losses(model, given.patches, given.packed, noise))
    return float(torch.cat(found).mean())
