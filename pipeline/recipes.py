"""The whole program on one screen: each recipe is its list of steps. Read this first.

    ingest  =  discover → scan → caption → build      of what is new
    scan    =  probe → segment → measure              objects  → sources, clips, stills
    caption =  stills and facts → text                clips    → captions
    build   =  plan → decode → encode → shard         clips × captions × encoder → samples

Work left is what the tables say is left: running a recipe twice does nothing the second time, and
one that was killed goes on where it was. Each step is in the file of its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from encoders.load import load_captioner, load_encoder
from encoders.video import VideoEncoder
from infra.errors import UsageError
from infra.ray import Cluster, Resources
from manifests.dataset import Dataset, write_spec
from pipeline.build import Generation, complete, plan_build
from pipeline.caption import caption_clips
from pipeline.commit import COMMIT_SECONDS
from pipeline.compare import Discovery, compare
from pipeline.discover import discover, refuse_within
from pipeline.drive import scan_sources, write_shards
from pipeline.outcome import BuildOutcome, Outcome, ScanOutcome, print_left_out
from pipeline.promote import make_current


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about it: changes speed, and what is tried again, but no byte of a result."""

    workers: int | None = None  # processes; None: as many as the cluster has cores for
    ray_address: str | None = None
    retry_rejected: bool = False
    allow_duplicates: bool = False
    commit_seconds: float = COMMIT_SECONDS
    cpus_per_encoder: int = 1
    gpus_per_encoder: float = 0


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
    """The main job: what is new under the roots becomes samples of the dataset's build."""
    load_captioner(dataset.spec.caption.captioner)  # a wrong name is said before hours of scanning
    encoder = load_encoder(dataset.spec.vae)
    found = find(roots, dataset, options, console)
    write_spec(dataset)
    with Cluster(options.ray_address, options.workers) as cluster:
        scanned = scan(found, dataset, cluster, options, console)
        caption(dataset, cluster, options, console)
        built = build(dataset, encoder, cluster, options, console)
    return Outcome(scanned, built)


def scan(
    found: Discovery, dataset: Dataset, cluster: Cluster, options: RunOptions, console: Console
) -> ScanOutcome:
    """Objects → sources, clips, stills. One worker per core; one decode pass per source."""
    return scan_sources(found, dataset, cluster, Resources(cpus=1), options.commit_seconds, console)


def caption(dataset: Dataset, cluster: Cluster, options: RunOptions, console: Console) -> None:
    """Stills and measurements → captions. The embedded captioners need a core, no GPU."""
    caption_clips(
        dataset,
        cluster,
        Resources(cpus=1),
        options.commit_seconds,
        console,
        retry_failed=options.retry_rejected,
    )


def build(
    dataset: Dataset,
    encoder: VideoEncoder,
    cluster: Cluster,
    options: RunOptions,
    console: Console,
) -> BuildOutcome:
    """Clips × captions × encoder → shards, samples. One worker owns one shard."""
    generation = Generation.of(dataset, encoder)
    encoders = Resources(cpus=options.cpus_per_encoder, gpus=options.gpus_per_encoder)
    built = BuildOutcome()
    work = plan_build(dataset, generation, retry=options.retry_rejected)
    while work is not None:
        built += write_shards(work, dataset, cluster, encoders, options.commit_seconds, console)
        complete(dataset, work)
        # What an earlier run began is finished first; what came since is a plan of its own.
        again = work.resumed
        work = plan_build(dataset, generation, retry=options.retry_rejected) if again else None
    make_current(dataset, generation)
    return built
