"""The recipes without Ray: every worker in this process, one item after the other.

For tests of what a history of runs leaves behind, where Ray would only cost time. Run as a program
it does one run that a test may kill: `ingest SOURCE DATASET` or `rebuild DATASET`, and the
keyword arguments as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from telecine.encoders.load import load_encoder
from telecine.infra.ray import Cluster, Done, Resources
from telecine.infra.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.outcome import BuildOutcome, Outcome
from telecine.pipeline.recipes import RunOptions, build, caption, captioners, find, scan, score

CONSOLE = Console(stderr=True)


class Inline(Cluster):
    def run(self, items: Any, make_worker: Any, **_: Any) -> Iterator[Any]:
        worker = None
        for item in items:
            worker = worker or make_worker()
            yield Done(item, worker(item))

    def size(self, _: Resources) -> int:
        return 1

    def gpus(self) -> float:
        return 0.0


def ingest(source: str, folder: str, spec: DatasetSpec | None = None, **options: Any) -> Outcome:
    dataset = create_dataset(folder, Storage(), spec)
    chosen = RunOptions(commit_seconds=0, **options)
    with Inline() as cluster:
        scanned = scan(find([source], dataset, chosen, CONSOLE), dataset, cluster, chosen, CONSOLE)
        for one in captioners(dataset):
            caption(one, cluster, chosen, CONSOLE)
        score(dataset, cluster, chosen, CONSOLE)
        encoder = load_encoder(dataset.spec.vae)
        return Outcome(scanned, build(dataset, encoder, cluster, chosen, CONSOLE))


def asked(folder: str, given: Mapping[str, Any] | None) -> Dataset:
    """The dataset with the given keys in place of those in force."""
    dataset = open_dataset(folder, Storage())
    return dataclasses.replace(dataset, spec=dataset.spec.overlaid(given or {}))


def recaption(folder: str, given: Mapping[str, Any]) -> None:
    """Captions under another captioner, without making it the one in force."""
    with Inline() as cluster:
        caption(asked(folder, given), cluster, RunOptions(commit_seconds=0), CONSOLE)


def rebuild(
    folder: str,
    given: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    promote: bool = True,
    retry: bool = False,
) -> BuildOutcome:
    """The build that the spec asks for, current when it is whole, whatever a gate says."""
    dataset = asked(folder, given)
    options = RunOptions(commit_seconds=0, retry_rejected=retry, promote=promote, force=True)
    with Inline() as cluster:
        return build(dataset, load_encoder(dataset.spec.vae), cluster, options, CONSOLE, name)


def rescore(folder: str, given: Mapping[str, Any]) -> None:
    """The scores that a spec asks for, without putting it in force."""
    with Inline() as cluster:
        dataset = asked(folder, {"score": given})
        score(dataset, cluster, RunOptions(commit_seconds=0), CONSOLE)


if __name__ == "__main__":
    command, *arguments, options = sys.argv[1:]
    {"ingest": ingest, "rebuild": rebuild, "score": rescore}[command](
        *arguments, **json.loads(options)
    )
