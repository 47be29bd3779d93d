"""Telecine: raw footage in, bucketed latent shards out.

    import telecine

    telecine.ingest("footage/", "dataset/")           # made where it is not there
    dataset = telecine.open("dataset/")               # or "s3://bucket/prefix"
    for clip in telecine.clips(dataset, "motion > 0.02"):
        print(clip.clip_id, clip.width, clip.height, clip.duration_seconds)
    kinds = telecine.query(dataset, "SELECT kind, count(*) FROM dataset GROUP BY kind")
    telecine.rebuild(dataset, spec={"vae": {"encoder": "diffusers:weights/ltx-video"}})

A dataset is named by its address or by what `open` gave. Every function prints nothing, leaves the
process as it is, logs under `telecine.` and raises a `TelecineError` for what the caller can mend.
`spec` holds tables and keys as in telecine.toml (docs/specs.md), folders from where one stands.
`workers` is how many processes Ray starts at most (None: one per core; 0: none, all is done in this
process). What a function needs beyond reading tables, such as Ray or PyAV, is imported when it is
called; where it is not installed, the error says which extra brings it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telecine.infra.errors import (
    CheckFailed,
    ClusterError,
    CommitError,
    StorageError,
    TelecineError,
    UsageError,
)
from telecine.infra.extras import explained

if TYPE_CHECKING:
    import pyarrow as pa

    from telecine.manifests.dataset import Dataset
    from telecine.manifests.schemas import Clip
    from telecine.manifests.specs import DatasetSpec
    from telecine.pipeline.caption.step import CaptionOutcome
    from telecine.pipeline.embed.step import EmbedOutcome
    from telecine.pipeline.export.export import Exported
    from telecine.pipeline.feed.feed import Feed
    from telecine.pipeline.feed.pack import Pack
    from telecine.pipeline.feed.schedule import Schedule
    from telecine.pipeline.lifecycle.promote import Promoted
    from telecine.pipeline.progress import Progress
    from telecine.pipeline.recipes import Built, Ingested
    from telecine.pipeline.run import Run, RunOptions
    from telecine.pipeline.score.step import ScoreOutcome

__all__ = [
    "Built",
    "CaptionOutcome",
    "CheckFailed",
    "Clip",
    "ClusterError",
    "CommitError",
    "Dataset",
    "DatasetSpec",
    "EmbedOutcome",
    "Exported",
    "Feed",
    "Ingested",
    "Pack",
    "Promoted",
    "RunOptions",
    "Schedule",
    "ScoreOutcome",
    "StorageError",
    "TelecineError",
    "UsageError",
    "caption",
    "clips",
    "embed",
    "export",
    "feed_index",
    "ingest",
    "open",
    "promote",
    "query",
    "rebuild",
    "rollback",
    "score",
]

# Where the types of arguments and results are; they are loaded when somebody names one.
_TYPES = {
    "Built": "pipeline.recipes",
    "CaptionOutcome": "pipeline.caption.step",
    "Clip": "manifests.schemas",
    "Dataset": "manifests.dataset",
    "DatasetSpec": "manifests.specs",
    "EmbedOutcome": "pipeline.embed.step",
    "Exported": "pipeline.export.export",
    "Feed": "pipeline.feed.feed",
    "Ingested": "pipeline.recipes",
    "Promoted": "pipeline.lifecycle.promote",
    "Pack": "pipeline.feed.pack",
    "RunOptions": "pipeline.run",
    "Schedule": "pipeline.feed.schedule",
    "ScoreOutcome": "pipeline.score.step",
}

Spec = Mapping[str, Mapping[str, Any]]


def __getattr__(name: str) -> Any:
    if name in _TYPES:
        return getattr(importlib.import_module(f"telecine.{_TYPES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def open(
    uri: str | Path, *, endpoint_url: str | None = None, profile: str | None = None
) -> Dataset:
    """The dataset in a folder or at `s3://bucket/prefix`.

    `endpoint_url` and `profile` are those of an S3-compatible store; without them the environment's
    hold. Raises UsageError where there is no dataset, StorageError where the store says no.
    """
    from telecine.manifests.dataset import open_dataset

    return open_dataset(_absolute(uri), _storage(endpoint_url, profile))


def query(dataset: str | Path | Dataset, sql: str) -> pa.Table:
    """What one SQL statement that reads gives, over the tables and the view `dataset`.

    The same language as `telecine query` (docs/inspect.md). Raises UsageError for anything else,
    and for what DuckDB cannot make out, with its words.
    """
    from telecine.manifests.queries import connect
    from telecine.pipeline.look.query import ask, explained

    opened = _opened(dataset)
    con = connect(opened.tables)
    with explained(con, opened, sql):
        return ask(con, opened.spec, sql).to_arrow_table()


def clips(dataset: str | Path | Dataset, where: str | None = None) -> Iterator[Clip]:
    """The clips of the dataset that a condition takes (None: all), in the order of their ids.

    The condition is the one of every `--where` (docs/inspect.md). Rows come as they are read, so
    ten million do not have to fit into memory. Raises UsageError for a condition that is none.
    """
    import pyarrow as pa

    from telecine.manifests.queries import connect
    from telecine.manifests.schemas import Clip, from_arrow
    from telecine.pipeline.catalog.selection import create_selected_clips

    opened = _opened(dataset)
    con = connect(opened.tables)
    create_selected_clips(con, opened.spec.overlaid({"select": {"where": where}}))
    rows = con.sql("FROM current_clips SEMI JOIN selected_clips USING (clip_id) ORDER BY clip_id")
    batches = rows.to_arrow_reader(2048)  # what it makes by itself: a million
    return (clip for batch in batches for clip in from_arrow(pa.Table.from_batches([batch]), Clip))


# ── the jobs ─────────────────────────────────────────────────────────────────────────────────────


@explained("telecine.ingest")
def ingest(
    roots: str | Path | Sequence[str | Path],
    dataset: str | Path | Dataset,
    *,
    spec: Spec | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    endpoint_url: str | None = None,
    profile: str | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Scan, caption, score and encode what is new under files, folders or S3 prefixes.

    Makes the dataset where there is none; `spec` is then its spec, and must agree with that of one
    that is there. `endpoint_url` and `profile` are as in `open`. Footage that cannot be read is a
    row with a reason, not an error.
    """
    from telecine.manifests.dataset import resolve_dataset
    from telecine.pipeline.models import absolute_spec
    from telecine.pipeline.recipes import ingest as run_ingest

    given = absolute_spec(spec) if spec else None
    if isinstance(dataset, (str, Path)):
        at = resolve_dataset(_absolute(dataset), _storage(endpoint_url, profile), given)
    else:
        at = resolve_dataset(dataset.uri, dataset.storage, given)
    several = [roots] if isinstance(roots, (str, Path)) else roots
    with _run(at, workers, ray_address, options, progress) as run:
        return run_ingest(run, [_absolute(root) for root in several])


@explained("telecine.rebuild")
def rebuild(
    dataset: str | Path | Dataset,
    *,
    spec: Spec | None = None,
    name: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Built:
    """The build that the spec in force asks for, with the given keys in place of its own.

    It becomes current where the gates say so; `Built.settled` tells. Nothing that is there is
    encoded again. Raises UsageError where `scan` or `pixels` would change.
    """
    from telecine.pipeline.recipes import rebuild as run_rebuild

    with _run(_asked(dataset, spec), workers, ray_address, options, progress) as run:
        return run_rebuild(run, name)


@explained("telecine.caption")
def caption(
    dataset: str | Path | Dataset,
    *,
    spec: Spec | None = None,
    where: str | None = None,
    choose: bool = True,
    workers: int | None = None,
    ray_address: str | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> CaptionOutcome:
    """Captions under the captioner that the spec asks for, where clips have none of it yet."""
    from telecine.pipeline.recipes import caption as run_caption

    with _run(_asked(dataset, spec), workers, ray_address, options, progress) as run:
        return run_caption(run, where=where, choose=choose)


@explained("telecine.score")
def score(
    dataset: str | Path | Dataset,
    *,
    spec: Spec | None = None,
    where: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> ScoreOutcome:
    """Embeddings, scores and near-duplicates that the spec asks for, where they are missing."""
    from telecine.pipeline.recipes import score as run_score

    with _run(_asked(dataset, spec), workers, ray_address, options, progress) as run:
        return run_score(run, where=where)


@explained("telecine.embed")
def embed(
    dataset: str | Path | Dataset,
    *,
    spec: Spec | None = None,
    build: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> EmbedOutcome:
    """A column of texts and their embeddings beside a build (None: the current one).

    By the encoder that the spec asks for, as in `spec={"embed": {"encoder": "t5:FOLDER"}}`, which
    is the one in force from then on. What is embedded already is not embedded again.
    """
    from telecine.pipeline.recipes import embed as run_embed

    asked = _asked(dataset, spec)
    if spec and "encoder" in spec.get("embed", {}):  # its files are looked at anew
        embed = asked.spec.embed.model_copy(update={"weights": None})
        asked = dataclasses.replace(asked, spec=asked.spec.model_copy(update={"embed": embed}))
    with _run(asked, workers, ray_address, options, progress) as run:
        return run_embed(run, build)


# ── builds ───────────────────────────────────────────────────────────────────────────────────────


@explained("telecine.promote")
def promote(dataset: str | Path | Dataset, build: str, *, force: bool = False) -> Promoted:
    """Make a build current, by its name or how its id begins.

    Raises CheckFailed where a gate says no, unless `force`.
    """
    from telecine.pipeline.lifecycle.promote import promote as run_promote

    return run_promote(_opened(dataset), build, force=force)


@explained("telecine.rollback")
def rollback(dataset: str | Path | Dataset) -> Promoted:
    """Make the build current again that was so before. Raises UsageError where there is none."""
    from telecine.pipeline.lifecycle.promote import rollback as run_rollback

    return run_rollback(_opened(dataset))


@explained("telecine.export")
def export(
    dataset: str | Path | Dataset,
    folder: str | Path,
    format: str,
    *,
    build: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """What a trainer or a reader needs beside a build (None: the current one), into a folder.

    `format` is one of those that `telecine export --help` lists, plug-ins' among them.
    """
    from telecine.pipeline.export.export import export as run_export

    return run_export(_opened(dataset), Path(folder), format, build=build, overwrite=overwrite)


def feed_index(
    dataset: str | Path | Dataset,
    file: str | Path,
    *,
    build: str | None = None,
    where: str | None = None,
    overwrite: bool = False,
) -> int:
    """Write which samples of a build (None: the current one) a condition takes, and where they lie.

    For `Feed(dataset, build=file)`; `file` ends in .arrow and lies outside of the dataset. Returns
    how many samples there are. Raises UsageError where there are none.
    """
    from telecine.pipeline.look.feeding import check_index_file, index_of, write_index_file

    opened = _opened(dataset)
    check_index_file(Path(file), opened.uri, overwrite=overwrite)
    index = index_of(opened, build, where)
    write_index_file(index, Path(file))
    return int(index.rows.num_rows)


# ── what they share ──────────────────────────────────────────────────────────────────────────────


def _absolute(uri: str | Path) -> str:
    from telecine.infra.store.storage import absolute

    return absolute(str(uri))


def _storage(endpoint_url: str | None = None, profile: str | None = None) -> Any:
    from telecine.infra.store.storage import Storage, StoreOptions

    return Storage(StoreOptions(endpoint_url=endpoint_url, profile=profile))


def _opened(dataset: str | Path | Dataset) -> Dataset:
    """As it is now: what is in force may have changed since somebody opened it."""
    from telecine.manifests.dataset import open_dataset

    if isinstance(dataset, (str, Path)):
        return open(dataset)
    return open_dataset(dataset.uri, dataset.storage)


def _asked(dataset: str | Path | Dataset, spec: Spec | None) -> Dataset:
    """The dataset, with the given keys in place of those in force. What it holds is not changed."""
    from telecine.manifests.dataset import asked_spec
    from telecine.pipeline.models import absolute_spec

    opened = _opened(dataset)
    given = absolute_spec(spec) if spec else None
    return dataclasses.replace(opened, spec=asked_spec(opened.spec, given))


@contextlib.contextmanager
def _run(
    dataset: Dataset,
    workers: int | None,
    ray_address: str | None,
    options: RunOptions | None,
    progress: Progress | None,
) -> Iterator[Run]:
    """A run over the dataset, and its cluster while it lasts."""
    from telecine.infra.machines import open_cluster
    from telecine.pipeline.progress import SILENT
    from telecine.pipeline.run import Run, RunOptions

    given = (options or RunOptions(), progress or SILENT)
    with open_cluster(workers, ray_address) as cluster:
        yield Run(dataset, cluster, *given)
