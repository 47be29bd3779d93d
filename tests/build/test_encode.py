"""Decode ahead of encode: the same values, errors in their place, nobody left behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Generator
from itertools import islice

import pytest

from telecine.infra.prefetch import run_ahead
from tests.support.waiting import until


def numbers(count: int, made: list[int] | None = None) -> Generator[int, None, None]:
    for n in range(count):
        if made is not None:
            made.append(n)
        yield n


def makers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "decode"]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_values_and_order_stay(ahead: int) -> None:
    got = run_ahead(numbers(100), ahead, "decode")
    assert list(got) == list(range(100))
    assert list(got) == []  # and it stays at its end


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_comes_where_its_value_would_have(ahead: int) -> None:
    def values() -> Generator[int, None, None]:
        yield 1
        raise ValueError("frame 2 is broken")

    got = run_ahead(values(), ahead, "decode")
    assert next(got) == 1
    with pytest.raises(ValueError, match="frame 2"):
        next(got)
    assert list(got) == []


def test_an_error_keeps_nothing_alive() -> None:
    """What the reader held as it was raised may be hundreds of megabytes."""

    class Latents:
        pass

    def values() -> Generator[int, None, None]:
        yield 1
        raise ValueError("frame 2 is broken")

    def encode() -> None:
        latents = Latents()
        held.append(weakref.ref(latents))
        for _ in run_ahead(values(), 1, "decode"):
            pass

    held: list[weakref.ref[Latents]] = []
    gc.disable()
    try:
        with pytest.raises(ValueError, match="frame 2"):
            encode()
        for maker in makers():
            maker.join()
        assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_reader_that_stops_stops_the_maker(ahead: int) -> None:
    made: list[int] = []
    values = numbers(1000, made)
    got = run_ahead(values, ahead, "decode")
    assert list(islice(got, 3)) == [0, 1, 2]
    got.close()
    assert len(made) < 10
    assert not makers()
    assert list(values) == list(got) == []  # closed, so that its file is


def test_at_most_so_many_wait_and_nobody_need_ask() -> None:
    asked, waiting = [0], list[int]()

    def values() -> Generator[int, None, None]:
        for n in range(10):
            waiting.append(n + 1 - asked[0])
            yield n

    got = run_ahead(values(), 2, "decode")
    until(lambda: len(waiting) == 2)
    asked[0] = 1
    next(got)
    until(lambda: len(waiting) == 3)
    asked[0] = 10
    assert list(got) == list(range(1, 10))
    assert max(waiting) == 2
