"""All that decides on an order beside its sources: nothing of ranks, threads or workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from telecine.infra.errors import UsageError

Split: TypeAlias = Literal["prefix", "windows", "leave"]
Renditions: TypeAlias = Literal["apart", "drawn", "paired"]


@dataclass(frozen=True)
class OrderOptions:
    """Raises UsageError where a value is none that it can be."""

    tokens: int = 65_536  # that a pack holds at most; of batches: a sample
    packs_per_step: int = 8
    batch: int | None = (
        None  # packs of so many samples of one shape instead; the last may have less
    )
    seed: int = 0
    split: Split = "prefix"  # what becomes of clips longer than a pack: split.py
    image_share: float | None = None  # of the samples; None: as many as there are
    renditions: Renditions = "apart"  # builds of a clip: each, one by weight, all in one pack
    window: int = 4_096  # samples that are packed together, at least
    window_steps: int = 16  # that a window fills, about: the more, the likelier packs of like cost
    spread: int = 64  # shards whose samples are mixed
    width: int = 3_072  # of the model, for the cost: cost.py

    def __post_init__(self) -> None:
        for name in (
            "tokens",
            "batch",
            "packs_per_step",
            "window",
            "window_steps",
            "spread",
            "width",
        ):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} = {value}: a whole number above 0 is meant")
        for name, words in (("split", get_args(Split)), ("renditions", get_args(Renditions))):
            if getattr(self, name) not in words:
                raise UsageError(f"{name} = {getattr(self, name)!r}: choose of {', '.join(words)}")
        if self.image_share is not None and not 0 <= self.image_share <= 1:
            raise UsageError(f"image_share = {self.image_share}: a share of samples, from 0 to 1")
