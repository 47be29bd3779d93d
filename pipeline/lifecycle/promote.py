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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from telecine.infra.errors import CheckFailed, UsageError
from telecine.infra.faults import kill_point
from telecine.manifests.builds import (
    State,
    current_build,
    find_build,
    last_plan,
    next_sequence,
    promotions,
)
from telecine.manifests.dataset import Dataset, replace_spec
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build
from telecine.manifests.specs import DatasetSpec, ScoreSpec
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
    """Make a build current by its name or id.

    Raises UsageError where there is no such build or it is not finished, CheckFailed where another
    build is current and a gate says no, unless forced.
    """
    con = connect(dataset.tables)
    found = find_build(con, build)
    if found.completed is None:
        raise UsageError(
            f"build {found.name} is not finished: go on with it by running the rebuild that began "
            "it again, then promote it"
        )
    if found.state is State.CURRENT:
        again = make_current(dataset, found.last).spec != dataset.spec
        return Promoted(found.name, was_current=True, asked_again=again)
    current = current_build(con)
    failures = tuple(gates(con, found.build_id, current.build_id if current is not None else None))
    if failures and current is not None and not force:
        raise CheckFailed(
            f"build {found.name} is not made current, since{_listed(failures)}\n"
            f"Compare it with telecine inspect {shlex.quote(dataset.uri)} builds {current.name} "
            f"{found.name}; --force makes it current all the same"
        )
    make_current(dataset, found.last)
    return Promoted(found.name, current.name if current is not None else "", failures)


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
    if not wanted or not is_there or (current and current.build_id == build.build_id):
        return None
    before = current.name if current else ""
    return Promotion(before, build.name, if_gates_allow=bool(before) and not force)


def settle(dataset: Dataset, build: Generation, *, wanted: bool, force: bool) -> Settled:
    """Make a build current that a run has written, unless another one is and a gate says no.

    Without another one there is nothing to fall back on: what the gates say is a warning. A build
    without a plan (there was nothing to build) changes nothing. A gate is asked also where
    telecine.toml wants this build already, as after a promotion that was killed: whether that one
    was forced nobody noted.
    """
    con = connect(dataset.tables)
    current = current_build(con)
    if last_plan(con, build.build_id) is None:
        return Settled(current=False)
    if current is not None and current.build_id == build.build_id:
        make_current(dataset, build)
        return Settled(current=True)
    failures = tuple(gates(con, build.build_id, current.build_id if current else None))
    before = current.name if current else ""
    if wanted and (force or current is None or not failures):
        make_current(dataset, build)
        return Settled(True, failures, before)
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
    make_current(dataset, find_build(connect(dataset.tables), before.build_id).last)
    return Promoted(before.name, current.name, rolled_back=True)


def make_current(dataset: Dataset, build: Generation | Build) -> Dataset:
    """Put the build's spec in force and commit that the build is current, where it is not.

    Of one that is current already another event is committed where its spec says something else
    than before: its weights lie elsewhere. To go to a build that promotions in force lie upon is to
    roll them back, whoever asks for it: a run that finishes a rollback which was killed does too.

    Returns the dataset under that spec. Writes the build's index.json and current.json.
    """
    promoted = replace_spec(dataset, spec_of(dataset, build))
    kill_point("committed", "spec")
    con = connect(dataset.tables)
    found = find_build(con, build.build_id)
    if found.state is not State.CURRENT or found.last.spec != build.spec:
        last = last_plan(con, build.build_id)
        assert last is not None  # a build is something that was planned
        earlier = {event.build_id for event in promotions(con)[:-1]}
        event = "rolled_back" if build.build_id in earlier else "promoted"
        row = dataclasses.replace(last, event=event, sequence=next_sequence(con), spec=build.spec)
        kill_point("commit", event)
        dataset.tables.append("builds", [row])
        kill_point("committed", event)
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
