"""The recipes without Ray: every worker in this process, one item after the other.

For tests of what a history of runs leaves behind, where Ray would only cost time. Run as a program
it does one ingest that a test may kill: SOURCE DATASET [--retry-rejected].
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from encoders.load import load_encoder
from infra.ray import Cluster, Done
from infra.storage import Storage
from manifests.dataset import create_dataset
from pipeline.outcome import Outcome
from pipeline.recipes import RunOptions, build, caption, find, scan


class Inline(Cluster):
    def run(self, items: Any, make_worker: Any, **_: Any) -> Iterator[Any]:
        worker = None
        for item in items:
            worker = worker or make_worker()
            yield Done(item, worker(item))


def ingest(source: str, folder: str, **options: Any) -> Outcome:
    console = Console(stderr=True)
    dataset = create_dataset(folder, Storage(), None)
    chosen = RunOptions(commit_seconds=0, **options)
    with Inline() as cluster:
        scanned = scan(find([source], dataset, chosen, console), dataset, cluster, chosen, console)
        caption(dataset, cluster, chosen, console)
        encoder = load_encoder(dataset.spec.vae)
        return Outcome(scanned, build(dataset, encoder, cluster, chosen, console))


if __name__ == "__main__":
    ingest(sys.argv[1], sys.argv[2], retry_rejected="--retry-rejected" in sys.argv)
