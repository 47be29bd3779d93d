"""gates: what must be true of a build before it is promoted. A pure question to the tables.

    finite       no latents with NaN or infinity
    statistics   each channel near the model's own mean and deviation, and near the current build's
    canary       what is decoded again looks like what was encoded, as well as in the current build
    coverage     most of what was planned is there, and of what the current build keeps

The limits, why they stand where they stand and what was measured: docs/decisions/0009-gates.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import duckdb

from telecine.infra.errors import Reason
from telecine.infra.text import counted
from telecine.manifests.builds import last_plan
from telecine.manifests.schemas import Build
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.build.wanted import UNFIT
from telecine.pipeline.catalog.selection import taken
from telecine.pipeline.lifecycle.channels import (
    NARROWEST,
    OUTLYING,
    RESCALED,
    SHIFTED,
    WIDEST,
    Channel,
    ClipChannel,
    furthest_clips,
    pooled,
)

# Against the model's own constants, in its standard deviations: wide, since footage differs.
MAX_MEAN = 3.0  # of any channel
MAX_STD = 4.0  # of any channel
MAX_RMS_STD = 1.5  # root mean square over the channels
MIN_WIDEST_STD = 0.75  # of the widest channel: on dull footage the others may collapse

# Against the current build on the same clips: narrow, since only the encoder differs.
MAX_SHIFT = 0.25  # of a channel's mean, in the current build's standard deviations
MAX_RATIO = 1.5  # of a channel's standard deviations, the greater by the smaller
DEAD = 0.1  # of the channels' root mean square: what is below has no scale of its own

MIN_PSNR_DB = 20.0  # median over the canaries
MAX_PSNR_LOSS_DB = 3.0  # median loss over the canaries of both builds

MIN_KEPT = 0.5  # of what was planned

NAMED = 3  # channels and clips that a message names
SHOWN = 8  # digits of a clip_id: commands take its beginning


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is not as it must be."""

    gate: str  # finite, statistics, canary or coverage
    subject: str  # the channel or the clip that is furthest out, or the build
    value: float  # what was measured there
    expected: str  # in words
    text: str  # all of it, for people: which channels, which clips, by how much

    def __str__(self) -> str:
        return f"{self.gate}: {self.text}"


def gates(
    con: duckdb.DuckDBPyConnection, build_id: str, against: str | None = None
) -> list[Failure]:
    """What speaks against promoting a build; nothing where all is well.

    `against`: the build that is current, to compare with; one of pictures of another size tells
    nothing of the latents themselves. Only completed plans count. Raises KeyError where there is no
    such build.
    """
    current = None if against == build_id else against
    alike = current if current and _size(con, current) == _size(con, build_id) else None
    return [
        *_finite(con, build_id),
        *_statistics(con, build_id, alike),
        *_canary(con, build_id, alike),
        *_coverage(con, build_id, current),
    ]


# ── finite ───────────────────────────────────────────────────────────────────────────────────────

_NOT_FINITE = """
SELECT clip_id, count(*) OVER () FROM live_samples
WHERE build_id = ? AND outcome = 'dropped' AND reason = ? ORDER BY clip_id LIMIT ?
"""


def _finite(con: duckdb.DuckDBPyConnection, build_id: str) -> Iterator[Failure]:
    params = [build_id, str(Reason.NOT_FINITE), NAMED]
    found = con.sql(_NOT_FINITE, params=params).fetchall()
    if found:
        count = found[0][1]
        first = _some([clip_id[:SHOWN] for clip_id, _ in found], count)
        text = f"the encoder returned NaN or infinity for {counted(count, 'clip')}: {first}"
        yield Failure("finite", found[0][0], count, "none", text)


# ── statistics ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Model:
    """What an encoder's identity says of the channels of its latents, as they are stored."""

    kind: tuple[Any, ...]  # the channels of equal kinds mean the same
    means: tuple[float, ...]  # one per channel, but for log variances
    stds: tuple[float, ...]

    @classmethod
    def of(cls, identity: dict[str, Any], num_channels: int) -> Model:
        """`num_channels` as stored: 2C of moments, the C means, then the C log variances."""
        posterior, normalise = identity.get("posterior", "mean"), identity.get("normalise", True)
        channels = num_channels // 2 if posterior == "moments" else num_channels
        kind = (identity.get("name"), identity.get("class"), channels, posterior, normalise)
        means, stds = (0.0,) * channels, (float(identity.get("scale", 1.0)),) * channels
        if not normalise:
            means = _last_of_each(identity["latents_mean"], channels)
            raw = _last_of_each(identity["latents_std"], channels)
            stds = tuple(std * scale for std, scale in zip(raw, stds, strict=True))
        return cls(kind, means, stds)


def _last_of_each(constants: Sequence[float], channels: int) -> tuple[float, ...]:
    """One per channel, of C × n that count latent frames too: that of all later frames."""
    each = len(constants) // channels
    return tuple(map(float, constants[each - 1 :: each]))


@dataclass(frozen=True, slots=True)
class Check:
    """A number for each channel, and the channels where it is not as expected."""

    what: str
    values: tuple[float, ...]
    bad: tuple[bool, ...]
    expected: str
    order: str  # of the clips: which stand out most

    @property
    def worst(self) -> int:
        return max(range(len(self.values)), key=lambda n: (self.bad[n], abs(self.values[n])))


def _statistics(
    con: duckdb.DuckDBPyConnection, build_id: str, current: str | None
) -> Iterator[Failure]:
    builds = [build_id] if current is None else [build_id, current]
    identities = [_identity(con, build) for build in builds]
    stored, *before = (pooled(con, build) for build in builds)
    if not stored:
        return
    model = Model.of(identities[0], len(stored))
    found = against_model(stored, model)
    if current is not None and before[0]:
        earlier = Model.of(identities[1], len(before[0]))
        if earlier.kind == model.kind:
            # What the current build is like too is the footage's doing.
            known = {check.expected for check in against_model(before[0], earlier)}
            found = [check for check in found if check.expected not in known]
            both = (pooled(con, build_id, current), pooled(con, current, build_id))
            for check in against_build(*(channels[: len(model.means)] for channels in both)):
                yield _failure(con, check, build_id, current, 0.0)
    for check in found:
        yield _failure(con, check, build_id, None, model.means[check.worst])


def against_model(stored: Sequence[Channel], model: Model) -> list[Check]:
    """What of a build's channels is far from the model's own mean and standard deviation."""
    own = list(zip(stored, model.means, model.stds, strict=False))
    if not own:
        return []
    means = tuple((channel.mean - mean) / std for channel, mean, std in own)
    stds = tuple(channel.std / std for channel, _, std in own)
    rms = _rms(stds)
    mean = "channel means, where the model's own is 0 and its standard deviation 1"
    std = "channel standard deviations, where the model's own is 1"
    checks = [
        Check(
            mean,
            means,
            tuple(abs(value) > MAX_MEAN for value in means),
            f"-{MAX_MEAN:g} to {MAX_MEAN:g}",
            OUTLYING,
        ),
        Check(std, stds, tuple(s > MAX_STD for s in stds), f"at most {MAX_STD:g}", WIDEST),
        Check(
            std,
            stds,
            tuple(rms > MAX_RMS_STD and value > MAX_RMS_STD for value in stds),
            f"at most {MAX_RMS_STD:g} in root mean square over the channels",
            WIDEST,
        ),
        Check(
            std,
            stds,
            (max(stds) < MIN_WIDEST_STD,) * len(stds),
            f"at least {MIN_WIDEST_STD:g} in one channel",
            NARROWEST,
        ),
    ]
    return [check for check in checks if any(check.bad)]


def against_build(new: Sequence[Channel], old: Sequence[Channel]) -> list[Check]:
    """What of a build's channels is far from those of another that holds the same clips."""
    dead = DEAD * _rms([channel.std for channel in old])
    if not dead:
        return []
    pairs = list(zip(new, old, strict=True))
    shifts = tuple((n.mean - o.mean) / max(o.std, dead) for n, o in pairs)
    ratios = tuple(max(n.std, dead) / max(o.std, dead) for n, o in pairs)
    checks = [
        Check(
            "shift of channel means, in standard deviations of the current build",
            shifts,
            tuple(abs(value) > MAX_SHIFT for value in shifts),
            f"-{MAX_SHIFT:g} to {MAX_SHIFT:g}",
            SHIFTED,
        ),
        Check(
            "channel standard deviations, as multiples of the current build's",
            ratios,
            tuple(max(value, 1 / value) > MAX_RATIO for value in ratios),
            f"{1 / MAX_RATIO:.3g} to {MAX_RATIO:g}",
            RESCALED,
        ),
    ]
    return [check for check in checks if any(check.bad)]


def _failure(
    con: duckdb.DuckDBPyConnection,
    check: Check,
    build_id: str,
    current: str | None,
    centre: float,
) -> Failure:
    worst = check.worst
    numbers = sorted(
        (n for n, bad in enumerate(check.bad) if bad), key=lambda n: -abs(check.values[n])
    )
    channels = [f"channel {n} {check.values[n]:.3g}" for n in numbers]
    clips = furthest_clips(con, build_id, worst, check.order, other=current, centre=centre)
    text = (
        f"{check.what}: expected {check.expected}, but {_some(channels[:NAMED], len(channels))} "
        f"(of {len(check.values)} channels). Clips furthest out in channel {worst}, as stored: "
        + ", ".join(_clip(clip, current is not None) for clip in clips)
    )
    return Failure("statistics", f"channel {worst}", check.values[worst], check.expected, text)


def _clip(clip: ClipChannel, compared: bool) -> str:
    new = f"mean {clip.mean:.3g}, std {clip.std:.3g}"
    old = f"; was {clip.other_mean:.3g}, {clip.other_std:.3g}" if compared else ""
    return f"{clip.clip_id[:SHOWN]} ({new}{old})"


def _rms(values: Iterable[float]) -> float:
    squares = [value * value for value in values]
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


def _identity(con: duckdb.DuckDBPyConnection, build_id: str) -> dict[str, Any]:
    identity: dict[str, Any] = json.loads(_event(con, build_id).vae)
    return identity


def _size(con: duckdb.DuckDBPyConnection, build_id: str) -> Any:
    """Px of the short side that its clips were made; None: their own size."""
    return json.loads(_event(con, build_id).spec).get("vae", {}).get("short_side")


def _event(con: duckdb.DuckDBPyConnection, build_id: str) -> Build:
    event = last_plan(con, build_id)
    if event is None:
        raise KeyError(f"there is no build {build_id!r}")
    return event


# ── canary ───────────────────────────────────────────────────────────────────────────────────────

# A copied sample has its canary's number; 0 dB is none.
CANARIES = """
SELECT clip_id, psnr_db FROM live_samples
WHERE build_id = ? AND outcome = 'kept' AND psnr_db > 0 ORDER BY clip_id
"""


def canaries(con: duckdb.DuckDBPyConnection, build_id: str) -> dict[str, float]:
    """Round-trip PSNR in dB of a build's canary clips, by clip_id."""
    return dict(con.sql(CANARIES, params=[build_id]).fetchall())


def _canary(
    con: duckdb.DuckDBPyConnection, build_id: str, current: str | None
) -> Iterator[Failure]:
    found = canaries(con, build_id)
    if found and (middle := median(found.values())) < MIN_PSNR_DB:
        clips = sorted(found, key=lambda clip: found[clip])
        lowest = [f"{clip[:SHOWN]} {found[clip]:.1f} dB" for clip in clips[:NAMED]]
        text = (
            f"PSNR of {counted(len(found), 'clip')} decoded again is {middle:.1f} dB in the "
            f"median; expected at least {MIN_PSNR_DB:g} dB. Lowest: {_some(lowest, len(found))}"
        )
        yield Failure("canary", clips[0], middle, f"at least {MIN_PSNR_DB:g} dB", text)
    before = canaries(con, current) if current is not None else {}
    losses = {clip: before[clip] - db for clip, db in found.items() if clip in before}
    if losses and (middle := median(losses.values())) > MAX_PSNR_LOSS_DB:
        clips = sorted(losses, key=lambda clip: -losses[clip])
        most = [
            f"{clip[:SHOWN]} {before[clip]:.1f} → {found[clip]:.1f} dB" for clip in clips[:NAMED]
        ]
        text = (
            f"PSNR of {counted(len(losses), 'clip')} decoded again is {middle:.1f} dB lower in the "
            f"median than in the current build; expected at most {MAX_PSNR_LOSS_DB:g} dB. "
            f"Most: {_some(most, len(losses))}"
        )
        yield Failure("canary", clips[0], middle, f"at most {MAX_PSNR_LOSS_DB:g} dB lower", text)


# ── coverage ─────────────────────────────────────────────────────────────────────────────────────

_PLANNED = """
SELECT count(*) FILTER (outcome = 'kept'),
    count(*) FILTER (outcome = 'kept' OR NOT list_contains(?, reason))
FROM live_samples WHERE build_id = ?
"""

_PLANNED_AGAIN = """
SELECT count(*) FILTER (outcome = 'kept'), count(*)
FROM live_samples SEMI JOIN (
    SELECT clip_id FROM live_samples WHERE build_id = ? AND outcome = 'kept'
) USING (clip_id) WHERE build_id = ?
"""

# Selected now, kept by the current build and without any row in this one.
_WAITING = """
SELECT count(*) FROM ({taken})
SEMI JOIN (SELECT clip_id FROM live_samples WHERE build_id = ? AND outcome = 'kept') USING (clip_id)
ANTI JOIN (SELECT clip_id FROM live_samples WHERE build_id = ?) USING (clip_id)
"""

_REASONS = """
SELECT reason, count(*) FROM live_samples WHERE build_id = ? AND outcome = 'dropped'
GROUP BY reason ORDER BY count(*) DESC, reason
"""


def _coverage(
    con: duckdb.DuckDBPyConnection, build_id: str, current: str | None
) -> Iterator[Failure]:
    """Clips that a plan leaves out count only where the current build has them."""
    ((kept, planned),) = con.sql(_PLANNED, params=[list(map(str, UNFIT)), build_id]).fetchall()
    what, waiting = "planned", 0
    if current is not None and kept and kept >= MIN_KEPT * planned:
        ((kept, planned),) = con.sql(_PLANNED_AGAIN, params=[current, build_id]).fetchall()
        waiting = _waiting(con, build_id, current)
        planned += waiting
        what = "wanted that the current build keeps"
    if kept < MIN_KEPT * planned or (what == "planned" and not kept):
        lost = con.sql(_REASONS, params=[build_id]).fetchall()
        if waiting:
            lost.append(("without a caption, or newer than its last plan,", waiting))
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in lost) or "none was planned"
        text = (
            f"{kept:,} of the {counted(planned, 'sample')} {what} are kept; expected at least "
            f"{MIN_KEPT:.0%}. Dropped: {reasons}"
        )
        share = kept / planned if planned else 0.0
        yield Failure("coverage", build_id, share, f"at least {MIN_KEPT:.0%}", text)


def _waiting(con: duckdb.DuckDBPyConnection, build_id: str, current: str) -> int:
    """Clips that the current build keeps and that wait: for a caption, or for the next plan."""
    event = last_plan(con, build_id)
    spec = DatasetSpec() if event is None else DatasetSpec.model_validate_json(event.spec)
    query = _WAITING.format(taken=taken(con, spec, spec.select.where))
    ((count,),) = con.sql(query, params=[current, build_id]).fetchall()
    return int(count)


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def _some(named: Sequence[str], count: int) -> str:
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    return ", ".join(named) + more
