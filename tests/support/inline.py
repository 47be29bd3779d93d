"""The recipes with the inline cluster: every worker in this process, one item after the other.

For tests of what a history of runs leaves behind, where Ray would only cost time. Every receipt is
committed at once, so that there are many boundaries to be killed at. Run as a program it does one
run that a test may kill: `ingest SOURCE DATASET` or `rebuild DATASET`, and the keyword arguments
as JSON; an ingest with `workers` other than 0 does start Ray.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telecine.infra.inline import InlineCluster
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline import recipes
from telecine.pipeline.cli.cluster import open_cluster
from telecine.pipeline.embed.step import EmbedOutcome
from telecine.pipeline.models import scorer_needs
from telecine.pipeline.recipes import Built, Ingested
from telecine.pipeline.run import Run, RunOptions
from telecine.pipeline.score.step import score_clips


def run_of(dataset: Dataset, **options: Any) -> Run:
    return Run(dataset, InlineCluster(), RunOptions(commit_seconds=0, **options))


def ingest(
    source: str,
    folder: str,
    spec: DatasetSpec | Mapping[str, Any] | None = None,
    workers: int = 0,
    **options: Any,
) -> Ingested:
    asked = DatasetSpec.model_validate(spec) if spec else None
    run = run_of(create_dataset(folder, Storage(), asked), **options)
    with open_cluster(workers, None) as cluster:
        return recipes.ingest(dataclasses.replace(run, cluster=cluster), [source])


def ingesting(source: Path, folder: Path, workers: int) -> list[str | Path]:
    """The command line of an ingest into small shards, of which little footage fills several."""
    options = {"workers": workers, "spec": {"shards": {"target_bytes": 1_000_000}}}
    return [sys.executable, __file__, "ingest", source, folder, json.dumps(options)]


def asked(folder: str, given: Mapping[str, Any] | None) -> Dataset:
    """The dataset with the given keys in place of those in force."""
    dataset = open_dataset(folder, Storage())
    return dataclasses.replace(dataset, spec=dataset.spec.overlaid(given or {}))


def recaption(folder: str, given: Mapping[str, Any]) -> None:
    """Captions under another captioner, without making it the one in force."""
    recipes.caption(run_of(asked(folder, given)), choose=False)


def rebuild(
    folder: str,
    given: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    promote: bool = True,
    retry: bool = False,
) -> Built:
    """The build that the spec asks for, current when it is whole, whatever a gate says."""
    run = run_of(asked(folder, given), retry_rejected=retry, promote=promote, force=True)
    return recipes.rebuild(run, name)


def embed(folder: str, given: Mapping[str, Any]) -> EmbedOutcome:
    """The column of texts that a spec asks for, which is in force from then on."""
    return recipes.embed(run_of(asked(folder, given)))


def rescore(folder: str, given: Mapping[str, Any]) -> None:
    """The scores that a spec asks for, without putting it in force."""
    score_clips(run_of(asked(folder, {"score": given})), scorer_needs)


if __name__ == "__main__":
    command, *arguments, options = sys.argv[1:]
    {"ingest": ingest, "rebuild": rebuild, "score": rescore, "embed": embed}[command](
        *arguments, **json.loads(options)
    )
