"""Gates: what must keep a build from being promoted does, by name and by how much."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.video.dct import MEAN, STD
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Sample, from_arrow, to_arrow
from telecine.manifests.tables import Tables
from telecine.pipeline.lifecycle.channels import Channel, pooled
from telecine.pipeline.lifecycle.gates import (
    MAX_MEAN,
    MAX_RATIO,
    MAX_SHIFT,
    MIN_PSNR_DB,
    Failure,
    Model,
    against_build,
    against_model,
    gates,
)
from tests.support.inline import ingest
from tests.support.rows import make_build, make_clip, make_sample, make_source

NEW, OLD = "n" * 32, "o" * 32
SHAPE = (2, 3, 4, 5)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def add_build(
    tables: Tables, build_id: str, samples: Sequence[Sample], spec: str = "{}", **identity: Any
) -> None:
    """A build of one completed plan."""
    event = make_build(
        build_id=build_id,
        name=build_id[:4],
        event="completed",
        sequence=tables.dataset("builds").count_rows(),
        vae=json.dumps({"name": "dct", **identity}),
        spec=spec,
    )
    tables.append("builds", [event])
    tables.append("samples", samples)


def sample(clip_id: str, build_id: str = NEW, **facts: Any) -> Sample:
    usual = {"latent_shape": SHAPE, "channel_means": (0.0, 0.0), "channel_stds": (1.0, 1.0)}
    return make_sample(clip_id=clip_id, build_id=build_id, **{**usual, **facts})


def dropped(clip_id: str, reason: str, build_id: str = NEW) -> Sample:
    return make_sample(clip_id=clip_id, build_id=build_id, outcome="dropped", reason=reason)


def found(tables: Tables, against: str | None = None) -> list[Failure]:
    return gates(connect(tables), NEW, against)


def only(tables: Tables, against: str | None = None) -> Failure:
    (failure,) = found(tables, against)
    return failure


def test_a_good_build_passes_alone_and_beside_another(tables: Tables) -> None:
    for build_id in (NEW, OLD):
        add_build(tables, build_id, [sample("a", build_id, psnr_db=31.0)])
    assert found(tables) == found(tables, OLD) == found(tables, NEW) == []


def test_a_build_that_is_not_there_is_an_error(tables: Tables) -> None:
    tables.append("samples", [sample("a")])
    tables.append("builds", [make_build(build_id=OLD, event="completed")])
    with pytest.raises(KeyError, match="no build"):
        gates(connect(tables), OLD, NEW)


def test_builds_that_keep_nothing_have_no_statistics(tables: Tables) -> None:
    raw = {"normalise": False, "latents_mean": [0.0], "latents_std": [1.0]}
    for build_id in (NEW, OLD):
        add_build(tables, build_id, [dropped("a", "undecodable", build_id)], **raw)
    failure = only(tables, OLD)
    assert failure.text.startswith("0 of the 1 sample planned are kept")
    assert failure.text.endswith("Dropped: undecodable 1")
    add_build(tables, "m" * 32, [sample("a", "m" * 32)])
    assert gates(connect(tables), "m" * 32, OLD) == []


def test_a_plan_that_is_not_completed_is_nothing_to_judge(tables: Tables) -> None:
    tables.append("builds", [make_build(build_id=NEW, event="planned")])
    tables.append("samples", [sample("a", channel_means=(90.0, 90.0))])
    assert [f.gate for f in found(tables)] == ["coverage"]


# ── finite ───────────────────────────────────────────────────────────────────────────────────────


def test_clips_that_are_not_finite_are_counted_and_named(tables: Tables) -> None:
    bad = [dropped(f"bad{n}", "not_finite") for n in range(7)]
    good = [sample(f"good{n}") for n in range(9)]
    add_build(tables, NEW, [*good, *bad, dropped("gone", "source_missing")])
    failure = only(tables)
    assert (failure.gate, failure.subject, failure.value) == ("finite", "bad0", 7)
    assert "7 clips: bad0, bad1, bad2 and 4 more" in failure.text


# ── statistics ───────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=20, deadline=None)  # each opens a database
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.floats(-5, 5), st.floats(0, 5)), min_size=1, max_size=5
    ),
    st.integers(0, 2**32 - 1),
)
def test_pooling_is_that_of_all_values_together(
    clips: list[tuple[int, float, float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    latents = [rng.normal(mean, std, (2, 1, 2, width)) for width, mean, std in clips]
    con = connect(Tables("/nowhere"))
    rows = [
        sample(
            str(n),
            latent_shape=values.shape,
            channel_means=tuple(values.mean((1, 2, 3)).tolist()),
            channel_stds=tuple(values.std((1, 2, 3)).tolist()),
        )
        for n, values in enumerate(latents)
    ]
    con.execute("DROP VIEW current_samples; DROP VIEW live_samples")
    con.register("live_samples", to_arrow(rows, Sample))
    everything = np.concatenate([values.reshape(2, -1) for values in latents], axis=1)
    channels = pooled(con, NEW)
    assert [c.number for c in channels] == [0, 1]
    assert [c.mean for c in channels] == pytest.approx(everything.mean(1).tolist(), abs=1e-9)
    assert [c.std for c in channels] == pytest.approx(everything.std(1).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("means", "stds", "channel", "value", "words"),
    [
        ((0.0, -3.5), (1.0, 1.0), 1, -3.5, "means.*-3 to 3, but channel 1 -3.5 .of 2 channels"),
        ((0.0, 0.0), (0.1, 5.0), 1, 5.0, "at most 4"),
        (
            (0.0, 0.0),
            (2.2, 2.1),
            0,
            2.2,
            "1.5 in root mean square.*, but channel 0 2.2, channel 1 2.1 ",
        ),
        ((0.0, 0.0), (0.5, 0.1), 0, 0.5, "at least 0.75 in one channel"),
    ],
)
def test_channels_far_from_the_models_own(
    means: tuple[float, ...],
    stds: tuple[float, ...],
    channel: int,
    value: float,
    words: str,
    tables: Tables,
) -> None:
    add_build(tables, NEW, [sample("a", channel_means=means, channel_stds=stds)])
    (failure,) = [f for f in found(tables) if re.search(words, f.text)]
    assert (failure.gate, failure.subject) == ("statistics", f"channel {channel}")
    assert failure.value == pytest.approx(value)


def test_a_channel_that_collapses_on_grey_footage_is_no_failure(tables: Tables) -> None:
    add_build(tables, NEW, [sample("a", channel_stds=(1.1, 0.0))])
    assert found(tables) == []


def test_the_clips_furthest_out_are_named(tables: Tables) -> None:
    means = {"low": -9.0, "fine": 0.2, "far": -20.0}
    rows = [sample(c, channel_means=(mean, 0.0)) for c, mean in means.items()]
    add_build(tables, NEW, rows)
    text = next(f.text for f in found(tables) if f.text.startswith("channel means"))
    assert "furthest out in channel 0" in text
    assert text.index("far (mean -20, std 1)") < text.index("low (mean -9") < text.index("fine")


def test_raw_latents_are_measured_by_the_models_constants(tables: Tables) -> None:
    facts = {"channel_means": (10.0, -4.0), "channel_stds": (3.0, 8.0)}
    identity = {"normalise": False, "latents_mean": [9.0, -4.0], "latents_std": [3.0, 8.0]}
    add_build(tables, NEW, [sample("a", **facts)], **identity)
    assert found(tables) == []
    add_build(tables, OLD, [sample("a", OLD, **facts)])  # said to be normalised
    assert {f.gate for f in gates(connect(tables), OLD)} == {"statistics"}


def test_constants_by_latent_frame_count_as_those_of_later_frames() -> None:
    identity = {"normalise": False, "latents_mean": [9, 8, 1, 7, 6, 2], "latents_std": [5] * 6}
    model = Model.of(identity, 2)
    assert (model.means, model.stds) == ((1.0, 2.0), (5.0, 5.0))


def test_a_model_may_scale_its_normalised_latents() -> None:
    half = [Channel(n, 0.0, 0.5) for n in range(2)]
    assert against_model(half, Model.of({"scale": 0.5}, 2)) == []
    assert against_model(half, Model.of({}, 2))


def test_log_variances_are_not_measured(tables: Tables) -> None:
    def moments(clip: str, build_id: str, log_variance: float) -> Sample:
        means = (0.1, -0.1, log_variance, log_variance)
        stds = (1.0, 1.0, 0.1, 6.0)
        shape = (4, 3, 4, 5)
        return sample(clip, build_id, latent_shape=shape, channel_means=means, channel_stds=stds)

    for build_id, log_variance in ((NEW, -12.0), (OLD, -6.0)):
        row = moments("a", build_id, log_variance)
        add_build(tables, build_id, [row], posterior="moments")
    assert found(tables, OLD) == []


@pytest.mark.parametrize(
    ("means", "stds", "words"),
    [
        ((0.3, 0.0), (1.0, 1.0), "shift of channel means.*, but channel 0 0.3 "),
        ((0.0, 0.0), (1.0, 0.6), "multiples of the current build's.*, but channel 1 0.6 "),
    ],
)
def test_channels_far_from_the_current_builds(
    means: tuple[float, ...], stds: tuple[float, ...], words: str, tables: Tables
) -> None:
    facts = {"channel_means": means, "channel_stds": stds}
    add_build(tables, OLD, [sample("a", OLD), sample("z", OLD, channel_means=(1.0, 1.0))])
    add_build(tables, NEW, [sample("a", **facts), sample("b")])
    failure = only(tables, OLD)  # only the clips of both are compared
    assert re.search(words, failure.text)
    assert f"a (mean {means[0] if 'shift' in words else means[1]:.3g}" in failure.text
    assert "was 0, 1" in failure.text
    assert found(tables) == []


@pytest.mark.parametrize(
    "other",
    [
        {"class": "AutoencoderKLWan"},
        {"name": "wan"},
        {"posterior": "sample"},
        {"normalise": False, "latents_mean": [2.5, 2.5], "latents_std": [1, 1]},
    ],
)
def test_channels_that_mean_something_else_are_not_compared(
    other: dict[str, Any], tables: Tables
) -> None:
    add_build(tables, OLD, [sample("a", OLD, channel_means=(2.5, 2.5))], **other)
    add_build(tables, NEW, [sample("a")])
    assert found(tables, OLD) == []


def test_what_the_current_build_is_like_too_is_the_footages_doing(tables: Tables) -> None:
    dull = {"channel_stds": (0.3, 0.01)}
    add_build(tables, OLD, [sample("a", OLD, **dull)])
    add_build(tables, NEW, [sample("a", **dull)])
    assert found(tables)
    assert found(tables, OLD) == []


channels = st.lists(
    st.tuples(st.floats(-10, 10), st.floats(0, 10)).map(lambda c: (0, c[0], round(c[1], 3))),
    min_size=1,
    max_size=6,
)


@given(channels, st.floats(0, 3), st.floats(0.2, 4))
def test_a_shift_and_a_factor_are_found_where_they_are(
    rows: list[tuple[int, float, float]], shift: float, factor: float
) -> None:
    old = [Channel(*row) for row in rows]
    assert against_build(old, old) == []
    alive = max(channel.std for channel in old)
    moved = [Channel(0, c.mean + shift * alive, c.std * factor) for c in old]
    checks = {check.order: check for check in against_build(moved, old)}
    if alive > 0 and shift > MAX_SHIFT + 1e-6:
        assert any("shift" in check.what for check in checks.values())
    if alive > 0 and not 1 / MAX_RATIO - 1e-6 < factor < MAX_RATIO + 1e-6:
        assert any("multiples" in check.what for check in checks.values())
    for check in checks.values():
        assert check.bad[check.worst]


@given(channels, st.booleans())
def test_a_channel_is_judged_in_the_models_units(
    rows: list[tuple[int, float, float]], normalise: bool
) -> None:
    """The same latents stored raw and normalised fail the same checks."""
    stored = [Channel(*row) for row in rows]
    raw = [Channel(0, 2 * c.mean + 4, 2 * c.std) for c in stored]
    own = {"normalise": False, "latents_mean": [4] * len(raw), "latents_std": [2] * len(raw)}
    as_raw = against_model(raw, Model.of(own, len(raw)))
    as_normalised = against_model(stored, Model.of({}, len(stored)))
    assert {c.expected for c in as_raw} == {c.expected for c in as_normalised}
    assert bool(as_normalised) >= (max(abs(c.mean) for c in stored) > MAX_MEAN)


# ── canary ───────────────────────────────────────────────────────────────────────────────────────


def test_canaries_that_do_not_look_like_their_clips(tables: Tables) -> None:
    values = {"a": 9.5, "b": 31.0, "c": 8.25, "not one": 0.0}
    add_build(tables, NEW, [sample(clip, psnr_db=db) for clip, db in values.items()])
    failure = only(tables)
    assert (failure.gate, failure.subject, failure.value) == ("canary", "c", 9.5)
    assert "c 8.2 dB, a 9.5 dB, b 31.0 dB" in failure.text
    assert "not one" not in failure.text
    assert failure.expected == f"at least {MIN_PSNR_DB:g} dB"


def test_canaries_are_compared_on_the_clips_of_both_builds(tables: Tables) -> None:
    old = {"a": 35.0, "b": 40.0, "c": 30.0, "gone": 90.0}
    new = {"a": 31.5, "b": 36.0, "c": 29.0, "fresh": 21.0}
    add_build(tables, OLD, [sample(c, OLD, psnr_db=db) for c, db in old.items()])
    add_build(tables, NEW, [sample(c, psnr_db=db) for c, db in new.items()])
    assert found(tables) == []
    failure = only(tables, OLD)
    assert (failure.gate, failure.subject, failure.value) == ("canary", "b", 3.5)
    assert "b 40.0 → 36.0 dB, a 35.0 → 31.5 dB, c 30.0 → 29.0 dB" in failure.text


def test_canaries_that_look_better_pass(tables: Tables) -> None:
    add_build(tables, OLD, [sample("a", OLD, psnr_db=25.0)])
    add_build(tables, NEW, [sample("a", psnr_db=45.0)])
    assert found(tables, OLD) == []


# ── coverage ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kept", "lost", "unfit", "share"),
    [(2, 2, 0, None), (1, 2, 0, 1 / 3), (0, 0, 0, 0.0), (0, 0, 3, 0.0), (2, 1, 9, None)],
)
def test_how_much_of_what_was_planned_is_there(
    kept: int, lost: int, unfit: int, share: float | None, tables: Tables
) -> None:
    rows = [sample(f"k{n}") for n in range(kept)]
    rows += [dropped(f"l{n}", "source_missing") for n in range(lost)]
    rows += [dropped(f"u{n}", "no_bucket") for n in range(unfit)]
    add_build(tables, NEW, rows)
    failures = [(f.gate, f.subject, f.value) for f in found(tables)]
    assert failures == ([] if share is None else [("coverage", NEW, pytest.approx(share))])


def test_clips_that_only_the_new_build_has_no_bucket_for(tables: Tables) -> None:
    add_build(tables, OLD, [sample(clip, OLD) for clip in "abc"])
    add_build(tables, NEW, [sample("a"), *(dropped(clip, "no_bucket") for clip in "bcd")])
    assert found(tables) == []
    failure = only(tables, OLD)
    assert failure.value == pytest.approx(1 / 3)
    assert "1 of the 3 samples wanted that the current build keeps" in failure.text
    assert "no_bucket 3" in failure.text


def test_clips_that_were_not_selected_are_no_loss(tables: Tables) -> None:
    add_build(tables, OLD, [sample(clip, OLD) for clip in "abcdef"])
    add_build(tables, NEW, [sample("a")])
    assert found(tables, OLD) == []


@pytest.mark.parametrize(("where", "lost"), [(None, 9), ("width > 0 -- all", 9), ("false", 0)])
def test_clips_that_wait_for_a_caption_are_lost(
    where: str | None, lost: int, tables: Tables
) -> None:
    """They have no row; what is no longer current, or not selected now, is no loss."""
    clips = [f"{n}" for n in range(10)]
    tables.append("clips", [make_clip(clip_id=clip) for clip in [*clips, "new"]])
    tables.append("sources", [make_source()])
    add_build(tables, OLD, [sample(clip, OLD) for clip in [*clips, "of footage that is gone"]])
    add_build(tables, NEW, [sample("0")], spec=json.dumps({"select": {"where": where}}))
    assert found(tables) == []
    if not lost:
        assert found(tables, OLD) == []
        return
    failure = only(tables, OLD)
    assert (failure.gate, failure.value) == ("coverage", pytest.approx(1 / 10))
    assert "1 of the 10 samples wanted that the current build keeps are kept" in failure.text
    assert failure.text.endswith("without a caption, or newer than its last plan, 9")


# ── latents of the real encoder ──────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def encoded(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Rows of footage through the DCT, as a run leaves them."""
    folder = tmp_path_factory.mktemp("gates")
    (folder / "footage").mkdir()
    for name in ("landscape.mp4", "square with caption.mp4", "photo.jpg"):
        shutil.copy(demo_footage / name, folder / "footage")
    ingest(str(folder / "footage"), str(folder / "dataset"))
    con = connect(Tables(str(folder / "dataset")))
    return from_arrow(con.sql("FROM current_samples").to_arrow_table(), Sample)


def normalised_by(
    rows: list[Sample], means: Sequence[float], stds: Sequence[float]
) -> list[Sample]:
    """The same latents under other constants: an affine map of each channel, so of its numbers."""
    return [
        dataclasses.replace(
            row,
            build_id=NEW,
            channel_means=tuple(
                (value * s + m - mean) / std
                for value, s, m, mean, std in zip(
                    row.channel_means, STD, MEAN, means, stds, strict=True
                )
            ),
            channel_stds=tuple(
                value * s / std for value, s, std in zip(row.channel_stds, STD, stds, strict=True)
            ),
        )
        for row in rows
    ]


ZERO = (0.0,) * len(MEAN)
DOUBLED = tuple(2 * std for std in STD)


def test_the_right_constants_pass(encoded: list[Sample], tables: Tables) -> None:
    add_build(tables, OLD, [dataclasses.replace(row, build_id=OLD) for row in encoded])
    add_build(tables, NEW, normalised_by(encoded, MEAN, STD))
    assert found(tables) == found(tables, OLD) == []
    assert any(row.psnr_db > MIN_PSNR_DB for row in encoded)


@pytest.mark.parametrize(
    ("means", "stds", "alone"),
    [
        pytest.param(ZERO, STD, False, id="mean left out"),
        pytest.param(MEAN, DOUBLED, False, id="deviation doubled"),
        pytest.param(ZERO, DOUBLED, False, id="both"),
        pytest.param(ZERO, (1.0,) * len(STD), True, id="not normalised"),
        pytest.param(MEAN[::-1], STD[::-1], False, id="channels in another order"),
        pytest.param(MEAN, tuple(s * 0.18215 for s in STD), True, id="scaling factor left out"),
    ],
)
def test_wrong_constants_fail(
    means: Sequence[float],
    stds: Sequence[float],
    alone: bool,
    encoded: list[Sample],
    tables: Tables,
) -> None:
    """Beside the right build all of them; on their own those far outside what footage explains."""
    add_build(tables, OLD, [dataclasses.replace(row, build_id=OLD) for row in encoded])
    add_build(tables, NEW, normalised_by(encoded, means, stds))
    assert {f.gate for f in found(tables, OLD)} == {"statistics"}
    if alone:
        assert {f.gate for f in found(tables)} == {"statistics"}
