"""What every VideoEncoder promises: the DCT, and tiny random models of every learned class."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from telecine.encoders.frames import ColorMap, FrameBlock, Latents, Pixels
from telecine.encoders.load import load_encoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.manifests.specs import VaeSpec
from tests.support.blocks import BT601, BT709, RGB, cut, head, noise, psnr, real, smooth
from tests.support.vaes import TINY, save

# Handheld, panning, static, time lapse; 8-bit 4:2:0; with the matrix each is tagged with.
REAL = {
    "ffmpegcore__input_3sec_rotation_90deg.mp4": BT709,
    "sam2__01_dog.mp4": BT709,
    "intel__one-by-one-person-detection.mp4": BT601,
    "timedmedia__shuttle10seconds.1080x608.webm": BT601,
    "libvpl__cars_320x240.h264": BT601,
    "mdnlearn__crystal.webm": BT601,
}


@pytest.fixture(scope="module", params=["dct", *TINY])
def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> VideoEncoder:
    if request.param == "dct":
        return load_encoder(VaeSpec())
    folder = save(request.param, tmp_path_factory.mktemp(request.param))
    return load_encoder(VaeSpec(encoder=f"diffusers:{folder}", dtype="float32"))


@pytest.fixture
def good() -> VideoEncoder:
    """The one that keeps pictures: random weights do not."""
    return load_encoder(VaeSpec())


def frame_counts(encoder: VideoEncoder) -> tuple[int, ...]:
    """The first valid ones: of one latent frame, and two that are longer."""
    counts = sorted({encoder.valid_frames(n) for n in range(1, 26)})
    return (*counts[:2], counts[2] if len(counts) > 2 else counts[-1])


def same(encoder: VideoEncoder, a: Latents, b: Latents) -> bool:
    """Byte for byte; where torch chooses an algorithm by the frame count, but for its rounding."""
    if encoder.identity()["name"] == "dct":
        return a.tobytes() == b.tobytes()
    return np.allclose(a.astype(np.float32), b.astype(np.float32), rtol=2e-3, atol=2e-3)


def encode(encoder: VideoEncoder, clip: FrameBlock) -> Latents:
    frames = clip.shape[0]
    return encoder.encode(cut(clip, encoder.block_sizes(frames)), frames)


def decode(encoder: VideoEncoder, latents: Latents) -> Pixels:
    return np.concatenate(list(encoder.decode(latents)))


@pytest.fixture(scope="module")
def real_clips(footage: Path) -> list[FrameBlock]:
    return [real(footage / name, 9, skip=8, colors=colors) for name, colors in REAL.items()]


def test_shapes_are_as_announced(encoder: VideoEncoder) -> None:
    side = encoder.spatial_stride
    sizes = [(2 * side, 2 * side), (6 * side, 10 * side), (4 * side, 2 * side)]
    for frames, (height, width) in zip(frame_counts(encoder), sizes, strict=True):
        latents = encode(encoder, smooth(frames, height, width))
        assert latents.dtype == np.float16
        assert latents.shape == encoder.latent_shape(frames, height, width)
        assert latents.shape[0] == encoder.channels
        assert latents.shape[1] == 1 + (frames - 1) // encoder.temporal_stride
        assert len(encoder.latents_std) == len(encoder.latents_mean)
        assert len(encoder.latents_std) % encoder.channels == 0
        assert (height, width) == (side * latents.shape[2], side * latents.shape[3])
        assert decode(encoder, latents).shape == (frames, height, width, 3)


def test_valid_frames_are_the_most_that_fit(encoder: VideoEncoder) -> None:
    step = frame_counts(encoder)[1] - 1
    assert step % encoder.temporal_stride == 0
    assert [encoder.valid_frames(n) for n in (-1, 0, 1, 2)] == [0, 0, 1, 1]
    for available in range(1, 6 * step):
        frames = encoder.valid_frames(available)
        assert available - step < frames <= available
        assert encoder.valid_frames(frames) == frames
        assert sum(encoder.block_sizes(frames)) == frames


def test_the_first_latent_is_that_of_the_first_frame_as_an_image(encoder: VideoEncoder) -> None:
    side = encoder.spatial_stride
    clip = smooth(frame_counts(encoder)[-1], 6 * side, 8 * side)
    image = encode(encoder, head(clip, 1))
    assert same(encoder, image, encode(encoder, clip)[:, :1]) == encoder.causal


def test_later_frames_do_not_change_earlier_latents(encoder: VideoEncoder) -> None:
    side, counts = encoder.spatial_stride, frame_counts(encoder)
    clip, other = (smooth(counts[-1], 6 * side, 8 * side, seed=seed) for seed in (1, 2))
    before = encode(encoder, clip)
    for kept in counts[:-1]:
        y, cb, cr = (
            np.concatenate([a[:kept], b[kept:]])
            for a, b in zip(clip.planes, other.planes, strict=True)
        )
        after = encode(encoder, FrameBlock((y, cb, cr), clip.colors))
        known = 1 + (kept - 1) // encoder.temporal_stride
        assert same(encoder, before[:, :known], after[:, :known]) or not encoder.causal
        assert not same(encoder, before[:, known:], after[:, known:])


def test_latents_are_the_same_bytes_however_the_planes_lie_in_memory(
    encoder: VideoEncoder,
) -> None:
    side = encoder.spatial_stride
    clip = noise(frame_counts(encoder)[-1], 6 * side, 8 * side)
    y, cb, cr = (
        np.pad(p, ((1, 0), (3, 5), (7, 9)))[1:, 3:-5, 7:-9].astype(np.uint8) for p in clip.planes
    )
    padded = FrameBlock((y, cb, cr), clip.colors)
    assert encode(encoder, padded).tobytes() == encode(encoder, clip).tobytes()


def test_a_clip_is_never_held_whole(good: VideoEncoder) -> None:
    size = (128, 128)

    def arriving(frames: int) -> Iterator[FrameBlock]:
        return (smooth(count, *size) for count in good.block_sizes(frames))

    def peak(frames: int) -> int:
        tracemalloc.start()
        good.encode(arriving(frames), frames)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    short, long = (good.valid_frames(n) for n in (17, 417))
    latents = 2 * (
        np.prod(good.latent_shape(long, *size)) - np.prod(good.latent_shape(short, *size))
    )
    pixels = (long - short) * size[0] * size[1] * 3 // 2
    assert peak(long) - peak(short) < latents + 0.1 * pixels < pixels


def test_wrong_blocks_are_refused(encoder: VideoEncoder) -> None:
    frames, side = frame_counts(encoder)[-1], encoder.spatial_stride
    clip = smooth(frames + 1, 4 * side, 4 * side)
    sizes = list(encoder.block_sizes(frames))
    wrong = [
        [sizes[0] + 1],
        sizes[:-1],
        [*sizes[:-1], sizes[-1] - 1],
        [],
    ]
    for sizes_given in wrong:
        with pytest.raises(ValueError, match=r"block|clip"):
            encoder.encode(cut(clip, sizes_given), frames)
    with pytest.raises(ValueError, match="more"):
        encoder.encode(iter([head(clip, 1), head(clip, 1)]), 1)
    with pytest.raises(ValueError, match="3 frames"):
        encoder.encode(cut(clip, [3]), 3)
    with pytest.raises(ValueError, match="0 frames"):
        list(encoder.block_sizes(0))


def test_a_picture_off_the_grid_is_refused(encoder: VideoEncoder) -> None:
    side = encoder.spatial_stride
    with pytest.raises(ValueError, match=f"{4 * side + 4}×{4 * side}"):
        encode(encoder, smooth(1, 4 * side, 4 * side + 4))
    with pytest.raises(ValueError, match="multiples"):
        encoder.latent_shape(1, 0, 4 * side)


def test_blocks_of_another_size_or_colour_are_refused(encoder: VideoEncoder) -> None:
    frames = next(n for n in range(5, 400) if len(list(sizes_of(encoder, n))) > 1)
    first, second, *_ = encoder.block_sizes(frames)
    a = 4 * encoder.spatial_stride
    for other in (
        smooth(second, a, a + 16),
        smooth(second, a, a, (1, 1)),
        smooth(second, a, a, colors=BT601),
    ):
        with pytest.raises(ValueError, match="block 1"):
            encoder.encode([smooth(first, a, a), other], frames)


def sizes_of(encoder: VideoEncoder, frames: int) -> Iterator[int]:
    return encoder.block_sizes(frames) if encoder.valid_frames(frames) == frames else iter(())


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 2), (4, 1), (1, 2), (4, 4)])
@pytest.mark.parametrize("colors", [BT709, BT601])
def test_planes_encode_as_the_rgb_they_stand_for(
    good: VideoEncoder, step: tuple[int, int], colors: ColorMap
) -> None:
    clip = smooth(5, 64, 96, step, colors)
    rgb = clip.rgb()
    assert 0 < rgb.min() < rgb.max() < 255  # inside the gamut: clipping plays no part
    r, g, b = np.moveaxis(rgb, -1, 0)
    direct = encode(good, clip).astype(np.float32)
    through_rgb = encode(good, FrameBlock((r, g, b), RGB)).astype(np.float32)
    # RGB is rounded to 8 bits: an error of 1/√12 levels, small beside a channel's unit variance.
    assert np.abs(direct - through_rgb).max() < 0.1
    assert np.sqrt(np.mean((direct - through_rgb) ** 2)) < 0.02


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 2)])
def test_generated_content_survives(good: VideoEncoder, step: tuple[int, int]) -> None:
    y, cb, cr = smooth(9, 64, 64, step).planes
    flat = FrameBlock((np.full_like(y, 120), np.full_like(cb, 110), np.full_like(cr, 150)), BT709)
    assert psnr(decode(good, encode(good, flat)), flat.rgb()) > 45
    waves = FrameBlock((y, cb, cr), BT709)
    assert psnr(decode(good, encode(good, waves)), waves.rgb()) > 20


def test_real_footage_survives(good: VideoEncoder, real_clips: list[FrameBlock]) -> None:
    clips, images = [], []
    for clip in real_clips:
        decoded, expected = decode(good, encode(good, clip)), clip.rgb()
        clips.append(psnr(decoded, expected))
        images.append(psnr(decoded[:1], expected[:1]))
    print("PSNR of clips", np.round(clips, 1), "and images", np.round(images, 1))
    assert np.mean(clips) >= 28
    assert np.mean(images) >= 34


def test_latents_of_real_footage_have_about_unit_variance(
    good: VideoEncoder, real_clips: list[FrameBlock]
) -> None:
    latents = [encode(good, clip)[:, 1:].astype(np.float32) for clip in real_clips]
    mean = np.mean([z.mean(axis=(1, 2, 3)) for z in latents], axis=0)
    power = np.mean([(z**2).mean(axis=(1, 2, 3)) for z in latents], axis=0)
    deviation = np.sqrt(power - mean**2)
    assert np.abs(mean).max() < 1
    assert deviation.min() > 0.25
    assert deviation.max() < 2.5
    assert 0.6 < deviation.mean() < 1.4


def test_the_fingerprint_is_the_encoders_own(encoder: VideoEncoder) -> None:
    assert len(encoder.fingerprint) == 64
    assert encoder.identity()["name"]


def test_an_unknown_encoder_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"'wan'.*dct"):
        load_encoder(VaeSpec(encoder="wan"))
