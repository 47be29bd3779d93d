"""Shots: hard cuts on real footage with known cuts, on generated pictures, and exact splitting."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.media.resize import SHRINK, Scaler
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.segment import REACH, CutDetector, split
from telecine.pipeline.scan.worker import Sampler
from tests.support.shots import (
    Truth,
    compare,
    find_cuts,
    rates,
    read_csv,
    read_labelled,
    read_truth,
    shown,
)

MIN_F1, MAX_APART = 0.95, 0.02
MIN_SPARSE_F1 = 0.93  # where pictures are left out, and motion is faster
VARIANTS = ("k1", "k2", "k3", "k4", "24in60", "15in60")


def test_hard_cuts_of_real_footage(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the files that the thresholds of segment.py were set on: a lower bound on regressions.

    As they are, and with their pictures repeated. How the detector does elsewhere is measured
    below, on files that it has not been set on.
    """
    totals = {variant: np.zeros(3, int) for variant in VARIANTS}
    for name, truth in sorted(read_truth(footage).items()):
        labelled = read_labelled(footage / name, truth)
        for variant, total in totals.items():
            frames = shown(variant, len(labelled.grid), labelled.rate)
            total += compare(find_cuts(labelled, frames), truth.seen_through(frames))
    scores = {name: rates(*(int(n) for n in total)) for name, total in totals.items()}
    with capsys.disabled():
        print("\nthe files that the thresholds were set on:")
        for name, (precision, recall, f1) in scores.items():
            print(f"{name:8} precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}")
    assert totals["k1"][0] > 50, "the list of true cuts is short"
    assert scores.pop("15in60")[2] >= MIN_SPARSE_F1
    assert min(f1 for _, _, f1 in scores.values()) >= MIN_F1
    assert all(abs(f1 - scores["k1"][2]) <= MAX_APART for _, _, f1 in scores.values())


# Real pictures that no threshold was set on

SPLICED, ORDERS = 25, 8  # frames of each file; sequences that they are put together in
SPLICED_SIZE = (320, 180)


def read_segment(path: Path) -> Grid:
    """The grid of a video's first frames, at the same size for every file."""
    spec = DatasetSpec()
    frames: list[VideoFrame] = []
    with path.open("rb") as file:
        video = open_media(file, spec.scan, spec.pixels)
        assert isinstance(video, Video)
        with video:
            for frame in itertools.islice(video.frames(), SPLICED):
                small = Scaler()(frame, video.facts, SPLICED_SIZE, "yuv444p", SHRINK)
                frames.append(small)
            facts = dataclasses.replace(video.facts, pixel_format="yuv444p")
    sampler = Sampler(frames[0], facts)
    grid = sampler.empty(len(frames))
    for place, frame in enumerate(frames):
        sampler.sample(frame, grid, place)
    return grid


def held_out(footage: Path) -> list[Path]:
    """Videos that are in neither list of cuts: the thresholds have not seen them."""
    seen = read_truth(footage)
    rows = read_csv(footage / "INDEX.csv")
    long = [
        row["file"] for row in rows if int((row["frames_decoded"] or "0").split()[0]) >= SPLICED
    ]
    return [footage / name for name in sorted(long) if name not in seen]


@pytest.mark.slow
def test_splices_of_footage_that_no_threshold_has_seen(
    footage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hard cuts made by putting decoded frames of other files in a row, in random orders."""
    segments = [read_segment(path) for path in held_out(footage)]
    rng, total = np.random.default_rng(11), np.zeros(3, int)
    for _ in range(ORDERS):
        order = rng.permutation(len(segments))
        whole = segments[order[0]]
        for place in order[1:]:
            whole = whole.then(segments[place])
        splices = list(range(SPLICED, len(whole), SPLICED))
        total += compare(cuts_of(whole, 32), Truth(splices))
    precision, recall, f1 = rates(int(total[0]), int(total[1]), int(total[2]))
    with capsys.disabled():
        print(
            f"\nheld out: {len(segments)} files spliced {ORDERS} times, {total.sum() - total[1]} "
            f"cuts: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}"
        )
    assert len(segments) >= 30
    assert precision >= 0.95
    assert recall >= 0.95


# Generated pictures: cells of noise, so that two pictures have nothing in common but their light.

HEIGHT, WIDTH = 36, 64


def picture(seed: int, low: int = 30, high: int = 200) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(low, high, (HEIGHT // 6, WIDTH // 6 + 20))
    return cells.repeat(6, axis=0).repeat(6, axis=1).astype(np.uint8)


def grid(lumas: list[np.ndarray], chroma: list[int] | None = None) -> Grid:
    luma = np.stack([one[:, :WIDTH] for one in lumas])
    tints = np.array(chroma or [128] * len(lumas), np.uint8)
    cb = np.broadcast_to(tints[:, None, None], (len(luma), HEIGHT // 2, WIDTH // 2)).copy()
    return Grid(luma, cb, 255 - cb)


def cuts_of(frames: Grid, chunk: int = 32) -> list[int]:
    """`frames` may hold any values of 8 bits."""
    detector = CutDetector(is_full_range=True)
    found: list[int] = []
    for start in range(0, len(frames), chunk):
        found += detector.push(frames[start : start + chunk])
    return found + detector.finish()


SHOTS = [(1, 20, 90), (2, 120, 250), (3, 20, 60), (4, 90, 200)]


def still_shots(lengths: list[int]) -> list[np.ndarray]:
    return [
        picture(*SHOTS[number % len(SHOTS)])
        for number, length in enumerate(lengths)
        for _ in range(length)
    ]


def test_cuts_between_still_pictures() -> None:
    assert cuts_of(grid(still_shots([12, 30, 9, 40]))) == [12, 42, 51]


@pytest.mark.parametrize("chunk", [1, 3, 8, 32, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    frames = grid(still_shots([12, 30, 9, 40, 8, 8]))
    assert cuts_of(frames, chunk) == cuts_of(frames, 17) != []


def moving(seed: int, length: int, speed: int = 2) -> list[np.ndarray]:
    """A pan over a picture that is new in every frame."""
    return [np.roll(picture(seed), -speed * i, axis=1) for i in range(length)]


def repeated(lumas: list[np.ndarray], pattern: Sequence[int], noise: int = 0) -> Grid:
    """Each picture as often as the pattern says, in turn; repeats differ by coding noise."""
    rng, frames = np.random.default_rng(5), []
    for luma, times in zip(lumas, itertools.cycle(pattern), strict=False):
        for again in range(times):
            off = rng.integers(-noise, noise + 1, luma.shape) if again else 0
            frames.append(np.clip(luma + off, 0, 255).astype(np.uint8))
    return grid(frames)


@pytest.mark.parametrize("noise", [0, 1])
@pytest.mark.parametrize("pattern", [(1,), (2,), (3,), (4,), (6,), (2, 3), (1, 1, 1, 2), (1, 3)])
def test_repeated_pictures_are_no_cuts_and_hide_none(pattern: tuple[int, ...], noise: int) -> None:
    shots = [moving(1, 24), moving(2, 24), moving(3, 24, speed=1)]
    frames = repeated(list(itertools.chain(*shots)), pattern, noise)
    times = list(itertools.islice(itertools.cycle(pattern), 48))
    assert cuts_of(frames) == [sum(times[:24]), sum(times)]


@pytest.mark.parametrize("pattern", [(1,), (2,), (4,), (2, 3)])
def test_a_flash_among_repeated_pictures_is_no_cut(pattern: tuple[int, ...]) -> None:
    shot = moving(1, 40)
    for place in (14, 15, 16):
        shot[place] = np.clip(shot[place].astype(int) + 110, 0, 255).astype(np.uint8)
    assert cuts_of(repeated(shot, pattern)) == []


def test_cuts_between_still_pictures_that_come_soon_after_one_another() -> None:
    shots = still_shots([40, 10, 12, 8, 40])
    assert cuts_of(grid(shots)) == [40, 50, 62, 70]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.integers(1, 10))
def test_runs_of_any_length_are_decided_alike_however_they_come(
    pictures: list[int], chunk: int
) -> None:
    frames = grid([picture(*SHOTS[one]) for one in pictures])
    cuts = cuts_of(frames, chunk)
    assert cuts == cuts_of(frames)
    assert all(0 < cut < len(frames) and pictures[cut - 1] != pictures[cut] for cut in cuts)


def covered(shot: list[np.ndarray], cover: np.ndarray, place: tuple[int, int]) -> list[np.ndarray]:
    """The shot with something over frames 15 to 27."""
    (top, left), (height, width) = place, cover.shape
    frames = [one[:, :WIDTH].copy() for one in shot]
    for frame in frames[15:28]:
        frame[top : top + height, left : left + width] = cover
    return frames


@pytest.mark.parametrize("speed", [0, 1])
@pytest.mark.parametrize(
    ("place", "cover"),
    [
        ((28, 8), np.full((5, 48), 235, np.uint8)),  # subtitles on their ground
        ((4, 36), np.full((12, 24), 240, np.uint8)),  # a window that pops up
        ((2, 2), picture(9)[:18, :30]),  # a picture in the picture
        ((26, 0), picture(8)[:10, :64]),  # a lower third
    ],
)
def test_what_covers_a_part_of_the_picture_is_no_cut(
    place: tuple[int, int], cover: np.ndarray, speed: int
) -> None:
    assert cuts_of(grid(covered(moving(1, 40, speed), cover, place))) == []


def test_a_slide_that_changes_most_of_a_screen_is_a_cut() -> None:
    frame = np.full((HEIGHT, WIDTH), 235, np.uint8)
    slides = []
    for seed in (1, 2):
        slide = frame.copy()
        slide[4:36, :60] = picture(seed)[:32, :60]
        slides += [slide] * 30
    assert cuts_of(grid(slides)) == [30]


@pytest.mark.parametrize("level", [4, 16])
@pytest.mark.parametrize("noise", [0, 3])
def test_cuts_into_and_out_of_black_are_found(level: int, noise: int) -> None:
    """Also where black is noise below black, and comes back soon."""
    black = [np.full((HEIGHT, WIDTH), level, np.uint8)] * 20
    lumas = [*moving(1, 30), *black, *moving(2, 30), *black]
    rng = np.random.default_rng(2)
    noisy = [
        (np.clip(one[:, :WIDTH] + rng.integers(-noise, noise + 1, (HEIGHT, WIDTH)), 0, 255))
        for one in lumas
    ]
    frames = grid([one.astype(np.uint8) for one in noisy])
    detector = CutDetector(is_full_range=False)
    assert detector.push(frames) + detector.finish() == [30, 50, 80]


@pytest.mark.parametrize("strength", [0.03, 0.06])
def test_flicker_is_no_cut_and_hides_none(strength: float) -> None:
    gains = 1 + np.random.default_rng(4).normal(0, strength, 80)
    lumas = [*moving(1, 40, 1), *moving(2, 40, 1)]
    frames = [
        np.clip(one * gain, 0, 255).astype(np.uint8) for one, gain in zip(lumas, gains, strict=True)
    ]
    assert cuts_of(grid(frames)) == [40]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_strobes_cut_nothing(length: int) -> None:
    shot = moving(1, 60, 1)
    for start in range(8, 50, 9):
        for place in range(start, start + length):
            shot[place] = np.clip(shot[place] + 100.0, 0, 255).astype(np.uint8)
    assert cuts_of(grid(shot)) == []


@pytest.mark.parametrize("contrast", [0.15, 0.2, 0.5])
def test_cuts_in_the_dark_and_in_fog_are_found(contrast: float) -> None:
    lumas = [*moving(1, 30, 1), *moving(2, 30, 1), *moving(3, 30, 1)]
    for ground in (16, 120):
        faint = [(ground + (one - 30.0) * contrast).astype(np.uint8) for one in lumas]
        assert cuts_of(grid(faint)) == [30, 60]


def test_a_cut_of_colour_alone_is_found() -> None:
    assert cuts_of(grid([picture(1)] * 30, [60] * 12 + [190] * 18)) == [12]


def test_a_cut_in_a_fast_pan_is_found_and_the_pan_is_not() -> None:
    first, second = picture(1, 20, 120), picture(2, 110, 250)
    pan = [np.roll(first, -3 * i, axis=1) for i in range(20)]
    pan += [np.roll(second, -3 * i, axis=1) for i in range(20)]
    assert cuts_of(grid(pan)) == [20]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_flash_is_no_cut(frames: int) -> None:
    shot = [picture(1, 30, 120)] * 40
    shot[15 : 15 + frames] = [np.clip(shot[0].astype(int) + 110, 0, 255).astype(np.uint8)] * frames
    assert cuts_of(grid(shot)) == []


def test_a_fade_is_no_cut() -> None:
    shot = picture(1).astype(float)
    levels = [1.0] * 10 + list(np.linspace(1, 0, 24)) + [0.0] * 10
    assert cuts_of(grid([(16 + shot * level * 0.9).astype(np.uint8) for level in levels])) == []


def test_noise_is_no_cut() -> None:
    noise, clean = np.random.default_rng(0), picture(1)
    shot = [(clean + noise.integers(-8, 9, clean.shape)).astype(np.uint8) for _ in range(60)]
    assert cuts_of(grid(shot)) == []


def test_what_is_decided_stays_decided() -> None:
    frames, detector = grid(still_shots([12, 30, 9, 40])), CutDetector(is_full_range=True)
    for start in range(0, len(frames), 7):
        before = detector.decided
        cuts = detector.push(frames[start : start + 7])
        assert all(before <= cut < detector.decided for cut in cuts)
        assert min(start + 7, len(frames)) - REACH <= detector.decided


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (8, 8), (23, 96)])
def test_small_pictures(size: tuple[int, int]) -> None:
    height, width = size
    luma = np.repeat(np.array([40] * 10 + [200] * 10, np.uint8), height * width)
    chroma = np.full((20, 1, 1), 128, np.uint8)
    assert cuts_of(Grid(luma.reshape(20, height, width), chroma, chroma)) == [10]


# Splitting


@st.composite
def shots(draw: st.DrawFn) -> tuple[np.ndarray, int, float]:
    """Rising stamps, the stamp after the last, and the longest part allowed."""
    steps = draw(st.lists(st.integers(1, 500), min_size=1, max_size=200))
    starts = draw(st.integers(-(10**9), 10**9)) + np.cumsum([0, *steps])
    return starts[:-1].astype(np.int64), int(starts[-1]), draw(st.floats(1, 5000))


def lengths(parts: list[tuple[int, int]], starts: np.ndarray, end: int) -> Iterator[int]:
    stamps = np.append(starts, end)
    for first, last in parts:
        yield int(stamps[last] - stamps[first])


@given(shots())
def test_parts_partition_a_shot_and_are_short_enough(shot: tuple[np.ndarray, int, float]) -> None:
    starts, end, longest = shot
    parts = split(starts, end, longest)
    assert [frame for a, b in parts for frame in range(a, b)] == list(range(len(starts)))
    assert all(a < b for a, b in parts)
    for (first, last), length in zip(parts, lengths(parts, starts, end), strict=True):
        assert length <= longest or last - first == 1


@given(st.integers(1, 5000), st.integers(1, 300))
def test_even_frames_are_split_into_the_fewest_equal_parts(count: int, longest: int) -> None:
    parts = split(np.arange(count), count, longest)
    assert len(parts) == -(-count // longest)
    sizes = [b - a for a, b in parts]
    assert max(sizes) - min(sizes) <= 1
