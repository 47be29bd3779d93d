"""ObjectReader on disk and S3: the same bytes, few of them fetched, one version only."""

from __future__ import annotations

import io
import random
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telecine.infra.store.reader import BLOCK_BYTES, BlockDigest
from telecine.infra.store.storage import Storage, join
from tests.support.digests import reference_digest
from tests.support.s3 import S3Server

STEP = st.tuples(st.integers(0, 40_000_000), st.integers(0, 3_000_000))
SIZES = (0, 1, 300_000, BLOCK_BYTES, 2 * BLOCK_BYTES + 12_345)
DATA = {size: random.Random(size).randbytes(size) for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, max_size=12))
def test_a_reader_gives_the_objects_bytes_and_digest(
    storage: Storage, root: str, size: int, steps: list[tuple[int, int]]
) -> None:
    data, uri = DATA[size], join(root, f"{size}.bin")
    if not storage.exists(uri):
        storage.write_bytes(uri, data)
    with storage.open(storage.stat(uri)) as reader:
        for offset, length in steps:
            at = offset % (size + 2)
            assert reader.seek(at) == reader.tell() == at
            assert reader.read(length) == data[at : at + length]
        assert reader.content_digest() == reference_digest(data)
        fetched = reader.bytes_read
        assert reader.content_digest() == reference_digest(data)
        assert reader.bytes_read == fetched


@given(st.lists(STEP, max_size=20), st.integers(0, 3 * BLOCK_BYTES))
@settings(max_examples=30, deadline=None)
def test_a_digest_wants_only_what_it_has_not_seen(steps: list[tuple[int, int]], size: int) -> None:
    data = bytes(size)
    digest = BlockDigest(size)
    for offset, length in steps:
        start = offset % (size + 1)
        digest.update(start, data[start : start + length])
    left = list(digest.left())
    assert sum(length for _, length in left) <= size
    for offset, length in reversed(left):
        digest.update(offset, data[offset : offset + length])
    assert not list(digest.left())
    assert digest.hexdigest() == reference_digest(data)


def test_a_reader_is_a_binary_file(storage: Storage, root: str) -> None:
    uri = join(root, "file.bin")
    storage.write_bytes(uri, b"0123456789")
    with storage.open(storage.stat(uri)) as reader:
        assert reader.readable()
        assert reader.seekable()
        assert not reader.writable()
        assert reader.seek(-3, io.SEEK_END) == 7
        buffer = bytearray(8)
        assert reader.readinto(buffer) == 3
        assert buffer[:3] == b"789"
        assert reader.seek(-5, io.SEEK_CUR) == 5
        assert reader.seek(100) == 100
        assert reader.read(1) == b""
        with pytest.raises(ValueError, match="before the object's first byte"):
            reader.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)
    assert io.BufferedReader(storage.open(storage.stat(uri))).read(4) == b"0123"


def test_reading_in_order_fetches_each_byte_once(storage: Storage, s3: S3Server) -> None:
    size = 40 * 2**20
    data = random.Random(1).randbytes(size)
    storage.write_bytes(s3.uri("big"), data)
    with storage.open(storage.stat(s3.uri("big"))) as reader:
        parts = []
        while part := reader.read(32_768):
            parts.append(part)
        assert b"".join(parts) == data
        assert reader.content_digest() == reference_digest(data)
        assert reader.bytes_read == size


def test_a_far_read_fetches_little(storage: Storage, s3: S3Server) -> None:
    storage.write_bytes(s3.uri("big"), DATA[2 * BLOCK_BYTES + 12_345])
    with storage.open(storage.stat(s3.uri("big"))) as reader:
        reader.seek(9_000_000)
        reader.read(1000)
        assert reader.bytes_read <= 256 * 2**10


def test_two_interleaved_positions_both_grow(storage: Storage, s3: S3Server) -> None:
    """A file whose sound lies far from its pictures is read at two places in turn."""
    data = DATA[2 * BLOCK_BYTES + 12_345]
    storage.write_bytes(s3.uri("big"), data)
    with storage.open(storage.stat(s3.uri("big"))) as reader:
        for offset in range(0, 4_000_000, 50_000):
            for base in (0, 8_000_000):
                reader.seek(base + offset)
                assert reader.read(50_000) == data[base + offset :][:50_000]
        assert reader.bytes_read < 2.5 * 8_000_000


def test_pyav_decodes_from_s3_by_ranges(
    storage: Storage, s3: S3Server, footage: Path, record_property: pytest.RecordProperty
) -> None:
    path = footage / "cosmoscurate__test_video_30s.mp4"
    storage.upload(path, s3.uri("clip.mp4"))
    info = storage.stat(s3.uri("clip.mp4"))
    with storage.open(info) as reader, av.open(reader) as remote, av.open(str(path)) as local:
        frames = sum(1 for _ in remote.decode(video=0))
        assert frames == sum(1 for _ in local.decode(video=0)) > 0
        assert reader.content_digest() == reference_digest(path.read_bytes())
        record_property("bytes_read_per_byte", reader.bytes_read / info.size_bytes)
        assert reader.bytes_read <= 1.2 * info.size_bytes


def test_a_span_of_a_long_file_costs_few_bytes(
    storage: Storage, s3: S3Server, footage: Path, tmp_path: Path
) -> None:
    """Two seconds from the middle of a file made sixty times as long by remuxing."""
    path = tmp_path / "long.mp4"
    seconds = _repeat(footage / "cosmoscurate__test_video_30s.mp4", path, times=60)
    storage.upload(path, s3.uri("long.mp4"))
    info = storage.stat(s3.uri("long.mp4"))
    with storage.open(info) as reader, av.open(reader) as media:
        stream = media.streams.video[0]
        assert stream.time_base is not None
        media.seek(int(seconds / 2 / stream.time_base), stream=stream)
        begin = next(media.decode(stream)).time
        for frame in media.decode(stream):
            if frame.time - begin > 2:
                break
        print(f"{reader.bytes_read} of {info.size_bytes} bytes for 2 of {seconds:.0f} s")
        assert reader.bytes_read < 0.05 * info.size_bytes


def _repeat(source: Path, target: Path, times: int) -> float:
    """Remux a file's pictures end to end; returns the length in seconds."""
    with av.open(str(target), "w") as out:
        stream, end = None, 0
        for _ in range(times):
            with av.open(str(source)) as media:
                video = media.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                first = end
                for packet in media.demux(video):
                    if packet.dts is None or packet.pts is None or packet.duration is None:
                        continue
                    packet.pts, packet.dts = packet.pts + first, packet.dts + first
                    end = max(end, packet.dts + packet.duration)
                    packet.stream = stream
                    out.mux(packet)
        assert stream is not None
        assert video.time_base is not None
        return float(end * video.time_base)
