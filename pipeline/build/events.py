"""build: clips × captions × an encoder → shards and `samples`.

planned ──▶ shard, shard, shard ... ──▶ completed ──▶ promoted ──▶ index.json, current.json
│ pins the table versions that the plan is a pure function of, so a run that was killed
└ makes the same plan again and goes on with the shards that have no rows yet
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb

from telecine.infra.errors import CommitError
from telecine.infra.faults import kill_point
from telecine.manifests.builds import (
    PINNED,
    current_build,
    last_plan,
    next_plan,
    next_sequence,
    pinned,
)
from telecine.manifests.dataset import Dataset
from telecine.manifests.fingerprint import canonical_json
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.jobs import shard_jobs
from telecine.pipeline.build.plan import ShardPlan
from telecine.pipeline.build.wanted import Planned, Target, make_plan
from telecine.pipeline.build.worker import ShardJob


@dataclass(frozen=True)
class Work:
    """A plan to carry out, and the event that recorded it."""

    event: Build
    planned: Planned
    resumed: bool  # an earlier run began it: what came since is not in it
    abandons: bool = False  # a plan that an earlier run began is given up for it

    @property
    def idle(self) -> bool:
        """There is nothing to do. To carry out even an empty plan ends one that is given up."""
        plan, begun = self.planned.plan, self.resumed or self.abandons
        return not (begun or plan.shards or plan.replaces or self.planned.dropped)


def plan_build(dataset: Dataset, generation: Generation, *, retry: bool) -> Work | None:
    """The plan to carry out: an earlier run's that was not completed, else a new one, or None.

    Commits the `planned` event of a new one. A plan that this version of Telecine would make
    otherwise is abandoned: no row of it was ever live.
    """
    work = find_work(dataset, generation, retry=retry)
    if work.idle:
        return None
    if not work.resumed:
        kill_point("commit", "planned")
        dataset.tables.append("builds", [work.event])
        kill_point("committed", "planned")
    return work


def find_work(dataset: Dataset, generation: Generation, *, retry: bool) -> Work:
    """`plan_build` without committing anything; idle where there is nothing to do."""
    con = connect(dataset.tables)
    last = last_plan(con, generation.build_id)
    stale = last is not None and last.event == "planned"
    if last is not None and stale:
        planned = _planned(connect(dataset.tables, pinned(last)), dataset, generation, last)
        if planned.plan.digest == last.plan_digest:
            return Work(last, planned, resumed=True)
    draft = _event(dataset, generation, con, retry=retry)
    planned = _planned(con, dataset, generation, draft)
    plan = planned.plan
    event = dataclasses.replace(
        draft,
        plan_digest=plan.digest,
        num_shards=len(plan.shards),
        num_samples=plan.num_samples,
        replaces=plan.replaces,
    )
    return Work(event, planned, resumed=False, abandons=stale)


def _planned(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, generation: Generation, event: Build
) -> Planned:
    """What a `planned` event stands for; it need not have been committed, or hold the plan."""
    target = Target(
        event.build_id, event.latents_fingerprint, event.plan, event.retry, event.follows
    )
    return make_plan(con, dataset.spec, generation.encoder, target)


def _followed(con: duckdb.DuckDBPyConnection, generation: Generation) -> str:
    """build_id of the current build, where a trainer may swap this one for it; else empty.

    Both take the same clips into the same buckets and shards of one size.
    """
    current = current_build(con)
    if current is None or current.build_id == generation.build_id:
        return ""
    theirs, ours = json.loads(current.spec), json.loads(generation.spec)
    layout = ("select", "score", "buckets", "shards")
    equal = all(theirs.get(part) == ours.get(part) for part in layout)
    # Clips of several rungs share one where all are made smaller: not the other way round.
    splits = theirs["vae"].get("short_side") and not ours["vae"].get("short_side")
    return current.build_id if equal and not splits else ""


def _event(
    dataset: Dataset, generation: Generation, con: duckdb.DuckDBPyConnection, *, retry: bool
) -> Build:
    """The `planned` event of a new plan, before the plan is made."""
    versions = {name: dataset.tables.version(name) for name in PINNED}
    return Build(
        build_id=generation.build_id,
        name=generation.name,
        sequence=next_sequence(con),
        event="planned",
        plan=next_plan(con, generation.build_id),
        plan_digest="",
        num_shards=0,
        num_samples=0,
        retry=retry,
        follows=_followed(con, generation),
        sources_version=versions["sources"],
        clips_version=versions["clips"],
        captions_version=versions["captions"],
        scores_version=versions["scores"],
        duplicates_version=versions["duplicates"],
        samples_version=versions["samples"],
        builds_version=versions["builds"],
        vae=canonical_json(generation.encoder.identity()),
        vae_fingerprint=generation.vae_fingerprint,
        temporal_stride=generation.encoder.temporal_stride,
        causal=generation.encoder.causal,
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
    return [shard for shard in work.planned.plan.shards if shard.shard_id not in written]


def jobs(dataset: Dataset, work: Work, shards: Iterable[ShardPlan]) -> Iterator[ShardJob]:
    """A job for each of the shards, from the tables that the plan was made from."""
    con = connect(dataset.tables, pinned(work.event))
    return shard_jobs(con, dataset.spec, work.event, shards, work.planned.canaries)


def drop_without_bucket(dataset: Dataset, work: Work) -> None:
    """Commit the rows of clips that no bucket takes, once per plan."""
    con = connect(dataset.tables)
    written = con.sql(
        "SELECT count(*) FROM samples WHERE build_id = ? AND plan = ? AND shard_id = ''",
        params=[work.event.build_id, work.event.plan],
    ).fetchall()
    if written == [(0,)]:
        dataset.tables.append("samples", work.planned.dropped)


def complete(dataset: Dataset, work: Work) -> None:
    """Commit that the plan is carried out: its shards become live, those it replaces do not.

    Raises CommitError where the build was deleted since it was planned, by another process or this.
    """
    con = connect(dataset.tables)
    last = last_plan(con, work.event.build_id)
    if last is None or last.plan != work.event.plan:
        raise CommitError(
            f"build {work.event.name} was deleted while it was written. Run again to make it anew"
        )
    event = dataclasses.replace(work.event, event="completed", sequence=next_sequence(con))
    kill_point("commit", "completed")
    dataset.tables.append("builds", [event])
    kill_point("committed", "completed")
