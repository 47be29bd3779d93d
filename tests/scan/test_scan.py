"""One pass over a source: every frame accounted for, stills at their true stamps, reasons."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import Image

from telecine.infra.errors import Reason
from telecine.infra.store.storage import Storage
from telecine.manifests.schemas import Clip, Source, Still, arrow_schema, from_arrow, to_arrow
from telecine.manifests.specs import DatasetSpec, ScanSpec, StillSpec
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.scan.clips import stills_digest
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.grid import middle, stride
from telecine.pipeline.scan.worker import Sampler, Scanned, scan_source
from tests.support.movies import Movie, frame_of, random_planes, write_movie

WIDTH, HEIGHT, FPS = 160, 96, 24


def scan(path: Path, spec: DatasetSpec | None = None) -> Scanned:
    info = Storage().stat(str(path))
    task = ScanTask(Found(info.uri, info.version, info.size_bytes), 0)
    return scan_source(task, Storage(), spec or DatasetSpec())


def scene(seed: int, count: int, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """A picture of large cells with a square that moves over it; each seed has its own light."""
    rng = np.random.default_rng(seed)
    low = 20 + 45 * (seed % 4)
    cells = rng.integers(low, low + 60, (height // 16, width // 16, 3))
    still = cells.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
    frames = []
    for i in range(count):
        frame = still.copy()
        left = 3 * i % (width - 24)
        frame[20:44, left : left + 24] = (250, 240, 230)
        frames.append(frame)
    return frames


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    stamps: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, FPS),
    **options: str,
) -> Path:
    if codec == "libx264":
        options = {"crf": "12", "preset": "ultrafast", **options}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = time_base
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (stamps[i] if stamps else i), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def check(scanned: Scanned) -> None:
    """What holds of every source that was scanned."""
    source, clips, stills = scanned.source, scanned.clips, scanned.stills
    assert source.status == "scanned", (source.reason, source.detail)
    assert source.num_frames == source.frames_kept + source.frames_dropped > 0
    assert source.frames_kept == sum(clip.num_frames for clip in clips)
    assert source.frames_dropped == sum(span.num_frames for span in source.dropped)
    spans = sorted(
        [(c.start_frame, c.num_frames, c.start_pts, c.end_pts) for c in clips]
        + [(d.start_frame, d.num_frames, d.start_pts, d.end_pts) for d in source.dropped]
    )
    place = 0
    for start, count, start_pts, end_pts in spans:  # they partition the frames, in time order
        assert start == place
        assert count > 0
        assert start_pts < end_pts
        place = start + count
    assert place == source.num_frames
    assert all(a[3] <= b[2] for a, b in pairwise(spans))
    for clip in clips:
        check_clip(clip, [still for still in stills if still.clip_id == clip.clip_id])
    assert len({clip.clip_id for clip in clips}) == len(clips) == source.num_clips
    assert len(stills) == sum(clip.num_stills for clip in clips)


def check_clip(clip: Clip, stills: list[Still]) -> None:
    spec = StillSpec()
    assert [still.position for still in stills] == list(range(clip.num_stills))
    assert 1 <= clip.num_stills <= spec.maximum
    assert clip.num_stills >= min(spec.minimum, clip.num_frames) or clip.kind == "image"
    assert clip.stills_digest == stills_digest([still.jpeg for still in stills])
    assert all(clip.start_pts <= still.pts < clip.end_pts for still in stills)
    assert all(a.pts < b.pts for a, b in pairwise(stills))
    for still in stills:
        with Image.open(io.BytesIO(still.jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (still.width, still.height))
        assert min(still.width, still.height) <= spec.short_side
        assert still.width <= clip.width
    numbers = dataclasses.asdict(clip)
    assert all(np.isfinite(v) for v in numbers.values() if isinstance(v, float))
    shares = ("motion", "brightness", "contrast", "saturation", "change")
    shares = (*shares, "black_share", "frozen_share", "combing")
    assert all(numbers[name] is None or 0 <= numbers[name] <= 1 for name in shares)
    assert clip.subject_motion is None or 0 <= clip.subject_motion <= clip.motion
    assert (clip.camera_x is None) == (clip.camera_y is None) == (clip.zoom is None)
    assert clip.letterbox_left + clip.letterbox_right < clip.width
    assert clip.letterbox_top + clip.letterbox_bottom < clip.height


# Generated footage


def test_shots_become_clips_and_dropped_spans(tmp_path: Path) -> None:
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 30
    frozen = [scene(7, 1)[0]] * 30
    frames = scene(1, 40) + scene(2, 12) + black + scene(3, 60) + frozen
    scanned = scan(write(tmp_path / "shots.mp4", frames, crf="0"))
    check(scanned)
    assert [(c.start_frame, c.num_frames, c.shot) for c in scanned.clips] == [
        (0, 40, 0),
        (82, 60, 3),
    ]
    dropped = [(d.start_frame, d.num_frames, d.reason) for d in scanned.source.dropped]
    assert dropped == [(40, 12, "too_short"), (52, 30, "black"), (142, 30, "frozen")]
    source = scanned.source
    assert (source.num_shots, source.timing, source.fps_num, source.fps_den) == (5, "pts", 24, 1)
    assert source.content_digest
    assert scanned.bytes_read >= source.size_bytes


def test_rows_survive_arrow(tmp_path: Path) -> None:
    scanned = scan(write(tmp_path / "a.mp4", scene(1, 30) + scene(2, 5)))
    for rows, kind in (([scanned.source], Source), (scanned.clips, Clip), (scanned.stills, Still)):
        table = to_arrow(rows, kind)
        assert table.schema == arrow_schema(kind)
        assert from_arrow(table, kind) == rows


def test_long_shots_are_split_evenly(tmp_path: Path) -> None:
    spec = DatasetSpec(scan=ScanSpec(max_seconds=2))
    scanned = scan(write(tmp_path / "long.mp4", scene(1, 121)), spec)
    check(scanned)
    assert [clip.num_frames for clip in scanned.clips] == [41, 40, 40]
    assert {clip.shot for clip in scanned.clips} == {0}


def test_a_moving_thing_smaller_than_the_grid_is_not_frozen(tmp_path: Path) -> None:
    frames = [np.full((768, 1280, 3), 90, np.uint8) for _ in range(48)]
    for i, frame in enumerate(frames):
        frame[19:30, 20 * (i // 16) : 20 * (i // 16) + 9] = 255
    scanned = scan(write(tmp_path / "dot.mp4", frames, crf="0"))
    check(scanned)
    assert scanned.source.num_clips == 1


def frame_number(jpeg: bytes) -> int:
    """Reads the bits that `numbered` painted."""
    with Image.open(io.BytesIO(jpeg)) as image:
        row = np.asarray(image.convert("L"))[HEIGHT // 2]
    return sum(1 << bit for bit in range(10) if row[16 * bit + 8] > 128)


def numbered(count: int) -> list[np.ndarray]:
    frames = []
    for number in range(count):
        row = np.array([255 * (number >> bit & 1) for bit in range(WIDTH // 16)], np.uint8)
        frames.append(np.broadcast_to(row.repeat(16)[None, :, None], (HEIGHT, WIDTH, 3)).copy())
    return frames


@pytest.mark.parametrize("variable", [False, True])
def test_stills_have_the_stamps_of_their_frames(tmp_path: Path, variable: bool) -> None:
    stamps = [10 * i + (i * i % 9 if variable else 0) for i in range(200)]
    path = write(tmp_path / "numbers.mkv", numbered(200), stamps=stamps, time_base=Fraction(1, 240))
    scanned = scan(path)
    assert scanned.source.num_frames == 200
    with av.open(str(path)) as container:
        shown = [frame.pts for frame in container.decode(video=0)]
    for still in scanned.stills:
        clip = next(c for c in scanned.clips if c.clip_id == still.clip_id)
        number = frame_number(still.jpeg)
        assert still.pts == shown[number]
        seconds = (still.pts - clip.start_pts) * clip.time_base_num / clip.time_base_den
        assert still.seconds == pytest.approx(seconds)
    assert all(clip.variable_rate == variable for clip in scanned.clips)


def test_about_one_still_a_second_spread_over_the_clip(tmp_path: Path) -> None:
    scanned = scan(write(tmp_path / "ten.mp4", scene(1, 10 * FPS) + scene(2, FPS)))
    check(scanned)
    times = [s.seconds for s in scanned.stills if s.clip_id == scanned.clips[0].clip_id]
    assert len(times) == 10
    assert max(np.diff([0.0, *times, 10.0])) <= 1.5
    assert scanned.clips[1].num_stills == 3


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_an_elementary_stream_is_counted_in_frames(tmp_path: Path, codec: str) -> None:
    name = {"libx264": "raw.h264", "mpeg2video": "raw.m2v"}[codec]
    scanned = scan(write(tmp_path / name, scene(1, 50) + scene(2, 40), codec))
    check(scanned)
    source = scanned.source
    assert source.timing in ("ordinal", "pts")
    if codec == "libx264":
        assert (source.timing, source.start_pts, source.end_pts) == ("ordinal", 0, 90)
        rate = Fraction(source.fps_num, source.fps_den)
        assert Fraction(source.time_base_num, source.time_base_den) == 1 / rate
        assert [(c.start_pts, c.end_pts) for c in scanned.clips] == [(0, 50), (50, 90)]
    assert [c.start_frame for c in scanned.clips] == [0, 50]


def test_b_frames_in_avi_have_no_stamps_to_trust(tmp_path: Path) -> None:
    frames = scene(1, 50) + scene(2, 40)
    scanned = scan(write(tmp_path / "b.avi", frames, "mpeg4", bf="2", qscale="3"))
    check(scanned)
    assert scanned.source.num_frames in (89, 90)  # packed B-frames may lose the last
    assert [c.start_frame for c in scanned.clips] == [0, 50]


def test_a_change_of_size_is_a_cut(tmp_path: Path) -> None:
    parts = [(WIDTH, HEIGHT, 1), (2 * WIDTH, HEIGHT, 1)]
    data = b""
    for width, height, seed in parts:
        path = write(tmp_path / f"{width}.h264", scene(seed, 30, width, height), bf="0")
        data += path.read_bytes()
    whole = tmp_path / "sizes.h264"
    whole.write_bytes(data)
    scanned = scan(whole)
    check(scanned)
    assert [(c.start_frame, c.width, c.height) for c in scanned.clips] == [
        (0, WIDTH, HEIGHT),
        (30, 2 * WIDTH, HEIGHT),
    ]


def test_a_size_that_grows_too_large_is_refused(tmp_path: Path) -> None:
    """Of very wide pixels: each size is bounded as it is displayed, not as it is stored."""
    data = b""
    for side in (64, 256):
        planes = random_planes(side, side, side)
        movie = Movie(sar=Fraction(15))
        data += write_movie(tmp_path / f"{side}.h264", [planes] * 30, movie).read_bytes()
    (tmp_path / "grows.h264").write_bytes(data)
    for max_pixels, status in ((15 * 256 * 256, "scanned"), (15 * 256 * 256 - 1, "rejected")):
        spec = DatasetSpec(scan=ScanSpec(max_pixels=max_pixels))
        source = scan(tmp_path / "grows.h264", spec).source
        assert (source.status, source.width) == (status, 15 * 64)
        assert source.reason == ("" if status == "scanned" else Reason.TOO_LARGE)


def test_a_hole_in_the_stamps_parts_two_shots(tmp_path: Path) -> None:
    stamps = [i if i < 40 else i + 24 * 500 for i in range(80)]
    path = write(tmp_path / "hole.mkv", scene(1, 80), stamps=stamps)
    scanned = scan(path)
    check(scanned)
    assert [c.num_frames for c in scanned.clips] == [40, 40]
    assert scanned.clips[0].duration_seconds == pytest.approx(40 / 24, abs=0.01)


def test_two_scans_give_equal_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.mp4", scene(1, 60) + scene(2, 60))
    assert scan(path) == scan(path)


def test_an_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(scene(1, 1, 800, 480)[0]).save(tmp_path / "a.png")
    scanned = scan(tmp_path / "a.png")
    check(scanned)
    (clip,), (still,) = scanned.clips, scanned.stills
    assert (clip.kind, clip.num_frames, clip.start_pts, clip.end_pts) == ("image", 1, 0, 1)
    assert (clip.duration_seconds, clip.motion, clip.temporal_information) == (0, 0, 0)
    assert (still.width, still.height, still.seconds) == (640, 384, 0)
    assert clip.spatial_information > 0


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.mp4", b"", Reason.EMPTY),
        ("text.mp4", b"ffconcat version 1.0\nfile other.mp4\n", Reason.UNRECOGNISED),
        ("half.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, Reason.CORRUPT),
    ],
)
def test_bad_sources_are_rows(tmp_path: Path, name: str, data: bytes, reason: Reason) -> None:
    (tmp_path / name).write_bytes(data)
    scanned = scan(tmp_path / name)
    assert (scanned.source.status, scanned.source.reason) == ("rejected", reason)
    assert scanned.source.detail
    assert scanned.source.content_digest
    assert not scanned.clips


LAYOUTS = (
    "yuv420p", "yuv420p10le", "uyvy422", "yuyv422", "nv12", "nv21", "yuva420p", "bgr24", "bgra",
    "gbrp",
)  # fmt: skip


def test_layouts_of_the_same_pictures_measure_alike(tmp_path: Path) -> None:
    """Also packed and semi-planar ones, alpha and RGB; grey, so that matrices make no difference.

    Noise tells single pixels from averages.
    """
    rng = np.random.default_rng(5)
    levels = [rng.normal(40 + 2 * i, 12, (192, 320)).clip(0, 250) for i in range(30)]
    measured = {}
    for layout in LAYOUTS:
        path = tmp_path / f"{layout}.nut"
        full = layout.startswith(("bgr", "gbr"))
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("rawvideo", rate=25)
            stream.height, stream.width = levels[0].shape
            stream.pix_fmt = layout
            stream.codec_context.color_range = 2 if full else 1
            for level in levels:
                grey = np.rint(level if full else 16 + level * 219 / 255).astype(np.uint8)
                if full:
                    frame = av.VideoFrame.from_ndarray(np.dstack([grey] * 3), format="rgb24")
                else:
                    neutral = np.full_like(grey, 128)
                    planes = np.stack([grey, neutral, neutral])
                    frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
                ranges = {"src_color_range": 1 + full, "dst_color_range": 1 + full}
                container.mux(stream.encode(frame.reformat(format=layout, **ranges)))
            container.mux(stream.encode())
        (measured[layout],) = scan(path).clips
    truth = measured["yuv420p"]
    assert truth.brightness == pytest.approx(np.mean(levels) / 255, abs=0.003)
    assert truth.contrast == pytest.approx(12 / 255, abs=0.003)
    for layout, clip in measured.items():
        for name in ("brightness", "contrast"):
            assert getattr(clip, name) == pytest.approx(getattr(truth, name), abs=0.004), layout
        near = pytest.approx(truth.temporal_information, rel=0.05)
        assert clip.temporal_information == near, layout


@pytest.mark.parametrize(("width", "height"), [(70_000, 3), (3, 70_000), (20_000, 400)])
def test_a_very_long_image_has_a_still(tmp_path: Path, width: int, height: int) -> None:
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(tmp_path / "long.png")
    scanned = scan(tmp_path / "long.png")
    check(scanned)
    (still,) = scanned.stills
    assert max(still.width, still.height) == 16 * StillSpec().short_side


def test_the_grid_of_a_picture_that_lies_bottom_up() -> None:
    rng = np.random.default_rng(2)
    upright = frame_of(tuple(rng.integers(0, 256, (3, 96, 160), np.uint8)), "yuv444p")
    graph = Graph()
    source = graph.add_buffer(width=160, height=96, format="yuv444p", time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink")).configure()
    graph.vpush(upright)
    flipped = graph.vpull()
    assert flipped.planes[0].line_size < 0
    facts = MediaFacts(
        container="x", codec="x", pixel_format="yuv444p", bit_depth=8, coded_width=160,
        coded_height=96, width=160, height=96,
    )  # fmt: skip
    sampler = Sampler(flipped, facts)
    grid = sampler.empty(1)
    sampler.sample(flipped, grid, 0)
    rows, columns = middle(96, stride(160, 96)), middle(160, stride(160, 96))
    assert np.array_equal(grid.luma[0], flipped.to_ndarray()[0][rows, columns])


THIN = [(1, 1), (64, 1), (1, 64), (2, 2000), (2000, 2), (3, 101), (33, 5)]


@pytest.mark.parametrize("layout", ["rgb24", "bgr0", "gray", "yuv420p", "yuv444p", "nv12"])
@pytest.mark.parametrize(("width", "height"), THIN)
def test_thin_footage_is_footage(tmp_path: Path, width: int, height: int, layout: str) -> None:
    path = tmp_path / "thin.nut"
    rng = np.random.default_rng(3)
    pictures = [rng.integers(90, 200, (height, width, 3), np.uint8) for _ in range(50)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, layout
        for pixels in pictures:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=layout)))
        container.mux(stream.encode())
    scanned = scan(path)
    check(scanned)
    clips = scanned.clips
    assert sum(clip.num_frames for clip in clips) == 50
    assert {(clip.width, clip.height) for clip in clips} == {(width, height)}
    assert all(0.35 < clip.brightness < 0.75 for clip in clips)


@pytest.mark.parametrize(("width", "height"), THIN)
def test_a_thin_image_is_a_clip(tmp_path: Path, width: int, height: int) -> None:
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(tmp_path / "thin.png")
    scanned = scan(tmp_path / "thin.png")
    check(scanned)
    (clip,) = scanned.clips
    assert (clip.width, clip.height) == (width, height)
    assert clip.brightness == pytest.approx(90 / 255, abs=1e-4)


def test_a_video_of_few_pixels_is_a_clip(footage: Path) -> None:
    scanned = scan(footage / "bad" / "moviepy__-video-with-dash-.mp4")
    check(scanned)
    assert scanned.source.num_clips == 1


def test_an_object_that_is_gone_or_changed_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", scene(1, 30))
    info = Storage().stat(str(path))
    found = Found(info.uri, info.version, info.size_bytes)
    path.write_bytes(b"other")
    for _ in range(2):
        scanned = scan_source(ScanTask(found, 3), Storage(), DatasetSpec())
        assert (scanned.source.status, scanned.source.reason) == ("rejected", "unreadable")
        assert (scanned.source.revision, scanned.source.content_digest) == (3, "")
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("last", [1, 20_000])
def test_a_last_frame_of_an_unlikely_length_changes_no_clip(tmp_path: Path, last: int) -> None:
    path = tmp_path / "last.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        packets = []
        for pixels in scene(1, 25):
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        packets += stream.encode()
        for i, packet in enumerate(packets):
            packet.pts = packet.dts = 40 * i
            packet.duration, packet.time_base = (last if i == 24 else 40), Fraction(1, 1000)
            container.mux(packet)
    (clip,) = scan(path).clips
    assert (clip.num_frames, clip.variable_rate) == (25, False)
    assert clip.duration_seconds == pytest.approx(1)


# Real footage

REAL = [
    "androidx__sample.avi",
    "androidx__bbb_176x144_128kbps_15fps_h263.3gp",
    "androidx__iibbibb_editlist_videoonly.mp4",
    "androidx__london.jpg",
    "jcodec__test.prores.mov",
    "libvpl__cars_320x240.h265",
    "libvpl__cars_320x240.mjpeg",
    "mdnshared__hand-controller-target-ray.gif",
    "mdninter__stream-of-water.mp4",
    "mp4parser__count-video.mp4",
    "openshot__test1.mp4",
    "phpffmpeg__portrait.MOV",
    "playwright__movie.ogv",
    "pyscenedetect__fades.mp4",
    "rsmpeg__centaur.mpg",
    "streamio__awesome movie.mov",
    "torchcodec__var_fps_video.mp4",
]


@pytest.mark.parametrize("name", REAL)
def test_real_footage_is_accounted_for(footage: Path, name: str) -> None:
    scanned = scan(footage / name)
    check(scanned)
    again = scan(footage / name)
    assert again.clips == scanned.clips
    assert again.stills == scanned.stills


@pytest.mark.slow
def test_all_footage_is_accounted_for_or_rejected(footage: Path) -> None:
    for path in sorted([*footage.iterdir(), *(footage / "bad").iterdir()]):
        if path.is_file() and path.suffix != ".csv":
            scanned = scan(path)
            if scanned.source.status == "scanned":
                check(scanned)
            else:
                assert scanned.source.reason in set(Reason)
                assert scanned.source.detail
