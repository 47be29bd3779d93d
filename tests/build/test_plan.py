"""The planner: every wanted clip in exactly one shard, none over budget, whatever the order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.manifests.buckets import Bucket, bucket_of, nearest_aspect
from telecine.manifests.specs import BucketSpec
from telecine.pipeline.build.plan import Candidate, LiveMember, Plan, plan_shards
from tests.support.planning import TARGET, History, written
from tests.support.rows import make_clip

BUCKETS = (Bucket(480, "16x9", "4s"), Bucket(480, "16x9", "8s"), Bucket(720, "1x1", "image"))

candidates = st.lists(
    st.builds(
        Candidate,
        clip_id=st.integers(0, 10**6).map(lambda n: f"{n:032x}"),
        captions_digest=st.sampled_from(["a", "b"]),
        bucket=st.sampled_from(BUCKETS),
        size_bytes=st.integers(1, 1500),
    ),
    unique_by=lambda c: c.clip_id,
    max_size=40,
)


def plan(wanted: list[Candidate], live: list[LiveMember] | None = None, number: int = 0) -> Plan:
    return plan_shards(wanted, live or [], build_id="b", number=number, target_bytes=TARGET)


@given(candidates)
def test_each_clip_once_in_its_bucket_and_within_budget(wanted: list[Candidate]) -> None:
    made = plan(wanted)
    by_id = {c.clip_id: c for c in wanted}
    assert Counter(m.clip_id for s in made.shards for m in s.members) == Counter(list(by_id))
    for shard in made.shards:
        sizes = [by_id[m.clip_id].size_bytes for m in shard.members]
        assert sum(sizes) <= TARGET or len(sizes) == 1
        assert {by_id[m.clip_id].bucket for m in shard.members} == {shard.bucket}
        assert not any(m.copied for m in shard.members)


@given(candidates, st.randoms())
def test_input_order_is_irrelevant(wanted: list[Candidate], random: object) -> None:
    shuffled = list(wanted)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(shuffled) == plan(wanted)


@given(candidates)
def test_planning_what_exists_plans_nothing(wanted: list[Candidate]) -> None:
    assert plan(wanted, written(plan(wanted), wanted)) == Plan((), ())


@given(candidates, st.data())
def test_after_any_change_each_wanted_clip_is_in_one_shard(
    wanted: list[Candidate], data: st.DataObject
) -> None:
    first = data.draw(st.lists(st.sampled_from(wanted), unique=True) if wanted else st.just([]))
    live = written(plan(first), first)
    changed = [
        dataclasses.replace(
            c,
            captions_digest=data.draw(st.sampled_from(["a", "b"])),
            copied=data.draw(st.booleans()),
        )
        for c in wanted
        if data.draw(st.booleans())
    ]
    made = plan(changed, live, 1)
    kept = [m for m in live if m.shard_id not in made.replaces]
    new = [m for s in made.shards for m in s.members]
    assert Counter([m.clip_id for m in kept + new]) == Counter(c.clip_id for c in changed)
    texts = {c.clip_id: c.captions_digest for c in changed}
    assert all(texts[m.clip_id] == m.captions_digest for m in kept)
    copied = {c.clip_id: c.copied for c in changed}
    assert all(m.copied == copied[m.clip_id] for m in new)


@given(st.lists(candidates, min_size=2, max_size=6))
def test_a_name_never_comes_back(wishes: list[list[Candidate]]) -> None:
    """Whatever is wanted, unwanted and wanted again: a replaced shard's name stays gone."""
    live: list[LiveMember] = []
    names: set[str] = set()
    for number, wanted in enumerate(wishes):
        made = plan(wanted, live, number)
        new = [s.shard_id for s in made.shards]
        assert len(set(new)) == len(new)
        assert names.isdisjoint(new)
        names.update(new)
        live = [m for m in live if m.shard_id not in made.replaces] + written(made, wanted)
        assert Counter(m.clip_id for m in live) == Counter(c.clip_id for c in wanted)


def candidate(n: int, size: int, text: str = "a") -> Candidate:
    return Candidate(f"{n:032x}", text, BUCKETS[0], size)


def test_a_small_shard_is_topped_up_and_a_full_one_is_left_alone() -> None:
    first = [candidate(1, 600), candidate(2, 600)]
    live = written(plan(first), first)
    made = plan([*first, candidate(3, 300)], live)
    assert made.replaces == ()  # 600 of 1000 bytes is no small shard
    small = [candidate(1, 300)]
    made = plan([*small, candidate(3, 300)], live := written(plan(small), small))
    assert made.replaces == (live[0].shard_id,)
    assert [len(s.members) for s in made.shards] == [2]


def test_a_new_text_replaces_its_shard() -> None:
    first = [candidate(1, 300), candidate(2, 300)]
    made = plan([first[0], candidate(2, 300, "b")], live := written(plan(first), first))
    assert made.replaces == (live[0].shard_id,)
    assert [len(s.members) for s in made.shards] == [2]


# ── a build that follows another ─────────────────────────────────────────────────────────────────


def members(live: list[LiveMember]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for member in live:
        found.setdefault(member.shard_id, []).append(member.clip_id)
    return found


@given(candidates, st.data())
def test_what_follows_has_the_layout_of_what_it_follows(
    clips: list[Candidate], data: st.DataObject
) -> None:
    """Whatever each of the two wanted before, and in whichever order they were planned."""
    first, second = History("first"), History("second")
    some = st.lists(st.sampled_from(clips), unique=True) if clips else st.just([])
    for _ in range(data.draw(st.integers(1, 4))):
        texts = data.draw(st.sampled_from(["a", "b"]))
        wanted = [dataclasses.replace(c, captions_digest=texts) for c in data.draw(some)]
        first.carry_out(first.plan(wanted), wanted)
        before = set(second.used)
        wanted = data.draw(some)
        second.carry_out(second.plan(wanted, first), wanted)
        assert second.plan(wanted, first) == Plan((), ())
        assert Counter(m.clip_id for m in second.live) == Counter(c.clip_id for c in wanted)
        layout, places = members(second.live), first.places()
        chosen = {c.clip_id for c in wanted}
        for shard_id, there in members(first.live).items():
            if both := [clip_id for clip_id in there if clip_id in chosen]:
                (name,) = [n for n, clip_ids in layout.items() if both[0] in clip_ids]
                assert layout[name] == both
                assert name == shard_id or shard_id in before
        assert all(len({c in places for c in clip_ids}) == 1 for clip_ids in layout.values())


@pytest.mark.parametrize(
    ("width", "height", "seconds", "bucket"),
    [
        (1920, 1080, 5, Bucket(1080, "16x9", "4s")),
        (1080, 1920, 60, Bucket(1080, "9x16", "60s")),
        (854, 480, 1, Bucket(480, "16x9", "1s")),
        (480, 479, 31.96, Bucket(360, "1x1", "16s")),
        (1998, 1080, 2, Bucket(1080, "16x9", "2s")),
        (2560, 1080, 2, Bucket(1080, "21x9", "2s")),
        (100, 2000, 2, None),
        (640, 480, 0.96, None),
    ],
)
def test_buckets(width: int, height: int, seconds: float, bucket: Bucket | None) -> None:
    clip = make_clip(width=width, height=height, num_frames=round(seconds * 25))
    assert bucket_of(clip, BucketSpec()) == bucket


def test_an_image_has_a_bucket_of_its_own() -> None:
    assert bucket_of(make_clip(kind="image"), BucketSpec()) == Bucket(360, "16x9", "image")


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_aspect_is_nearest_in_log_space(width: int, height: int) -> None:
    spec = BucketSpec().aspects
    width_of, height_of = map(int, nearest_aspect(width, height, spec).split("x"))
    found = abs(math.log(width / height) - math.log(width_of / height_of))
    ratios = [Fraction(a.replace(":", "/")) for a in spec]
    others = [abs(math.log(width / height) - math.log(ratio)) for ratio in ratios]
    assert found <= min(others) + 1e-12
