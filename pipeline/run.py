"""A run: what a recipe and its steps are given. Opened by the command, or by `import telecine`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from telecine.infra.cluster import Cluster
from telecine.manifests.dataset import Dataset
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.commit import COMMIT_SECONDS
from telecine.pipeline.progress import SILENT, Progress


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about it: changes speed, and what is tried again, but no byte of a result."""

    retry_rejected: bool = False  # or dropped from the build, or failed
    allow_duplicates: bool = False
    commit_seconds: float = COMMIT_SECONDS
    gpus_per_encoder: float | None = None  # None: 1 for a learned encoder where there is any
    promote: bool = True
    force: bool = False  # promote although a gate says no
    caption_url: str = ""  # of an OpenAI-compatible server
    concurrency: int = 32  # requests to it at once
    batch: int | None = None  # of a captioner or scorer on a device; None: its own default


@dataclass(frozen=True)
class Run:
    """A dataset under the spec that is asked for, and what the run works with."""

    dataset: Dataset
    cluster: Cluster
    options: RunOptions = RunOptions()
    progress: Progress = SILENT

    def under(self, spec: DatasetSpec) -> Run:
        """The same run, where the dataset's spec asks for something else."""
        return dataclasses.replace(self, dataset=dataclasses.replace(self.dataset, spec=spec))
