"""A stored object as a seekable file over byte ranges.

    PyAV, Pillow ──read/seek──▶ ObjectReader ──▶ spans (cache, read-ahead) ──▶ ranges of the store
                                     └──▶ BlockDigest sees every byte fetched

A scan reads a whole object and wants few, large requests; a build reads two seconds out of two
gigabytes and wants few bytes. Nobody has to say which: a span that continues another is twice as
long, one that continues nothing is short.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from telecine.infra.pulse import beat

if TYPE_CHECKING:
    from _hashlib import HASH

    from _typeshed import WriteableBuffer

BLOCK_BYTES = 8 * 2**20  # of the content digest
FIRST_SPAN_BYTES = 256 * 2**10  # and the grid that spans begin on
LAST_SPAN_BYTES = 8 * 2**20  # a span grows no longer; from here on the next one is read ahead
CACHE_BYTES = 32 * 2**20


class Ranges(Protocol):
    """Bytes of one version of one object."""

    remote: bool  # each read costs a round trip: worth a cache

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises Changed if the object is another by now, NotFound if gone."""

    def verify(self) -> None:
        """Raises Changed if what was read so far may be of another version."""

    def close(self) -> None: ...


class BlockDigest:
    """SHA-256 over the concatenated SHA-256 of each 8 MiB block, fed ranges as they come.

    Each block is hashed as far as its bytes came in order:

        block   |■■■■■■■■■■······|■■■■■■■■■■■■■■■■|················|
                 hashed     left
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._open: dict[int, tuple[HASH, int]] = {}  # block -> its hash, where it goes on
        self._done: dict[int, bytes] = {}

    def update(self, offset: int, data: bytes) -> None:
        view, end = memoryview(data), offset + len(data)
        for block in range(offset // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            begin, stop = self._left(block)
            upto = min(end, stop)
            if offset <= begin < upto:
                self._feed(block, view[begin - offset : upto - offset], upto)

    def left(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what each block still lacks, in order."""
        for block in range(-(-self.size_bytes // BLOCK_BYTES)):
            begin, stop = self._left(block)
            if begin < stop:
                yield begin, stop - begin

    def hexdigest(self) -> str:
        blocks = (self._done[block] for block in range(-(-self.size_bytes // BLOCK_BYTES)))
        return hashlib.sha256(b"".join(blocks)).hexdigest()

    def _left(self, block: int) -> tuple[int, int]:
        stop = min((block + 1) * BLOCK_BYTES, self.size_bytes)
        if block in self._done:
            return stop, stop
        return (self._open[block][1] if block in self._open else block * BLOCK_BYTES), stop

    def _feed(self, block: int, data: memoryview, upto: int) -> None:
        state, _ = self._open.pop(block, (hashlib.sha256(), 0))
        state.update(data)
        beat()  # bytes that nobody saw before
        if upto == min((block + 1) * BLOCK_BYTES, self.size_bytes):
            self._done[block] = state.digest()
        else:
            self._open[block] = state, upto


class ObjectReader(io.RawIOBase):
    """One version of one object, as a file. Not for two threads at once.

    `bytes_read` counts what was fetched from the store, read-ahead included.
    """

    def __init__(self, ranges: Ranges, size_bytes: int) -> None:
        super().__init__()
        self.size_bytes = size_bytes
        self.bytes_read = 0
        self._ranges = ranges
        self._position = 0
        self._digest = BlockDigest(size_bytes)
        self._spans: OrderedDict[int, bytes] = OrderedDict()  # by offset, least recent first
        self._recent = (0, b"")
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}, before the object's first byte")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the object's end."""
        if self.closed:
            raise ValueError("read of a closed object")
        left = max(0, self.size_bytes - self._position)
        length = left if size is None or size < 0 else min(size, left)
        data = self._read_at(self._position, length) if length else b""
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def content_digest(self) -> str:
        """The object's BlockDigest in hexadecimal; fetches only what no read has brought yet."""
        for start, span in sorted(self._spans.items()):  # came out of order: the index at the end
            self._digest.update(start, span)
        for offset, data in self._fetch_in_turn(list(self._digest.left())):
            self._digest.update(offset, data)
        self._ranges.verify()
        return self._digest.hexdigest()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._spans.clear()
        self._recent = (0, b"")
        self._ranges.close()

    def _read_at(self, offset: int, length: int) -> bytes:
        if not self._ranges.remote:
            return self._fetch(offset, length)
        parts = []
        while length:
            start, span = self._span(offset)
            part = span[offset - start : offset - start + length]
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch(self, offset: int, length: int) -> bytes:
        self.bytes_read += length
        data = self._ranges.read(offset, length)
        self._digest.update(offset, data)
        return data

    def _span(self, offset: int) -> tuple[int, bytes]:
        """The span that holds a byte, fetched if need be."""
        start, data = self._recent
        if not start <= offset < start + len(data):
            start, data = self._cached(offset) or self._taken_ahead(offset) or self._new(offset)
            self._spans[start] = data
            self._spans.move_to_end(start)
            self._recent = start, data
            while sum(map(len, self._spans.values())) > CACHE_BYTES:
                self._spans.popitem(last=False)
            self._read_ahead(start, data)
        return start, data

    def _cached(self, offset: int) -> tuple[int, bytes] | None:
        spans = self._spans.items()
        return next(((s, data) for s, data in spans if s <= offset < s + len(data)), None)

    def _new(self, offset: int) -> tuple[int, bytes]:
        start = offset - offset % FIRST_SPAN_BYTES
        before = next((len(d) for s, d in self._spans.items() if s + len(d) == start), 0)
        length = min(max(2 * before, FIRST_SPAN_BYTES), LAST_SPAN_BYTES)
        stop = min([start + length, self.size_bytes, *(s for s in self._spans if s > start)])
        return start, self._fetch(start, stop - start)

    def _read_ahead(self, start: int, data: bytes) -> None:
        after = start + len(data)
        length = min(LAST_SPAN_BYTES, self.size_bytes - after)
        idle = self._ahead is None or self._ahead[1].done()
        if len(data) == LAST_SPAN_BYTES and length and idle and not self._cached(after):
            self._ahead = after, self._submit(after, length)

    def _taken_ahead(self, offset: int) -> tuple[int, bytes] | None:
        if self._ahead is None:
            return None
        start, future = self._ahead
        if not start <= offset < start + LAST_SPAN_BYTES:
            return None
        self._ahead = None
        data = future.result()
        self._digest.update(start, data)
        return start, data

    def _submit(self, offset: int, length: int) -> Future[bytes]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "read-ahead")
        self.bytes_read += length
        return self._thread.submit(self._ranges.read, offset, length)

    def _fetch_in_turn(self, wanted: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Each range in order, the next one under way while the caller works on this one."""
        fetch: Callable[[int, int], Future[bytes]] = self._submit
        ahead = fetch(*wanted[0]) if wanted else None
        for place, (offset, _) in enumerate(wanted):
            assert ahead is not None
            data = ahead.result()
            ahead = fetch(*wanted[place + 1]) if place + 1 < len(wanted) else None
            yield offset, data
