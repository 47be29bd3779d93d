"""build: clips × captions × an encoder → shards and `samples`.

planned ──▶ shard, shard, shard ... ──▶ completed ──▶ promoted ──▶ index.json, current.json
│ pins the table versions that the plan is a pure function of, so a run that was killed
└ makes the same plan again and goes on with the shards that have no rows yet
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
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
from telecine.manifests.schemas import Build, from_arrow
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.jobs import shard_jobs
from telecine.pipeline.build.plan import Plan, ShardPlan
from telecine.pipeline.build.wanted import Planned, Target, make_plan
from telecine.pipeline.build.worker import ShardJob


@dataclass(frozen=True)
class Work:
    """A plan to carry out, and the event that recorded it."""

    event: Build
    planned: Planned
    resumed: bool  # an earlier run began it: what came since is not in it
    abandons: bool = False  # a plan that an earlier run began is given up for it
    asked: DatasetSpec | None = None  # what it is made by; None: the dataset's

    @property
    def idle(self) -> bool:
        """There is nothing to do. To carry out even an empty plan ends one that is given up."""
        plan, begun = self.planned.plan, self.resumed or self.abandons
        return not (begun or plan.shards or plan.replaces or self.planned.dropped)


def plan_builds(dataset: Dataset, builds: Sequence[Generation], *, retry: bool) -> list[Work]:
    """The plans to carry out: those that an earlier run did not complete, else new ones, if any.

    The builds after the first follow it. Commits the `planned` events of new plans, all at once. A
    plan that this version of Telecine would make otherwise is abandoned: no row of it was ever
    live.
    """
    works = [work for work in find_works(dataset, builds, retry=retry) if not work.idle]
    if not works or works[0].resumed:
        return works
    works = _in_sequence(dataset, works)
    kill_point("commit", "planned")
    dataset.tables.append("builds", [work.event for work in works])
    kill_point("committed", "planned")
    return works


def _in_sequence(dataset: Dataset, works: Sequence[Work]) -> list[Work]:
    first = next_sequence(connect(dataset.tables))
    return [
        dataclasses.replace(work, event=dataclasses.replace(work.event, sequence=first + number))
        for number, work in enumerate(works)
    ]


def find_works(dataset: Dataset, builds: Sequence[Generation], *, retry: bool) -> list[Work]:
    """`plan_builds` without committing anything; of each new plan, an idle one too."""
    con = connect(dataset.tables)
    begun = [work for one in builds if (work := _begun(dataset, con, one, builds[0]))]
    if begun:
        return begun
    first = _new(dataset, builds[0], "", None, retry=retry)
    followed, ahead = builds[0].build_id, first.planned.plan
    return [first, *(_new(dataset, one, followed, ahead, retry=retry) for one in builds[1:])]


def _new(
    dataset: Dataset, build: Generation, follows: str, ahead: Plan | None, *, retry: bool
) -> Work:
    """A plan of what the build lacks; `ahead`: that of the build it follows, made just before."""
    con = connect(dataset.tables)
    last = last_plan(con, build.build_id)
    draft = _event(dataset, build, con, retry=retry)
    draft = dataclasses.replace(draft, follows=follows or draft.follows)
    planned = _planned(con, build, draft, ahead)
    plan = planned.plan
    event = dataclasses.replace(
        draft,
        plan_digest=plan.digest,
        num_shards=len(plan.shards),
        num_samples=plan.num_samples,
        replaces=plan.replaces,
    )
    abandons = last is not None and last.event == "planned"
    return Work(event, planned, resumed=False, abandons=abandons, asked=build.asked)


def _begun(
    dataset: Dataset, con: duckdb.DuckDBPyConnection, build: Generation, first: Generation
) -> Work | None:
    """The plan of a build that an earlier run began, if it would be made the same again."""
    last = last_plan(con, build.build_id)
    if last is None or last.event != "planned":
        return None
    ahead = _planned_beside(dataset, con, last, first)
    planned = _planned(connect(dataset.tables, pinned(last)), build, last, ahead)
    if planned.plan.digest != last.plan_digest:
        return None
    return Work(last, planned, resumed=True, asked=build.asked)


def _planned_beside(
    dataset: Dataset, con: duckdb.DuckDBPyConnection, event: Build, first: Generation
) -> Plan | None:
    """The plan of the build that the event's follows, where both were committed together."""
    if event.follows != first.build_id:
        return None
    beside = con.sql(
        "FROM known_events WHERE build_id = ? AND event = 'planned' AND builds_version = ?",
        params=[first.build_id, event.builds_version],
    ).to_arrow_table()
    for theirs in from_arrow(beside, Build):
        return _planned(connect(dataset.tables, pinned(theirs)), first, theirs).plan
    return None


def _planned(
    con: duckdb.DuckDBPyConnection, build: Generation, event: Build, ahead: Plan | None = None
) -> Planned:
    """What a `planned` event stands for; it need not have been committed, or hold the plan."""
    target = Target(
        event.build_id, event.latents_fingerprint, event.plan, event.retry, event.follows, ahead
    )
    return make_plan(con, build.asked, build.encoder, target)


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
        family=generation.family,
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
    spec = work.asked or dataset.spec
    return shard_jobs(con, spec, work.event, shards, work.planned.canaries)


def drop_without_bucket(dataset: Dataset, work: Work) -> None:
    """Commit the rows of clips that no bucket takes, once per plan."""
    con = connect(dataset.tables)
    written = con.sql(
        "SELECT count(*) FROM samples WHERE build_id = ? AND plan = ? AND shard_id = ''",
        params=[work.event.build_id, work.event.plan],
    ).fetchall()
    if written == [(0,)]:
        dataset.tables.append("samples", work.planned.dropped)


def complete(dataset: Dataset, works: Sequence[Work]) -> None:
    """Commit that the plans are carried out: their shards become live, those they replace do not.

    All of them at once: of a family no build is ahead of the others. Raises CommitError where one
    was deleted since it was planned, by another process or this.
    """
    con = connect(dataset.tables)
    for event in (work.event for work in works):
        last = last_plan(con, event.build_id)
        if last is None or last.plan != event.plan:
            raise CommitError(
                f"build {event.name} was deleted while it was written. Run again to make it anew"
            )
    ended = [
        dataclasses.replace(work.event, event="completed") for work in _in_sequence(dataset, works)
    ]
    kill_point("commit", "completed")
    dataset.tables.append("builds", ended)
    kill_point("committed", "completed")
