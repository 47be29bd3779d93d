"""What a plan is made of: pieces of samples, packs of pieces, steps of packs, and where one is.

epoch   │ window            │ window            │ ...         planned one window at a time
window  │ step │ step │ step│ step │ ...
step    │ pack │ pack │ ... packs_per_step of them, of like cost: rank r takes every world-th
pack    │ piece │ piece │ piece │ padding │ at most `tokens`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from telecine.infra.errors import UsageError
from telecine.manifests.index.samples import SampleIndex


@dataclass(frozen=True)
class Source:
    """A build's samples."""

    index: SampleIndex
    weight: float | None = None  # share of the samples, in any unit; None: by how many it has


class Piece(NamedTuple):
    """Latent frames `start` to before `stop` of a sample."""

    source: int  # number of the source, as they were given to the order
    row: int  # of the source's index
    start: int
    stop: int


PackPlan: TypeAlias = tuple[Piece, ...]


@dataclass(frozen=True)
class Position:
    """Where one is in the order: after so many steps. The same on every rank."""

    epoch: int = 0
    window: int = 0  # of the epoch
    carried: int = 0  # packs of the windows before that are in this one's steps
    within: int = 0  # steps of the window that were done
    step: int = 0  # all steps that were done, of all epochs


START = Position()


@dataclass(frozen=True)
class Step:
    """What all ranks do at once, as often as their share of it has packs."""

    epoch: int
    step: int  # from 0, over all epochs
    packs: tuple[PackPlan, ...]  # packs_per_step of them, the dearest first
    repeated: tuple[bool, ...]  # of each: it came in this epoch already, and fills the last step
    tokens: tuple[int, ...]  # of each, padding not counted
    costs: tuple[float, ...]  # of each, as in cost.py
    after: Position  # from which the next step follows

    def of_rank(self, rank: int, world: int) -> range:
        """Which packs are a rank's: rank, rank + world, …: like costs meet at the same time."""
        check_world(len(self.packs), rank, world)
        return range(rank, len(self.packs), world)


def check_world(packs_per_step: int, rank: int, world: int) -> None:
    """Raises UsageError where the ranks cannot share a step evenly."""
    if world < 1 or not 0 <= rank < world:
        raise UsageError(f"rank {rank} of world {world}: ranks count from 0 to world - 1")
    if packs_per_step % world:
        fitting = [n for n in range(1, packs_per_step + 1) if packs_per_step % n == 0]
        raise UsageError(
            f"packs_per_step = {packs_per_step} cannot be shared by {world} ranks evenly: use "
            f"{', '.join(map(str, fitting))} ranks, or a multiple of {world} packs a step"
        )
