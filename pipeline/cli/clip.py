"""`telecine inspect DATASET clip CLIP_ID`: all that is known of one clip, on a terminal or as JSON.

source ─ span ─ stills ─ measurements ─ captions ─ scores, duplicates ─ bucket ─ a sample per build
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from telecine.infra.text import cell, counted, json_value, size
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect, find_clip
from telecine.manifests.schemas import MEASUREMENTS, Clip
from telecine.pipeline.catalog.captions import Said
from telecine.pipeline.catalog.narrow import narrow, uris_of
from telecine.pipeline.look.clip import (
    Group,
    KnownClip,
    Placed,
    StillFacts,
    group_of,
    known_clips,
    stills_of,
)
from telecine.pipeline.terminal.pictures import Drawing, Shown, draw, drawing
from telecine.pipeline.terminal.text import heading, line, plain, write

TEXTS = {field.name: field.metadata["text"] for field in dataclasses.fields(Clip)}
MEASURED = ("width", "height", *MEASUREMENTS)


@dataclass(frozen=True)
class ClipReport:
    known: KnownClip
    group: Group | None
    stills: tuple[StillFacts, ...]


def inspect_clip(
    dataset: Dataset, clip_id: str, as_json: bool, console: Console, stills: bool
) -> None:
    """Everything about the clip whose id begins so; `stills`: draw them where that can be done.

    Raises UsageError, with candidates, where not just one clip's id does.
    """
    shows = not as_json and stills and drawing(console, os.environ) is not Drawing.NOTHING
    found = clip_report(dataset, clip_id, pictures=shows)
    if as_json:
        write(console, json.dumps(json_value(as_values(found)), indent=2))
    else:
        print_clip(found, console, shows)


def clip_report(dataset: Dataset, clip_id: str, *, pictures: bool = False) -> ClipReport:
    with connect(dataset.tables) as con:
        whole = find_clip(con, clip_id)
        group = group_of(con, dataset.spec, whole)
        narrow(con, [whole], uris_of(con, [whole]))
        (known,) = known_clips(con, dataset.spec)
        return ClipReport(known, group, stills_of(con, whole, pictures))


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def as_values(found: ClipReport) -> dict[str, Any]:
    """Without the bytes of stills."""
    known, clip = found.known, found.known.clip
    group, bucket = found.group, known.bucket
    return {
        "clip_id": clip.clip_id,
        "kind": clip.kind,
        "superseded": known.superseded,
        "source": _source_values(known),
        "span": _span_values(known),
        "measurements": [
            {"name": name, "value": getattr(clip, name), "text": TEXTS[name]} for name in MEASURED
        ],
        "captions": [_said_values(said) for said in known.captions],
        "chosen": None if known.chosen is None else dataclasses.asdict(known.chosen),
        "scores": dict(known.scores),
        "unembedded": known.unembedded,
        "duplicates": None if group is None else {
            "clips": group.clips,
            "members": [{"clip_id": c, "duplicate_rank": rank} for c, rank in group.members],
        },
        "bucket": None if bucket is None else dataclasses.asdict(bucket),
        "no_bucket": known.no_bucket,
        "samples": [
            {"build": placed.build, "current": placed.current, **dataclasses.asdict(placed.sample)}
            for placed in known.placed
        ],
        "stills": [
            {name: value for name, value in dataclasses.asdict(still).items() if name != "jpeg"}
            for still in found.stills
        ],
    }  # fmt: skip


def _source_values(known: KnownClip) -> dict[str, Any] | None:
    if known.source is None:
        return None
    now = known.in_force
    return dataclasses.asdict(known.source) | {
        "in_force": None if now is None else {
            "revision": now.revision, "source_id": now.source_id, "version": now.version,
            "status": now.status, "reason": now.reason,
        }
    }  # fmt: skip


def _span_values(known: KnownClip) -> dict[str, Any]:
    clip = known.clip
    names = ("shot", "start_frame", "num_frames", "start_pts", "end_pts", "time_base_num",
             "time_base_den", "timing", "fps_num", "fps_den", "variable_rate",
             "effective_start", "duration_seconds")  # fmt: skip
    return {name: getattr(clip, name) for name in (*names, "start_seconds", "end_seconds")}


def _said_values(said: Said) -> dict[str, Any]:
    values = dataclasses.asdict(said)
    row: dict[str, Any] = values.pop("caption")
    return row | values


# ── a terminal ───────────────────────────────────────────────────────────────────────────────────


def print_clip(found: ClipReport, console: Console, stills: bool) -> None:
    """On a terminal; `stills`: draw those whose pictures the report has."""
    known = found.known
    line(console, f"clip {known.clip.clip_id}")
    _grid([("kind", known.clip.kind), *_source_lines(known), *_span_lines(known)], console)
    if stills and found.stills:
        heading(console, counted(len(found.stills), "still"))
        draw([Shown(s.seconds, s.jpeg) for s in found.stills], console, os.environ)
    heading(console, "measurements")
    _grid(((name, f"{cell(_value(known.clip, name))}", TEXTS[name]) for name in MEASURED), console)
    heading(console, "captions")
    if not known.captions:
        line(console, "none")
    for said in known.captions:
        _grid(_said_lines(said), console)
    _grid([("taken", _taken(known))], console)
    _print_scores(found, console)
    heading(console, "bucket")
    line(console, known.bucket.folder if known.bucket else f"none: {known.no_bucket}")
    for placed in known.placed:
        heading(console, f"build {placed.build}" + (" (current)" if placed.current else ""))
        _grid(_placed_lines(placed), console)
    if not known.placed:
        heading(console, "builds")
        line(console, "none has this clip")


def _value(clip: Clip, name: str) -> Any:
    value = getattr(clip, name)
    if value is None:
        return "unknown"
    return ", ".join(value) if isinstance(value, tuple) else value


def _grid(rows: Iterable[tuple[str, ...]], console: Console) -> None:
    """Names in bold, then what is said of them, folded where it is long."""
    body = list(rows)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    for _ in range(max(map(len, body)) - 1):
        table.add_column(overflow="fold")
    for row in body:
        table.add_row(*map(plain, row))
    console.print(table)


def _source_lines(known: KnownClip) -> list[tuple[str, str]]:
    source, now = known.source, known.in_force
    if source is None:
        return [("source", "of a scan that was never committed")]
    state = "in force"
    if known.superseded and now is not None:
        state = f"superseded: revision {now.revision} is in force, {now.status} {now.reason}"
    return [
        ("source", source.uri),
        ("version", f"{source.version}, revision {source.revision}, {state.rstrip()}"),
        (
            "content",
            f"{source.container} {source.codec} {source.pixel_format}, "
            f"{source.width}×{source.height} px, {size(source.size_bytes)}, {source.status}",
        ),
    ]


def _span_lines(known: KnownClip) -> list[tuple[str, str]]:
    clip = known.clip
    if clip.kind == "image":
        return [("span", "one frame")]
    rate = clip.fps_num / clip.fps_den
    base = f"{clip.time_base_num}/{clip.time_base_den} s"
    seconds = f"{clip.start_seconds:.3f} s to {clip.end_seconds:.3f} s, "
    end = clip.start_frame + clip.num_frames
    return [
        (
            "span",
            f"{seconds}{clip.duration_seconds:.3f} s at {rate:.6g} fps"
            + (", unevenly spaced" if clip.variable_rate else ""),
        ),
        ("frames", f"{clip.start_frame} to {end}, {clip.num_frames} of shot {clip.shot}"),
        (clip.timing, f"{clip.start_pts} to {clip.end_pts}, ticks of {base}"),
    ]


def _said_lines(said: Said) -> list[tuple[str, str]]:
    row = said.caption
    state = [
        word
        for word, is_so in (
            ("in force", said.in_force),
            ("taken by the mix", said.chosen),
            ("of another captioner", not said.asked),
            ("of what the clip was before", said.asked and not said.present),
        )
        if is_so
    ]
    text = row.text if not row.detail else f"{row.text} ({row.detail})".lstrip()
    head = f"{row.captioner} {row.captioner_fingerprint[:8]}"
    lines = [(head, ", ".join([row.outcome, *state])), ("", text)]
    lines += [
        ("", f"{window.start_seconds:g} s to {window.end_seconds:g} s: {window.text}")
        for window in row.windows
    ]
    return [pair for pair in lines if any(pair)]


def _taken(known: KnownClip) -> str:
    if known.chosen is None:
        return "no caption yet" if not known.superseded else "none: the clip is not current"
    if known.chosen.captioner == "none":
        return "no text: the mix leaves this clip without one"
    return f"that of {known.chosen.captioner}"


def _print_scores(found: ClipReport, console: Console) -> None:
    known, group = found.known, found.group
    if known.scores or known.unembedded:
        heading(console, "scores")
        _grid([(name, cell(value) or "none") for name, value in known.scores.items()], console)
    if known.unembedded:
        line(console, f"no embedding: {known.unembedded}")
    if group is not None and group.clips > 1:
        heading(console, f"near-duplicates, {group.clips:,} clips together")
        for clip_id, rank in group.members:
            here = " (this clip)" if clip_id == known.clip.clip_id else ""
            line(console, f"{rank}  {clip_id}{here}")


def _placed_lines(placed: Placed) -> list[tuple[str, str]]:
    row = placed.sample
    if row.outcome != "kept":
        return [("dropped", f"{row.reason}: {row.detail}"), ("plan", str(row.plan))]
    shape = "×".join(map(str, row.latent_shape))
    lines = [
        ("shard", row.shard_path),
        ("position", f"{row.position} of {row.shard_samples}, plan {row.plan}"),
        ("latent", f"{shape} in {row.latent_bytes:,} bytes from byte {row.latent_offset:,}"),
        (
            "values",
            f"mean {row.latent_mean:.4g}, std {row.latent_std:.4g}, "
            f"largest {row.latent_absmax:.4g}" + (f", round trip {row.psnr_db:.2f} dB"
                                                  if row.psnr_db else ""),
        ),
        (
            "encoded",
            f"{row.encoded_width}×{row.encoded_height} px from {row.crop_x}, {row.crop_y}; "
            f"{counted(row.encoded_frames, 'frame')}, {row.frames_left_out} left out"
            + (f", {row.frames_resampled_away} of the clip's resampled away"
               if row.frames_resampled_away else "")
            + (f", {row.frames_repeated} repeated" if row.frames_repeated else ""),
        ),
        ("copied", f"from {row.copied_from}" if row.copied_from else ""),
    ]  # fmt: skip
    return [pair for pair in lines if pair[1]]
