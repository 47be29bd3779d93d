"""promote: which build is current. The spec in force first, then one commit that says so.

    telecine.toml ──▶ event in `builds` ──▶ shards/current.json
        the build's own spec             └ for trainers that follow it

Killed after the first, the next run makes the same build current, unless a gate says no
(docs/decisions/0010).
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from pydantic import ValidationError

from telecine.infra.errors import CheckFailed, UsageError
from telecine.infra.faults import kill_point
from telecine.manifests.builds import (
    BuildState,
    current_build,
    family,
    family_text,
    find_build,
    last_family,
    last_plan,
    next_sequence,
    promotions,
)
from telecine.manifests.dataset import Dataset, replace_spec
from telecine.manifests.fingerprint import canonical_json
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build
from telecine.manifests.specs import DatasetSpec, RenditionSpec, ScoreSpec, VaeSpec
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.index import write_index
from telecine.pipeline.lifecycle.gates import Failure, gates


@dataclass(frozen=True)
class Promoted:
    """The build that is current now, by its name, and what was so before."""

    build: str
    before: str = ""  # name of the other build that was current, or empty
    failures: tuple[Failure, ...] = ()  # what the gates say of it all the same
    was_current: bool = False  # it was so before
    asked_again: bool = False  # ... but telecine.toml asked for another one
    rolled_back: bool = False  # it was so once before

    def __str__(self) -> str:
        if self.was_current:
            again = "; telecine.toml asks for it again" if self.asked_again else ""
            return f"build {self.build} is current already{again}"
        before = f" (before: {self.before})" if self.before else ""
        said = f"build {self.build} is current {'again' if self.rolled_back else 'now'}{before}"
        return said + (f", although{_listed(self.failures)}" if self.failures else "")


def _listed(failures: Iterable[Failure]) -> str:
    return "".join(f"\n  {failure}" for failure in failures)


def promote(dataset: Dataset, build: str, *, force: bool = False) -> Promoted:
    """Make a build current by its name or id; one of several renditions with the others.

    Raises UsageError where there is no such build or one of them is not finished, CheckFailed where
    another build is current and a gate says no to any, unless forced.
    """
    con = connect(dataset.tables)
    wanted = _declared(con, find_build(con, build).build_id)
    for build_id in (wanted.build_id, *family(wanted.family).values()):
        _refuse_unfinished(find_build(con, build_id))
    found, current = find_build(con, wanted.build_id), current_build(con)
    if current is not None and _same(current, wanted):
        again = make_current(dataset, wanted).spec != dataset.spec
        return Promoted(found.name, was_current=True, asked_again=again)
    failures = tuple(_failures(con, wanted, current))
    if failures and current is not None and not force:
        raise CheckFailed(
            f"build {found.name} is not made current, since{_listed(failures)}\n"
            f"Compare it with telecine inspect {shlex.quote(dataset.uri)} builds {current.name} "
            f"{found.name}; --force makes it current all the same"
        )
    make_current(dataset, wanted)
    return Promoted(found.name, current.name if current is not None else "", failures)


def _refuse_unfinished(build: BuildState) -> None:
    if build.completed is None:
        raise UsageError(
            f"build {build.name} is not finished: go on with it by running the rebuild that began "
            "it again, then promote it"
        )


def _same(one: Build | Generation, other: Build | Generation) -> bool:
    """Whether to promote them makes the same builds current."""
    return (one.build_id, one.family) == (other.build_id, other.family)


def _declared(con: duckdb.DuckDBPyConnection, build_id: str) -> Build:
    """The build, or the first one of the family it was last made in, with the spec of all of it."""
    members = last_family(con, build_id)
    first = find_build(con, next(iter(members.values()), build_id)).last
    renditions = {
        name: _otherwise(first.spec, find_build(con, one).last.spec)
        for name, one in members.items()
    }
    return _as_family(first, family_text(members), renditions)


def _otherwise(first: str, rendition: str) -> dict[str, Any]:
    """What a rendition's spec has otherwise than the first one's, both as JSON."""
    vae, other = (VaeSpec.model_validate(json.loads(s)["vae"]) for s in (first, rendition))
    return {
        key: getattr(other, key)
        for key in RenditionSpec.model_fields
        if getattr(other, key) != getattr(vae, key)
    }


def _as_family(first: Build, members: str, renditions: dict[str, Any]) -> Build:
    spec = json.loads(first.spec)
    spec.pop("renditions", None)
    spec |= {"renditions": renditions} if renditions else {}
    return dataclasses.replace(first, family=members, spec=canonical_json(spec))


def _failures(
    con: duckdb.DuckDBPyConnection, wanted: Build | Generation, current: Build | None
) -> Iterator[Failure]:
    """Of each build that would become current: each is held against that of its name, if any."""
    before = family(current.family) if current is not None else {}
    against = current.build_id if current is not None else None
    if against != wanted.build_id:
        yield from gates(con, wanted.build_id, against)
    for name, build_id in family(wanted.family).items():
        if build_id not in (wanted.build_id, before.get(name)):
            for failure in gates(con, build_id, before.get(name)):
                yield dataclasses.replace(failure, text=f"rendition {name}: {failure.text}")


@dataclass(frozen=True)
class Settled:
    """Whether a build that a run has written is current, and what the gates say of it."""

    current: bool
    failures: tuple[Failure, ...] = ()
    before: str = ""  # name of the other build that was current, and still is if this one is not


@dataclass(frozen=True)
class Promotion:
    """What a run would make current, by its name."""

    before: str  # name of the build that is current, or empty
    to: str
    if_gates_allow: bool  # else whatever they say


def foreseen(
    dataset: Dataset, build: Generation, *, builds: bool, wanted: bool, force: bool
) -> Promotion | None:
    """What `settle` would promote after a run that builds something, or nothing; None: nothing."""
    con = connect(dataset.tables)
    current = current_build(con)
    is_there = builds or last_plan(con, build.build_id) is not None
    if not wanted or not is_there or (current and _same(current, build)):
        return None
    before = current.name if current else ""
    return Promotion(before, build.name, if_gates_allow=bool(before) and not force)


def settle(dataset: Dataset, builds: Sequence[Generation], *, wanted: bool, force: bool) -> Settled:
    """Make a build current that a run has written, with its renditions, unless another one is and
    a gate says no to any of them.

    Without another one there is nothing to fall back on: what the gates say is a warning. A build
    without a plan (there was nothing to build) changes nothing. A gate is asked also where
    telecine.toml wants this build already, as after a promotion that was killed: whether that one
    was forced nobody noted.
    """
    con = connect(dataset.tables)
    first, current = builds[0], current_build(con)
    if any(last_plan(con, build.build_id) is None for build in builds):
        return Settled(current=False)
    if current is not None and _same(current, first):
        make_current(dataset, first)
        return Settled(current=True)
    failures = tuple(_failures(con, first, current))
    before = current.name if current else ""
    if wanted and (force or current is None or not failures):
        make_current(dataset, first)
        return Settled(True, failures, before if before != first.name else "")
    for build in builds:
        write_index(dataset, build)
    return Settled(False, failures, before)


def rollback(dataset: Dataset) -> Promoted:
    """Make the build current that was so before this one.

    Raises UsageError where there is none. A build that was deleted since is passed over.
    """
    in_force = promotions(connect(dataset.tables))
    if not in_force:
        raise UsageError("no build is current yet: there is nothing to go back from")
    if len(in_force) == 1:
        raise UsageError(
            f"no other build was current before {in_force[-1].name}, or it was deleted; "
            f"telecine inspect {shlex.quote(dataset.uri)} builds lists those there are, and "
            "telecine promote makes one current"
        )
    *_, before, current = in_force
    last = find_build(connect(dataset.tables), before.build_id).last
    renditions = json.loads(before.spec).get("renditions", {})
    make_current(dataset, _as_family(last, before.family, renditions))
    return Promoted(before.name, current.name, rolled_back=True)


def make_current(dataset: Dataset, build: Generation | Build) -> Dataset:
    """Put the build's spec in force and commit that the build is current, where it is not; and
    with it, by the same event, its family.

    Of one that is current already another event is committed where its spec says something else
    than before: its weights lie elsewhere. To go to a build that promotions in force lie upon is to
    roll them back, whoever asks for it: a run that finishes a rollback which was killed does too.

    Returns the dataset under that spec. Writes the build's index.json and current.json.
    """
    promoted = replace_spec(dataset, spec_of(dataset, build))
    kill_point("committed", "spec")
    con = connect(dataset.tables)
    found, current = find_build(con, build.build_id), current_build(con)
    if current is None or not _same(current, build) or found.last.spec != build.spec:
        last = last_plan(con, build.build_id)
        assert last is not None  # a build is something that was planned
        earlier = promotions(con)[:-1]
        event = "rolled_back" if any(_same(one, build) for one in earlier) else "promoted"
        row = dataclasses.replace(
            last,
            event=event,
            sequence=next_sequence(con),
            spec=build.spec,
            family=build.family,
        )
        kill_point("commit", event)
        dataset.tables.append("builds", [row])
        kill_point("committed", event)
    for build_id in family(build.family).values():
        if build_id != build.build_id:
            write_index(dataset, find_build(con, build_id).last)
    write_index(dataset, build)
    return promoted


def _score_of(present: ScoreSpec, build: dict[str, Any] | None) -> dict[str, Any]:
    """The scores in force while a build is current: what it was selected by, and of the same scorer
    what there is beside.
    """
    if build is None:
        return present.canonical()
    if (build["scorer"], build["weights"]) != (present.scorer, present.weights):
        return build
    used = {key: value for key, value in build.items() if value not in (None, {})}
    if not build["duplicate_threshold"]:
        del used["duplicate_keep"]
    return present.canonical() | used | {"prompts": {**present.prompts, **build["prompts"]}}


def spec_of(dataset: Dataset, build: Generation | Build) -> DatasetSpec:
    """The dataset's spec as it is while the build is current."""
    try:
        known = json.loads(build.spec)
        return DatasetSpec.model_validate(
            {
                "scan": dataset.spec.scan.canonical(),
                # Of a build without captions those in force stay so.
                "caption": dataset.spec.caption.canonical(),
                "caption_mix": dataset.spec.caption_mix.canonical(),
                **known,
                "score": _score_of(dataset.spec.score, known.get("score")),
                "embed": dataset.spec.embed.canonical(),  # a column lies beside any build
            }
        )
    except ValidationError as error:
        raise UsageError(
            f"build {build.name} was made by another version of Telecine, with a spec that this "
            f"one does not know: {error}. Use that version, or rebuild"
        ) from error
