"""The plan that SQL finds work for is the plan of the pure function over everything there is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telecine.encoders.video.dct import DctEncoder
from telecine.infra.errors import UsageError
from telecine.manifests.buckets import bucket_of
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Build, Sample
from telecine.manifests.specs import DatasetSpec, SelectSpec, ShardSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.build import wanted as wanted_module
from telecine.pipeline.build.plan import Candidate, LiveMember, plan_encoding, sample_bytes
from telecine.pipeline.build.wanted import Target, make_plan
from telecine.pipeline.catalog.selection import check_where
from tests.support.planning import History
from tests.support.rows import make_build, make_clip, make_sample, make_source

TARGET = 1_000_000
SPEC = DatasetSpec(shards=ShardSpec(target_bytes=TARGET))
ENCODER = DctEncoder()
CLIPS = [
    make_clip(clip_id=f"{n:032x}", kind="image", width=480 if n % 3 else 240, height=480)
    for n in range(24)
]
TEXT_BYTES = 60_000  # so that a handful of clips fill a shard


def candidates(texts: Mapping[int, str | None]) -> list[Candidate]:
    """Of the clips that have a text."""
    made = []
    for number, text in texts.items():
        clip = CLIPS[number]
        bucket, encoding = bucket_of(clip, SPEC.buckets), plan_encoding(clip, ENCODER, SPEC.vae)
        assert bucket is not None
        assert encoding is not None
        if text is not None:
            made.append(Candidate(clip.clip_id, text, bucket, sample_bytes(encoding, TEXT_BYTES)))
    return made


def rows(history: History, members: list[LiveMember]) -> list[Sample]:
    """Of the members that came with the history's last plan."""
    return [
        make_sample(
            build_id=history.build_id, plan=history.number - 1, clip_id=m.clip_id,
            captions_digest=m.captions_digest, shard_id=m.shard_id, shard_bytes=m.shard_bytes,
            resolution=m.bucket.resolution, aspect=m.bucket.aspect, duration=m.bucket.duration,
        )
        for m in members
    ]  # fmt: skip


# Few clips change from run to run, and those again and again: most shards stay as they are.
SOME = 8
some = st.sets(st.integers(0, SOME - 1), max_size=4)
edits = st.dictionaries(st.integers(0, SOME - 1), st.sampled_from(["t", "u", None]), max_size=3)
Texts = dict[int, str | None]  # by number of the clip; None: not wanted


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    runs=st.lists(st.tuples(edits, edits, st.booleans()), min_size=1, max_size=3),
    last=edits,
    missing=some,
    unknown=some,
    follows=st.booleans(),
    shared=st.booleans(),
)
def test_settled_shards_stay_in_the_database(
    runs: list[tuple[Texts, Texts, bool]],
    last: Texts,
    missing: set[int],
    unknown: set[int],
    follows: bool,
    shared: bool,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (History(name, TARGET) for name in ("first", "second"))
    events: list[Build] = []
    samples: list[Sample] = []
    every: Texts = dict.fromkeys(range(len(CLIPS)), "t")
    texts = {"first": every | dict.fromkeys(unknown), "second": every | dict.fromkeys(missing)}
    for one, two, follow in runs:
        steps = ((first, None, one), (second, first if follow else None, two))
        for history, followed, edit in steps:
            texts[history.build_id].update(edit)
            wanted = candidates(texts[history.build_id])
            made = history.plan(wanted, followed)
            events.append(
                make_build(
                    build_id=history.build_id, sequence=len(events), plan=history.number,
                    event="completed", replaces=made.replaces,
                    latents_fingerprint="equal" if shared else history.build_id,
                )
            )  # fmt: skip
            history.carry_out(made, wanted)
            new = {s.shard_id for s in made.shards}
            samples += rows(history, [m for m in history.live if m.shard_id in new])
    texts["second"].update(last)
    said = {n: text for n, text in texts["second"].items() if text}
    held = {s.clip_id for s in samples if s.build_id == "second"}
    missing = {n for n in missing if CLIPS[n].clip_id not in held}
    samples += [
        make_sample(
            build_id="second", plan=0, clip_id=CLIPS[n].clip_id, outcome="dropped",
            reason="source_missing", shard_id="",
        )
        for n in missing
    ]  # fmt: skip
    tables = Tables(str(tmp_path_factory.mktemp("dataset")))
    tables.append("clips", CLIPS)
    tables.append("sources", [make_source()])
    tables.append("samples", samples)
    tables.append("builds", events)

    def captions(con: duckdb.DuckDBPyConnection, _: object) -> None:
        columns = {
            "clip_id": pa.array([CLIPS[n].clip_id for n in said], pa.string()),
            "captions_digest": pa.array(list(said.values()), pa.string()),
            "text": pa.array(["x" * (TEXT_BYTES // 2) for _ in said], pa.string()),
            "captions": pa.array(["" for _ in said], pa.string()),
        }
        con.register("sample_captions", pa.table(columns))

    monkeypatch.setattr(wanted_module, "create_sample_captions", captions)
    latents = "equal" if shared else "second"
    target = Target(
        "second", latents, second.number, retry=False, follows="first" if follows else ""
    )
    planned = make_plan(connect(tables), SPEC, ENCODER, target)
    wanted = candidates({n: text for n, text in said.items() if n not in missing})
    expected = second.plan(wanted, first if follows else None)
    assert planned.plan.digest == expected.digest
    assert [s.bucket for s in planned.plan.shards] == [s.bucket for s in expected.shards]
    assert planned.fresh == len({m.shard_id for m in second.live} - set(expected.replaces))
    made = {m.clip_id for m in [*second.live, *(first.live if shared else [])]}
    members = [m for s in planned.plan.shards for m in s.members]
    assert all(m.copied == (m.clip_id in made) for m in members)
    assert planned.canaries == set(sorted(c.clip_id for c in wanted)[:8])
    assert planned.uncaptioned == len(CLIPS) - len(said)


@pytest.mark.parametrize(("spec", "damaged"), [("drop", [0, 2]), ("keep", [])])
def test_clips_with_corrupt_frames_are_left_out(
    spec: Literal["drop", "keep"], damaged: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Those of a Telecine that did not count them are taken."""
    corrupt = [3, 0, 1, None]
    clips = [dataclasses.replace(c, corrupt_frames=n) for c, n in zip(CLIPS, corrupt, strict=False)]
    tables = Tables(str(tmp_path))
    tables.append("clips", clips)
    tables.append("sources", [make_source()])

    def captions(con: duckdb.DuckDBPyConnection, _: object) -> None:
        said = "SELECT clip_id, 't' AS captions_digest, 't' AS text, '' AS captions FROM clips"
        con.execute(f"CREATE TABLE sample_captions AS {said}")

    monkeypatch.setattr(wanted_module, "create_sample_captions", captions)
    asked = SPEC.model_copy(update={"select": SelectSpec(damaged=spec)})
    planned = make_plan(connect(tables), asked, ENCODER, Target("b", "l", 0, False, ""))
    assert [row.clip_id for row in planned.dropped] == [clips[n].clip_id for n in damaged]
    assert {row.reason for row in planned.dropped} <= {"damaged"}
    assert planned.plan.num_samples == len(clips) - len(damaged)


# ── selection ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    made = Tables(str(tmp_path))
    made.append("clips", CLIPS)
    made.append("sources", [make_source()])
    return made


@pytest.mark.parametrize(
    ("where", "clips"),
    [
        ("width < height", 8),
        ("kind = 'video' -- none of them", 0),
        ("list_contains(dominant_colors, 'grey')", 24),
        ("clip_id IN ('00000000000000000000000000000003', 'x')", 1),
        ("regexp_matches(clip_id, '[0-4]$')", 10),
    ],
)
def test_a_condition_takes_clips(where: str, clips: int, tables: Tables) -> None:
    con = connect(tables)
    assert check_where(con, SPEC, where) == clips
    selected = SPEC.model_copy(update={"select": SelectSpec(where=where)})
    planned = make_plan(con, selected, ENCODER, Target("b", "l", 0, retry=False, follows=""))
    assert planned.uncaptioned == clips


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("colour = 'red'", 'column "colour" not found'),
        ("width >", "syntax error"),
        ("width > 1; DROP TABLE clips", "Parser Error"),
        ("width, height", "syntax error at or near"),
        ("clip_id::DATE < '2020-01-01'", "Conversion Error"),
        ("(SELECT count(*) FROM read_text('/etc/hostname')) > 0", "a query within it"),
        ("random() < 0.5", "random() is not the same at every run"),
        ("width > 0 AND today() > DATE '2020-01-01'", "today() is not the same"),
        ("clip_id IN (SELECT clip_id FROM current_clips LIMIT 1)", "a query within it"),
        ("clip_id IN (SELECT clip_id FROM clips USING SAMPLE 50%)", "a query within it"),
        ("(SELECT count(*) FROM samples) = 0 -- yet", "a query within it"),
        ("width > 0 AND EXISTS (FROM stills)", "a query within it"),
        ("CURRENT_DATE > DATE '2020-01-01'", "current_date() is not the same"),
    ],
)
def test_what_is_no_condition_over_clips_is_refused(where: str, why: str, tables: Tables) -> None:
    with pytest.raises(UsageError, match=f"(?s){re.escape(why)}.*columns clip_id, source_id"):
        check_where(connect(tables), SPEC, where)
