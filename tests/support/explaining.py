"""What the tests of `explain` share: runs that end early, and what is said then."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from telecine.infra.cluster import Resources
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.pipeline.caption.step import caption_clips
from telecine.pipeline.cli.diff import print_explained
from telecine.pipeline.look.explain import Explained, explain
from telecine.pipeline.look.steps import State, Step
from telecine.pipeline.models import captioner_needs
from telecine.pipeline.recipes import find
from telecine.pipeline.scan.step import scan_sources
from tests.support import inline
from tests.support.lab import Lab

OK, NO, WAITING = State.OK, State.NO, State.WAITING


def scan_only(dataset: Path, footage: Path) -> None:
    """An ingest that was killed when the footage was scanned."""
    run = inline.run_of(create_dataset(str(dataset), Storage(), None))
    scan_sources(run, find(run.dataset, [str(footage)], run.options), Resources())


def caption_only(dataset: Path) -> None:
    caption_clips(inline.run_of(open_dataset(str(dataset), Storage())), captioner_needs)


def dataset_of(lab: Lab) -> Dataset:
    return open_dataset(str(lab.dataset), Storage())


def told(lab: Lab, name: str) -> Explained:
    return explain(dataset_of(lab), name)


def step(found: Explained, name: str) -> Step:
    steps = [*found.steps, *(found.clips[0].steps if len(found.clips) == 1 else ())]
    (one,) = [one for one in steps if one.name == name]
    return one


def states(found: Explained) -> dict[str, State]:
    return {one.name: one.state for one in [*found.steps, *found.clips[0].steps]}


def shown(found: Explained) -> str:
    out = io.StringIO()
    print_explained(found, False, Console(file=out, width=150))
    return out.getvalue()
