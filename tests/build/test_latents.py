"""What is said of latents: statistics of any, and a round trip of any clip's first frames."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from telecine.encoders.frames import Latents, Pixels
from telecine.encoders.video.dct import DctEncoder
from telecine.infra.errors import OutOfDeviceMemory
from telecine.manifests.schemas import CHECKS, OF_LATENTS
from telecine.pipeline.build.latents import Canary, latent_statistics, psnr_db
from telecine.testing.media import cut, smooth


def test_a_constant_channel_has_no_deviation() -> None:
    constant = np.full((2, 3, 4, 5), 0.1, np.float16)
    assert latent_statistics(constant)["channel_stds"] == pytest.approx((0, 0), abs=1e-7)


def test_all_that_follows_from_latents_is_a_column_that_is_copied_with_them() -> None:
    said = latent_statistics(np.ones((2, 3, 4, 5), np.float16))
    shown = {"frames_resampled_away", "frames_repeated"}
    assert {*said, "latent_sha256", "psnr_db"} | shown == set(OF_LATENTS)
    assert set(CHECKS) <= set(said)


def test_a_round_trip_has_between_0_and_100_db() -> None:
    black, white = (np.full((1, 2, 2, 3), value, np.uint8) for value in (0, 255))
    assert psnr_db(black, black) == 100
    assert psnr_db(black, white) == 0.001  # 0 stands for: not measured
    assert psnr_db(black, black + np.uint8(1)) == pytest.approx(48.131, abs=0.001)


def canary_of(encoder: DctEncoder, frames: int) -> float:
    """dB of a clip of that many frames."""
    clip = smooth(frames, 16, 16)
    watcher = Canary(encoder, frames)
    latents = encoder.encode(watcher.watch(cut(clip, encoder.block_sizes(frames))), frames)
    return watcher.psnr_db(latents)


@pytest.mark.parametrize(("frames", "given"), [(17, 5), (33, 9), (81, 9), (401, 9)])
def test_a_canary_of_a_long_clip_is_decoded_in_part(frames: int, given: int) -> None:
    class Ahead(DctEncoder):
        causal = False

        def decode(self, latents: Latents) -> Iterator[Pixels]:
            assert latents.shape[1] == given
            return super().decode(latents)

    assert canary_of(Ahead(), frames) == canary_of(DctEncoder(), frames) > 20


@pytest.mark.parametrize("error", [OutOfDeviceMemory("too large"), MemoryError()])
def test_a_canary_too_large_to_decode_is_not_measured(error: Exception) -> None:
    class Large(DctEncoder):
        def decode(self, latents: Latents) -> Iterator[Pixels]:
            yield next(super().decode(latents))
            raise error

    assert canary_of(Large(), 17) == 0


def test_the_round_trip_of_a_long_clip_takes_the_memory_of_a_frame() -> None:
    frames = np.zeros((50, 128, 128, 3), np.uint8)
    tracemalloc.start()
    try:
        psnr_db(frames, frames)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * frames.nbytes
