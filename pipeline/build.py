"""build: clips × captions × an encoder → shards and `samples`.

planned ──▶ shard, shard, shard ... ──▶ completed ──▶ promoted ──▶ index.json
│ pins the table versions that the plan is a pure function of, so a run that was killed
└ makes the same plan again and goes on with the shards that have no rows yet
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import duckdb

from encoders.video import VideoEncoder
from infra.faults import kill_point
from infra.storage import join
from manifests.dataset import Dataset
from manifests.fingerprint import JsonValue, canonical_json, fingerprint, short_id
from manifests.queries import connect, current_build, last_plan, next_sequence
from manifests.schemas import Build
from pipeline.jobs import shard_jobs
from pipeline.plan import Plan, ShardPlan
from pipeline.shard import ShardJob
from pipeline.wanted import Wishes, make_plan

PINNED = ("sources", "clips", "captions", "samples", "builds")


@dataclass(frozen=True)
class Generation:
    """One generation of latents: the name of everything that its bytes depend on."""

    build_id: str
    name: str  # folder under shards/
    encoder: VideoEncoder
    spec: str  # canonical JSON of a DatasetSpec, but for its scan
    latents_fingerprint: str  # of all that latents depend on

    @classmethod
    def of(cls, dataset: Dataset, encoder: VideoEncoder) -> Generation:
        """The build that the dataset's spec asks for."""
        spec = dataset.spec.canonical()
        del spec["scan"]
        # Not where the weights lie, but what they are.
        vae: dict[str, JsonValue] = {
            "encoder": encoder.identity(),
            "patch": dataset.spec.vae.patch,
            "fps": dataset.spec.vae.fps,
        }
        build_id = short_id("build", {**spec, "vae": vae})
        name = f"{encoder.identity()['name']}-{build_id[:8]}"
        latents = fingerprint({"vae": vae, "pixels": spec["pixels"]})
        return cls(build_id, name, encoder, canonical_json(spec), latents)


@dataclass(frozen=True)
class Work:
    """A plan to carry out, and the event that recorded it."""

    event: Build
    wishes: Wishes
    resumed: bool  # an earlier run began it: what came since is not in it

    @property
    def versions(self) -> dict[str, int]:
        """The table versions that the plan is a pure function of."""
        return {name: getattr(self.event, f"{name}_version") for name in PINNED}


def plan_build(dataset: Dataset, generation: Generation, *, retry: bool) -> Work | None:
    """The plan to carry out: an earlier run's that was not completed, else a new one, or None.

    Commits the `planned` event of a new one. A plan that this version of Telecine would make
    otherwise is abandoned: no row of it was ever live.
    """
    con = connect(dataset.tables)
    last = last_plan(con, generation.build_id)
    if last is not None and last.event == "planned":
        resumed = _resume(dataset, generation, last)
        if resumed is not None:
            return resumed
    number = last.plan + 1 if last else 0
    wishes = _wishes(con, dataset, generation, number, retry=retry)
    if not wishes.plan.shards and not wishes.plan.replaces and not wishes.dropped:
        return None
    versions = {name: dataset.tables.version(name) for name in PINNED}
    event = _event(dataset, generation, con, number, wishes.plan, versions, retry=retry)
    kill_point("commit", "planned")
    dataset.tables.append("builds", [event])
    kill_point("committed", "planned")
    return Work(event, wishes, resumed=False)


def _resume(dataset: Dataset, generation: Generation, event: Build) -> Work | None:
    versions = {name: getattr(event, f"{name}_version") for name in PINNED}
    con = connect(dataset.tables, versions)
    wishes = _wishes(con, dataset, generation, event.plan, retry=event.retry)
    return Work(event, wishes, resumed=True) if wishes.plan.digest == event.plan_digest else None


def _wishes(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    generation: Generation,
    number: int,
    *,
    retry: bool,
) -> Wishes:
    return make_plan(
        con,
        dataset.spec,
        generation.encoder,
        build_id=generation.build_id,
        number=number,
        retry=retry,
    )


def _event(
    dataset: Dataset,
    generation: Generation,
    con: duckdb.DuckDBPyConnection,
    number: int,
    plan: Plan,
    versions: Mapping[str, int],
    *,
    retry: bool,
) -> Build:
    return Build(
        build_id=generation.build_id,
        name=generation.name,
        sequence=next_sequence(con),
        event="planned",
        plan=number,
        plan_digest=plan.digest,
        num_shards=len(plan.shards),
        num_samples=plan.num_samples,
        retry=retry,
        follows="",
        replaces=plan.replaces,
        sources_version=versions["sources"],
        clips_version=versions["clips"],
        captions_version=versions["captions"],
        samples_version=versions["samples"],
        builds_version=versions["builds"],
        vae=canonical_json(generation.encoder.identity()),
        vae_fingerprint=generation.encoder.fingerprint,
        pixel_fingerprint=dataset.spec.pixels.fingerprint,
        latents_fingerprint=generation.latents_fingerprint,
        spec=generation.spec,
    )


# ── carrying out ─────────────────────────────────────────────────────────────────────────────────


def unwritten(dataset: Dataset, work: Work) -> list[ShardPlan]:
    """The shards of the plan that have no rows yet, in the plan's order."""
    done = connect(dataset.tables).sql(
        "SELECT DISTINCT shard_id FROM samples WHERE build_id = ? AND plan = ?",
        params=[work.event.build_id, work.event.plan],
    )
    written = {row[0] for row in done.fetchall()}
    return [shard for shard in work.wishes.plan.shards if shard.shard_id not in written]


def jobs(dataset: Dataset, work: Work, shards: Iterable[ShardPlan]) -> Iterator[ShardJob]:
    """A job for each of the shards, from the tables that the plan was made from."""
    con = connect(dataset.tables, work.versions)
    return shard_jobs(con, dataset.spec.caption, work.event, shards)


def drop_without_bucket(dataset: Dataset, work: Work) -> None:
    """Commit the rows of clips that no bucket takes, once per plan."""
    con = connect(dataset.tables)
    written = con.sql(
        "SELECT count(*) FROM samples WHERE build_id = ? AND plan = ? AND shard_id = ''",
        params=[work.event.build_id, work.event.plan],
    ).fetchall()
    if written == [(0,)]:
        dataset.tables.append("samples", work.wishes.dropped)


def complete(dataset: Dataset, work: Work) -> None:
    """Commit that the plan is carried out: its shards become live, those it replaces do not."""
    sequence = next_sequence(connect(dataset.tables))
    event = dataclasses.replace(work.event, event="completed", sequence=sequence)
    kill_point("commit", "completed")
    dataset.tables.append("builds", [event])
    kill_point("committed", "completed")


def promote(dataset: Dataset, generation: Generation) -> None:
    """Make the build current, if it is not."""
    con = connect(dataset.tables)
    last = last_plan(con, generation.build_id)
    current = current_build(con)
    if last is None or (current is not None and current.build_id == generation.build_id):
        return
    event = dataclasses.replace(last, event="promoted", sequence=next_sequence(con))
    dataset.tables.append("builds", [event])
    kill_point("committed", "promoted")


def write_index(dataset: Dataset, generation: Generation) -> None:
    """`index.json`: every live shard with its count, bytes and digest, for plain webdataset users.

    A view of the tables like the shards themselves, so it is simply made again.
    """
    rows = connect(dataset.tables).sql(
        """
        SELECT DISTINCT shard_path, shard_samples, shard_bytes, shard_sha256,
            resolution, aspect, duration
        FROM live_samples WHERE build_id = ? AND outcome = 'kept' ORDER BY shard_path
        """,
        params=[generation.build_id],
    )
    folder = f"shards/{generation.name}"
    names = ("path", "num_samples", "size_bytes", "sha256", "resolution", "aspect", "duration")
    shards = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    for shard in shards:
        shard["path"] = shard["path"].removeprefix(f"{folder}/")
    index = {
        "build_id": generation.build_id,
        "vae_fingerprint": generation.encoder.fingerprint,
        "num_samples": sum(s["num_samples"] for s in shards),
        "size_bytes": sum(s["size_bytes"] for s in shards),
        "shards": shards,
        "digest": fingerprint([[s["path"], s["sha256"]] for s in shards]),
    }
    text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    dataset.storage.write_bytes(join(dataset.uri, folder, "index.json"), text.encode())
    kill_point("committed", "index")
