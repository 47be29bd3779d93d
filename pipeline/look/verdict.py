"""What decides that footage is, or is not, in the current build, and what to do about it. Pure.

in the build ─ replaced ─ dropped ─ not selected ─ no caption ─ no bucket ─ not planned yet
the first of these that is so
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from telecine.infra.errors import Reason, is_unfinished
from telecine.infra.text import counted, first_line
from telecine.manifests.schemas import Source
from telecine.pipeline.catalog.captions import MAX_ATTEMPTS
from telecine.pipeline.catalog.conditions import Part
from telecine.pipeline.catalog.dataset import CAPTION_COLUMNS
from telecine.pipeline.look.clip import KnownClip
from telecine.pipeline.look.steps import Ground, Selection, lost, retold, times

OURS = "a mistake of Telecine, to be reported, and tried again by another version, or with"


class Why(StrEnum):
    """What decides. A closed set."""

    IN_BUILD = "in_build"
    REJECTED = "rejected"  # the source cannot be used
    DUPLICATE = "duplicate"  # the source has the bytes of another
    NO_CLIPS = "no_clips"  # the scan left all of the source's frames out
    SUPERSEDED = "superseded"  # the object was replaced since
    UNCOMMITTED = "uncommitted"  # of a scan that was killed
    DROPPED = "dropped"  # the build could not take the clip
    NO_BUCKET = "no_bucket"  # it is below the smallest rung
    TOO_SMALL = "too_small"  # it is smaller than what clips are made
    DAMAGED = "damaged"  # some of its frames are corrupt, and such clips are left out
    NOT_SELECTED = "not_selected"  # the WHERE clause is not true of it
    NOT_SCORED = "not_scored"  # ... since it lacks a score that this speaks of
    BAD_SELECTION = "bad_selection"  # ... since it is no condition over what clips have
    UNCAPTIONED = "uncaptioned"  # nobody was asked for a caption yet
    CAPTION_FAILED = "caption_failed"  # it failed, and the next run asks again
    CAPTION_GIVEN_UP = "caption_given_up"  # it failed too often
    IN_PROGRESS = "in_progress"  # the build's plan is not carried out yet
    NOT_PLANNED = "not_planned"  # it came after the build's last plan
    NO_BUILD = "no_build"  # none is current


@dataclass(frozen=True, slots=True)
class Verdict:
    why: Why
    text: str
    next: str = ""  # the command to go on with, or empty

    def __str__(self) -> str:
        return f"{self.text}: {self.next}" if self.next else self.text


# ── a source ──────────────────────────────────────────────────────────────────────────────────────


def source_verdict(now: Source, original: Source | None, ground: Ground) -> Verdict | None:
    """None where it hangs on the source's clips."""
    if now.status == "rejected":
        text = f"{ground.absent}: rejected as {now.reason} ({first_line(now.detail)}); "
        if is_unfinished(now.reason, now.tries):
            text += f"tried {times(now.tries)}, and again by"
            return Verdict(Why.REJECTED, text, ground.ingest(now.uri))
        text += OURS if now.reason == Reason.INTERNAL else "mend or replace it, then"
        return Verdict(Why.REJECTED, text, ground.ingest(now.uri, "--retry-rejected"))
    if now.status == "duplicate":
        other = original.uri if original is not None else "a source that is no longer known"
        text = f"{ground.absent} under this name: its bytes are those of {other}"
        command = ground.command("explain", original.uri) if original is not None else ""
        return Verdict(Why.DUPLICATE, text, command)
    if not now.num_clips:
        text = f"{ground.absent}: no frame of it is in a clip ({lost(now.dropped)})"
        return Verdict(Why.NO_CLIPS, f"{text}; only a new dataset can have another [scan]")
    return None


def clips_verdict(verdicts: Sequence[Verdict], ground: Ground) -> Verdict:
    """Of a source by those of its clips: the most frequent reason for those that are missing."""
    missing = [verdict for verdict in verdicts if verdict.why is not Why.IN_BUILD]
    build = f"build {ground.current.name}" if ground.current else "a build"
    if not missing:
        number = len(verdicts)
        what = "its only clip is" if number == 1 else f"all of its {number:,} clips are"
        first = next((v for v in verdicts if v.text != f"in {build}"), verdicts[0])
        return Verdict(Why.IN_BUILD, f"{what} {first.text}", first.next)
    if len(verdicts) == 1:
        return missing[0]
    ((why, count),) = Counter(verdict.why for verdict in missing).most_common(1)
    first = next(verdict for verdict in missing if verdict.why is why)
    there = len(verdicts) - len(missing)
    text = f"{there:,} of its {counted(len(verdicts), 'clip')} in {build}; {first.text}"
    if len(missing) > 1:
        text += f" (so {count:,} of the {len(missing):,} that are not)"
    return Verdict(why, text, first.next)


# ── a clip ────────────────────────────────────────────────────────────────────────────────────────


def clip_verdict(known: KnownClip, selection: Selection, ground: Ground) -> Verdict:
    now = known.now
    if now is not None and now.sample.outcome == "kept":
        return _kept(known, selection, ground)
    if known.superseded:
        return _replaced(known, ground)
    if now is not None:
        return _dropped(known, ground)
    return _held_back(known, selection, ground) or _unplanned(known, ground)


def _kept(known: KnownClip, selection: Selection, ground: Ground) -> Verdict:
    """In the build; and whether the next plan leaves it there."""
    build = ground.current.name if ground.current else ""
    clip_id = known.clip.clip_id
    text = f"in build {build}"
    leaves = None
    if ground.where_error and not known.superseded:
        text += f", but the selection in force cannot be evaluated ({ground.where_error})"
        return Verdict(Why.IN_BUILD, text, ground.command("rebuild", "--where", "CONDITION"))
    if known.superseded:
        leaves = "its source has been replaced since"
    elif held := _held_back(known, selection, ground):
        leaves = held.text.removeprefix(f"{ground.absent}: ")
    if leaves is not None:
        text += f", and the next rebuild takes it out, since {leaves}"
        return Verdict(Why.IN_BUILD, text, ground.command("rebuild"))
    if retold(known):
        text += ", with a text that has changed since"
        return Verdict(Why.IN_BUILD, text, ground.command("rebuild"))
    return Verdict(Why.IN_BUILD, text, ground.command("inspect", "clip", clip_id))


def _replaced(known: KnownClip, ground: Ground) -> Verdict:
    now = known.in_force
    if known.source is None or now is None:
        again = ground.ingest(now.uri if now is not None else "SOURCE")
        text = f"{ground.absent}: the scan that cut it was never committed"
        return Verdict(Why.UNCOMMITTED, text, again)
    text = f"{ground.absent}: its source has been replaced since (revision {now.revision})"
    return Verdict(Why.SUPERSEDED, text, ground.command("explain", now.uri))


def _dropped(known: KnownClip, ground: Ground) -> Verdict:
    if known.now is None or known.source is None:
        raise ValueError(f"{known.clip.clip_id} has no row in the current build")
    row = known.now.sample
    if row.reason == Reason.TOO_SMALL:
        return _too_small(row.detail, ground)
    if row.reason == Reason.NO_BUCKET:
        why = known.no_bucket or f"no bucket took its {row.detail}"
        return _no_bucket(why, ground)
    if row.reason == Reason.DAMAGED:
        text = f"{ground.absent}: {row.detail} are damaged; with [select] damaged in FILE as keep"
        return Verdict(Why.DAMAGED, text, ground.command("rebuild", "--config", "FILE"))
    text = f"{ground.absent}: dropped as {row.reason} ({first_line(row.detail)})"
    text += f"; {OURS}" if row.reason == Reason.INTERNAL else ""
    if row.reason in (Reason.TRACK_MISSING, Reason.TRACK_GAP):
        text += "; mend the track file beside it, or ask for less of it in [tracks]"
        return Verdict(Why.DROPPED, text, ground.ingest(known.source.uri))
    if row.reason == Reason.SOURCE_CHANGED:
        return Verdict(Why.DROPPED, text, ground.ingest(known.source.uri))
    return Verdict(Why.DROPPED, text, ground.command("rebuild", "--retry-dropped"))


def _no_bucket(why: str, ground: Ground) -> Verdict:
    text = f"{ground.absent}: {why}; with a smaller rung in [buckets] of FILE"
    return Verdict(Why.NO_BUCKET, text, ground.command("rebuild", "--config", "FILE"))


def _too_small(why: str, ground: Ground) -> Verdict:
    text = f"{ground.absent}: {why}, and nothing is enlarged; with less as [vae] short_side in FILE"
    return Verdict(Why.TOO_SMALL, text, ground.command("rebuild", "--config", "FILE"))


def _held_back(known: KnownClip, selection: Selection, ground: Ground) -> Verdict | None:
    """What keeps a clip out of the next plan: the selection, then the caption, then the bucket."""
    if ground.where_error:
        text = f"{ground.absent}: the selection cannot be evaluated ({ground.where_error})"
        return Verdict(Why.BAD_SELECTION, text, ground.command("rebuild", "--where", "CONDITION"))
    if not selection.taken:
        return _unselected(known, selection, ground)
    if known.chosen is None:
        return _uncaptioned(known, ground)
    if known.too_small:
        return _too_small(known.no_bucket, ground)
    return _no_bucket(known.no_bucket, ground) if known.bucket is None else None


def _unselected(known: KnownClip, selection: Selection, ground: Ground) -> Verdict:
    false = [part for part in selection.parts if part.true is not True]
    unknown = [
        name for part in false for name, value in part.values.items()
        if value is None and not any(part.true is False for part in false)
    ]  # fmt: skip
    if known.chosen is None and not CAPTION_COLUMNS.keys().isdisjoint(unknown):
        return _uncaptioned(known, ground)
    if lacking := [name for name in unknown if name in known.scores]:
        text = f"{ground.absent}: the selection asks for {', '.join(lacking)}, which it lacks"
        retry = ["--retry-failed"] if known.unembedded else []
        return Verdict(Why.NOT_SCORED, text, ground.command("score", *retry))
    said = " and ".join(f"{part.sql} ({_values(part)})" if part.values else part.sql
                        for part in false)  # fmt: skip
    text = f"{ground.absent}: the selection does not take it, for it is not true that {said}"
    return Verdict(Why.NOT_SELECTED, text, ground.command("rebuild", "--where", "CONDITION"))


def _values(part: Part) -> str:
    return ", ".join(f"{name} = {shown(value)}" for name, value in part.values.items())


def shown(value: Any) -> str:
    """A value as SQL would have it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "NULL" if value is None else repr(value)


def _uncaptioned(known: KnownClip, ground: Ground) -> Verdict:
    attempts = known.attempts
    if not attempts.failed:
        text = f"{ground.absent}: it has no caption of {attempts.captioner} yet"
        return Verdict(Why.UNCAPTIONED, text, ground.command("caption"))
    text = f"{ground.absent}: its caption failed {times(attempts.failed)}"
    if attempts.failed < MAX_ATTEMPTS:
        return Verdict(Why.CAPTION_FAILED, text, ground.command("caption"))
    return Verdict(Why.CAPTION_GIVEN_UP, text, ground.command("caption", "--retry-failed"))


def _unplanned(known: KnownClip, ground: Ground) -> Verdict:
    """Nothing is in its way, and it is in no plan."""
    again = ground.command("rebuild")
    if ground.in_progress is not None:
        text = f"{ground.absent}: a plan of build {ground.in_progress.name} is in progress"
        return Verdict(Why.IN_PROGRESS, text, again)
    if ground.current is None:
        return Verdict(Why.NO_BUILD, "in no build: none is current", again)
    text = f"{ground.absent}: it came, or was let in, after the build's last plan"
    return Verdict(Why.NOT_PLANNED, text, again)
