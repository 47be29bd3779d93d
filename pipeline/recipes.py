"""The whole program on one screen: each recipe is its list of steps. Read this first.

    ingest  =  discover → scan → caption → score → build   of what is new
    rebuild =  build                                  what the spec asks for, beside what there is
    scan    =  probe → segment → measure              objects  → sources, clips, stills
    caption =  stills and facts → text                clips    → captions
    score   =  stills and texts → numbers             clips    → embeddings, scores, duplicates
    embed   =  texts → model → a column beside a build  captions → text_embeddings, column_samples
    build   =  plan → decode → encode → shard → gates clips × captions × encoder → samples
    verify  =  check → repair                         tars against samples

Work left is what the tables say is left: running a recipe twice does nothing the second time, and
one that was killed goes on where it was. Each step is in the folder of its name. A recipe is given
a run, with a cluster that its caller opened; it prints nothing and returns what came of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from telecine.encoders.load import (
    load_captioner,
    load_encoder,
    load_scorer,
    load_text_encoder,
    pin_text_encoder,
)
from telecine.infra.errors import UsageError
from telecine.manifests.builds import current_build
from telecine.manifests.dataset import Dataset, replace_spec, write_spec
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.preview import Estimate, Preview, estimate, preview_builds
from telecine.pipeline.build.renditions import generations
from telecine.pipeline.build.step import BuildOutcome, build_samples
from telecine.pipeline.caption.step import CaptionOutcome, caption_clips
from telecine.pipeline.catalog.selection import check_where, selected_or_none
from telecine.pipeline.embed.step import EmbedOutcome, embed_texts
from telecine.pipeline.lifecycle.changes import Change, changes
from telecine.pipeline.lifecycle.promote import Promotion, Settled, foreseen, settle
from telecine.pipeline.lifecycle.verify import Verified
from telecine.pipeline.lifecycle.verify import verify as check_build
from telecine.pipeline.models import (
    captioner_needs,
    check_models,
    encoder_needs,
    scanner_needs,
    scorer_needs,
    text_encoder_needs,
    with_models,
)
from telecine.pipeline.run import Run, RunOptions
from telecine.pipeline.scan.compare import Discovery, compare
from telecine.pipeline.scan.discover import LeftOut, discover, refuse_within
from telecine.pipeline.scan.step import ScanOutcome, scan_sources
from telecine.pipeline.score.step import ScoreOutcome, score_clips
from telecine.pipeline.score.tracks import cover_clips


@dataclass
class Built(BuildOutcome):
    """What a run did for a build, and whether that is current when the run ends."""

    settled: Settled = field(default=Settled(current=False), compare=False)
    renditions: dict[str, BuildOutcome] = field(default_factory=dict)  # beside it, by name


@dataclass(frozen=True)
class Ingested:
    """What came of each step."""

    scan: ScanOutcome
    build: Built
    captions: dict[str, int]  # made by this run under the captioner in force, by outcome
    scores: ScoreOutcome
    left_out: LeftOut  # under the roots


@dataclass(frozen=True)
class Foreseen:
    """What `rebuild` would do."""

    plan: Preview
    current: Build | None  # the build that is so now, which changes are counted from
    changes: tuple[Change, ...]
    estimate: Estimate | None  # None: no run under this encoder was measured
    promotion: Promotion | None
    renditions: dict[str, Preview] = field(default_factory=dict)  # beside the first, by name


# ── the jobs ─────────────────────────────────────────────────────────────────────────────────────


def ingest(run: Run, roots: Sequence[str]) -> Ingested:
    """The main job: what is new under the roots becomes samples of the build in force."""
    run = run.under(with_models(run.dataset.spec))
    dataset, spec = run.dataset, run.dataset.spec
    check_models(spec, run.options.caption_url)  # said before hours of scanning
    encoder = load_encoder(spec.vae)
    check_where(connect(dataset.tables), spec, spec.select.where)
    found = find(dataset, roots, run.options)
    write_spec(dataset)
    scanned = scan_sources(run, found, scanner_needs(run))  # one decode pass per source
    captioned = [caption_clips(one, captioner_needs) for one in captioners(run)]
    scored = score_clips(run, scorer_needs)
    cover_clips(run)
    built = build(run, generations(dataset, encoder))
    return Ingested(scanned, built, captioned[-1].outcomes, scored, found.left_out)


def rebuild(run: Run, name: str | None = None) -> Built:
    """The second job: the build that the dataset's spec asks for now, beside what there is."""
    run = run.under(with_models(run.dataset.spec))
    encoder = load_encoder(run.dataset.spec.vae)
    cover_clips(run)
    refuse_empty(run.dataset)
    return build(run, generations(run.dataset, encoder, name))


def caption(run: Run, *, where: str | None = None, choose: bool = True) -> CaptionOutcome:
    """Captions under the captioner that the dataset's spec asks for.

    It is the one in force from then on, unless some of the clips were left out (`where`) and the
    build would wait for them, or nobody got a text.
    """
    run = run.under(with_models(run.dataset.spec))
    dataset, asked = run.dataset, run.dataset.spec
    stored = dataset.stored or asked
    load_captioner(asked.caption)  # a wrong name is said before all else
    # What `--where` says of scores is meant of those in force, not of this captioner's to come.
    only = selected_or_none(connect(dataset.tables), stored, where)
    captioned = caption_clips(run, captioner_needs, only)
    whole = (only is None and not captioned.useless) or not captioned.waiting
    captioned.in_force = stored.caption == asked.caption or (choose and whole)
    if captioned.in_force:
        captioned.chosen = replace_spec(dataset, asked).spec != dataset.stored
    return captioned


def score(run: Run, *, where: str | None = None) -> ScoreOutcome:
    """The scores that the dataset's spec asks for, which are those in force from then on.

    Not so where another scorer is in force and some clips were left out (`where`): by this one's
    scores the build would have lost them.
    """
    run = run.under(with_models(run.dataset.spec))
    dataset, asked = run.dataset, run.dataset.spec
    stored = dataset.stored or asked
    only = selected_or_none(connect(dataset.tables), stored, where)
    scored = score_clips(run, scorer_needs, only)
    another = stored.score.scorer is not None and (
        load_scorer(stored.score).fingerprint != load_scorer(asked.score).fingerprint
    )
    scored.in_force = only is None or not another or not scored.waiting
    if scored.in_force:
        replace_spec(dataset, asked)
    return scored


def embed(run: Run, build: str | None = None) -> EmbedOutcome:
    """The column of texts that the dataset's spec asks for, beside a build (None: the current one).

    Its encoder is the one in force from then on.
    """
    asked = run.dataset.spec
    if asked.embed.encoder is None:
        raise UsageError("no text encoder is in force yet: name one, --encoder t5:FOLDER or none")
    load_text_encoder(asked.embed)  # a wrong name or option is said before files are looked for
    if asked.embed.weights is None:
        asked = asked.model_copy(update={"embed": pin_text_encoder(asked.embed)})
    outcome = embed_texts(run.under(asked), text_encoder_needs, build)
    replace_spec(run.dataset, asked)
    return outcome


def verify(run: Run, build: str | None = None, *, repair: bool = False) -> Verified:
    """The tars of a build against its rows; what is bad is made again if asked."""
    return check_build(run, build, repair=repair)


# ── what they share ──────────────────────────────────────────────────────────────────────────────


def build(run: Run, builds: Sequence[Generation]) -> Built:
    """Clips × captions × encoder → shards, samples; then the gates say if they become current.

    The builds after the first are its renditions.
    """
    first, *others = build_samples(run, builds, encoder_needs)
    wanted, force = run.options.promote, run.options.force
    settled = settle(run.dataset, builds, wanted=wanted, force=force)
    renditions = {one.rendition: made for one, made in zip(builds[1:], others, strict=True)}
    return Built(**vars(first), settled=settled, renditions=renditions)


def captioners(run: Run) -> list[Run]:
    """The run under each captioner of the spec's mix: the second first, the one in force last."""
    spec = run.dataset.spec
    second = spec.caption_mix.second
    others = [spec.model_copy(update={"caption": second})] if second else []
    return [run.under(one) for one in (*others, spec)]


def refuse_empty(dataset: Dataset) -> None:
    """Raises UsageError where there is no clip to build from, or the selection takes none."""
    where = dataset.spec.select.where
    if not check_where(connect(dataset.tables), dataset.spec, where):
        raise UsageError(
            f"--where {where!r} takes none of the clips of {dataset.uri}"
            if where
            else f"{dataset.uri} has no clips yet: telecine ingest finds them"
        )


# ── dry runs: no cluster, no footage opened, nothing written ─────────────────────────────────────


def find(dataset: Dataset, roots: Sequence[str], options: RunOptions) -> Discovery:
    """What is under the roots, and what of it is news to the dataset."""
    if not roots:
        raise UsageError("no source was given: name files, folders or S3 prefixes")
    refuse_within(roots, dataset.uri)
    listing = discover(dataset.storage, roots, exclude=[dataset.uri])
    if not len(listing):
        nothing = f"nothing found under {', '.join(roots)}: check the names"
        raise UsageError("\n".join([nothing, *listing.left_out.lines()]))
    return compare(
        listing,
        dataset.tables.dataset("sources"),
        scan_fingerprint=dataset.spec.scan_fingerprint,
        retry_rejected=options.retry_rejected,
        allow_duplicates=options.allow_duplicates,
    )


def preview(
    dataset: Dataset, options: RunOptions, name: str | None = None, workers: int | None = None
) -> Foreseen:
    """What `rebuild` would do with so many workers (None: as many as last time), and why."""
    dataset = dataclasses.replace(dataset, spec=with_models(dataset.spec))
    encoder = load_encoder(dataset.spec.vae)
    refuse_empty(dataset)
    builds = generations(dataset, encoder, name)
    names = {one.build_id: one.rendition for one in builds}
    found, *others = previews = preview_builds(dataset, builds, retry=options.retry_rejected)
    current = current_build(connect(dataset.tables))
    pixels = sum(one.pixels_to_encode for one in previews)
    shards = max(one.shards for one in previews)
    seconds = estimate(dataset, encoder, pixels=pixels, shards=shards, workers=workers)
    promotion = foreseen(
        dataset,
        builds[0],
        builds=any(not one.idle for one in previews),
        wanted=options.promote,
        force=options.force,
    )
    beside = {names[one.build_id]: one for one in others}
    why = tuple(changes(current, builds[0]))
    return Foreseen(found, current, why, seconds, promotion, beside)
