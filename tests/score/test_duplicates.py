"""Near-duplicates: leaders in order of preference, alone by all pairs and through an index."""

from __future__ import annotations

import hashlib
import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import telecine.pipeline.score.duplicates
import telecine.pipeline.score.neighbours
from telecine.infra.errors import NotFound, UsageError
from telecine.pipeline.score.duplicates import Grouped, Vectors, cosines, group_duplicates

Half = NDArray[np.float16]
Order = NDArray[np.int64]


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Blocks of a few rows, so that a few rows cross their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telecine.pipeline.score.duplicates, "BLOCK", 5)
        patch.setattr(telecine.pipeline.score.duplicates, "PAIRS", 3)
        patch.setattr(telecine.pipeline.score.neighbours, "READ", 4)
        yield


def slowly(vectors: Half, preference: Order, threshold: float) -> Grouped:
    """The definition: the most wanted that is in no group is kept and takes all that are near."""
    group, rank = np.full(len(vectors), -1), np.zeros(len(vectors), np.int32)
    order = np.argsort(preference)
    for row in order.tolist():
        if group[row] < 0:
            group[row] = row
            members = 0
            for other in order.tolist():
                if group[other] < 0 and cosine(vectors[row], vectors[other]) >= threshold:
                    members += 1
                    group[other], rank[other] = row, members
    return Grouped(group, rank)


def cosine(a: Half, b: Half) -> float:
    """In Python's own numbers; -2 where there is none."""
    x, y = ([float(v) for v in vector] for vector in (a, b))
    xy, xx, yy = (sum(map(operator.mul, *pair)) for pair in ((x, y), (x, x), (y, y)))
    return xy / (xx * yy) ** 0.5 if np.isfinite(xx * yy) and xx * yy > 0 else -2.0


def equal(a: Grouped, b: Grouped) -> bool:
    return bool((a.group == b.group).all() and (a.rank == b.rank).all())


def check(found: Grouped, vectors: Half, preference: Order, threshold: float) -> None:
    """What holds of any grouping, whether the search is exact or not."""
    rows = np.arange(len(vectors))
    assert found.group.shape == found.rank.shape == rows.shape
    kept = found.group == rows
    assert (kept == (found.rank == 0)).all(), "a row of rank 0 is kept, and no other"
    assert kept[found.group].all(), "no chains: a leader is its own"
    members = rows[~kept]
    near = cosines(vectors[members], vectors[found.group[members]]) >= threshold
    assert near.all(), "each member is near the very row that is kept"
    by_group = np.lexsort((preference, found.group))
    starts = np.flatnonzero(np.diff(found.group[by_group], prepend=-1))
    sizes = np.diff(np.append(starts, len(rows)))
    ranks = np.concatenate([np.arange(size) for size in sizes]) if len(rows) else rows
    assert (found.rank[by_group] == ranks).all(), "0, 1, 2, ... in order of preference"


# All pairs


@st.composite
def problems(draw: st.DrawFn) -> tuple[Half, Order, float]:
    """Few distinct directions: ties, copies, scaled copies, zeros, values that are not finite."""
    dimensions = draw(st.integers(1, 4))
    value = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.3, 0.5, float("nan"), float("inf")])
    row = st.lists(value, min_size=dimensions, max_size=dimensions)
    rows = draw(st.lists(row, max_size=24))
    preference = draw(st.permutations(range(len(rows))))
    threshold = draw(st.sampled_from([0.3, 0.7, 0.9, 0.99, 1.0]))
    vectors = np.array(rows, np.float16).reshape(-1, dimensions)
    return vectors, np.array(preference, np.int64), threshold


@pytest.mark.usefixtures("small_blocks")
class TestAllPairs:
    @given(problems())
    @settings(max_examples=300, deadline=None)
    def test_it_is_the_definition(self, problem: tuple[Half, Order, float]) -> None:
        found = group_duplicates(*problem)
        check(found, *problem)
        vectors, _, threshold = problem
        kept = np.flatnonzero(found.rank == 0).tolist()
        for a in kept:
            assert not any(a < b and cosine(vectors[a], vectors[b]) >= threshold for b in kept), (
                "no two kept rows are near"
            )
        assert equal(found, slowly(*problem))

    @given(problems(), st.randoms(use_true_random=False))
    @settings(max_examples=100, deadline=None)
    def test_the_order_of_rows_is_nothing_to_it(
        self, problem: tuple[Half, Order, float], random: Any
    ) -> None:
        vectors, preference, threshold = problem
        shuffled = np.array(random.sample(range(len(vectors)), len(vectors)), np.int64)
        found = group_duplicates(vectors, preference, threshold)
        moved = group_duplicates(vectors[shuffled], preference[shuffled], threshold)
        assert (moved.rank == found.rank[shuffled]).all()
        assert (shuffled[moved.group] == found.group[shuffled]).all()

    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.8, 0.9, 0.95]))
    @settings(max_examples=50, deadline=None)
    def test_vectors_that_fill_their_dimensions(self, seed: int, threshold: float) -> None:
        random = np.random.default_rng(seed)
        vectors = planted(random, 20, 33, isotropic=True)[0]
        preference = random.permutation(len(vectors))
        found = group_duplicates(vectors, preference, threshold)
        check(found, vectors, preference, threshold)
        assert equal(found, slowly(vectors, preference, threshold))


def test_no_row_and_one_row() -> None:
    for count in (0, 1):
        found = group_duplicates(np.ones((count, 4), np.float16), np.arange(count), 0.9)
        assert found.group.tolist() == found.rank.tolist() == [0] * count
        assert found.group.dtype == np.int64
        assert found.rank.dtype == np.int32


@pytest.mark.parametrize("preferred", ["A", "B", "C"])
def test_neighbours_of_a_neighbour_are_not_dropped_for_it(preferred: str) -> None:
    """A is near B and B near C, but A is not near C."""
    angles = np.radians([0, 20, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    wanted = {"A": [0, 1, 2], "B": [1, 0, 2], "C": [2, 1, 0]}[preferred]
    found = group_duplicates(vectors, np.argsort(wanted), 0.93)
    assert found.group.tolist() == {"A": [0, 0, 2], "B": [1, 1, 1], "C": [0, 2, 2]}[preferred]


def test_a_member_belongs_to_the_most_wanted_that_is_near() -> None:
    """Also where it is nearer to another: the outcome is the order of preference's."""
    angles = np.radians([0, 40, 22])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    assert group_duplicates(vectors, np.arange(3), 0.9).group.tolist() == [0, 1, 0]
    assert group_duplicates(vectors, np.array([1, 0, 2]), 0.9).group.tolist() == [0, 1, 1]


def test_preference_that_is_no_permutation_is_refused() -> None:
    for wrong in ([0, 0], [0], [0, 1, 2]):
        with pytest.raises(ValueError, match="no permutation of 2 rows"):
            group_duplicates(np.ones((2, 3), np.float16), np.array(wrong), 0.9)


# Through an index


def planted(
    random: np.random.Generator, groups: int, dimensions: int, *, isotropic: bool
) -> tuple[Half, Order]:
    """Rows of length 1 in a random order, and for each the row it is a copy of, or -1.

    A third are copies, of cosine 0.91 to 0.999 to their own. Otherwise rows fill all directions, or
    as those of CLIP a cone (any two have a cosine of about 0.5) and few of its axes, by topics.
    """
    count = groups * 2
    own = random.normal(size=(count, dimensions))
    spread = np.ones(dimensions) if isotropic else 1 / np.sqrt(np.arange(1, dimensions + 1))
    topics = random.normal(size=(groups // 10 + 1, dimensions))
    topic = topics[random.integers(len(topics), size=count)]
    rows = unit(own * spread)
    if not isotropic:
        cone = unit(random.normal(size=(1, dimensions)))
        rows = unit(0.7 * cone + 0.55 * unit(topic * spread) + 0.45 * rows)
    origin = random.integers(count, size=groups)
    away = random.normal(size=(groups, dimensions)) * spread
    away -= (away * rows[origin]).sum(1, keepdims=True) * rows[origin]
    cosine = random.uniform(0.91, 0.999, (groups, 1))
    copies = cosine * rows[origin] + np.sqrt(1 - cosine**2) * unit(away)
    place = random.permutation(count + groups)
    vectors, of = np.empty((count + groups, dimensions), np.float16), np.full(count + groups, -1)
    vectors[place] = np.concatenate([rows, copies])
    of[place[count:]] = place[origin]
    return vectors, of


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("dimensions", [24, 200])
@pytest.mark.parametrize("isotropic", [True, False])
def test_an_index_finds_planted_duplicates(dimensions: int, isotropic: bool) -> None:
    random = np.random.default_rng(dimensions)
    vectors, of = planted(random, 2000, dimensions, isotropic=isotropic)
    preference = random.permutation(len(vectors))
    found = group_duplicates(vectors, preference, 0.9, exact_rows=0)
    check(found, vectors, preference, 0.9)
    copies = np.flatnonzero(of >= 0)
    overlooked = (found.rank[copies] == 0) & (found.rank[of[copies]] == 0)
    assert overlooked.mean() <= 0.01


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.8, 0.9, 0.95, 1.0]))
@settings(max_examples=10, deadline=None)
def test_an_index_drops_no_row_for_one_that_it_is_not_near(seed: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    vectors, _ = planted(random, 200, 40, isotropic=False)
    vectors[random.integers(len(vectors), size=20)] = vectors[0]
    vectors[random.integers(len(vectors), size=5)] = 0
    vectors[random.integers(len(vectors), size=5), 7] = np.nan
    preference = random.permutation(len(vectors))
    found = group_duplicates(vectors, preference, threshold, exact_rows=0)
    check(found, vectors, preference, threshold)
    shuffled = random.permutation(len(vectors))
    moved = group_duplicates(vectors[shuffled], preference[shuffled], threshold, exact_rows=0)
    assert (moved.rank == found.rank[shuffled]).all(), "not even an index minds the order of rows"
    assert (shuffled[moved.group] == found.group[shuffled]).all()


@pytest.mark.parametrize("exact_rows", [0, 10_000])
def test_a_thousand_copies_are_one_group(exact_rows: int) -> None:
    """More than any list of neighbours holds, and more than one block, of two title cards."""
    random = np.random.default_rng(3)
    vectors, _ = planted(random, 300, 48, isotropic=True)
    cards = unit(random.normal(size=(2, 48))).astype(np.float16)
    vectors = np.concatenate([vectors, np.repeat(cards, 2500, axis=0)])
    preference = random.permutation(len(vectors))
    found = group_duplicates(vectors, preference, 1.0, exact_rows=exact_rows)
    check(found, vectors, preference, 1.0)
    for number in range(2):
        rows = np.arange(900 + 2500 * number, 900 + 2500 * (number + 1))
        assert set(found.group[rows]) == {rows[np.argmin(preference[rows])]}
    assert (found.rank[:900] == 0).all()


@pytest.mark.parametrize("exact_rows", [0, 10_000])
def test_nothing_but_copies_or_zeros(exact_rows: int) -> None:
    preference = np.arange(1000)[::-1].copy()
    same, none = np.full((1000, 20), 0.25, np.float16), np.zeros((1000, 20), np.float16)
    copies = group_duplicates(same, preference, 1.0, exact_rows=exact_rows)
    assert set(copies.group) == {999}
    assert (copies.rank == preference).all()
    zeros = group_duplicates(none, preference, 0.1, exact_rows=exact_rows)
    assert (zeros.group == np.arange(1000)).all()
    assert not zeros.rank.any()


def test_rows_whose_codes_hide_the_near_one_are_asked_about_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the main axes 60 kept rows lie as near as the one that the last row is a copy of."""
    monkeypatch.setattr(telecine.pipeline.score.neighbours, "AXES", 16)
    monkeypatch.setattr(telecine.pipeline.score.duplicates, "BLOCK", 64)
    random = np.random.default_rng(4)
    wide = np.concatenate([random.normal(size=(400, 16)), np.zeros((400, 60))], axis=1)
    hidden = np.concatenate([np.ones((60, 16)), 6 * np.eye(60)], axis=1)
    vectors = unit(np.concatenate([hidden, wide, hidden[::-1]])).astype(np.float16)
    preference = np.arange(len(vectors))
    found = group_duplicates(vectors, preference, 0.95, exact_rows=0)
    check(found, vectors, preference, 0.95)
    assert found.group[-60:].tolist() == list(range(60))[::-1]
    monkeypatch.setattr(telecine.pipeline.score.duplicates, "LISTS", (16,))
    cut = group_duplicates(vectors, preference, 0.95, exact_rows=0)
    assert (cut.rank[-60:] == 0).any(), "the shorter list alone would not do"


DIGEST = """
{imports}
from tests.score.test_duplicates import digest
ours = torch.rand(400, 400)
for _ in range(3):
    print(digest())
    assert torch.allclose((ours @ ours).double(), ours.double() @ ours.double(), atol=1e-3)
"""


def digest() -> str:
    random = np.random.default_rng(5)
    vectors, _ = planted(random, 1000, 150, isotropic=False)
    found = group_duplicates(vectors, random.permutation(len(vectors)), 0.9, exact_rows=0)
    return hashlib.sha256(found.group.tobytes() + found.rank.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("imports", "threads"), [("import torch, faiss", "1"), ("import faiss, torch", "3")]
)
def test_threads_and_torch_beside_it_change_nothing(imports: str, threads: str) -> None:
    """Both bring an OpenMP of their own; here they compute in turns in one process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    program = DIGEST.format(imports=imports)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | dict.fromkeys(names, threads),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [digest()] * 3


def test_progress_tells_of_every_row() -> None:
    vectors = np.ones((5000, 16), np.float16)
    vectors[7] = 0
    told: list[int] = []
    group_duplicates(vectors, np.arange(5000), 0.9, progress=told.append)
    assert sum(told) == 5000
    assert len(told) > 2


def test_more_than_the_memory_allowed_is_refused() -> None:
    vectors = np.random.default_rng(6).normal(size=(300, 16)).astype(np.float16)
    with pytest.raises(UsageError, match=r"300 clips needs 0\.5 GiB .* and 0\.1 GiB may be taken"):
        group_duplicates(vectors, np.arange(300), 0.9, memory_bytes=100 << 20, exact_rows=0)


def test_faiss_is_needed_by_an_index_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # as where it is not installed
    vectors = np.random.default_rng(7).normal(size=(300, 16)).astype(np.float16)
    group_duplicates(vectors, np.arange(300), 0.9)
    with pytest.raises(UsageError, match=r"pip install 'telecine\[caption\]'"):
        group_duplicates(vectors, np.arange(300), 0.9, exact_rows=0)


# The file


def test_vectors_are_read_as_they_were_appended(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    blocks = [random.normal(size=(n, 10)).astype(np.float32) * 10**n for n in (3, 0, 2)]
    with Vectors(tmp_path, 10) as vectors:
        assert vectors.array.shape == (0, 10)
        for block in blocks:
            vectors.append(block)
        array = vectors.array
        assert array.shape == (5, 10)
        assert array.dtype == np.float16
        vectors.append(blocks[0].astype(np.float16))
        assert vectors.array.shape == (8, 10)
    given = np.concatenate(blocks).astype(np.float64)
    assert np.allclose(array, unit(given), atol=1e-3)
    assert not list(tmp_path.iterdir())


def test_vectors_without_a_direction_are_zero(tmp_path: Path) -> None:
    rows = np.array([[0, 0], [np.nan, 1], [np.inf, 1], [3e38, 3e38], [1e-38, 0]], np.float32)
    with Vectors(tmp_path, 2) as vectors:
        vectors.append(rows)
        assert np.allclose(vectors.array, [[0, 0]] * 3 + [[0.5**0.5] * 2, [1, 0]], atol=1e-3)
        assert group_duplicates(vectors.array, np.arange(5), 0.5).rank.tolist() == [0, 0, 0, 0, 1]


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    with (
        Vectors(tmp_path, 4) as vectors,
        pytest.raises(ValueError, match=r"\(2, 3\) where \[n, 4\]"),
    ):
        vectors.append(np.ones((2, 3), np.float16))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"), Vectors(tmp_path / "nowhere", 4):
        pass
