"""What the feed gave, as one sequence: the packs of a step joined, each patch with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from telecine.encoders.small_dit import Packed, words

PATCH = 2  # a patch is 1 × 2 × 2 of a latent


@dataclass(frozen=True)
class Fed:
    """Samples one after the other in a sequence of S patches of F numbers."""

    patches: Tensor  # float32 [S, F]: a row's numbers in the order c, h, w
    positions: Tensor  # int64 [S, 3]: t, h, w
    cu_seqlens: tuple[int, ...]  # n + 1
    keys: tuple[str, ...]  # clip_ids
    captions: tuple[str, ...]

    @cached_property
    def packed(self) -> Packed:
        """What the model is told of it"""
        return self.packed_with(self.captions)

    def packed_with(self, captions: Sequence[str]) -> Packed:
        """The same with other captions"""
        return Packed(self.positions, self.cu_seqlens, words(captions, self.patches.device))

    @property
    def spans(self) -> list[slice]:
        """The patches of each sample"""
        return [slice(a, b) for a, b in zip(self.cu_seqlens, self.cu_seqlens[1:], strict=False)]

    def latents(self, patches: Tensor | None = None) -> list[Tensor]:
        """[C, T', H', W'] of each sample: each patch at its position; of other patches [S, F]."""
        rows = self.patches if patches is None else patches
        return [placed(rows[span], self.positions[span]) for span in self.spans]

    def to(self, device: str) -> Fed:
        """The same on another device."""
        return replace(self, patches=self.patches.to(device), positions=self.positions.to(device))


def joined(packs: Iterable[Any]) -> Fed:
    """The packs of a step as one sequence, of each sample once; `cu_seqlens` as if one pack."""
    parts: list[tuple[Tensor, Tensor]] = []
    keys: dict[str, str] = {}
    for pack in packs:
        patches, positions = pack.patches("c t h w"), torch.as_tensor(pack.positions)
        ends = [int(end) for end in pack.cu_seqlens]
        for key, caption, a, b in zip(pack.keys, pack.captions, ends, ends[1:], strict=False):
            if key not in keys:  # the last step of an epoch is filled up with repeats
                keys[key] = caption
                parts.append((patches[a:b].float(), positions[a:b].long()))
    return fed(parts, list(keys), list(keys.values()))


def fed(parts: list[tuple[Tensor, Tensor]], keys: list[str], captions: list[str]) -> Fed:
    """Of each sample its patches and positions."""
    ends = [0]
    for rows, _ in parts:
        ends.append(ends[-1] + len(rows))
    patches, positions = (torch.cat(those) for those in zip(*parts, strict=True))
    return Fed(patches, positions, tuple(ends), tuple(keys), tuple(captions))


def placed(patches: Tensor, positions: Tensor) -> Tensor:
    """[C, T', H', W'] of patches [S, F] at their positions.

    Asks the feed for nothing but what a row's numbers are: it would else undo its own mistakes.
    """
    frames, high, wide = (int(n) + 1 for n in positions.amax(0))
    cells = patches.new_zeros(frames, high, wide, patches.shape[1])
    cells[positions[:, 0], positions[:, 1], positions[:, 2]] = patches
    split = cells.reshape(frames, high, wide, -1, PATCH, PATCH).permute(3, 0, 1, 4, 2, 5)
    return split.reshape(-1, frames, high * PATCH, wide * PATCH)


def cut(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Patches [S, F] and positions [S, 3] of [C, T', H', W']: the inverse of `placed`."""
    channels, frames, height, width = latents.shape
    grid = (frames, height // PATCH, width // PATCH)
    split = latents.reshape(channels, frames, grid[1], PATCH, grid[2], PATCH)
    patches = split.permute(1, 2, 4, 0, 3, 5).reshape(-1, channels * PATCH * PATCH)
    return patches, torch.cartesian_prod(*(torch.arange(n, device=latents.device) for n in grid))


def windowed(given: Fed, frames: int = 2, side: int = 12) -> Fed:
    """The patches in the middle of each sample's first latent frames, at their positions."""
    parts = []
    for span in given.spans:
        patches, positions = given.patches[span], given.positions[span]
        starts = ((positions.amax(0) + 1 - side) // 2).clamp_min(0)
        inside = (positions[:, 1:] >= starts[1:]) & (positions[:, 1:] < starts[1:] + side)
        kept = inside.all(1) & (positions[:, 0] < frames)
        parts.append((patches[kept], positions[kept]))
    return fed(parts, list(given.keys), list(given.captions))


def rewritten(given: Fed, latents: list[Tensor]) -> Fed:
    """The same samples with other latents."""
    return fed([cut(one) for one in latents], list(given.keys), list(given.captions))


def axes_exchanged(given: Fed) -> Fed:
    """The control of a held-out loss: [C, T', H', W'] read as if it were [C, T', W', H'].

    The same numbers under the same captions, so that a mean, a deviation and what can be learned
    by heart are equal; what is beside what is wrong.
    """
    turned = [one.reshape(*one.shape[:2], *one.shape[:1:-1]) for one in given.latents()]
    return rewritten(given, turned)
