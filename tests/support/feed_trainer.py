"""A training loop over the feed on real ranks; a test starts it as a program, and may kill it.

    feed_trainer.py DATASET FOLDER RANK WORLD STEPS ddp|fsdp

After each step rank 0 adds a line to FOLDER/log: the step, what every rank was given for it, and
the states of all ranks, which FOLDER/state then holds. It goes on from there where it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from telecine.feed import Feed

PACKS = 4  # a step


def main(dataset: str, folder: Path, rank: int, world: int, steps: int, kind: str) -> None:
    start = folder / f"meet-{world}"
    dist.init_process_group("gloo", init_method=f"file://{start}", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = _shared(torch.nn.Linear(16, 16), world, kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    feed = Feed(dataset, tokens=40, packs_per_step=PACKS, rank=rank, world=world, split="windows")
    state = folder / "state"
    if state.exists():
        feed.load_state_dict(json.loads(state.read_text()))
    given: list[Any] = []
    for pack in feed:
        rows = pack.patches().float()
        (model(rows) - rows).square().mean().backward()
        given.append([pack.step, [*zip(pack.keys, pack.start_latent, strict=True)]])
        if len(given) < PACKS // world:
            continue
        optimizer.step()
        optimizer.zero_grad()
        _record(folder, rank, world, given, json.dumps(feed.state_dict()))
        given = []
        if feed.steps == steps:
            break
    dist.barrier()  # a rank that leaves first may leave the others waiting
    dist.destroy_process_group()


def _shared(model: torch.nn.Module, world: int, kind: str) -> torch.nn.Module:
    if kind == "ddp":
        return DistributedDataParallel(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    return model


def _record(folder: Path, rank: int, world: int, given: list[Any], state: str) -> None:
    of_all: list[Any] = [None] * world
    dist.all_gather_object(of_all, (given, state))
    if rank:
        return
    line = {"given": [one for one, _ in of_all], "states": [said for _, said in of_all]}
    part = folder / "state.part"
    part.write_text(state)
    part.replace(folder / "state")
    with (folder / "log").open("a") as log:
        log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    dataset, folder, rank, world, steps, kind = sys.argv[1:]
    main(dataset, Path(folder), int(rank), int(world), int(steps), kind)
