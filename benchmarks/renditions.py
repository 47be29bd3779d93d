"""What renditions cost: an ingest of draft and native beside one of native alone.

    python benchmarks/renditions.py FOOTAGE... [--rounds 3]

Each ingest is a process of its own without Ray, into a new dataset, with the `dct` encoder; the
two take turns. Printed are CPU seconds of the whole process, the least of the rounds, and their
ratio; and once, of the two builds made one after the other (an ingest, then a rebuild of the
draft), which decodes twice.

Two cores of a virtual AMD EPYC with much other work beside it, least of two rounds, of four films
(1080p60, 960x540, 320x180 and 0.6 s of a phone's 1080p, 21 s in all):

    native alone             10.93 CPU s
    draft and native         12.89 CPU s  × 1.179
    one after the other      16.35 CPU s  × 1.496
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

DRAFT = "short_side = 256\nfps = '16'\n"
FAMILY = f"[renditions.final]\n[renditions.draft]\n{DRAFT}"
TELECINE = [str(Path(sys.executable).with_name("telecine"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        native, family, apart = measured(Path(folder), options.footage, options.rounds)
    print(f"native alone           {native:7.2f} CPU s")
    print(f"draft and native       {family:7.2f} CPU s  × {family / native:.3f}")
    print(f"one after the other    {apart:7.2f} CPU s  × {apart / native:.3f}")


def measured(folder: Path, footage: list[str], rounds: int) -> tuple[float, float, float]:
    """Least CPU seconds: native alone, draft and native, one after the other."""
    (folder / "family.toml").write_text(FAMILY)
    (folder / "draft.toml").write_text(f"[vae]\n{DRAFT}")
    config = ["--config", str(folder / "family.toml")]
    alone, together = [], []
    for number in range(rounds):
        plain, both = folder / f"native-{number}", folder / f"family-{number}"
        alone.append(cpu_seconds("ingest", *footage, "--dataset", plain))
        together.append(cpu_seconds("ingest", *footage, "--dataset", both, *config))
    draft = folder / "draft.toml"
    second = cpu_seconds("rebuild", folder / "native-0", "--config", draft, "--no-promote")
    return min(alone), min(together), min(alone) + second


def cpu_seconds(*arguments: object) -> float:
    before = os.times()
    subprocess.run(
        [*TELECINE, *map(str, arguments), "--workers", "0"], check=True, stdout=subprocess.DEVNULL
    )
    after = os.times()
    spent = after.children_user - before.children_user
    return spent + after.children_system - before.children_system


if __name__ == "__main__":
    main()
