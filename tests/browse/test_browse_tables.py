"""browse: pages, fates and bars over rows that were made up to be awkward."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import randbytes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.load import load_captioner
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset, open_dataset
from telecine.manifests.schemas import Row
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.browse.charts import charts, ends
from telecine.pipeline.browse.clip import clip_facts
from telecine.pipeline.browse.listing import Asked, clip_ids
from telecine.pipeline.browse.overview import overview
from telecine.pipeline.browse.snapshot import Once, Snapshot, Watch
from telecine.pipeline.browse.stills import StillFiles, Stills, read_stills
from telecine.pipeline.catalog.captions import inputs
from tests.support.rows import (
    make_build,
    make_caption,
    make_clip,
    make_sample,
    make_source,
    make_still,
)
from tests.support.s3 import S3Server

MOTION = [0.0, 0.0, 0.1, 0.1, 0.1, 0.25, 0.5, 1.0, 7.0]
SELECTED = "motion < 5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips: three in the current build, one dropped from it, one not selected, others wait
    for their captions or for the build; one whose source was replaced, which the build keeps.
    """
    root = tmp_path_factory.mktemp("browse") / "dataset"
    spec = DatasetSpec.model_validate(
        {"caption": {"captioner": "signal"}, "select": {"where": SELECTED}}
    )
    tables = create_dataset(str(root), Storage(), spec).tables
    clips = [f"{n:032x}" for n in range(len(MOTION))]
    rows: dict[str, Sequence[Row]] = {
        "stills": [
            make_still(clip_id=c, position=p, jpeg=f"{c} {p}".encode())
            for c in clips
            for p in (1, 0)
        ],
        "clips": [
            *(make_clip(clip_id=c, motion=m) for c, m in zip(clips, MOTION, strict=True)),
            make_clip(clip_id="gone", source_id="old"),
        ],
        "sources": [
            make_source(uri="/a", num_clips=9, num_frames=500, frames_kept=450, frames_dropped=50),
            make_source(uri="/b", source_id="old"),
            make_source(uri="/b", source_id="new", revision=1, status="rejected", reason="empty"),
            *(
                make_source(uri=f"/r{n}", source_id=f"r{n}", status="rejected", reason="corrupt")
                for n in range(60)
            ),
            make_source(uri="/c", source_id="twin", status="duplicate", duplicate_of="s" * 32),
        ],
        "samples": [
            *(make_sample(clip_id=c) for c in (*clips[:3], "gone")),
            make_sample(clip_id=clips[3], outcome="dropped", reason="no_bucket", shard_id=""),
        ],
        "builds": [
            make_build(sequence=n, event=e)
            for n, e in enumerate(("planned", "completed", "promoted"))
        ],
    }
    for name, some in rows.items():
        tables.append(name, some)
    return root


@pytest.fixture(scope="module")
def snapshot(folder: Path) -> Snapshot:
    return Snapshot(open_dataset(str(folder), Storage()))


SORTS = st.sampled_from(["clip_id", "motion", "kind", "in_build", "bucket_resolution"])


@settings(max_examples=8, deadline=None, derandomize=True)
@given(size=st.integers(2, 10), sort=SORTS, descending=st.booleans())
def test_pages_forward_and_back_have_every_clip_once_in_order(
    snapshot: Snapshot, size: int, sort: str, descending: bool
) -> None:
    def page(**beside: Any) -> tuple[int, int, list[str]]:
        asked = Asked(sort=sort, descending=descending, where="motion >= 0", **beside)
        with snapshot.asking() as con:
            return clip_ids(con, snapshot.spec, asked, snapshot.columns)

    total, first, whole = page()
    assert (total, first, len(set(whole))) == (len(MOTION), 1, len(MOTION))
    if sort == "motion":
        ordered = sorted(range(total), key=lambda n: (-MOTION[n] if descending else MOTION[n], n))
        assert whole == [f"{n:032x}" for n in ordered]
    pages = [page(size=size)]
    while (last := pages[-1])[1] + len(last[2]) - 1 < total:
        pages.append(page(size=size, after=last[2][-1]))
    assert [clip_id for _, _, ids in pages for clip_id in ids] == whole
    assert [first for _, first, _ in pages] == [1 + size * n for n in range(len(pages))]
    for earlier, later in pairwise(pages):
        assert page(size=size, before=later[2][0]) == earlier


def test_every_clip_has_one_fate_and_a_clause_that_takes_it(snapshot: Snapshot) -> None:
    found = overview(snapshot)
    fates = {part.name: part for part in found.funnel.clips}
    assert {name: part.count for name, part in fates.items()} == {
        "kept": 3, "dropped: no_bucket": 1, "not selected": 1, "without a caption": 4,
    }  # fmt: skip
    assert sum(part.frames for part in fates.values()) == 50 * len(MOTION)
    assert fates["kept"].share == pytest.approx(150 / 500)
    assert found.funnel.gone == 1  # the build keeps it, but its source was replaced
    for part in fates.values():
        with snapshot.asking() as con:
            asked = Asked(where=part.where, place=part.place)
            total, _, ids = clip_ids(con, snapshot.spec, asked, snapshot.columns)
        assert total == len(ids) == part.count
    sources = {part.name: part.count for part in found.funnel.sources}
    assert sources == {
        "scanned": 1, "rejected: corrupt": 60, "rejected: empty": 1, "the same bytes as another": 1,
    }  # fmt: skip


def test_a_clip_that_waits_for_the_build_is_said_to(folder: Path) -> None:
    opened = open_dataset(str(folder), Storage())
    watch = Watch(opened)
    old = watch.snapshot
    assert watch.look() is old  # not so soon
    watch._next = 0.0
    assert watch.look() is old  # there is nothing new
    clip = f"{5:032x}"
    with old.asking() as con:
        captioner = load_captioner(opened.spec.caption)
        query = f"SELECT input_digest FROM ({inputs(captioner.uses)}) WHERE clip_id = ?"
        ((input_digest,),) = con.sql(query, params=[clip]).fetchall()
    opened.tables.append(
        "captions",
        [
            make_caption(
                clip_id=clip, captioner_fingerprint=captioner.fingerprint, input_digest=input_digest
            )
        ],
    )
    watch._next = 0.0
    new = watch.look()
    assert new is not old
    fates = {part.name: part.count for part in overview(new).funnel.clips}
    assert (fates["without a caption"], fates["not built yet"]) == (3, 1)
    with new.asking() as con:
        known = clip_facts(con, new.spec, clip)
    with new.asking() as con:
        gone = clip_facts(con, new.spec, "gone")
    assert [told.in_force for told in known.captions] == [True]
    assert known.is_current
    assert not gone.is_current
    assert [build.kept for build in gone.builds] == [True]


# ── charts ───────────────────────────────────────────────────────────────────────────────────────


def test_bars_are_open_at_their_ends_and_the_lower_end_is_not_in_them(snapshot: Snapshot) -> None:
    with snapshot.asking() as con:
        found = charts(con, snapshot.spec, snapshot.columns)
    motion = next(h for h in found.histograms if h.name == "motion")
    assert (motion.lowest, motion.highest, motion.without) == (0.0, 7.0, 0)
    first = motion.bars[0]
    assert (first.low, first.high, first.clips, first.where) == (None, 0.0, 2, "motion <= 0")
    assert motion.bars[1].where == "motion > 0 AND motion <= 0.5"
    assert sum(bar.clips for bar in motion.bars) == len(MOTION)
    black = next(h for h in found.histograms if h.name == "black_share")
    assert [(bar.where, bar.clips) for bar in black.bars] == [("black_share = 0", 9)]


@given(low=st.floats(-1e6, 1e6, allow_nan=False), width=st.floats(1e-6, 1e6), whole=st.booleans())
def test_bars_cover_what_is_to_be_shown_in_round_numbers(
    low: float, width: float, whole: bool
) -> None:
    high = low + width
    found = ends(low, high, whole=whole)
    assert found[0] <= Decimal(low)
    assert found[-1] >= Decimal(high)
    steps = {b - a for a, b in pairwise(found)}
    assert len(steps) <= 1
    assert len(found) <= 28
    for step in steps:
        assert step.normalize().as_tuple().digits in ((1,), (2,), (5,))
        assert step >= 1 or not whole


# ── what is kept at hand ─────────────────────────────────────────────────────────────────────────


def test_stills_are_asked_for_together_and_once(snapshot: Snapshot) -> None:
    stills = Stills(snapshot)
    clips = [f"{n:032x}" for n in range(len(MOTION))]
    stills.expect(clips)
    assert [stills.get(c, 1) for c in clips] == [f"{c} 1".encode() for c in clips]
    assert list(stills.of(clips[0])) == [0, 1]
    assert stills.get("nonesuch", 0) is None


def test_only_the_files_that_hold_a_source_are_opened(root: str) -> None:
    dataset = create_dataset(root, Storage(), None)
    for n in range(4):
        still = make_still(clip_id=f"c{n}", source_id=f"s{n % 3}", jpeg=f"{n}".encode())
        dataset.tables.append("stills", [still])
        dataset.tables.append("clips", [make_clip(clip_id=f"c{n}", source_id=f"s{n % 3}")])
    files, snapshot = StillFiles(few=1), Snapshot(dataset)
    assert files.of(snapshot, ["c0"]) is None  # not learnt yet: every file may
    files.learn(snapshot, dataset.tables.files("stills"))
    assert [len(files.of(snapshot, [c]) or ()) for c in ("c0", "c1", "c2", "c3")] == [2, 1, 1, 2]
    asked = ["c0", "c1", "c2", "c3", "nonesuch"]
    found = read_stills(snapshot, asked, files)
    assert found == read_stills(snapshot, asked)
    assert found["c2"] == {0: b"2"}
    dataset.tables.append("stills", [make_still(clip_id="c4", source_id="s4", jpeg=b"4")])
    dataset.tables.append("clips", [make_clip(clip_id="c4", source_id="s4")])
    later = Snapshot(dataset)
    assert read_stills(later, ["c4"], files) == {"c4": {0: b"4"}}
    files.close()


def test_of_a_store_only_some_row_groups_are_read(s3: S3Server) -> None:
    dataset = create_dataset(s3.uri("d"), Storage(), None)
    stills = [
        make_still(clip_id=f"c{n // 3}", position=n % 3, jpeg=randbytes(5_000))
        for n in range(2_000)
    ]
    dataset.tables.append("stills", stills)
    dataset.tables.append("stills", [make_still(clip_id="other", jpeg=randbytes(5_000))])
    opened = open_dataset(dataset.uri, dataset.storage)
    asked = ["c500", "c85", "nonesuch"]  # c85 lies in two row groups of 256
    expected = [s for s in stills if s.clip_id in asked]
    found = read_stills(Snapshot(opened), asked)
    assert 3 * 256 * 5_000 < opened.tables.bytes_read < 4 * 256 * 5_000
    assert {c: list(jpegs.values()) for c, jpegs in found.items()} == {
        c: [s.jpeg for s in expected if s.clip_id == c] for c in asked
    }


def test_what_takes_long_is_worked_out_once_and_a_failure_is_not_kept() -> None:
    once, made = Once(most=2), []

    def fail() -> int:
        made.append("fail")
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            once.get("a", fail)
    assert [once.get("b", lambda: made.append("b") or 1) for _ in range(2)] == [1, 1]
    assert made == ["fail", "fail", "b"]
    for key in "cd":
        once.get(key, lambda: 0)
    assert once.get("b", lambda: 2) == 2  # two others were wanted since


def test_a_question_that_takes_too_long_is_given_up(folder: Path) -> None:
    asked = Snapshot(open_dataset(str(folder), Storage()), query_seconds=0.3)
    many = "SELECT count(*) FROM range(100000) a, range(10000000) b WHERE a.range * b.range = 7"
    with pytest.raises(UsageError, match="without an answer"), asked.asking() as con:
        con.sql(many).fetchall()
