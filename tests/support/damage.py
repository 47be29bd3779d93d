"""A small dataset to be damaged, and how its damage is found."""

from __future__ import annotations

from pathlib import Path

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.pipeline.lifecycle.verify import Verified
from telecine.pipeline.lifecycle.verify import verify as run_verify
from tests.support import inline
from tests.support.lab import Lab

SIZES = {"a": (160, 160), "b": (160, 160), "c": (320, 160)}


def verify(dataset: Path | str, build: str | None = None, *, repair: bool = False) -> Verified:
    run = inline.run_of(open_dataset(str(dataset), Storage()))
    return run_verify(run, build, repair=repair)


def draw(folder: Path) -> Lab:
    lab = Lab(folder)
    for seed, (name, size) in enumerate(SIZES.items()):
        lab.image(name, seed, size)
    return lab
