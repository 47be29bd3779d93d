"""The way of footage into a build, step by step, as values. Pure.

    a source  found ─ probed ─ cut
    a clip    clip ─ captioned ─ scored ─ selected ─ planned ─ encoded ─ sample

Each step says what became of the footage there; what decides is in verdict.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from telecine.encoders.caption.interface import WITH_TEXT
from telecine.infra.text import counted, first_line
from telecine.manifests.builds import BuildState
from telecine.manifests.schemas import DroppedSpan, Source
from telecine.pipeline.catalog.captions import MAX_ATTEMPTS
from telecine.pipeline.catalog.conditions import Part
from telecine.pipeline.look.clip import KnownClip


class State(StrEnum):
    OK = "ok"
    NO = "no"
    WAITING = "waiting"  # a run that is still to come may do it


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    state: State
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the selection in force makes of one clip."""

    taken: bool
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Ground:
    """What all clips of a dataset stand on."""

    dataset: str
    current: BuildState | None
    in_progress: BuildState | None  # the build whose plan a run is to carry on with
    where: str | None  # the selection in force
    where_error: str  # why that is no condition, or empty
    current_where: str | None  # the selection of the current build
    scorer: str  # in force, or empty

    def command(self, verb: str, *words: str) -> str:
        return shlex.join(["telecine", verb, self.dataset, *words])

    def ingest(self, uri: str, *words: str) -> str:
        return shlex.join(["telecine", "ingest", uri, "--dataset", self.dataset, *words])

    @property
    def absent(self) -> str:
        return f"not in build {self.current.name}" if self.current else "in no current build"


# ── a source ─────────────────────────────────────────────────────────────────────────────────────


def source_steps(history: Sequence[Source], original: Source | None) -> tuple[Step, ...]:
    """Of all revisions of one URI, the last in force; `original` is what it is a copy of."""
    now = history[-1]
    return (_found(history), _probed(now, original), *([_cut(now)] if _scanned(now) else []))


def _scanned(source: Source) -> bool:
    return source.status == "scanned"


def _found(history: Sequence[Source]) -> Step:
    now = history[-1]
    times = f"revision {now.revision}" if now.revision else "never replaced"
    names = ("revision", "source_id", "version", "status", "reason")
    revisions = [{name: getattr(row, name) for name in names} for row in history]
    return Step("found", State.OK, f"{now.uri}, {times}", {"revisions": revisions})


def _probed(now: Source, original: Source | None) -> Step:
    facts = {name: getattr(now, name) for name in ("status", "kind", "reason", "detail")}
    if now.status == "rejected":
        text = f"rejected as {now.reason}: {first_line(now.detail)}"
        return Step("probed", State.NO, text, facts)
    if now.status == "duplicate":
        other = original.uri if original is not None else now.duplicate_of
        return Step(
            "probed", State.NO, f"the same bytes as {other}", facts | {"duplicate_of": other}
        )
    content = f"{now.codec}, {now.width}×{now.height} px, {counted(now.num_frames, 'frame')}"
    return Step("probed", State.OK, content, facts)


def _cut(now: Source) -> Step:
    text = f"{counted(now.num_shots, 'shot')}, {counted(now.num_clips, 'clip')}"
    if now.dropped:
        text += f"; left out: {lost(now.dropped)}"
    spans = [
        {"start_frame": d.start_frame, "num_frames": d.num_frames, "reason": d.reason}
        for d in now.dropped
    ]
    facts = {"num_shots": now.num_shots, "num_clips": now.num_clips, "dropped": spans}
    return Step("cut", State.OK if now.num_clips else State.NO, text, facts)


def lost(dropped: Sequence[DroppedSpan]) -> str:
    spans = [
        f"frames {d.start_frame} to {d.start_frame + d.num_frames} {d.reason}" for d in dropped
    ]
    more = f" and {len(spans) - 3:,} more spans" if len(spans) > 3 else ""
    return ", ".join(spans[:3]) + more or "it has none"


# ── a clip ───────────────────────────────────────────────────────────────────────────────────────


def clip_steps(known: KnownClip, selection: Selection, ground: Ground) -> tuple[Step, ...]:
    """A clip of footage that was replaced takes none of the steps that are still to come."""
    steps = [_clip(known)]
    if not known.superseded:
        steps += [
            _captioned(known),
            _scored(known, ground),
            _selected(selection, ground),
            _planned(known),
        ]
    return (*steps, _encoded(known, ground), _sample(known, ground))


def span(known: KnownClip) -> str:
    clip = known.clip
    if clip.kind == "image":
        return "image"
    end = clip.start_frame + clip.num_frames
    return f"frames {clip.start_frame} to {end}, {clip.duration_seconds:.2f} s"


def _clip(known: KnownClip) -> Step:
    clip, now = known.clip, known.in_force
    facts: dict[str, Any] = {
        "clip_id": clip.clip_id, "shot": clip.shot, "start_frame": clip.start_frame,
        "num_frames": clip.num_frames, "duration_seconds": clip.duration_seconds,
    }  # fmt: skip
    text = f"{clip.clip_id}: {span(known)}, of shot {clip.shot}"
    if known.source is None:
        return Step("clip", State.NO, f"{text}, by a scan that was never committed", facts)
    if known.superseded and now is not None:
        facts |= {"revision": known.source.revision, "revision_in_force": now.revision}
        replaced = f"of revision {known.source.revision}; revision {now.revision} is in force"
        return Step("clip", State.NO, f"{text}, {replaced}", facts)
    return Step("clip", State.OK, text, facts)


def _captioned(known: KnownClip) -> Step:
    attempts, chosen = known.attempts, known.chosen
    facts: dict[str, Any] = {
        "captioner": attempts.captioner,
        "failed": attempts.failed,
        "details": list(attempts.details),
        "outcome": None if chosen is None else chosen.outcome,
        "text": None if chosen is None else chosen.text,
    }
    if chosen is not None:
        return Step("captioned", State.OK, _heard(known), facts)
    if not attempts.failed:
        before = any(s.asked and not s.present for s in known.captions)
        since = "; what there is was said of its stills or sidecar before they changed"
        text = f"{attempts.captioner} was not asked yet{since if before else ''}"
        return Step("captioned", State.WAITING, text, facts)
    state = State.NO if attempts.failed >= MAX_ATTEMPTS else State.WAITING
    why = "; ".join(attempts.details)
    failed = f"{attempts.captioner} failed {times(attempts.failed)}"
    return Step("captioned", state, f"{failed}: {why}" if why else failed, facts)


def _heard(known: KnownClip) -> str:
    chosen = known.chosen
    if chosen is None or chosen.captioner == "none":
        return "the mix leaves it without a text"
    if chosen.outcome not in WITH_TEXT:
        return f"{chosen.captioner}: {chosen.outcome}, so its text is empty"
    return f"{chosen.captioner}: {chosen.text}"


def times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _scored(known: KnownClip, ground: Ground) -> Step:
    if not ground.scorer:
        return Step("scored", State.OK, "no scorer is in force")
    lacking = [name for name, value in known.scores.items() if value is None]
    facts = {"scores": dict(known.scores), "lacking": lacking, "unembedded": known.unembedded}
    if lacking:
        why = f" ({known.unembedded})" if known.unembedded else ""
        return Step("scored", State.WAITING, f"it lacks {', '.join(lacking)}{why}", facts)
    said = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in known.scores.items())  # fmt: skip
    return Step("scored", State.OK, said, facts)


def _selected(selection: Selection, ground: Ground) -> Step:
    if ground.where is None:
        text = f"every clip is taken{_before(ground)}"
        return Step("selected", State.OK, text, {"where": None})
    parts = [
        {"sql": p.sql, "true": p.true, "values": dict(p.values), "error": p.error}
        for p in selection.parts
    ]
    facts = {"where": ground.where, "parts": parts, "error": ground.where_error}
    text = f"{ground.where}{_before(ground)}"
    if ground.where_error:
        return Step("selected", State.NO, f"{text}: {ground.where_error}", facts)
    return Step("selected", State.OK if selection.taken else State.NO, text, facts)


def _before(ground: Ground) -> str:
    """What the current build was made of, where another selection is in force by now."""
    if ground.current is None or ground.current_where == ground.where:
        return ""
    return f" (build {ground.current.name}: {ground.current_where or 'every clip'})"


def _planned(known: KnownClip) -> Step:
    if known.bucket is None:
        return Step("planned", State.NO, f"no bucket: {known.no_bucket}", {"bucket": None})
    folder = known.bucket.folder
    return Step("planned", State.OK, f"bucket {folder}", {"bucket": folder})


def _encoded(known: KnownClip, ground: Ground) -> Step:
    build, now = ground.current, known.now
    if build is None:
        return Step("encoded", State.WAITING, "no build is current", {"build": None})
    facts: dict[str, Any] = {"build": build.name, "build_id": build.build_id}
    if now is None:
        return Step("encoded", State.WAITING, f"no plan of build {build.name} has it", facts)
    row = now.sample
    facts |= {"plan": row.plan, "outcome": row.outcome, "copied_from": row.copied_from}
    place = f"build {build.name}, plan {row.plan}"
    if row.outcome != "kept":
        facts |= {"reason": row.reason, "detail": row.detail}
        text = f"{place} dropped it: {row.reason}: {first_line(row.detail)}"
        return Step("encoded", State.NO, text, facts)
    how = f": its latents were copied from {row.copied_from}" if row.copied_from else ""
    return Step("encoded", State.OK, place + how, facts)


def _sample(known: KnownClip, ground: Ground) -> Step:
    there = [p for p in known.placed if p.sample.outcome == "kept"]
    others = [{"build": p.build, "shard_path": p.sample.shard_path} for p in there if not p.current]
    facts: dict[str, Any] = {"other_builds": others}
    now = known.now
    if now is None or now.sample.outcome != "kept":
        also = f"; build {others[-1]['build']} has it, {others[-1]['shard_path']}" if others else ""
        state = State.NO if now is not None else State.WAITING
        return Step("sample", state, f"{ground.absent}{also}", facts)
    row = now.sample
    facts |= {"shard_path": row.shard_path, "position": row.position, "of": row.shard_samples}
    facts["latent_offset"] = row.latent_offset
    text = f"{row.shard_path}, position {row.position} of {row.shard_samples}"
    for beside in (placed for placed in known.placed if placed.rendition):
        sample = beside.sample
        kept = sample.outcome == "kept"
        where = sample.shard_path if kept else f"left out as {sample.reason} ({sample.detail})"
        text += f"; rendition {beside.rendition}: {where}"
    if retold(known):
        facts["retold"] = True
        text += "; its text has changed since, and the next rebuild writes it"
    return Step("sample", State.OK, text, facts)


def retold(known: KnownClip) -> bool:
    """The text in force is not the one that its sample has."""
    now, chosen = known.now, known.chosen
    return (
        now is not None
        and chosen is not None
        and now.sample.captions_digest not in ("", chosen.captions_digest)
    )
