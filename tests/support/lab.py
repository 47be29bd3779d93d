"""A footage folder and a dataset: runs without Ray, and the checks that hold after every one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import webdataset
from PIL import Image

from telecine.manifests.builds import BuildState, State, builds, current_build
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Sample, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.catalog.selection import selected
from telecine.pipeline.recipes import Built
from tests.support import inline

CHILD = [sys.executable, inline.__file__]


class Lab:
    def __init__(self, folder: Path, dataset: str = "dataset") -> None:
        self.footage = folder / "footage"
        self.dataset = folder / dataset
        self.footage.mkdir(exist_ok=True)

    # ── footage ──────────────────────────────────────────────────────────────────────────────────

    def image(self, name: str, seed: int, size: tuple[int, int] = (160, 160)) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).resize(size).save(self.footage / f"{name}.png")

    def text(self, name: str, text: str) -> None:
        (self.footage / f"{name}.txt").write_text(text)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────

    def ingest(self, **options: bool) -> Built:
        built = inline.ingest(str(self.footage), str(self.dataset), **options).build
        self.check()
        return built

    def rebuild(self, given: Mapping[str, Any] | None = None, **options: Any) -> Built:
        built = inline.rebuild(str(self.dataset), given, **options)
        self.check()
        return built

    def killed(self, point: str, command: str = "ingest", **options: Any) -> None:
        where = [self.footage, self.dataset] if command == "ingest" else [self.dataset]
        done = subprocess.run(
            [*CHILD, command, *where, json.dumps(options)],
            env=os.environ | {"TELECINE_KILL_AT": point},
            capture_output=True,
            check=False,
        )
        assert done.returncode == -9, done.stderr.decode()

    # ── what is there ────────────────────────────────────────────────────────────────────────────

    def connect(self) -> duckdb.DuckDBPyConnection:
        return connect(Tables(str(self.dataset)))

    def builds(self) -> list[BuildState]:
        return builds(self.connect())

    def current(self) -> BuildState:
        (found,) = [build for build in self.builds() if build.state is State.CURRENT]
        return found

    def live(self, build: BuildState | None = None) -> list[Sample]:
        """Of a build, or the current one."""
        build_id = (build or self.current()).build_id
        query = "FROM live_samples WHERE build_id = ? ORDER BY clip_id"
        found = self.connect().sql(query, params=[build_id]).to_arrow_table()
        return from_arrow(found, Sample)

    def index(self, build: BuildState) -> dict[str, Any]:
        text = (self.dataset / "shards" / build.name / "index.json").read_text()
        return dict(json.loads(text))

    def layout(self, build: BuildState) -> dict[str, list[str]]:
        """Shard paths as index.json has them, and the keys that plain webdataset reads of each."""
        folder = self.dataset / "shards" / build.name
        return {
            shard["path"]: [
                sample["__key__"]
                for sample in webdataset.WebDataset(
                    [str(folder / shard["path"])], shardshuffle=False
                )
            ]
            for shard in self.index(build)["shards"]
        }

    def check(self) -> None:
        """One sample per selected clip and build; latents in the tar are those of its row."""
        con = self.connect()
        everywhere = con.sql("FROM live_samples ORDER BY clip_id").to_arrow_table()
        live: dict[str, list[Sample]] = defaultdict(list)
        for sample in from_arrow(everywhere, Sample):
            live[sample.build_id].append(sample)
            if sample.outcome == "kept":
                self._check_sample(sample)
        for build in builds(con):
            clips = [s.clip_id for s in live[build.build_id]]
            assert len(clips) == len(set(clips))
            if build.completed and build.in_progress is None:
                kept = sum(s.outcome == "kept" for s in live[build.build_id])
                assert self.index(build)["num_samples"] == kept
        current = current_build(con)
        assert current is not None
        spec = DatasetSpec.model_validate(json.loads(current.spec))
        wanted = selected(con, spec, spec.select.where or "true")["clip_id"].to_pylist()
        assert [s.clip_id for s in live[current.build_id]] == sorted(wanted)
        pointer = json.loads((self.dataset / "shards" / "current.json").read_text())
        assert (pointer["build_id"], pointer["name"]) == (current.build_id, current.name)
        assert (self.dataset / "shards" / pointer["index"]).is_file()

    def _check_sample(self, sample: Sample) -> None:
        tar = (self.dataset / sample.shard_path).read_bytes()
        data = tar[sample.latent_offset : sample.latent_offset + sample.latent_bytes]
        latents = np.load(io.BytesIO(data)).astype(np.float64)
        assert latents.shape == sample.latent_shape
        assert latents.mean() == pytest.approx(sample.latent_mean, abs=1e-4)
        assert np.abs(latents).max() == pytest.approx(sample.latent_absmax, rel=1e-4)
        assert f"{sample.clip_id}.latent.npy".encode() in tar
