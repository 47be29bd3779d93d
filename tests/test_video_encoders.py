"""What every VideoEncoder promises, over every encoder that needs no weights."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from blocks import BT601, BT709, RGB, cut, head, noise, psnr, real, smooth

from encoders.frames import ColorMap, FrameBlock, Latents, Pixels
from encoders.load import load_encoder
from encoders.video import VideoEncoder
from infra.errors import UsageError
from manifests.specs import VaeSpec

# Handheld, panning, static, time lapse; 8-bit 4:2:0; with the matrix each is tagged with.
REAL = {
    "ffmpegcore__input_3sec_rotation_90deg.mp4": BT709,
    "sam2__01_dog.mp4": BT709,
    "intel__one-by-one-person-detection.mp4": BT601,
    "timedmedia__shuttle10seconds.1080x608.webm": BT601,
    "libvpl__cars_320x240.h264": BT601,
    "mdnlearn__crystal.webm": BT601,
}


@pytest.fixture(params=["dct"])
def encoder(request: pytest.FixtureRequest) -> VideoEncoder:
    return load_encoder(VaeSpec(encoder=request.param))


def encode(encoder: VideoEncoder, clip: FrameBlock) -> Latents:
    frames = clip.shape[0]
    return encoder.encode(cut(clip, encoder.block_sizes(frames)), frames)


def decode(encoder: VideoEncoder, latents: Latents) -> Pixels:
    return np.concatenate(list(encoder.decode(latents)))


@pytest.fixture(scope="module")
def real_clips(footage: Path) -> list[FrameBlock]:
    return [real(footage / name, 9, skip=8, colors=colors) for name, colors in REAL.items()]


def test_shapes_are_as_announced(encoder: VideoEncoder) -> None:
    for frames, height, width in [(1, 16, 16), (5, 48, 80), (13, 32, 16)]:
        latents = encode(encoder, smooth(frames, height, width))
        assert latents.dtype == np.float16
        assert latents.shape == encoder.latent_shape(frames, height, width)
        assert latents.shape[0] == encoder.channels == len(encoder.latents_mean)
        assert len(encoder.latents_std) == encoder.channels
        assert height == encoder.spatial_stride * latents.shape[2]
        assert width == encoder.spatial_stride * latents.shape[3]
        assert decode(encoder, latents).shape == (frames, height, width, 3)


def test_valid_frames_are_the_most_that_fit(encoder: VideoEncoder) -> None:
    stride = encoder.temporal_stride
    assert [encoder.valid_frames(n) for n in (-1, 0, 1, 2)] == [0, 0, 1, 1]
    for available in range(1, 6 * stride):
        frames = encoder.valid_frames(available)
        assert available - stride < frames <= available
        assert encoder.valid_frames(frames) == frames
        assert sum(encoder.block_sizes(frames)) == frames


def test_the_first_latent_is_that_of_the_first_frame_as_an_image(encoder: VideoEncoder) -> None:
    assert encoder.causal
    clip = smooth(9, 48, 64)
    image = encode(encoder, head(clip, 1))
    assert image.tobytes() == encode(encoder, clip)[:, :1].tobytes()


def test_later_frames_do_not_change_earlier_latents(encoder: VideoEncoder) -> None:
    clip, other = smooth(13, 48, 64, seed=1), smooth(13, 48, 64, seed=2)
    before = encode(encoder, clip)
    for kept in (1, 5, 9):
        y, cb, cr = (
            np.concatenate([a[:kept], b[kept:]])
            for a, b in zip(clip.planes, other.planes, strict=True)
        )
        after = encode(encoder, FrameBlock((y, cb, cr), clip.colors))
        known = 1 + kept // encoder.temporal_stride
        assert before[:, :known].tobytes() == after[:, :known].tobytes()
        assert before[:, known:].tobytes() != after[:, known:].tobytes()


def test_latents_are_the_same_bytes_however_the_planes_lie_in_memory(
    encoder: VideoEncoder,
) -> None:
    clip = noise(9, 48, 64)
    y, cb, cr = (
        np.pad(p, ((1, 0), (3, 5), (7, 9)))[1:, 3:-5, 7:-9].astype(np.uint8) for p in clip.planes
    )
    padded = FrameBlock((y, cb, cr), clip.colors)
    assert encode(encoder, padded).tobytes() == encode(encoder, clip).tobytes()


def test_a_clip_is_never_held_whole(encoder: VideoEncoder) -> None:
    size = (128, 128)

    def arriving(frames: int) -> Iterator[FrameBlock]:
        return (smooth(count, *size) for count in encoder.block_sizes(frames))

    def peak(frames: int) -> int:
        tracemalloc.start()
        encoder.encode(arriving(frames), frames)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    short, long = (encoder.valid_frames(n) for n in (17, 417))
    latents = 2 * (
        np.prod(encoder.latent_shape(long, *size)) - np.prod(encoder.latent_shape(short, *size))
    )
    pixels = (long - short) * size[0] * size[1] * 3 // 2
    assert peak(long) - peak(short) < latents + 0.1 * pixels < pixels


def test_wrong_blocks_are_refused(encoder: VideoEncoder) -> None:
    clip = smooth(9, 32, 32)
    sizes = list(encoder.block_sizes(9))
    wrong = [
        [9],
        sizes[:-1],
        [*sizes[:-1], sizes[-1] - 1],
        [sizes[1], sizes[0], *sizes[2:]],
        [],
    ]
    for sizes_given in wrong:
        with pytest.raises(ValueError, match=r"block|clip"):
            encoder.encode(cut(clip, sizes_given), 9)
    with pytest.raises(ValueError, match="more"):
        encoder.encode(cut(clip, encoder.block_sizes(5)), 1)
    with pytest.raises(ValueError, match="3 frames"):
        encoder.encode(cut(clip, [3]), 3)
    with pytest.raises(ValueError, match="0 frames"):
        list(encoder.block_sizes(0))


def test_a_picture_off_the_grid_is_refused(encoder: VideoEncoder) -> None:
    with pytest.raises(ValueError, match="36×32"):
        encode(encoder, smooth(1, 32, 36))
    with pytest.raises(ValueError, match="multiples"):
        encoder.latent_shape(1, 0, 32)


def test_blocks_of_another_size_or_colour_are_refused(encoder: VideoEncoder) -> None:
    clip = smooth(5, 32, 32)
    for other in (smooth(4, 32, 48), smooth(4, 32, 32, (1, 1)), smooth(4, 32, 32, colors=BT601)):
        with pytest.raises(ValueError, match="block 1"):
            encoder.encode([head(clip, 1), other], 5)


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 2), (4, 1), (1, 2), (4, 4)])
@pytest.mark.parametrize("colors", [BT709, BT601])
def test_planes_encode_as_the_rgb_they_stand_for(
    encoder: VideoEncoder, step: tuple[int, int], colors: ColorMap
) -> None:
    clip = smooth(5, 64, 96, step, colors)
    rgb = clip.rgb()
    assert 0 < rgb.min() < rgb.max() < 255  # inside the gamut: clipping plays no part
    r, g, b = np.moveaxis(rgb, -1, 0)
    direct = encode(encoder, clip).astype(np.float32)
    through_rgb = encode(encoder, FrameBlock((r, g, b), RGB)).astype(np.float32)
    # RGB is rounded to 8 bits: an error of 1/√12 levels, small beside a channel's unit variance.
    assert np.abs(direct - through_rgb).max() < 0.1
    assert np.sqrt(np.mean((direct - through_rgb) ** 2)) < 0.02


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 2)])
def test_generated_content_survives(encoder: VideoEncoder, step: tuple[int, int]) -> None:
    y, cb, cr = smooth(9, 64, 64, step).planes
    flat = FrameBlock((np.full_like(y, 120), np.full_like(cb, 110), np.full_like(cr, 150)), BT709)
    assert psnr(decode(encoder, encode(encoder, flat)), flat.rgb()) > 45
    waves = FrameBlock((y, cb, cr), BT709)
    assert psnr(decode(encoder, encode(encoder, waves)), waves.rgb()) > 20


def test_real_footage_survives(encoder: VideoEncoder, real_clips: list[FrameBlock]) -> None:
    clips, images = [], []
    for clip in real_clips:
        decoded, expected = decode(encoder, encode(encoder, clip)), clip.rgb()
        clips.append(psnr(decoded, expected))
        images.append(psnr(decoded[:1], expected[:1]))
    print("PSNR of clips", np.round(clips, 1), "and images", np.round(images, 1))
    assert np.mean(clips) >= 28
    assert np.mean(images) >= 34


def test_latents_of_real_footage_have_about_unit_variance(
    encoder: VideoEncoder, real_clips: list[FrameBlock]
) -> None:
    latents = [encode(encoder, clip)[:, 1:].astype(np.float32) for clip in real_clips]
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
