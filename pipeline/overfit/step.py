"""overfit: a small diffusion transformer learns a few clips of a build by heart, fed by the feed.

    tables ─▶ which clips ─▶ index ─▶ Feed ─▶ packs ─▶ one sequence ─▶ training ─▶ samples ─┐
    footage ─▶ the clips' frames by the pixel contract ────────────────────── compared ◀────┘

What is learned by heart proves nothing of what it was: wrong latents are learned as well. So
samples are held against the footage's own frames, captions against the tables, and with
`held_out` the loss on clips of other sources against a control whose axes are exchanged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from telecine.encoders.device import fastest, threads
from telecine.infra.errors import UsageError
from telecine.infra.store import output
from telecine.infra.text import counted, length
from telecine.manifests.dataset import Dataset
from telecine.pipeline.media.film import write_png
from telecine.pipeline.overfit.checks import Check
from telecine.pipeline.overfit.compare import Compared
from telecine.pipeline.overfit.material import Material
from telecine.pipeline.overfit.work import Fault, Options, Work, unchanged
from telecine.pipeline.progress import SILENT, Progress


@dataclass(frozen=True)
class Overfitted:
    """What was learned, and every number against its bound."""

    build: str
    picture: Path
    device: str
    tokens: int  # patches of the sequence
    steps: int
    seconds: float  # of training, by the clock
    checks: tuple[Check, ...]
    clips: tuple[Compared, ...]

    @property
    def failed(self) -> list[Check]:
        """The numbers beyond their bounds"""
        return [check for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """Every number, with whether it passed"""
        checks = [dataclasses.asdict(c) | {"passed": c.passed} for c in self.checks]
        return {
            **dataclasses.asdict(self),
            "picture": str(self.picture),
            "passed": not self.failed,
            "checks": checks,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.picture}: {counted(len(self.clips), 'clip')} of build {self.build}, "
            f"{self.tokens:,} patches in one sequence, {counted(self.steps, 'step')} on "
            f"{self.device} in {length(self.seconds)}"
        ]
        lines += [f"  {clip}" for clip in self.clips]
        lines += [f"{'ok    ' if check.passed else 'FAILED'} {check}" for check in self.checks]
        return "\n".join(lines)


def overfit(
    dataset: Dataset,
    options: Options,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
    fault: Fault = unchanged,
) -> Overfitted:
    """Learn a few clips, sample them by their captions, write footage, round trip and sample.

    `fault` changes what the feed gave: so it can be seen which number notices. Raises UsageError
    where the build has too few clips; numbers beyond their bounds are in `failed`.
    """
    if out.suffix != ".png":
        raise UsageError(f"-o {out}: name a file that ends in .png")
    output.check_file(out, "-o", dataset=dataset.uri, overwrite=overwrite)
    material = Material.of(dataset, options.build, options.vae)
    work = Work(material, options, fastest(), progress, fault)
    # Steps are short: threads that wait for one another on a busy core took ten times as long.
    with threads(max(torch.get_num_threads() // 2, 1)):
        learned = work.learn()
        with output.writing(out) as file:
            write_png(file, learned.picture())
        held_out = work.hold_out() if options.held_out else []
    return Overfitted(
        build=material.build.name,
        picture=out,
        device=work.device,
        tokens=len(learned.given.patches),
        steps=learned.clock.done,
        seconds=learned.clock.spent,
        checks=(*learned.checks(work.statistics()), *held_out),
        clips=tuple(learned.found),
    )
