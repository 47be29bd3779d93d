"""What an encoder gets of the cluster, and how long it may stand still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine.encoders.load import load_encoder
from telecine.infra.cluster import Cluster, Resources
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.buckets import Bucket
from telecine.manifests.dataset import create_dataset
from telecine.manifests.specs import DatasetSpec, VaeSpec
from telecine.pipeline.build.sample import ChosenCaption
from telecine.pipeline.build.step import run_jobs
from telecine.pipeline.build.worker import MemberJob, ShardJob
from telecine.pipeline.models import encoder_needs
from telecine.pipeline.run import Run, RunOptions
from tests.support.rows import make_clip, make_source

DCT, LEARNED = VaeSpec(), VaeSpec(encoder="diffusers:/models/wan")


class Machine(Cluster):
    """A cluster of which only what is asked of it matters."""

    def __init__(self, gpus: float = 0) -> None:
        self._gpus = gpus
        self.asked: dict[str, Any] = {}
        self.started = False

    def gpus(self) -> float:
        self.started = True
        return self._gpus

    def size(self, resources: Resources) -> int:
        return 1

    def run(self, items: Any, make_worker: Any, **asked: Any) -> Any:
        self.asked = {"make_worker": make_worker, **asked}
        return iter(())


def run_on(machine: Machine, folder: Path, vae: VaeSpec, gpus: float | None = None) -> Run:
    dataset = create_dataset(str(folder), Storage(), DatasetSpec(vae=vae))
    return Run(dataset, machine, RunOptions(gpus_per_encoder=gpus))


@pytest.mark.parametrize(
    ("vae", "gpus", "told", "expected"),
    [
        (LEARNED, 8, None, Resources(cpus=2, gpus=1)),
        (LEARNED, 0, None, Resources(cpus=1, gpus=0)),
        (LEARNED, 8, 0.5, Resources(cpus=2, gpus=0.5)),
        (LEARNED, 8, 0, Resources(cpus=1, gpus=0)),
        (DCT, 8, None, Resources(cpus=1, gpus=0)),
    ],
)
def test_an_encoder_gets_a_gpu_where_it_can_use_one(
    vae: VaeSpec, gpus: float, told: float | None, expected: Resources, tmp_path: Path
) -> None:
    machine = Machine(gpus)
    assert encoder_needs(run_on(machine, tmp_path, vae, told)) == expected
    assert machine.started == (vae is LEARNED and told is None)


def test_the_dct_is_given_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="computes on the CPU"):
        encoder_needs(run_on(Machine(8), tmp_path, DCT, gpus=1))


def stall(tmp_path: Path, *frames: int, fps: str | None = None, gpus: float = 0) -> float:
    """Seconds without progress that a shard of clips of so many frames may take."""
    machine = Machine()
    run = run_on(machine, tmp_path / f"{fps}", VaeSpec(fps=fps))
    run_jobs(run, [], resources=Resources(gpus=gpus))
    members = tuple(
        MemberJob(make_clip(num_frames=n), make_source(), ChosenCaption("", "", "", ""), None)
        for n in frames
    )
    asked: Callable[[ShardJob], float] = machine.asked["stall_seconds"]
    return asked(ShardJob("b", "b", 0, "s", Bucket(360, "16x9", "2s"), members))


def test_in_between_two_frames_lies_the_encoding_of_a_clip_at_most(tmp_path: Path) -> None:
    none, short, long = (stall(tmp_path, *n) for n in ((), (50,), (500,)))
    assert 300 <= none < short < long, "a busy machine takes minutes for what takes seconds"
    assert long - none == pytest.approx(10 * (short - none))
    assert long - none > load_encoder(DCT).seconds_per_pixel * 500 * 640 * 360
    assert stall(tmp_path, 50, 500, 50) == long, "each clip of a shard is progress"
    assert stall(tmp_path, 500, fps="50") - none == pytest.approx(2 * (long - none))
    assert none < stall(tmp_path, 500, gpus=1) < long


@pytest.mark.parametrize(
    ("resources", "ahead", "device"),
    [
        (Resources(cpus=1), 0, "cpu"),
        (Resources(cpus=2), 2, "cpu"),
        (Resources(cpus=2, gpus=1), 4, "cuda"),
    ],
)
def test_where_decoding_runs_ahead(
    tmp_path: Path, resources: Resources, ahead: int, device: str
) -> None:
    machine = Machine()
    run_jobs(run_on(machine, tmp_path, DCT), [], resources=resources)
    assert machine.asked["make_worker"].args[-2:] == (ahead, device)
    assert machine.asked["resources"] == resources
