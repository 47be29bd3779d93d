"""What `rebuild --dry-run` prints: the plan, why it is not empty, and what it would cost.

from     dct-e20ab277
to       dct-9939e0a4, laid out in the same shards and order
changed  vae.fps: none → 24
shards   0 fresh, 67 stale, 67 to write
samples  137 to encode, 0 to copy, 7 to leave out
frames   17,670 to decode, 17,809 to encode (12:30 min of footage)
bytes    51.8 MB of footage and 0 B of latents to read, 881 MB to write
time     about 1:12 min with 2 workers at 47.4 million pixels/s each, as last measured
current  dct-e20ab277 → dct-9939e0a4, if the gates allow
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from telecine.infra.text import counted, json_value, length, size
from telecine.manifests.schemas import Build
from telecine.pipeline.build.preview import Estimate, Preview
from telecine.pipeline.lifecycle.changes import Change, told
from telecine.pipeline.lifecycle.promote import Promotion
from telecine.pipeline.terminal.text import line, write


def print_rebuild_preview(
    preview: Preview,
    old: Build | None,
    changes: Sequence[Change],
    estimate: Estimate | None,
    promotion: Promotion | None,
    as_json: bool,
    console: Console,
) -> None:
    """`old`: the build that is current, which `changes` are counted from."""
    if as_json:
        found = _as_json(preview, old, changes, estimate, promotion)
        write(console, json.dumps(json_value(found), indent=2))
        return
    for text in _lines(preview, old, changes, estimate):
        line(console, text)
    if promotion is not None:
        gates = ", if the gates allow" if promotion.if_gates_allow else ""
        line(console, f"current  {promotion.before or 'none'} → {promotion.to}{gates}")


def _stale(preview: Preview, old: Build | None) -> int:
    """Shards that are not as asked for: of another build none is."""
    same = old is not None and old.build_id == preview.build_id
    return preview.replaced if same else preview.shards


def _lines(
    preview: Preview, old: Build | None, changes: Sequence[Change], estimate: Estimate | None
) -> Iterator[str]:
    yield f"from     {old.name if old else 'nothing: no build is current'}"
    yield f"to       {preview.name}{_notes(preview, old)}"
    for number, text in enumerate(told(changes)):
        yield f"{'' if number else 'changed':<8} {text}"
    yield (
        f"shards   {preview.fresh:,} fresh, {_stale(preview, old):,} stale, "
        f"{preview.shards:,} to write"
    )
    waiting = f", {preview.uncaptioned:,} without a caption" if preview.uncaptioned else ""
    yield (
        f"samples  {preview.encoded:,} to encode, {preview.copied:,} to copy, "
        f"{preview.dropped:,} to leave out{waiting}"
    )
    if preview.idle:
        yield "nothing to encode, copy or write"
        return
    yield (
        f"frames   {preview.frames_to_decode:,} to decode, {preview.frames_to_encode:,} to encode "
        f"({length(preview.seconds_to_encode)} of footage)"
    )
    yield (
        f"bytes    {size(preview.bytes_of_footage)} of footage and {size(preview.bytes_to_copy)} "
        f"of latents to read, {size(preview.bytes_to_write)} to write"
    )
    yield f"time     {_time(preview, estimate)}"


def _notes(preview: Preview, old: Build | None) -> str:
    if preview.resumed:
        return ", going on with the plan that an earlier run began"
    if old is not None and old.build_id == preview.build_id:
        return ", the same build: its spec and encoder are as they were"
    if old is not None and preview.follows == old.build_id:
        return ", laid out in the same shards and order"
    return ""


def _time(preview: Preview, estimate: Estimate | None) -> str:
    if not preview.pixels_to_encode:
        return "nothing is encoded"
    if estimate is None:
        return "not measured yet: no run under this encoder"
    workers = counted(estimate.workers, "worker")
    rate = estimate.rate.pixels_per_second / 1e6
    return (
        f"about {length(estimate.seconds)} with {workers} at {rate:,.3g} million pixels/s each, "
        "as last measured"
    )


def _as_json(
    preview: Preview,
    old: Build | None,
    changes: Sequence[Change],
    estimate: Estimate | None,
    promotion: Promotion | None,
) -> dict[str, Any]:
    return {
        "from": {"build_id": old.build_id, "name": old.name} if old else None,
        "to": {"build_id": preview.build_id, "name": preview.name},
        "follows": preview.follows,
        "resumed": preview.resumed,
        "changed": [dataclasses.asdict(change) for change in changes],
        "shards": {
            "fresh": preview.fresh,
            "stale": _stale(preview, old),
            "to_write": preview.shards,
        },
        "samples": {
            "to_encode": preview.encoded,
            "to_copy": preview.copied,
            "to_leave_out": preview.dropped,
            "uncaptioned": preview.uncaptioned,
        },
        "frames": {
            "to_decode": preview.frames_to_decode,
            "to_encode": preview.frames_to_encode,
            "seconds": preview.seconds_to_encode,
        },
        "bytes": {
            "footage_to_read": preview.bytes_of_footage,
            "latents_to_read": preview.bytes_to_copy,
            "to_write": preview.bytes_to_write,
        },
        "estimate": dataclasses.asdict(estimate) if estimate else None,
        "current": _promotion(promotion) if promotion else None,
    }


def _promotion(promotion: Promotion) -> dict[str, Any]:
    return {
        "from": promotion.before or None,
        "to": promotion.to,
        "if_gates_allow": promotion.if_gates_allow,
    }
