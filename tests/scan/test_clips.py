"""What a pass saw to clips, stills and dropped spans: the pure parts, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from telecine.manifests.specs import DatasetSpec, ScanSpec, StillSpec
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.media.pixels import jpeg
from telecine.pipeline.scan.camera.pairs import PAIR
from telecine.pipeline.scan.camera.path import summarise_pairs
from telecine.pipeline.scan.clips import Picked, Run, Seen, account, stamp
from telecine.pipeline.scan.looks.detail import Detail
from telecine.pipeline.scan.measure import FRAME, look
from telecine.pipeline.scan.stills import StillPicker, choose, wanted
from telecine.pipeline.scan.transitions import Transition

SAME = jpeg(Image.new("RGB", (4, 4)), 80)


def seen(
    pts: Sequence[int | None], cuts: Sequence[int], black: np.ndarray, equal: np.ndarray
) -> Seen:
    """A source of those frames, each of them a still."""
    frames = np.zeros(len(pts), FRAME)
    frames["luma"], frames["black"], frames["equal"] = 100, black, equal
    rgb = np.zeros((4, 4, 3), np.uint8)
    one = look(rgb, rgb[..., 0])
    facts = MediaFacts(
        container="x", codec="x", pixel_format="x", bit_depth=8, coded_width=4, coded_height=4,
        width=4, height=4,
    )  # fmt: skip
    return Seen(
        source_id="s",
        stamps=stamp(pts, 1, Fraction(1, 10), Fraction(10)),
        runs=[Run(0, facts)],
        cuts=cuts,
        gaps=frozenset(),
        frames=frames,
        pairs=np.zeros(0, PAIR),
        picked=dict.fromkeys(range(len(pts)), Picked(SAME, 4, 4, one, Detail(None, None, None))),
    )


Drawn = tuple[list[int | None], set[int], int, int]


def sources() -> st.SearchStrategy[Drawn]:
    """Stamps, cuts, and before which frames all are black and all equal the one before."""
    steps = st.one_of(st.integers(1, 60), st.sampled_from([1, 1, 1, 1, 0, -3]))
    stamps = st.lists(steps, min_size=1, max_size=40).map(lambda s: list(np.cumsum(s).tolist()))
    missing = st.lists(st.just(None), max_size=1)
    places = st.integers(0, 40)
    pts = st.builds(lambda known, none: known + none, stamps, missing)
    return st.tuples(pts, st.sets(places, max_size=5), places, places)


@settings(max_examples=60)
@given(sources(), st.sampled_from([1.0, 3.0]), st.sampled_from([6.0, 20.0]))
def test_every_frame_is_in_one_span(drawn: Drawn, shortest: float, longest: float) -> None:
    pts, cuts, black, equal = drawn
    order = np.arange(len(pts))
    of = seen(pts, sorted(c for c in cuts if 0 < c < len(pts)), order < black, order < equal)
    spec = DatasetSpec(scan=ScanSpec(min_seconds=shortest, max_seconds=longest))
    done = account(of, spec)
    spans = [(c.start_frame, c.start_frame + c.num_frames) for c in done.clips]
    spans += [(d.start_frame, d.start_frame + d.num_frames) for d in done.dropped]
    frames = sorted(frame for a, b in spans for frame in range(a, b))
    assert frames == list(range(of.num_frames))
    for clip in done.clips:
        end = clip.start_frame + clip.num_frames
        assert not any(clip.start_frame < cut < end for cut in of.cuts)
        slack = 0.5 * float(1 / of.stamps.rate) + 1e-6  # half a frame
        assert clip.duration_seconds >= shortest - slack
        assert clip.duration_seconds <= longest + slack or clip.num_frames == 1


@pytest.mark.parametrize("pts", [[0, 1, None, 3], [None] * 4, [0, 2, 1, 3], [0, 1, 1, 2]])
def test_stamps_that_are_missing_or_do_not_rise_are_counted(pts: list[int | None]) -> None:
    stamps = stamp(pts, 1, Fraction(1, 90_000), Fraction(30_000, 1001))
    assert stamps.timing == "ordinal"
    assert list(stamps.starts) == [0, 1, 2, 3, 4]
    assert stamps.time_base == Fraction(1001, 30_000) == 1 / stamps.rate


def test_the_last_frame_lasts_as_long_as_it_says_or_as_the_others() -> None:
    assert list(stamp([5, 15, 25], 7, Fraction(1, 100), None).starts) == [5, 15, 25, 32]
    for unlikely in (0, 4, 101, 2000):
        stamps = stamp([5, 15, 25], unlikely, Fraction(1, 100), None)
        assert list(stamps.starts) == [5, 15, 25, 35]
    for likely in (5, 100):
        assert stamp([5, 15, 25], likely, Fraction(1, 100), None).starts[-1] == 25 + likely


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.004, 0.9), min_size=1, max_size=300),
    st.lists(st.integers(1, 299), max_size=4),
    st.integers(1, 40),
)
def test_a_shot_long_enough_has_enough_stills_and_few_are_held(
    steps: list[float], cuts: list[int], chunk: int
) -> None:
    times = np.cumsum([0.0, *steps])
    bounds = sorted({cut for cut in cuts if cut < len(times)})
    picker: StillPicker[int, tuple[int, bool]] = StillPicker(ScanSpec(), lambda *of: of)
    decided = 0
    for ordinal, seconds in enumerate(times):
        picker.offer(ordinal, float(seconds), ordinal)
        if ordinal % chunk == 0 and ordinal:
            picker.decide([c for c in bounds if decided <= c < ordinal], ordinal)
            decided = ordinal
            assert len(picker._shot) <= 9
    picker.decide([c for c in bounds if c >= decided], len(times))
    picker.finish()
    assert all(ordinal == frame for ordinal, (frame, _) in picker.developed.items())
    spec = StillSpec()
    for start, end in zip([0, *bounds], [*bounds, len(times)], strict=True):
        length = times[end - 1] - times[start]
        chosen = choose(sorted(picker.developed), start, end, wanted(length, spec))
        kept = [looked for n, (_, looked) in picker.developed.items() if start <= n < end]
        assert sum(kept) <= 3 + len(kept) / 4
        slots = {int(t / 0.125) for t in times[start:end]}
        if length >= 1:
            assert len(chosen) >= min(spec.minimum, len(slots) - 1)
            assert sum(kept) >= min(2, len(kept))


def test_a_shot_too_short_for_a_clip_has_one_still() -> None:
    picker: StillPicker[int, tuple[int, bool]] = StillPicker(ScanSpec(), lambda *of: of)
    for ordinal in range(96):
        picker.offer(ordinal, ordinal / 24, ordinal)
    picker.decide([40, 58], 90)  # 0.75 s between the cuts
    assert [n for n in picker.developed if 40 <= n < 58] == [51]
    assert picker.developed[51] == (51, False)


@pytest.mark.parametrize("phase", np.arange(8) / 64)
@pytest.mark.parametrize("hole", [16.0, 500.0])
def test_what_comes_after_a_hole_has_stills_of_its_own(phase: float, hole: float) -> None:
    picker: StillPicker[int, int] = StillPicker(ScanSpec(), lambda frame, _: frame)
    times = phase + np.arange(48) / 24
    for ordinal, seconds in enumerate([*times, *(times + 2 + hole)]):
        if ordinal == len(times):
            picker.finish()
        picker.offer(ordinal, float(seconds), ordinal)
    picker.finish()
    first, second = (
        [n for n in picker.developed if n < 48],
        [n for n in picker.developed if n >= 48],
    )
    assert min(len(first), len(second)) >= wanted(2, StillSpec())


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), max_size=12), st.sets(st.integers(1, 79)), st.booleans())
def test_shots_and_runs_are_what_a_look_at_all_finds(
    steps: list[int], cuts: set[int], is_sure: bool
) -> None:
    places = np.cumsum(steps).tolist()
    found = [Transition(a, b, is_sure) for a, b in zip(places[::2], places[1::2], strict=False)]
    found = [one for one in found if one.end <= 80]
    plain = seen([*range(80)], sorted(cuts), np.zeros(80, bool), np.zeros(80, bool))
    runs = [Run(start, plain.runs[0].facts) for start in [0, *sorted(cuts)[::2]]]
    of = replace(plain, transitions=found, runs=runs)
    inside = {f for one in found if is_sure for f in range(one.start, one.end)}
    shots = [*of.shots()]
    assert [f for a, b in shots for f in range(a, b)] == sorted({*range(80)} - inside)
    starts = {0, *cuts, *(one.end for one in found if is_sure)} - inside - {80}
    assert [a for a, _ in shots] == sorted(starts)
    for frame in range(80):
        assert of.run(frame) is [run for run in runs if run.start <= frame][-1]


def test_a_clip_is_told_by_the_pairs_inside_it() -> None:
    """Whatever comes before and after it, and wherever it lies."""
    rng = np.random.default_rng(0)
    pairs = np.zeros(60, PAIR)
    pairs["first"], pairs["near"] = 2 + np.arange(60) * 4, 2
    pairs["last"] = pairs["first"] + 4
    pairs["known"] = pairs["near_known"] = True
    for column in ("x", "y", "zoom", "roll", "raw", "left", "after_x", "before_y"):
        pairs[column] = rng.random(60)
    pts = np.cumsum(rng.integers(1, 4, 250))
    plain = seen(pts.tolist(), [50, 130], np.zeros(250, bool), np.zeros(250, bool))
    done = account(replace(plain, pairs=pairs), DatasetSpec(scan=ScanSpec(max_seconds=60)))
    assert len(done.clips) >= 3
    for clip in done.clips:
        start, end = clip.start_frame, clip.start_frame + clip.num_frames
        own = pairs[(pairs["first"] >= start) & (pairs["last"] < end)]
        own["near_known"] &= own["first"] - own["near"] >= start
        path = summarise_pairs(own, (pts - pts[0]) / 10)
        assert (clip.camera_x, clip.shake) == (pytest.approx(path.x), pytest.approx(path.shake))
