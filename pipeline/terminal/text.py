"""Printing for `inspect`: tables on a terminal, or JSON.

File names, captions and decoders' messages are other people's text: shown as they are, never as
markup, with control characters (terminal escapes, line breaks, text direction) escaped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from telecine.infra.text import cell, counted, json_value, length, one_line, size
from telecine.pipeline.look.summary import BuildReport, Summary

# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def print_json(summary: Summary, console: Console) -> None:
    write(console, json.dumps(json_value(dataclasses.asdict(summary)), indent=2))


def print_json_rows(batches: Iterable[pa.RecordBatch], console: Console) -> None:
    """One array, one row a line, written as it is read."""
    separator = "[\n"
    for batch in batches:
        for row in batch.to_pylist():
            console.file.write(separator + json.dumps(json_value(row)))
            separator = ",\n"
    write(console, "\n]" if separator == ",\n" else "[]")


def write(console: Console, text: str) -> None:
    """A line, past rich, which would wrap long lines."""
    console.file.write(text + "\n")


# ── a terminal ───────────────────────────────────────────────────────────────────────────────────


LEGIBLE = 12  # characters of a column that may be folded no further


def plain(value: Any) -> Text:
    """A cell: one line, nothing in it taken for markup or sent to the terminal as a command."""
    return Text(one_line(value))


def print_rows(rows: pa.Table, console: Console) -> None:
    """A line per row where the columns fit the terminal, else a block per row."""
    if not rows.num_rows:
        console.print("no rows")
        return
    values = [list(row.values()) for row in _with_all_columns(rows)]
    widths = [
        max(len(name), min(LEGIBLE, max(len(cell(row[index])) for row in values))) + 2
        for index, name in enumerate(rows.column_names)
    ]
    if sum(widths) <= console.width:
        print_table(rows.column_names, values, console)
    else:
        _print_blocks(rows.column_names, values, console)


def _print_blocks(names: Sequence[str], rows: list[list[Any]], console: Console) -> None:
    for number, row in enumerate(rows):
        if number:
            console.print()
        block = Table.grid(padding=(0, 2))
        block.add_column(style="bold")
        block.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            block.add_row(plain(name), plain(value))
        console.print(block)


def _with_all_columns(rows: pa.Table) -> list[dict[str, Any]]:
    """Two columns may have one name; a dict would keep one of them."""
    unique = rows.rename_columns([str(n) for n in range(rows.num_columns)])
    found: list[dict[str, Any]] = unique.to_pylist()
    return found


_MEASURES = frozenset({"size", "footage", "latents"})


def print_table(names: Sequence[str], rows: Iterable[Iterable[Any]], console: Console) -> None:
    """Numbers to the right; long text is folded, not cut: it is there to be copied."""
    body = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        values = {type(row[index]) for row in body} - {type(None)}
        numbers = name in _MEASURES or values <= {int, float}
        table.add_column(plain(name), justify="right" if numbers else "left", overflow="fold")
    for row in body:
        table.add_row(*map(plain, row))
    console.print(table)


def print_summary(found: Summary, console: Console) -> None:
    line(console, f"dataset {found.dataset}")
    if not found.sources:
        line(console, "no sources yet: telecine ingest SOURCE... --dataset DATASET")
    else:
        _print_sources(found, console)
    if found.captions:
        heading(console, "captions")
        rows = [
            (c.captioner, c.captioner_fingerprint[:8], c.outcome, c.captions)
            for c in found.captions
        ]
        print_table(("captioner", "spec", "outcome", "captions"), rows, console)
    for alarm in found.repeated:
        console.print(
            Text("alarm: ", style="bold red")
            + plain(
                f"{alarm.captions:,} of {alarm.of:,} captions of {alarm.captioner} "
                f"{alarm.captioner_fingerprint[:8]} say the same: {alarm.text[:200]}"
            ),
            soft_wrap=True,
        )
    if found.scores:
        heading(console, f"scores of {found.scorer}")
        scores = [(s.name, s.scores, s.lowest, s.mean, s.highest) for s in found.scores]
        print_table(("score", "clips", "lowest", "mean", "highest"), scores, console)
    if found.duplicates:
        line(console, f"{counted(found.duplicates, 'clip')} with duplicate_rank > 0")
    for build in found.builds:
        _print_build(build, console)
    for error in found.errors:
        console.print(Text("error: ", style="bold red") + plain(error), soft_wrap=True)


def _print_sources(found: Summary, console: Console) -> None:
    heading(console, "sources")
    rows = [
        (s.status, s.kind, s.sources, size(s.size_bytes), length(3600 * s.hours), s.clips)
        for s in found.sources
    ]
    print_table(("status", "kind", "sources", "size", "footage", "clips"), rows, console)
    if found.rejected:
        heading(console, "rejected")
        print_table(("reason", "sources"), found.rejected.items(), console)
    heading(console, "clips")
    clips = [(c.kind, c.clips, c.frames, length(3600 * c.hours)) for c in found.clips]
    print_table(("kind", "clips", "frames", "footage"), clips, console)
    lost = sum(found.frames_dropped.values())
    line(
        console,
        f"frames  {found.frames:,} decoded = {found.frames_kept:,} in clips "
        f"+ {lost:,} dropped{_reasons(found.frames_dropped)}",
    )


def _print_build(build: BuildReport, console: Console) -> None:
    heading(console, f"build {build.name}" + (" (current)" if build.current else ""))
    line(console, f"vae {build.vae_fingerprint}")
    line(console, f"pixels {build.pixel_fingerprint}")
    if build.in_progress:
        line(
            console,
            f"unfinished: {build.shards_written:,} of {build.shards_planned:,} shards written; "
            "run again to finish",
        )
    if build.buckets:
        names = ("resolution", "aspect", "duration", "clips", "footage", "latents", "shards")
        rows: list[tuple[Any, ...]] = [
            (b.resolution, b.aspect, b.duration, b.clips, length(3600 * b.hours),
             size(b.latent_bytes), b.shards)
            for b in build.buckets
        ]  # fmt: skip
        print_table(names, rows, console)
    kept, lost = sum(b.clips for b in build.buckets), sum(build.dropped.values())
    latents = size(sum(b.latent_bytes for b in build.buckets))
    shards = sum(b.shards for b in build.buckets)
    line(
        console,
        f"clips  {kept + lost:,} = {kept:,} in {shards:,} shards ({latents} of latents) "
        f"+ {lost:,} dropped{_reasons(build.dropped)}",
    )


def _reasons(counts: dict[str, int]) -> str:
    parts = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    return f" ({parts})" if parts else ""


def heading(console: Console, text: str) -> None:
    """A line in bold, after an empty one; nothing in it is taken for markup."""
    console.print()
    console.print(plain(text).markup, style="bold", soft_wrap=True)


def line(console: Console, text: str) -> None:
    """However long, and nothing in it taken for markup."""
    console.print(plain(text), soft_wrap=True)
