"""rebuild: the shards again under another spec, and what came of it; and what it would do.

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
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from telecine.infra.errors import CheckFailed
from telecine.infra.text import counted, length, size
from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    Machines,
    Store,
    Vae,
    given_spec,
    out,
    progress,
    with_groups,
)
from telecine.pipeline.terminal.bugs import say_bugs
from telecine.pipeline.terminal.text import line, print_json

if TYPE_CHECKING:
    from telecine.manifests.schemas import Build
    from telecine.pipeline.build.preview import Estimate, Preview
    from telecine.pipeline.build.step import BuildOutcome
    from telecine.pipeline.lifecycle.promote import Promotion
    from telecine.pipeline.recipes import Built, Foreseen


@with_groups
def rebuild(
    dataset: DatasetArgument,
    vae: Vae = None,
    where: Annotated[
        str | None,
        typer.Option(help="Take the clips that this SQL condition is true of; '' takes all."),
    ] = None,
    shard_bytes: Annotated[
        int | None, typer.Option(min=1_000_000, help="Fill each shard up to this many bytes.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="More keys of the spec, as a telecine.toml with only those to change."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder of the build under shards/ (default: by its spec).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do and why, and do none of it.")
    ] = False,
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Leave the present build current.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make it current although a gate says no.")
    ] = False,
    retry_dropped: Annotated[
        bool, typer.Option("--retry-dropped", help="Try clips again that the build left out.")
    ] = False,
    *,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Make the shards again under another VAE, selection or texts, beside those there are."""
    from telecine.manifests.dataset import asked_spec
    from telecine.pipeline import recipes
    from telecine.pipeline.run import Run, RunOptions

    opened = store.open(dataset)
    asked = asked_spec(opened.spec, given_spec(config, vae), where=where, target_bytes=shard_bytes)
    opened = dataclasses.replace(opened, spec=asked)
    options = RunOptions(
        retry_rejected=retry_dropped,
        gpus_per_encoder=machines.gpus,
        promote=not no_promote,
        force=force,
    )
    if dry_run:
        print_foreseen(recipes.preview(opened, options, name, machines.workers), as_json, out())
        return
    with machines.open_cluster() as cluster:
        built = recipes.rebuild(Run(opened, cluster, options, progress()), name)
    print_built(built, opened.uri, as_json, out())
    say_bugs(built.bugs, *(one.bugs for one in built.renditions.values()))
    refuse_failed(built, opened.uri)


# ── what came of it ──────────────────────────────────────────────────────────────────────────────


def print_built(built: Built, dataset: str, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(built, console)
        return
    for text in built_lines(built, dataset):
        line(console, text)


def built_lines(build: Built, dataset: str) -> list[str]:
    read = ratio(build.bytes_read, build.bytes_of_footage)
    lines = [f"built    {_written(build)}{read}"]
    if build.uncaptioned:
        again = f"telecine caption {shlex.quote(dataset)} --retry-failed"
        lines.append(
            f"         {counted(build.uncaptioned, 'clip')} without a caption left out: {again}"
        )
    if build.dropped:
        reasons = ", ".join(f"{n} {reason}" for reason, n in build.dropped_by_reason.items())
        inspect = f"telecine inspect {shlex.quote(dataset)}"
        lines.append(f"dropped  {reasons}: {inspect} samples --where \"outcome = 'dropped'\"")
    for name, without in build.without_track.items():
        count = counted(without.samples, "sample")
        lines.append(f"tracks   {count} without {name}, as here: {without.problem}")
    for name, rendition in build.renditions.items():
        reasons = ", ".join(f"{n} {why}" for why, n in rendition.dropped_by_reason.items())
        why = f": {reasons}" if reasons else ""
        lines.append(f"{name:<8} {_written(rendition)}{why}")
    settled = build.settled
    lines += [f"gate     {failure}" for failure in settled.failures]
    if settled.current and settled.before:
        lines.append(f"current  {build.build} (before: {settled.before})")
    elif not settled.current and build.samples and not settled.failures:
        promote = f"telecine promote {shlex.quote(dataset)} {build.build}"
        lines.append(f"current  not {build.build}; make it so with: {promote}")
    return lines


def _written(build: BuildOutcome) -> str:
    return (
        f"{build.build}: {counted(build.samples, 'sample')} in "
        f"{counted(build.shards, 'shard')} ({build.frames_encoded} frames encoded, "
        f"{counted(build.samples_copied, 'sample')} copied), {build.dropped} dropped"
    )


def ratio(bytes_read: int, bytes_of_footage: int) -> str:
    if not bytes_of_footage:
        return ""
    return f"; read {bytes_read / bytes_of_footage:.2f} bytes per byte of footage"


def refuse_failed(build: Built, dataset: str) -> None:
    """Raises CheckFailed, with what to do, where a gate said no to a build: it is not current."""
    settled = build.settled
    if settled.current or not settled.failures:
        return
    promote = f"telecine promote {shlex.quote(dataset)}"
    advice = f"make it current all the same with {promote} {build.build} --force"
    if settled.before:
        advice = (
            f"{settled.before} stays current. Have telecine.toml ask for that again, if it does "
            f"not, with {promote} {settled.before}, or {advice}"
        )
    raise CheckFailed(f"a gate says no to {build.build}: {advice}")


# ── what it would do ─────────────────────────────────────────────────────────────────────────────


def print_foreseen(found: Foreseen, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(_as_json(found), console)
        return
    for text in _lines(found):
        line(console, text)
    if (promotion := found.promotion) is not None:
        gates = ", if the gates allow" if promotion.if_gates_allow else ""
        line(console, f"current  {promotion.before or 'none'} → {promotion.to}{gates}")


def _stale(preview: Preview, old: Build | None) -> int:
    """Shards that are not as asked for: of another build none is."""
    same = old is not None and old.build_id == preview.build_id
    return preview.replaced if same else preview.shards


def _lines(found: Foreseen) -> Iterator[str]:
    from telecine.pipeline.lifecycle.changes import told

    preview, old = found.plan, found.current
    yield f"from     {old.name if old else 'nothing: no build is current'}"
    yield f"to       {preview.name}{_notes(preview, old)}"
    for number, text in enumerate(told(found.changes)):
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
    for name, beside in found.renditions.items():
        yield (
            f"{name:<8} {beside.name}: {counted(beside.shards, 'shard')} to write, "
            f"{counted(beside.encoded, 'sample')} to encode, {beside.copied:,} to copy, "
            f"{beside.dropped:,} to leave out"
        )
    if preview.idle:
        yield "nothing to encode, copy or write" + (" of the first" if found.renditions else "")
        return
    yield (
        f"frames   {preview.frames_to_decode:,} to decode, {preview.frames_to_encode:,} to encode "
        f"({length(preview.seconds_to_encode)} of footage)"
    )
    yield (
        f"bytes    {size(preview.bytes_of_footage)} of footage and {size(preview.bytes_to_copy)} "
        f"of latents to read, {size(preview.bytes_to_write)} to write"
    )
    yield f"time     {_time(preview, found.estimate)}"


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


def _as_json(found: Foreseen) -> dict[str, Any]:
    preview, old = found.plan, found.current
    return {
        "from": {"build_id": old.build_id, "name": old.name} if old else None,
        "to": {"build_id": preview.build_id, "name": preview.name},
        "follows": preview.follows,
        "resumed": preview.resumed,
        "changed": [dataclasses.asdict(change) for change in found.changes],
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
        "estimate": dataclasses.asdict(found.estimate) if found.estimate else None,
        "current": _promotion(found.promotion) if found.promotion else None,
    } | _renditions(found)


def _renditions(found: Foreseen) -> dict[str, Any]:
    each = {name: dataclasses.asdict(one) for name, one in found.renditions.items()}
    return {"renditions": each} if each else {}


def _promotion(promotion: Promotion) -> dict[str, Any]:
    return {
        "from": promotion.before or None,
        "to": promotion.to,
        "if_gates_allow": promotion.if_gates_allow,
    }
