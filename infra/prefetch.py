"""Values made early, on a thread of their own.

maker    ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
reader      ████████████████      at most `ahead` values wait in between
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)


class Values(Protocol[Value_co]):
    """What may be read one by one, or closed before its end: a generator, or one run ahead."""

    def __iter__(self) -> Iterator[Value_co]: ...
    def __next__(self) -> Value_co: ...
    def close(self) -> None: ...


def run_ahead(values: Values[Value], ahead: int, name: str) -> Values[Value]:
    """The same values, made on a thread `name` from now on, up to `ahead` early.

    0: as they are, made when asked for. An error of the maker is raised where its value would have
    come. Whoever stops reading early must close it, which waits for the value that is in the
    making.
    """
    return _RunAhead(values, ahead, name) if ahead else values


class _RunAhead(Generic[Value]):
    def __init__(self, values: Values[Value], ahead: int, name: str) -> None:
        self._values = values
        self._ahead = ahead
        self._ready: deque[Value] = deque()
        self._end: BaseException | None = None  # StopIteration, or the maker's error
        self._closed = False
        self._changed = threading.Condition()
        self._maker = threading.Thread(target=self._make, name=name, daemon=True)
        self._maker.start()

    def __iter__(self) -> _RunAhead[Value]:
        return self

    def __next__(self) -> Value:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._end)
            if self._ready:
                self._changed.notify()
                return self._ready.popleft()
        assert self._end is not None
        end, self._end = self._end, StopIteration()
        try:
            raise end
        finally:
            del end  # else the error and this frame keep each other, and all that it passes through

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._maker.join()
        self._ready.clear()
        self._end = StopIteration()

    def _make(self) -> None:
        try:
            with contextlib.closing(self._values):
                while self._wait_for_room():
                    self._put(next(self._values))
        except BaseException as error:  # raised again where the values are read
            self._finish(error)
        else:
            self._finish(StopIteration())

    def _wait_for_room(self) -> bool:
        """False where nobody reads any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._ahead or self._closed)
            return not self._closed

    def _put(self, value: Value) -> None:
        with self._changed:
            self._ready.append(value)
            self._changed.notify()

    def _finish(self, end: BaseException) -> None:
        with self._changed:
            self._end = end
            self._changed.notify()
