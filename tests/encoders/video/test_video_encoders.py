"""What every VideoEncoder promises, and what the one keeps that keeps pictures."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from telecine.encoders.frames import ColorMap, FrameBlock, Latents
from telecine.encoders.load import load_encoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.manifests.specs import VaeSpec
from telecine.testing.encoders import EncoderContract, decode, encode
from telecine.testing.media import BT601, BT709, RGB, smooth
from tests.support.blocks import psnr, real
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
def make(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], VideoEncoder]:
    """Gives one encoder again and again: it is loaded, and held against its config, once."""
    spec = VaeSpec()
    if request.param != "dct":
        folder = save(request.param, tmp_path_factory.mktemp(request.param))
        spec = VaeSpec(encoder=f"diffusers:{folder}", dtype="float32")
    encoder = load_encoder(spec)
    return lambda: encoder


class TestEveryEncoder(EncoderContract):
    """The DCT, and tiny random models of every learned class."""

    def same(self, encoder: VideoEncoder, a: Latents, b: Latents) -> bool:
        """Where torch chooses an algorithm by the frame count, but for its rounding."""
        if encoder.identity()["name"] == "dct":
            return super().same(encoder, a, b)
        return np.allclose(a.astype(np.float32), b.astype(np.float32), rtol=2e-3, atol=2e-3)


@pytest.fixture
def good() -> VideoEncoder:
    """The one that keeps pictures: random weights do not."""
    return load_encoder(VaeSpec())


@pytest.fixture(scope="module")
def real_clips(footage: Path) -> list[FrameBlock]:
    return [real(footage / name, 9, skip=8, colors=colors) for name, colors in REAL.items()]


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


def test_an_unknown_encoder_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"'wan'.*dct"):
        load_encoder(VaeSpec(encoder="wan"))
