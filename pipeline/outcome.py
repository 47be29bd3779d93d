"""What a run did, or would do: returned by the recipes, printed by the command."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

from telecine.infra.errors import CheckFailed
from telecine.infra.text import counted
from telecine.manifests.schemas import Sample, Source
from telecine.pipeline.catalog.scores import score_columns
from telecine.pipeline.scan.compare import TO_SCAN, Discovery, State
from telecine.pipeline.scan.discover import Listing

if TYPE_CHECKING:
    from telecine.manifests.dataset import Dataset
    from telecine.pipeline.caption.step import CaptionOutcome
    from telecine.pipeline.lifecycle.promote import Settled
    from telecine.pipeline.score.step import ScoreOutcome


@dataclass
class ScanOutcome:
    scanned: int = 0
    rejected: int = 0
    duplicates: int = 0
    clips: int = 0
    frames: int = 0
    bytes_read: int = 0
    bytes_of_footage: int = 0

    def add(self, source: Source, bytes_read: int = 0) -> None:
        self.scanned += source.status == "scanned"
        self.rejected += source.status == "rejected"
        self.duplicates += source.status == "duplicate"
        self.clips += source.num_clips
        self.frames += source.num_frames
        self.bytes_read += bytes_read
        self.bytes_of_footage += source.size_bytes if bytes_read else 0


@dataclass
class BuildOutcome:
    shards: int = 0
    samples: int = 0
    dropped: int = 0
    frames_encoded: int = 0
    pixels_encoded: int = 0  # frames × width × height
    encode_seconds: float = 0.0  # of all workers together, waiting for decoded frames included
    samples_copied: int = 0
    bytes_read: int = 0
    bytes_of_footage: int = 0  # of the spans encoded, each its share of its source's bytes
    bytes_written: int = 0
    uncaptioned: int = 0  # clips that wait for a caption, so for a shard
    dropped_by_reason: dict[str, int] = field(default_factory=dict)

    # Of the build when the run ends, whatever the run itself did
    build: str = field(default="", compare=False)  # its name
    settled: Settled | None = field(default=None, compare=False)  # is it current, and why not

    def __iadd__(self, other: BuildOutcome) -> BuildOutcome:
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if isinstance(value, int | float):
                setattr(self, part.name, value + getattr(other, part.name))
        for reason, count in other.dropped_by_reason.items():
            self.dropped_by_reason[reason] = self.dropped_by_reason.get(reason, 0) + count
        self.uncaptioned = other.uncaptioned  # as the last plan saw it
        return self

    def add(self, samples: list[Sample]) -> None:
        kept = [s for s in samples if s.outcome == "kept"]
        self.shards += bool(kept)
        self.samples += len(kept)
        for sample in samples:
            if sample.outcome == "dropped":
                self.dropped += 1
                reasons = self.dropped_by_reason
                reasons[sample.reason] = reasons.get(sample.reason, 0) + 1
        self.samples_copied += sum(bool(s.copied_from) for s in kept)


@dataclass
class Outcome:
    scan: ScanOutcome = field(default_factory=ScanOutcome)
    build: BuildOutcome = field(default_factory=BuildOutcome)
    captions: dict[str, int] = field(default_factory=dict)  # made by this run, by outcome


def print_outcome(outcome: Outcome, dataset: str, as_json: bool, console: Console) -> None:
    """For ingest."""
    if as_json:
        console.print_json(json.dumps(dataclasses.asdict(outcome)))
        return
    scan = outcome.scan
    lines = [
        f"scanned  {counted(scan.scanned, 'source')} → {counted(scan.clips, 'clip')}, "
        f"{scan.rejected} rejected, {counted(scan.duplicates, 'duplicate')}"
        + _ratio(scan.bytes_read, scan.bytes_of_footage),
        *_captions(outcome.captions),
        *_built(outcome.build, dataset),
    ]
    if scan.rejected:
        inspect = f"telecine inspect {shlex.quote(dataset)}"
        lines.append(f"rejected {inspect} sources --where \"status = 'rejected'\"")
    _print(lines, console)


def _captions(outcomes: dict[str, int]) -> list[str]:
    """Only where some clip has no text for it."""
    if outcomes.keys() <= {"ok", "truncated"}:
        return []
    return [f"captioned {', '.join(f'{n} {outcome}' for outcome, n in sorted(outcomes.items()))}"]


def print_built(built: BuildOutcome, dataset: str, as_json: bool, console: Console) -> None:
    """For rebuild."""
    if as_json:
        console.print_json(json.dumps(dataclasses.asdict(built)))
    else:
        _print(_built(built, dataset), console)


def _built(build: BuildOutcome, dataset: str) -> list[str]:
    lines = [
        f"built    {build.build}: {counted(build.samples, 'sample')} in "
        f"{counted(build.shards, 'shard')} ({build.frames_encoded} frames encoded, "
        f"{counted(build.samples_copied, 'sample')} copied), {build.dropped} dropped"
        + _ratio(build.bytes_read, build.bytes_of_footage)
    ]
    if build.uncaptioned:
        again = f"telecine caption {shlex.quote(dataset)} --retry-failed"
        lines.append(
            f"         {counted(build.uncaptioned, 'clip')} without a caption left out: {again}"
        )
    if build.dropped:
        reasons = ", ".join(f"{n} {reason}" for reason, n in build.dropped_by_reason.items())
        inspect = f"telecine inspect {shlex.quote(dataset)}"
        lines.append(f"dropped  {reasons}: {inspect} samples --where \"outcome = 'dropped'\"")
    settled = build.settled
    if settled is None:
        return lines
    lines += [f"gate     {failure}" for failure in settled.failures]
    if settled.current and settled.before:
        lines.append(f"current  {build.build} (before: {settled.before})")
    elif not settled.current and build.samples and not settled.failures:
        promote = f"telecine promote {shlex.quote(dataset)} {build.build}"
        lines.append(f"current  not {build.build}; make it so with: {promote}")
    return lines


def refuse_failed(build: BuildOutcome, dataset: str) -> None:
    """Raises CheckFailed, with what to do, where a gate said no to a build: it is not current."""
    settled = build.settled
    if settled is None or settled.current or not settled.failures:
        return
    promote = f"telecine promote {shlex.quote(dataset)}"
    advice = f"make it current all the same with {promote} {build.build} --force"
    if settled.before:
        advice = (
            f"{settled.before} stays current. Have telecine.toml ask for that again, if it does "
            f"not, with {promote} {settled.before}, or {advice}"
        )
    raise CheckFailed(f"a gate says no to {build.build}: {advice}")


def print_captioned(
    captioned: CaptionOutcome, dataset: str, as_json: bool, console: Console
) -> None:
    """For caption."""
    if as_json:
        console.print_json(json.dumps(dataclasses.asdict(captioned)))
        return
    counts = ", ".join(f"{n} {outcome}" for outcome, n in captioned.outcomes.items())
    texts = f"{captioned.with_text} of {counted(captioned.clips, 'clip')} have a text"
    lines = [f"captioned {counts or 'no clip that was not captioned before'}"]
    if not captioned.in_force:
        lines.append(f"aside     {captioned.captioner}: {texts}; the one in force stays so")
    else:
        lines.append(f"in force  {captioned.captioner}: {texts}")
    if captioned.waiting:
        lines.append(f"waiting   {counted(captioned.waiting, 'clip')} of the selection without one")
    if captioned.in_force and (captioned.outcomes or captioned.chosen):
        again = f"telecine score {shlex.quote(dataset)}, then " if captioned.score_first else ""
        lines.append(f"next      {again}telecine rebuild {shlex.quote(dataset)}")
    _print(lines, console)


def print_scored(scored: ScoreOutcome, dataset: Dataset, as_json: bool, console: Console) -> None:
    """For score."""
    if as_json:
        console.print_json(json.dumps(dataclasses.asdict(scored)))
        return
    counts = ", ".join(f"{n} {name}" for name, n in sorted(scored.scores.items()))
    lines = [
        f"scored    {counted(scored.embedded, 'clip')} embedded; "
        + (counts or "no score that was not there before")
    ]
    if scored.failed:
        failed = f"telecine inspect {shlex.quote(dataset.uri)} embeddings --where \"detail <> ''\""
        lines.append(f"failed    {counted(scored.failed, 'clip')}: {failed}")
    if (grouping := scored.grouping) is not None:
        lines.append(
            f"grouped   {counted(grouping.clips, 'clip')}: {grouping.duplicates} duplicates in "
            f"{counted(grouping.groups, 'group')} at {grouping.threshold:g}; "
            f'--where "duplicate_rank = 0" takes one of each'
        )
    if scored.waiting:
        lines.append(f"waiting   {counted(scored.waiting, 'clip')} not scored yet")
    columns = ", ".join(score_columns(dataset.spec.score))
    if scored.in_force:
        lines.append(f"in force  {scored.scorer}: clips have {columns}")
    else:
        lines.append(f"aside     {scored.scorer}: the scorer in force stays so")
    _print(lines, console)


def _print(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_left_out(listing: Listing, console: Console) -> None:
    """Names under the roots that are not taken for footage, where a user might wonder."""
    for folder in listing.datasets:
        console.print(f"left out {folder!r}: a dataset", markup=False, highlight=False)
    for uri in listing.unnamable:
        line = f"left out {uri!r}: the name is not UTF-8; rename it to ingest it"
        console.print(line, markup=False, highlight=False)


def print_preview(found: Discovery, as_json: bool, console: Console) -> None:
    """For --dry-run: what there is to do, by state, and the bytes that the scan will read."""
    tallies = {s: found.tallies[s] for s in State if found.tallies[s].objects}
    if as_json:
        states = {state: dataclasses.asdict(tally) for state, tally in tallies.items()}
        console.print_json(json.dumps({"sources": states, "bytes_to_read": found.bytes_to_read}))
        return
    for state, tally in tallies.items():
        verb = "scan" if state in TO_SCAN else "skip"
        line = f"{verb}  {state:<16} {counted(tally.objects, 'source')}, {tally.size_bytes:,} bytes"
        console.print(line, markup=False, highlight=False)
    console.print(f"to read: {found.bytes_to_read:,} bytes", markup=False, highlight=False)


def _ratio(bytes_read: int, bytes_of_footage: int) -> str:
    if not bytes_of_footage:
        return ""
    return f"; read {bytes_read / bytes_of_footage:.2f} bytes per byte of footage"
