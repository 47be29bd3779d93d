"""The whole program on one screen: each recipe is its list of steps. Read this first.

    ingest  =  discover → scan → caption → score → build   of what is new
    rebuild =  build                                  what the spec asks for, beside what there is
    scan    =  probe → segment → measure              objects  → sources, clips, stills
    caption =  stills and facts → text                clips    → captions
    score   =  stills and texts → numbers             clips    → embeddings, scores, duplicates
    build   =  plan → decode → encode → shard → gates clips × captions × encoder → samples
    verify  =  check → repair                         tars against samples

Work left is what the tables say is left: running a recipe twice does nothing the second time, and
one that was killed goes on where it was. Each step is in the file of its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from rich.console import Console

from telecine.encoders.load import load_captioner, load_encoder, load_scorer
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.infra.ray import Cluster, Resources
from telecine.manifests.builds import current_build
from telecine.manifests.dataset import Dataset, replace_spec, write_spec
from telecine.manifests.queries import connect
from telecine.pipeline.build.events import complete, plan_build
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.preview import estimate, preview_build, record_rate
from telecine.pipeline.caption.step import CaptionOutcome, caption_clips
from telecine.pipeline.catalog.selection import check_where, selected_or_none
from telecine.pipeline.cli.rebuild import print_rebuild_preview
from telecine.pipeline.commit import COMMIT_SECONDS
from telecine.pipeline.drive import encoder_resources, scan_sources, write_shards
from telecine.pipeline.lifecycle.changes import changes
from telecine.pipeline.lifecycle.promote import foreseen, settle
from telecine.pipeline.lifecycle.verify import Verified
from telecine.pipeline.lifecycle.verify import verify as check_build
from telecine.pipeline.models import captioner_needs, check_models, scorer_needs, with_models
from telecine.pipeline.outcome import BuildOutcome, Outcome, ScanOutcome, print_left_out
from telecine.pipeline.scan.compare import Discovery, compare
from telecine.pipeline.scan.discover import discover, refuse_within
from telecine.pipeline.score.step import ScoreOutcome, score_clips


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about it: changes speed, and what is tried again, but no byte of a result."""

    workers: int | None = None  # processes; None: as many as the cluster has cores for
    ray_address: str | None = None
    retry_rejected: bool = False
    allow_duplicates: bool = False
    commit_seconds: float = COMMIT_SECONDS
    gpus_per_encoder: float | None = None  # None: 1 for a learned encoder where there is any
    promote: bool = True
    force: bool = False  # promote although a gate says no
    caption_url: str = ""  # of an OpenAI-compatible server
    concurrency: int = 32  # requests to it at once
    batch: int | None = None  # of a captioner or scorer on a device; None: its own default


def find(
    roots: Sequence[str], dataset: Dataset, options: RunOptions, console: Console
) -> Discovery:
    """What is under the roots, and what of it is news to the dataset. Reads no footage."""
    refuse_within(roots, dataset.uri)
    listing = discover(dataset.storage, roots, exclude=[dataset.uri])
    print_left_out(listing, console)
    if not len(listing):
        raise UsageError(f"nothing found under {', '.join(roots)}: check the names")
    return compare(
        listing,
        dataset.tables.dataset("sources"),
        scan_fingerprint=dataset.spec.scan_fingerprint,
        retry_rejected=options.retry_rejected,
        allow_duplicates=options.allow_duplicates,
    )


def ingest(
    roots: Sequence[str], dataset: Dataset, options: RunOptions, console: Console
) -> Outcome:
    """The main job: what is new under the roots becomes samples of the build in force."""
    dataset = with_models(dataset)
    check_models(dataset.spec, options.caption_url)  # said before hours of scanning
    encoder = load_encoder(dataset.spec.vae)
    check_where(connect(dataset.tables), dataset.spec, dataset.spec.select.where)
    found = find(roots, dataset, options, console)
    write_spec(dataset)
    with Cluster(options.ray_address, options.workers) as cluster:
        scanned = scan(found, dataset, cluster, options, console)
        captioned = [caption(one, cluster, options, console) for one in captioners(dataset)]
        score(dataset, cluster, options, console)
        built = build(dataset, encoder, cluster, options, console)
    return Outcome(scanned, built, captioned[-1].outcomes)


def rebuild(
    dataset: Dataset, options: RunOptions, console: Console, name: str | None = None
) -> BuildOutcome:
    """The second job: the build that the dataset's spec asks for now, beside what there is."""
    dataset = with_models(dataset)
    encoder = load_encoder(dataset.spec.vae)
    refuse_empty(dataset)
    with Cluster(options.ray_address, options.workers) as cluster:
        return build(dataset, encoder, cluster, options, console, name)


def preview(
    dataset: Dataset, options: RunOptions, name: str | None, as_json: bool, console: Console
) -> None:
    """What `rebuild` would do, and why. Writes nothing, opens no footage."""
    dataset = with_models(dataset)
    encoder = load_encoder(dataset.spec.vae)
    refuse_empty(dataset)
    generation = Generation.of(dataset, encoder, name)
    found = preview_build(dataset, generation, retry=options.retry_rejected)
    current = current_build(connect(dataset.tables))
    pixels = found.pixels_to_encode
    time_needed = estimate(
        dataset, encoder, pixels=pixels, shards=found.shards, workers=options.workers
    )
    promotion = foreseen(
        dataset, generation, builds=not found.idle, wanted=options.promote, force=options.force
    )
    why = changes(current, generation)
    print_rebuild_preview(found, current, why, time_needed, promotion, as_json, console)


def refuse_empty(dataset: Dataset) -> None:
    """Raises UsageError where there is no clip to build from, or the selection takes none."""
    where = dataset.spec.select.where
    if not check_where(connect(dataset.tables), dataset.spec, where):
        raise UsageError(
            f"--where {where!r} takes none of the clips of {dataset.uri}"
            if where
            else f"{dataset.uri} has no clips yet: telecine ingest finds them"
        )


def scan(
    found: Discovery, dataset: Dataset, cluster: Cluster, options: RunOptions, console: Console
) -> ScanOutcome:
    """Objects → sources, clips, stills. One worker per core; one decode pass per source."""
    return scan_sources(found, dataset, cluster, Resources(cpus=1), options.commit_seconds, console)


def caption(
    dataset: Dataset,
    cluster: Cluster,
    options: RunOptions,
    console: Console,
    only: pa.Table | None = None,
) -> CaptionOutcome:
    """Stills and measurements → captions. The embedded captioners need a core, models a GPU."""
    return caption_clips(
        dataset,
        cluster,
        options.commit_seconds,
        console,
        needs=partial(captioner_needs, dataset.spec.caption, cluster, options),
        only=only,
        retry_failed=options.retry_rejected,
    )


def captioners(dataset: Dataset) -> list[Dataset]:
    """The dataset under each captioner of its mix: the second one first, the one in force last."""
    spec = dataset.spec
    second = spec.caption_mix.second
    others = [spec.model_copy(update={"caption": second})] if second else []
    return [dataclasses.replace(dataset, spec=one) for one in (*others, spec)]


def recaption(
    dataset: Dataset,
    options: RunOptions,
    console: Console,
    *,
    where: str | None = None,
    choose: bool = True,
) -> CaptionOutcome:
    """Captions under the captioner that the dataset's spec asks for.

    It is the one in force from then on, unless some of the clips were left out (`where`) and the
    build would wait for them, or nobody got a text.
    """
    dataset = with_models(dataset)
    stored = dataset.stored or dataset.spec
    load_captioner(dataset.spec.caption)  # a wrong name is said before all else
    # What `--where` says of scores is meant of those in force, not of this captioner's to come.
    only = selected_or_none(connect(dataset.tables), stored, where)
    with Cluster(options.ray_address, options.workers) as cluster:
        captioned = caption(dataset, cluster, options, console, only)
    whole = (only is None and not captioned.useless) or not captioned.waiting
    captioned.in_force = stored.caption == dataset.spec.caption or (choose and whole)
    if captioned.in_force:
        captioned.chosen = replace_spec(dataset, dataset.spec).spec != dataset.stored
    return captioned


def score(
    dataset: Dataset,
    cluster: Cluster,
    options: RunOptions,
    console: Console,
    only: pa.Table | None = None,
) -> ScoreOutcome:
    """Stills and texts → embeddings, scores, groups of duplicates. Without a scorer: nothing."""
    return score_clips(
        dataset,
        cluster,
        options.commit_seconds,
        console,
        needs=partial(scorer_needs, dataset.spec.score, cluster, options),
        only=only,
        retry_failed=options.retry_rejected,
    )


def rescore(
    dataset: Dataset, options: RunOptions, console: Console, *, where: str | None = None
) -> ScoreOutcome:
    """The scores that the dataset's spec asks for, which are those in force from then on.

    Not so where another scorer is in force and some clips were left out (`where`): by this one's
    scores the build would have lost them.
    """
    dataset = with_models(dataset)
    stored = dataset.stored or dataset.spec
    only = selected_or_none(connect(dataset.tables), stored, where)
    with Cluster(options.ray_address, options.workers) as cluster:
        scored = score(dataset, cluster, options, console, only)
    another = stored.score.scorer is not None and (
        load_scorer(stored.score).fingerprint != load_scorer(dataset.spec.score).fingerprint
    )
    scored.in_force = only is None or not another or not scored.waiting
    if scored.in_force:
        replace_spec(dataset, dataset.spec)
    return scored


def build(
    dataset: Dataset,
    encoder: VideoEncoder,
    cluster: Cluster,
    options: RunOptions,
    console: Console,
    name: str | None = None,
) -> BuildOutcome:
    """Clips × captions × encoder → shards, samples. One worker owns one shard."""
    generation = Generation.of(dataset, encoder, name)
    built = BuildOutcome()
    work = plan_build(dataset, generation, retry=options.retry_rejected)
    while work is not None:
        needs = encoder_resources(cluster, dataset.spec.vae, gpus=options.gpus_per_encoder)
        written = write_shards(work, dataset, cluster, needs, options.commit_seconds, console)
        complete(dataset, work)
        built += written
        if pixels := written.pixels_encoded:
            workers = cluster.size(needs)
            seconds = written.encode_seconds / workers
            record_rate(dataset, encoder, pixels=pixels, seconds=seconds, workers=workers)
        # What an earlier run began is finished first; what came since is a plan of its own.
        again = work.resumed
        work = plan_build(dataset, generation, retry=options.retry_rejected) if again else None
    settled = settle(dataset, generation, wanted=options.promote, force=options.force)
    built.build, built.settled = generation.name, settled
    return built


def verify(
    dataset: Dataset, name: str | None, options: RunOptions, console: Console, *, repair: bool
) -> Verified:
    """The tars of a build against its rows; what is bad is made again if asked."""
    with Cluster(options.ray_address, options.workers) as cluster:
        gpus = options.gpus_per_encoder
        return check_build(dataset, name, cluster, console, repair=repair, gpus=gpus)
