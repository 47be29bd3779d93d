"""Where a dataset's shards lie, and the files that name them.

    DATASET/rates.json                                    how fast the last builds went
    DATASET/shards/current.json                           names the current build
    DATASET/shards/BUILD/index.json                       names the build's live shards
    DATASET/shards/BUILD/samples-DIGEST.arrow             where each of their samples lies
    DATASET/shards/BUILD/360/16x9/4s/SHARD_ID.tar         a shard, by its bucket

Paths are relative to the dataset. It reads nothing: what trains needs no tables for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from telecine.manifests.buckets import Bucket

SHARDS = "shards"
INDEX = "index.json"
CURRENT = "current.json"
CURRENT_PATH = f"{SHARDS}/{CURRENT}"
RATES_PATH = "rates.json"

_SAMPLES = re.compile(SHARDS + r"/[^/]+/samples-[0-9a-f]{16}\.arrow")
_TAR = re.compile(
    SHARDS + r"/[^/]+/[0-9]+/[0-9]+x[0-9]+/(image|[0-9.e+-]+s)/[0-9a-f]{32}\.tar"
)  # as shard_path writes it


def build_folder(name: str) -> str:
    """With the slash at its end: everything of the build begins so."""
    return f"{SHARDS}/{name}/"


def shard_path(build_name: str, bucket: Bucket, shard_id: str) -> str:
    return f"{build_folder(build_name)}{bucket.folder}/{shard_id}.tar"


def index_path(build_name: str) -> str:
    return f"{build_folder(build_name)}{INDEX}"


def path_in_build(path: str, build_name: str) -> str:
    """A shard's path relative to its build's folder, as index.json has it."""
    return path.removeprefix(build_folder(build_name))


def is_shard(path: str) -> bool:
    """Whether this is the path of a tar as a build names them."""
    return _TAR.fullmatch(path) is not None


def is_index(path: str) -> bool:
    """Whether this is the path of a build's index, whichever build's."""
    folder, _, name = path.rpartition("/")
    return name == INDEX and folder.count("/") == 1


def is_samples(path: str) -> bool:
    """Whether this is the path of a build's index of samples, a present or a superseded one."""
    return _SAMPLES.fullmatch(path) is not None


@dataclass(frozen=True)
class Shard:
    """A live shard of a build, as index.json has it."""

    path: str  # relative to the dataset
    num_samples: int
    size_bytes: int
    sha256: str
    resolution: int
    aspect: str
    duration: str

    @property
    def bucket(self) -> str:
        return Bucket(self.resolution, self.aspect, self.duration).folder
