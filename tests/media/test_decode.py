"""Clips to blocks: the right frames, exactly, wherever decoding begins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from telecine.encoders.frames import FrameBlock
from telecine.infra.errors import MediaError, Reason
from telecine.manifests.schemas import Clip
from telecine.pipeline.media.decode import Cut, decode_clip
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.geometry import Crop, crop_to_grid
from telecine.pipeline.media.open import open_media
from telecine.pipeline.media.timing import Shown, encoded_frames
from tests.support.movies import (
    PIXELS,
    SCAN,
    Movie,
    clip_of,
    number_of,
    numbered,
    open_video,
    read_facts,
    source_of,
    write_movie,
)

TICK = Fraction(1, 12800)
WHOLE = Crop(0, 0, 64, 64)
GOP = (("qp", "0"), ("preset", "ultrafast"), ("g", "10"), ("bf", "2"))
# Stamps in 1/12800 s that wander around 25 frames per second, with a hole and a burst
UNEVEN = [0, 500, 1100, 1500, 2048, 4096, 4200, 4300, 4400, 5120, 5632, 6144, 6656, 9000, 9500]


def decode(
    path: Path,
    clip: Clip,
    facts: MediaFacts,
    rate: Fraction = Fraction(25),
    frames: int | None = None,
    sizes: Sequence[int] | None = None,
    from_start: bool = False,
    crop: Crop = WHOLE,
) -> list[FrameBlock]:
    count = encoded_frames(clip, rate) if frames is None else frames
    cut = Cut(rate, count, crop, iter(sizes or [count]))
    with path.open("rb") as file:
        return list(decode_clip(file, source_of(facts), clip, cut, PIXELS, from_start))


def numbers(blocks: Sequence[FrameBlock]) -> list[int]:
    return [number_of(picture) for block in blocks for picture in block.rgb()]


def movie(tmp_path: Path, stamps: Sequence[int], name: str = "a.mp4") -> tuple[Path, MediaFacts]:
    pictures = [numbered(k) for k in range(len(stamps))]
    path = write_movie(tmp_path / name, pictures, Movie(options=GOP), stamps)
    return path, read_facts(path)


@pytest.mark.parametrize("first", [0, 1, 7, 10, 23, 35])
def test_a_constant_clip_is_its_frames_one_to_one(tmp_path: Path, first: int) -> None:
    stamps = [k * 512 for k in range(41)]
    path, facts = movie(tmp_path, stamps[:40])
    clip = clip_of(facts, TICK, stamps, first, 5, Fraction(25))
    blocks = decode(path, clip, facts, sizes=[1, 4])
    assert [block.shape[0] for block in blocks] == [1, 4]
    assert numbers(blocks) == list(range(first, first + 5))


@pytest.mark.parametrize("rate", ["25", "10", "30000/1001"])
@pytest.mark.parametrize(("first", "count"), [(0, 14), (3, 9)])
def test_uneven_frames_come_out_where_their_time_is(
    tmp_path: Path, rate: str, first: int, count: int
) -> None:
    path, facts = movie(tmp_path, UNEVEN[:-1])
    clip = clip_of(facts, TICK, UNEVEN, first, count, Fraction(25), variable=True)
    wanted = Fraction(rate)
    start, end = UNEVEN[first], UNEVEN[first + count]
    step = 1 / (wanted * TICK)
    number = round((end - start) * TICK * wanted + Fraction(1, 1000))
    native = range(first, first + count)
    expected = [min(native, key=lambda i: abs(UNEVEN[i] - start - k * step)) for k in range(number)]
    assert numbers(decode(path, clip, facts, wanted)) == expected


def test_another_rate_is_taken_by_time(tmp_path: Path) -> None:
    stamps = [k * 512 for k in range(41)]
    path, facts = movie(tmp_path, stamps[:40])
    clip = clip_of(facts, TICK, stamps, 4, 20, Fraction(25))
    assert numbers(decode(path, clip, facts, Fraction(5))) == [4, 9, 14, 19]
    assert numbers(decode(path, clip, facts, Fraction(50), frames=5)) == [4, 4, 5, 5, 6]


def test_frames_without_stamps_are_counted(tmp_path: Path) -> None:
    path, facts = movie(tmp_path, [k * 512 for k in range(30)], "a.h264")
    clip = clip_of(facts, Fraction(1, 25), range(31), 12, 6, Fraction(25), timing="ordinal")
    assert numbers(decode(path, clip, facts)) == list(range(12, 18))


@pytest.mark.parametrize(("expected", "needed"), [(6, 5), (4, 4), (6, 6)])
def test_a_span_with_another_number_of_frames_is_a_mismatch(
    tmp_path: Path, expected: int, needed: int
) -> None:
    """Of five frames: the last block is held back until they are counted."""
    stamps = [k * 512 for k in range(41)]
    path, facts = movie(tmp_path, stamps[:40])
    fields = {**vars_of(clip_of(facts, TICK, stamps, 3, 5, Fraction(25))), "num_frames": expected}
    got: list[FrameBlock] = []
    with path.open("rb") as file, pytest.raises(MediaError) as caught:
        got.extend(
            decode_clip(
                file, source_of(facts), Clip(**fields),
                Cut(Fraction(25), needed, WHOLE, iter([1, needed - 1])), PIXELS,
            )
        )  # fmt: skip
    assert caught.value.reason is Reason.FRAMES_MISMATCH
    assert not got or [block.shape[0] for block in got] == [1]


def vars_of(clip: Clip) -> dict[str, object]:
    return {name: getattr(clip, name) for name in clip.__dataclass_fields__}


def test_a_clip_that_does_not_begin_with_a_frame_is_a_mismatch(tmp_path: Path) -> None:
    path, facts = movie(tmp_path, [k * 512 for k in range(40)])
    clip = clip_of(facts, TICK, [k * 512 + 7 for k in range(41)], 5, 5, Fraction(25))
    with pytest.raises(MediaError, match="no frame at pts") as caught:
        decode(path, clip, facts)
    assert caught.value.reason is Reason.FRAMES_MISMATCH


def test_a_file_that_is_no_longer_media_is_undecodable(tmp_path: Path) -> None:
    stamps = [k * 512 for k in range(41)]
    path, facts = movie(tmp_path, stamps[:40])
    path.write_bytes(b"\0" * 1000)
    with pytest.raises(MediaError) as caught:
        decode(path, clip_of(facts, TICK, stamps, 3, 5, Fraction(25)), facts)
    assert caught.value.reason is Reason.UNDECODABLE


def test_decoding_ends_where_the_last_frame_is_known(tmp_path: Path) -> None:
    """Nothing far beyond the last frame needed is decoded: here it could not be."""
    stamps = [k * 512 for k in range(101)]
    path, facts = movie(tmp_path, stamps[:100])
    with av.open(str(path)) as container:
        spans = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    data = bytearray(path.read_bytes())
    for start, size in spans[40:]:
        data[start + 4 : start + size] = b"\xff" * (size - 4)
    path.write_bytes(data)
    clip = clip_of(facts, TICK, stamps, 0, 100, Fraction(25))
    assert numbers(decode(path, clip, facts, frames=9, sizes=[9])) == list(range(9))


def test_an_image_is_one_frame(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (70, 66, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    with path.open("rb") as file:
        picture = open_media(file, SCAN, PIXELS)
    assert isinstance(picture, Picture)
    fields = vars_of(clip_of(picture.facts, Fraction(1), [0, 1], 0, 1, Fraction(1)))
    clip = Clip(**{**fields, "kind": "image", "fps_num": 0})
    (block,) = decode(path, clip, picture.facts, Fraction(1), crop=Crop(0, 2, 64, 64))
    assert np.array_equal(block.rgb()[0], pixels[2:66, :64])


FILES = [
    "androidx__bbb_642x642_768kbps_30fps_vp9.webm", "androidx__iibbibb_editlist_videoonly.mp4",
    "androidx__sample.avi", "androidx__sample.flv", "androidx__sample_vvc.mp4",
    "ffmpegcore__input_hdr.mov", "ffmpegcore__input_3sec_rotation_90deg.mp4",
    "mdnshared__flower.webm", "openshot__test1.mp4", "phpffmpeg__portrait.MOV",
    "playwright__movie.ogv", "rsmpeg__centaur.mpg", "moviepy__chaplin.mp4",
    "streamio__awesome movie.mov", "jcodec__test.prores.mov", "bad/muxjs__test-middle-pat-pmt.ts",
    "bad/mediabunny__no-initial-keyframe.ts",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_frames_after_a_seek_are_those_of_decoding_it_all(footage: Path, name: str) -> None:
    """Bit for bit, at every third of real footage, key frame or not."""
    path = footage / name
    with open_video(path) as video:
        facts, tick = video.facts, video.time_base
        pts = [frame.pts for frame, _ in zip(video.frames(), range(120), strict=False)]
    stamps = [stamp for stamp in pts if stamp is not None]
    assert all(a < b for a, b in pairwise(stamps))
    crop = crop_to_grid(facts.width, facts.height, 16)
    assert crop is not None
    for first in (1, len(stamps) // 3, 2 * len(stamps) // 3):
        clip = clip_of(facts, tick, stamps, first, 3, Fraction(25))
        sought = decode(path, clip, facts, sizes=[1, 2], crop=crop)
        plain = decode(path, clip, facts, sizes=[1, 2], crop=crop, from_start=True)
        assert digest(sought) == digest(plain)


def digest(blocks: Sequence[FrameBlock]) -> str:
    return hashlib.sha256(b"".join(p.tobytes() for b in blocks for p in b.planes)).hexdigest()


@pytest.mark.parametrize(("rate", "frames"), [("25", 14), ("10", 5), ("40", 23)])
def test_frames_that_are_picked_by_time_are_counted(tmp_path: Path, rate: str, frames: int) -> None:
    """Those that are left out at the end as well: what they would show is no less accounted for."""
    path, facts = movie(tmp_path, UNEVEN[:-1])
    clip = clip_of(facts, TICK, UNEVEN, 0, 14, Fraction(25), variable=True)
    available = encoded_frames(clip, Fraction(rate))
    whole, part = Shown(), Shown()
    for shown, count in ((whole, available), (part, frames)):
        sizes = iter([count])
        cut = Cut(Fraction(rate), count, WHOLE, sizes, available - count, shown)
        with path.open("rb") as file:
            blocks = list(decode_clip(file, source_of(facts), clip, cut, PIXELS))
        assert sum(len(block.planes[0]) for block in blocks) == count
    assert whole == part
    assert whole.outputs == available
    native = numbers(decode(path, clip, facts, Fraction(rate)))
    assert whole.native == len(set(native))
    assert clip.num_frames - (clip.num_frames - whole.native) + whole.repeated == available
