"""gc: what of a dataset nothing needs any more: listed, and deleted where that is asked for.

    shards/<build>/   of a build that is not current       deleted (an event), then its files
                      a tar that no live row names         an orphan, of a run that was killed
                      an index of samples superseded a week ago, and its tars
    columns/<name>/   what no index beside a build that stays names, a week old
    tables/<name>/    a file that no version in need names, a week old
    uploads           begun and never ended, a day old

A build is gone with the commit of its event. Then the indexes are written of those that stay, and
at last files are removed: a kill in between leaves orphans, which the next gc finds, and never a
row or an index without its tar.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from telecine.infra.errors import CommitError, NotFound
from telecine.infra.faults import kill_point
from telecine.infra.store.storage import ObjectInfo
from telecine.manifests.builds import (
    NOW,
    PINNED,
    BuildState,
    State,
    builds,
    find_build,
    next_sequence,
)
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import TABLES
from telecine.manifests.shards import (
    INDEX,
    SHARDS,
    build_folder,
    index_path,
    is_index,
    is_samples,
    is_shard,
)
from telecine.manifests.tables import RETENTION_HOURS, Tables
from telecine.pipeline.build.index import write_index
from telecine.pipeline.lifecycle.columns import column_garbage
from telecine.pipeline.lifecycle.stored import needed, stored, trained_on
from telecine.pipeline.progress import SILENT, Progress, Step

UPLOAD_SECONDS = 24 * 3600.0  # after which an upload that was begun is taken for dead
AT_ONCE = 10_000  # files between two steps of the progress shown


@dataclass(frozen=True)
class DeadBuild:
    """A build to delete, with the files that are its own."""

    build: BuildState
    files: tuple[ObjectInfo, ...]


@dataclass(frozen=True)
class Garbage:
    """What may be deleted, as the tables stood when it was collected."""

    dataset: str
    builds: tuple[DeadBuild, ...]
    orphans: tuple[ObjectInfo, ...]  # under shards/, named by nothing
    table_files: tuple[ObjectInfo, ...]
    uploads: tuple[ObjectInfo, ...]
    left_alone: tuple[tuple[str, str], ...]  # name of a build, and why it stays
    column_files: tuple[ObjectInfo, ...] = ()  # under columns/, named by no index in need

    def groups(self) -> list[tuple[str, str, Sequence[ObjectInfo]]]:
        """What, its name, its files."""
        each = [("build", dead.build.name, dead.files) for dead in self.builds]
        rest = [
            ("orphans", "", self.orphans),
            ("columns", "", self.column_files),
            ("table files", "", self.table_files),
            ("uploads", "", self.uploads),
        ]
        return [*each, *(group for group in rest if group[2])]

    @property
    def size_bytes(self) -> int:
        return sum(info.size_bytes for _, _, files in self.groups() for info in files)

    def as_values(self) -> dict[str, Any]:
        """All of it, as JSON has it."""

        def listed(files: Iterable[ObjectInfo]) -> list[dict[str, Any]]:
            return [{"uri": info.uri, "size_bytes": info.size_bytes} for info in files]

        return {
            "dataset": self.dataset,
            "size_bytes": self.size_bytes,
            "builds": [
                {"name": d.build.name, "build_id": d.build.build_id, "files": listed(d.files)}
                for d in self.builds
            ],
            "orphans": listed(self.orphans),
            "column_files": listed(self.column_files),
            "table_files": listed(self.table_files),
            "uploads": listed(self.uploads),
            "left_alone": [{"name": name, "why": why} for name, why in self.left_alone],
        }


def collect(
    dataset: Dataset,
    keep: Iterable[str] = (),
    unfinished: bool = False,
    retention_hours: int = RETENTION_HOURS,
) -> Garbage:
    """What nothing needs: nothing of it is named by the current build or its renditions. Deletes
    nothing.

    Builds that are `keep` stay; so do those with a plan in progress, unless `unfinished`, and
    those whose latents such a plan may copy. Where no build is current none is offered. Files of
    tables, and indexes of samples with the tars they name, stay for some hours after they were
    superseded: who opened them before reads on.
    """
    there = stored(dataset)
    uploads = _uploads(dataset)
    con = connect(dataset.tables)
    known = [build for build in builds(con) if build.state is not State.DELETED]
    kept = {find_build(con, text).build_id for text in keep}
    reasons = _left_alone(known, kept, unfinished)
    dead = [build for build in known if build.build_id not in reasons]
    remaining = [build for build in known if build.build_id in reasons]

    in_need = needed(dataset, remaining)
    in_need |= {index_path(build.name) for build in remaining}
    in_need |= trained_on(dataset, remaining, there, retention_hours)
    working = tuple(build_folder(build.name) for build in remaining if build.in_progress)
    own: dict[str, list[ObjectInfo]] = defaultdict(list)
    for path, info in there.items():
        if path not in in_need and not path.startswith(working) and _is_ours(path):
            own[path.split("/")[1]].append(info)
    of_builds = tuple(DeadBuild(b, tuple(own.pop(b.name, ()))) for b in dead)
    return Garbage(
        dataset=dataset.uri,
        builds=of_builds,
        orphans=tuple(info for infos in own.values() for info in infos),
        table_files=tuple(_table_files(dataset, remaining, retention_hours)),
        uploads=uploads,
        left_alone=tuple((b.name, reasons[b.build_id]) for b in remaining if reasons[b.build_id]),
        column_files=column_garbage(dataset, [b.name for b in remaining], retention_hours),
    )


def _left_alone(known: list[BuildState], kept: set[str], unfinished: bool) -> dict[str, str]:
    """Why a build stays, by build_id; empty for what is current, which needs no reason."""
    if not any(build.state is State.CURRENT for build in known):
        return {build.build_id: "no build is current" for build in known}
    reasons: dict[str, str] = {}
    for build in known:
        if build.in_progress and (build.state in NOW or not unfinished):
            reasons[build.build_id] = "its plan is in progress"
        elif build.state in NOW:
            reasons[build.build_id] = ""
        elif build.build_id in kept:
            reasons[build.build_id] = "kept, as asked"
    copied = {
        b.last.latents_fingerprint: b.name for b in known if b.in_progress and b.build_id in reasons
    }
    for build in known:
        if user := copied.get(build.last.latents_fingerprint):
            reasons.setdefault(build.build_id, f"{user}, in progress, may copy its latents")
    return reasons


def _is_ours(path: str) -> bool:
    """A tar or an index, whole. Anything else under shards/ is not of our making, or a view."""
    return is_shard(path) or is_index(path) or is_samples(path)


def _uploads(dataset: Dataset) -> tuple[ObjectInfo, ...]:
    before = time.time() - UPLOAD_SECONDS
    with contextlib.suppress(NotFound):
        return tuple(dataset.storage.unfinished(dataset.path(SHARDS), before))
    return ()


def _table_files(dataset: Dataset, remaining: list[BuildState], hours: int) -> Iterator[ObjectInfo]:
    """But for the versions that plans in progress were made from."""
    plans = [build.in_progress for build in remaining if build.in_progress]
    for name in TABLES:
        pinned = [getattr(p, f"{name}_version") for p in plans] if name in PINNED else []
        old = set(dataset.tables.unreferenced(name, pinned, hours))
        if old:
            there = dataset.storage.list(dataset.path(f"tables/{name}"), follow_links=False)
            start = len(dataset.path(""))
            yield from (info for info in there if info.uri[start:] in old)


# ── deleting ─────────────────────────────────────────────────────────────────────────────────────


def delete(dataset: Dataset, garbage: Garbage, progress: Progress = SILENT) -> None:
    """Delete what was collected from this dataset. Killed in between, the next gc does the rest.

    Raises CommitError where another run has written events since, and deletes no more.
    """
    _commit_deletions(dataset, garbage.builds)
    _refuse_news(dataset)
    for build in builds(connect(dataset.tables)):
        if build.completed:  # whoever was to write these may have been killed before
            write_index(dataset, build.last)
    groups = garbage.groups()
    total = sum(len(files) for _, _, files in groups)
    with Step(progress, "gc", "files", total, total) as step:
        for what, _, files in groups:
            for part in _parts(files):
                _refuse_news(dataset)
                if what == "uploads":
                    for upload in part:
                        dataset.storage.abort(upload)
                else:
                    dataset.storage.delete([info.uri for info in part], dataset.uri)
                kill_point("deleted", what)
                step.advance(done=len(part), weight=len(part))


def _parts(files: Sequence[ObjectInfo]) -> Iterator[Sequence[ObjectInfo]]:
    """An index first: it is the one name that a build which is made again takes again."""
    indexes = [info for info in files if info.uri.endswith(f"/{INDEX}")]
    others = [info for info in files if not info.uri.endswith(f"/{INDEX}")]
    for some in (indexes, others):
        yield from (some[start : start + AT_ONCE] for start in range(0, len(some), AT_ONCE))


def _refuse_news(dataset: Dataset) -> None:
    """Between two parts hours may pass, and what was garbage be of use again."""
    now = Tables(dataset.uri, lambda: dataset.storage.delta_options(dataset.uri))
    if now.version("builds") != dataset.tables.version("builds"):
        raise CommitError(
            f"another run is writing to this dataset ({dataset.uri}): what is garbage may be in "
            "use by now. No more is deleted; run again when it has ended"
        )


def _commit_deletions(dataset: Dataset, dead: Sequence[DeadBuild]) -> None:
    """One commit: all of them or none."""
    sequence = next_sequence(connect(dataset.tables))
    events = [
        dataclasses.replace(one.build.last, event="deleted", sequence=sequence + number)
        for number, one in enumerate(dead)
    ]
    kill_point("commit", "deleted")
    dataset.tables.append("builds", events)
    kill_point("committed", "deleted")
