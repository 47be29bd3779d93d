"""Decode ahead of encode: the same values, errors in their place, nobody left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from pipeline.encode import run_ahead


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_values_and_order_stay(ahead: int) -> None:
    assert list(run_ahead(iter(range(100)), ahead)) == list(range(100))


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_comes_where_its_value_would_have(ahead: int) -> None:
    def values() -> Iterator[int]:
        yield 1
        raise ValueError("frame 2 is broken")

    got = run_ahead(values(), ahead)
    assert next(got) == 1
    with pytest.raises(ValueError, match="frame 2"):
        next(got)


def test_a_reader_that_stops_stops_the_maker() -> None:
    made = []

    def values() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    got = run_ahead(values(), 2)
    assert list(islice(got, 3)) == [0, 1, 2]
    got.close()  # type: ignore[attr-defined]
    assert len(made) < 10
    assert not [t for t in threading.enumerate() if t.name == "decode"]


def test_at_most_so_many_wait() -> None:
    seen = threading.Event()
    made = []

    def values() -> Iterator[int]:
        for n in range(10):
            made.append(n)
            yield n

    got = run_ahead(values(), 2)
    next(got)
    seen.wait(0.5)  # time for the maker to run as far as it may
    assert len(made) <= 4  # one read, two waiting, one in hand
    assert list(got) == list(range(1, 10))
