"""Damaged streams: nothing that decodes is given up, and every damaged frame is counted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.specs import DatasetSpec, PixelSpec, ScanSpec
from telecine.pipeline.look.explain import explain
from telecine.pipeline.look.verdict import Why
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import Scanned, scan_source
from tests.support import inline
from tests.support.cases import case

FRAMES = 60
TS_PACKET = 188


def encoded(
    form: str, codec: str, *, garbage: dict[int, int] | None = None, gop: int = 12
) -> bytes:
    """Noise that moves, of 64×64 px; `garbage`: how many packets of it come before which packet."""
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (64, 128, 3), np.uint8)
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=25, options=_FAST.get(codec, {}))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = 0
        packets = [
            packet
            for n in range(FRAMES)
            for packet in stream.encode(av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[:, n % 60 : n % 60 + 64]), format="rgb24"
            ))
        ] + stream.encode()  # fmt: skip
        container.mux(_with_garbage(packets, garbage or {}))
    return buffer.getvalue()


_FAST = {
    "libx264": {"preset": "ultrafast", "x264-params": "scenecut=0"},
    "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"},
}


def _with_garbage(packets: list[Any], garbage: dict[int, int]) -> Iterator[Any]:
    """Each packet of garbage a tick after the one before it."""
    at = 0
    for place, packet in enumerate([*packets, None]):
        for _ in range(garbage.get(place, 0)):
            broken: Any = Packet(b"\xff\x00\xff" * 5)
            broken.stream, broken.time_base = packets[0].stream, Fraction(1, 1000)
            broken.pts = broken.dts = at
            at += 1
            yield broken
        if packet is not None:
            packet.pts = packet.dts = at = max(at, round(1000 * packet.pts * packet.time_base))
            packet.time_base = Fraction(1, 1000)
            at += 1
            yield packet


def opened(data: bytes) -> Video:
    video = open_media(io.BytesIO(data), ScanSpec(), PixelSpec())
    assert isinstance(video, Video)
    return video


def marks(data: bytes) -> list[bool]:
    """Of every frame that decodes, whether it is damaged."""
    with opened(data) as video:
        return [video.is_damaged(frame) for frame in video.frames()]


def scan(path: Path) -> Scanned:
    info = Storage().stat(str(path))
    task = ScanTask(Found(info.uri, info.version, info.size_bytes), 0)
    return scan_source(task, Storage(), DatasetSpec())


# ── refused packets ──────────────────────────────────────────────────────────────────────────────

MANY = 1300


@pytest.mark.parametrize("places", [{0: MANY}, {24: MANY}, {60: MANY}, {0: 700, 24: 700, 36: 1}])
@pytest.mark.parametrize("form", ["matroska", "nut"])
def test_what_comes_after_refused_packets_is_decoded(form: str, places: dict[int, int]) -> None:
    data = encoded(form, "libvpx-vp9", garbage=places)
    with opened(data) as video:
        frames = sum(1 for _ in video.frames())
    assert (frames, video.decode_errors) == (FRAMES, sum(places.values()))


def test_frames_that_refer_to_what_was_refused_are_damaged() -> None:
    """Until the next key frame, of which each twelfth is one."""
    damaged = marks(encoded("matroska", "libvpx-vp9", garbage={0: 3, 17: 2, 36: 5}))
    assert [n for n, is_damaged in enumerate(damaged) if is_damaged] == [*range(17, 24)]


def test_the_cases_of_refused_packets() -> None:
    for name, frames in (("late_key_vp9.webm", 120), ("broken_middle.webm", 180)):
        source = scan(case(name)).source
        assert (source.status, source.num_frames) == ("scanned", frames)
        assert source.decode_errors > 1000


# ── what the decoder conceals ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_lost_packets_of_a_transport_stream_damage_frames(codec: str) -> None:
    data = encoded("mpegts", codec)
    assert not any(marks(data))
    middle = len(data) // TS_PACKET // 2 * TS_PACKET
    found = marks(data[:middle] + data[middle + 2 * TS_PACKET :])
    assert 0 < sum(found) < FRAMES // 2
    assert not any(found[:20])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])
def test_concealed_macroblocks_damage_frames(codec: str) -> None:
    data = bytearray(encoded("matroska", codec, gop=100))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    assert any(marks(bytes(data)))


@pytest.mark.parametrize(
    ("form", "codec"),
    [(form, codec) for form in ("matroska", "mpegts", "mp4") for codec in ("libx264", "mpeg4")]
    + [("matroska", "libvpx-vp9"), ("mpegts", "mpeg2video")],
)
def test_whole_streams_have_no_damage(form: str, codec: str) -> None:
    assert marks(encoded(form, codec)) == [False] * FRAMES


def lossy(folder: Path) -> Path:
    """A film of which two packets in the middle were lost."""
    folder.mkdir(exist_ok=True)
    data = encoded("mpegts", "libx264")
    middle = len(data) // TS_PACKET // 2 * TS_PACKET
    (folder / "lossy.ts").write_bytes(data[:middle] + data[middle + 2 * TS_PACKET :])
    return folder / "lossy.ts"


def test_damage_is_counted_by_clip(tmp_path: Path) -> None:
    (clip,) = scan(lossy(tmp_path)).clips
    assert clip.corrupt_frames
    assert clip.corrupt_frames < clip.num_frames


def test_a_build_leaves_out_what_is_damaged_or_is_told_to_keep_it(tmp_path: Path) -> None:
    dataset = str(tmp_path / "dataset")
    spec = {"buckets": {"resolutions": [64]}}
    ingested = inline.ingest(str(lossy(tmp_path / "footage").parent), dataset, spec)
    assert ingested.build.dropped_by_reason == {"damaged": 1}
    explained = explain(open_dataset(dataset, Storage()), "lossy.ts")
    assert explained.verdict.why is Why.DAMAGED
    assert "of 60 frames are damaged" in explained.verdict.text
    again = inline.rebuild(dataset, retry=True)
    assert (again.samples, again.dropped) == (0, 0), "to try again would change nothing"
    kept = inline.rebuild(dataset, {"select": {"damaged": "keep"}})
    assert (kept.samples, kept.dropped) == (1, 0)


def test_the_cases_of_lost_packets() -> None:
    lossy, clean = (scan(case(f"{name}_h264.ts")).clips for name in ("loss", "clean"))
    assert sum(clip.corrupt_frames or 0 for clip in lossy) == 10
    assert {clip.corrupt_frames for clip in clean} == {0}
