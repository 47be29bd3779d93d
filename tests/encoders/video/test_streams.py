"""Every class of VAE: streamed latents against `encode` of the clip held whole, on tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.video.families.base import Stream, Streaming
from telecine.encoders.video.families.hunyuan import HUNYUAN
from telecine.encoders.video.families.ltx import LTX
from telecine.encoders.video.families.registry import family_of, streaming_for
from telecine.encoders.video.families.windows import WindowStreaming
from telecine.encoders.video.tiles import tiled, weights
from telecine.infra.errors import UsageError
from telecine.manifests.specs import VaeSpec
from tests.support.live_bytes import LiveBytes
from tests.support.vaes import SAMPLES, TINY

TOLERANCE = {name: family.rounding for name, (family, _) in SAMPLES.items()}
WINDOWED = {  # temporal strides
    name: sample.temporal_stride for name, (family, sample) in SAMPLES.items() if family.window
}
EXACT = sorted(set(TINY) - set(WINDOWED))
STEPS = {name: WINDOWED.get(name, 8) for name in TINY}  # 1 + k · step frames suit it

model = cache(lambda name: TINY[name]())


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    """On one thread: models this small lose time to more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def clip(frames: int, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, height, width, generator=generator) * 2 - 1


def streaming(name: str, **spec: Any) -> Streaming:
    family, _ = SAMPLES[name]
    return streaming_for(family, dict(model(name).config), VaeSpec(encoder="x", **spec))


def pieces(how: Streaming, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
    start = 0
    for size in how.chunks(pixels.shape[2]):
        yield pixels[:, :, start : start + size]
        start += size
    assert start == pixels.shape[2]


def streamed(name: str, how: Streaming, pixels: torch.Tensor) -> torch.Tensor:
    stream = how.open(model(name), pixels.shape[2])
    return torch.cat([stream.push(piece) for piece in pieces(how, pixels)], dim=2)


def whole(name: str, pixels: torch.Tensor) -> torch.Tensor:
    parameters: torch.Tensor = model(name).encode(pixels).latent_dist.parameters
    return parameters


def close(name: str, one: torch.Tensor, other: torch.Tensor, least: float = 0.0) -> bool:
    error = float((one - other).abs().max()) if one.shape == other.shape else float("inf")
    return error <= max(TOLERANCE[name], least)


# Of so small a picture, 32 px, the last 1×1 convolution rounds a long clip otherwise than a chunk.
SMALL = 1e-6


# Exact streams


@pytest.mark.parametrize("frames", [1, 9, 25, 41])
@pytest.mark.parametrize("name", EXACT)
def test_streamed_latents_are_those_of_encode(name: str, frames: int) -> None:
    pixels = clip(frames)
    assert close(name, streamed(name, streaming(name), pixels), whole(name, pixels))


@given(
    name=st.sampled_from(EXACT),
    groups=st.integers(0, 4),
    size=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
@settings(max_examples=20, deadline=None)
def test_streams_are_exact_at_any_length_and_size(
    name: str, groups: int, size: tuple[int, int]
) -> None:
    pixels = clip(1 + 8 * groups, 32 * size[0], 32 * size[1], seed=groups)
    with torch.inference_mode():
        assert close(name, streamed(name, streaming(name), pixels), whole(name, pixels), SMALL)


@pytest.mark.parametrize("frames", [5, 13, 21, 29, 33, 37])
@pytest.mark.parametrize("name", ["wan22", "hunyuan"])
def test_groups_of_four_end_anywhere(name: str, frames: int) -> None:
    pixels = clip(frames, 32, 32)
    assert close(name, streamed(name, streaming(name), pixels), whole(name, pixels), SMALL)


@pytest.mark.parametrize("frames", [2, 8, 12, 31])
def test_cogvideox_streams_whatever_encode_takes(frames: int) -> None:
    pixels = clip(frames, 32, 32)
    name = "cogvideox"
    assert torch.equal(streamed(name, streaming(name), pixels), whole(name, pixels))


@pytest.mark.parametrize("name", EXACT)
def test_streams_are_exact_in_bfloat16_too(name: str) -> None:
    vae = TINY[name]().to(torch.bfloat16)
    pixels = clip(25).to(torch.bfloat16)
    how = streaming(name)
    stream = how.open(vae, 25)
    latents = torch.cat([stream.push(piece) for piece in pieces(how, pixels)], dim=2)
    expected = vae.encode(pixels).latent_dist.parameters
    assert latents.dtype == torch.bfloat16
    error = (latents - expected).float().abs().max()
    assert error <= (4e-3 if TOLERANCE[name] else 0.0)


@pytest.mark.parametrize("name", TINY)
def test_an_exact_stream_has_no_identity_and_a_window_has(name: str) -> None:
    identity = streaming(name).identity()
    family, sample = SAMPLES[name]
    if family.window:
        stride = sample.temporal_stride
        assert identity == {"window": 1 + stride * family.window, "overlap": 1 + stride * 4}
    else:
        assert identity is None


# Windows


@pytest.mark.parametrize(("name", "stride"), WINDOWED.items())
def test_a_clip_no_longer_than_a_window_is_exact(name: str, stride: int) -> None:
    how = streaming(name, window=1 + 4 * stride)
    for groups in (0, 1, 4):
        pixels = clip(1 + groups * stride, 32, 32)
        assert torch.equal(streamed(name, how, pixels), whole(name, pixels))


@pytest.mark.parametrize(("name", "stride"), WINDOWED.items())
def test_a_longer_clip_is_near_and_the_nearer_the_more_windows_share(
    name: str, stride: int
) -> None:
    pixels = clip(1 + 20 * stride, 32, 32)
    expected = whole(name, pixels)
    errors = []
    for shared in (1, 7):
        how = WindowStreaming(1 + 10 * stride, 1 + (shared - 1) * stride, stride)
        latents = streamed(name, how, pixels)
        assert latents.shape == expected.shape
        assert torch.allclose(latents[:, :, :11], expected[:, :, :11], atol=1e-4)
        errors.append(float((latents - expected).square().mean().sqrt() / expected.std()))
    assert 0 < errors[1] < errors[0] < 1


@pytest.mark.parametrize(("name", "stride"), WINDOWED.items())
def test_a_window_says_what_it_shares(name: str, stride: int) -> None:
    for later, shared in [(1, 1), (3, 3), (4, 4), (9, 5)]:
        identity = streaming(name, window=1 + later * stride).identity()
        assert identity == {"window": 1 + later * stride, "overlap": 1 + (shared - 1) * stride}


@pytest.mark.parametrize(("name", "stride"), WINDOWED.items())
def test_a_window_off_the_grid_is_refused(name: str, stride: int) -> None:
    for window in (1, stride, 2 + stride, 4 * stride):
        with pytest.raises(UsageError, match=rf"window = {window}.* 1 \+ k·{stride} frames"):
            streaming(name, window=window)
    with pytest.raises(UsageError, match=f"{1 + stride} or {1 + 2 * stride} would do"):
        streaming(name, window=2 + stride)


@pytest.mark.parametrize("name", EXACT)
def test_a_window_for_what_streams_exactly_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"window = 17.*leave it out"):
        streaming(name, window=17)


def test_windows_of_no_length_are_refused() -> None:
    for window, overlap in [(8, 5), (9, 4), (9, 9), (9, 13), (5, -3)]:
        with pytest.raises(ValueError, match=r"window|overlap"):
            WindowStreaming(window, overlap, 4)


# Any stream


@given(name=st.sampled_from(sorted(TINY)), groups=st.integers(0, 400))
def test_chunks_add_up_and_are_few_frames(name: str, groups: int) -> None:
    frames = 1 + STEPS[name] * groups
    sizes = list(streaming(name).chunks(frames))
    assert sum(sizes) == frames
    assert all(0 < size <= 121 for size in sizes)


def short(name: str) -> Streaming:
    """Its streaming, with windows that a short test goes through several of."""
    return streaming(name, window=1 + 2 * WINDOWED[name]) if name in WINDOWED else streaming(name)


@pytest.mark.parametrize("name", TINY)
def test_two_clips_at_once_do_not_meet(name: str) -> None:
    how, frames = short(name), 1 + 4 * STEPS[name]
    clips = [clip(frames, 32, 32, seed) for seed in (1, 2)]
    alone = [streamed(name, how, pixels) for pixels in clips]
    streams = [how.open(model(name), frames) for _ in clips]
    pushed: list[list[torch.Tensor]] = [[], []]
    for both in zip(*(pieces(how, pixels) for pixels in clips), strict=True):
        for stream, piece, got in zip(streams, both, pushed, strict=True):
            got.append(stream.push(piece))
    assert all(torch.equal(torch.cat(p, 2), a) for p, a in zip(pushed, alone, strict=True))
    assert not torch.equal(*alone)


@pytest.mark.parametrize("name", TINY)
def test_a_push_that_fails_leaves_the_next_clip_right(name: str) -> None:
    how, frames = short(name), 1 + 4 * STEPS[name]
    pixels = clip(frames, 32, 32)
    before, image = streamed(name, how, pixels), whole(name, pixels[:, :, :1])
    parts = list(pieces(how, pixels))
    failed = how.open(model(name), frames)
    failed.push(parts[0])
    deep = list(model(name).encoder.modules())[-1]
    hook = deep.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failed.push(parts[1])
    hook.remove()
    assert torch.equal(streamed(name, how, pixels), before)
    assert torch.equal(whole(name, pixels[:, :, :1]), image)


def peak(name: str, how: Streaming, frames: int) -> int:
    """Of encoding a clip that arrives in pieces, its latents let go."""
    with LiveBytes() as count:
        stream: Stream = how.open(model(name), frames)
        for size in how.chunks(frames):
            stream.push(clip(size, 32, 32))
    return count.peak


@pytest.mark.parametrize("name", TINY)
def test_a_longer_clip_takes_no_more_memory(name: str) -> None:
    how = short(name)
    frames = 1 + 6 * STEPS[name], 1 + 18 * STEPS[name]
    little, much = (peak(name, how, n) for n in frames)
    pixels = 4 * 3 * 32 * 32 * (frames[1] - frames[0])
    assert 0 < much <= little + 0.01 * pixels


def test_the_count_of_bytes_sees_a_clip_held_whole() -> None:
    with LiveBytes() as count:
        model("wan21").encode(clip(17))
        model("wan21").encode(clip(57))
        held = count.live
    assert count.peak > 4 * 3 * 57 * 64 * 64
    assert held < count.peak / 10


# Classes and configs


def test_classes_and_configs_that_do_not_stream_are_refused() -> None:
    spec = VaeSpec(encoder="x")
    with pytest.raises(UsageError, match=r"AutoencoderVidTok.*AutoencoderKLWan"):
        family_of("AutoencoderVidTok")
    with pytest.raises(UsageError, match="encoder_causal = False"):
        streaming_for(LTX, {"encoder_causal": False}, spec)
    with pytest.raises(UsageError, match="temporal_compression_ratio = 8"):
        streaming_for(HUNYUAN, {"temporal_compression_ratio": 8}, spec)


# Tiles


def strides(name: str) -> int:
    latents = whole(name, clip(1, 64, 64))
    return 64 // latents.shape[-1]


@pytest.mark.parametrize("name", TINY)
def test_a_picture_of_one_tile_is_exact(name: str) -> None:
    how, pixels = short(name), clip(1 + 3 * STEPS[name], 32, 64)
    one = tiled(how, 96, 32, strides(name))
    assert torch.equal(streamed(name, one, pixels), streamed(name, how, pixels))


@pytest.mark.parametrize("name", TINY)
def test_tiles_are_streams_of_their_own_blended(name: str) -> None:
    """Against the crops, each streamed as a clip by itself."""
    how, stride = short(name), strides(name)
    pixels = clip(1 + 2 * STEPS[name], 64, 160)
    tiles = tiled(how, 96, 32, stride)
    latents = streamed(name, tiles, pixels)
    left, right = (streamed(name, how, pixels[..., x : x + 96].contiguous()) for x in (0, 64))
    n = 32 // stride
    assert latents.shape[-1] == 160 // stride == 5 * n
    assert close(name, latents[..., : 2 * n], left[..., : 2 * n])
    assert close(name, latents[..., 3 * n :], right[..., n:])
    ramp = torch.arange(1, n + 1) / (n + 1)
    between = left[..., 2 * n :] * (1 - ramp) + right[..., :n] * ramp
    assert torch.allclose(latents[..., 2 * n : 3 * n], between, atol=1e-5)


def test_more_overlap_is_nearer_to_the_whole_picture() -> None:
    pixels, how = clip(5, 64, 248), streaming("wan21")
    expected = whole("wan21", pixels)
    errors = [
        float((streamed("wan21", tiled(how, 128, overlap, 8), pixels) - expected).square().mean())
        for overlap in (8, 64)
    ]
    assert 0 < errors[1] < errors[0] < 0.1 * float(expected.var())


@given(side=st.integers(1, 200), tile=st.integers(2, 40), share=st.floats(0.01, 0.99))
def test_tiles_cover_a_side_and_weigh_one(side: int, tile: int, share: float) -> None:
    overlap = max(1, min(tile - 1, int(tile * share)))
    tiling: Any = tiled(streaming("wan21"), tile * 8, overlap * 8, 8)
    spans = tiling.spans(side)
    assert spans[0][0] == 0
    assert spans[-1][1] == side
    assert all(end - start == min(tile, side) for start, end in spans)
    assert all(a[1] - b[0] >= overlap for a, b in pairwise(spans))
    total = torch.zeros(side)
    for (start, end), weight in zip(spans, weights(spans, side), strict=True):
        assert bool((weight > 0).all())
        total[start:end] += weight
    assert torch.allclose(total, torch.ones(side))


def test_tiles_say_what_they_are() -> None:
    within = {"window": 17, "overlap": 13}
    identity = tiled(streaming("hunyuan15", window=17), 256, 64, 16).identity()
    assert identity == {"tile": 256, "tile_overlap": 64, "within": within}
    assert tiled(streaming("wan21"), 512, 256, 8).identity() == {
        "tile": 512,
        "tile_overlap": 256,
        "within": None,
    }


@pytest.mark.parametrize(("tile", "overlap"), [(100, 32), (96, 20), (96, 96), (64, 96)])
def test_tiles_off_the_grid_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(UsageError, match=f"tile = {tile}, tile_overlap = {overlap}.* 8 px"):
        tiled(streaming("wan21"), tile, overlap, 8)
