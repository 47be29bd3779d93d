"""One ingest in a process of its own, that a test may kill: SOURCE DATASET WORKERS (0: no Ray).

Commits every receipt at once, so that there are many boundaries to be killed at.
"""

from __future__ import annotations

import sys

from rich.console import Console

from telecine.infra.storage import Storage
from telecine.manifests.dataset import create_dataset
from telecine.manifests.specs import DatasetSpec, ShardSpec
from telecine.pipeline.recipes import RunOptions, ingest
from tests.support import inline

if __name__ == "__main__":
    source, folder, workers = sys.argv[1:]
    # Small shards: the footage of these tests fills several.
    spec = DatasetSpec(shards=ShardSpec(target_bytes=1_000_000))
    if workers == "0":
        inline.ingest(source, folder, spec)
    else:
        dataset = create_dataset(folder, Storage(), spec)
        options = RunOptions(workers=int(workers), commit_seconds=0)
        ingest([source], dataset, options, Console(stderr=True))
