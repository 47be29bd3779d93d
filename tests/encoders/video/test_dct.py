"""The dct encoder against its definition, and its bytes against everything but their meaning."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.frames import FrameBlock, Latents
from telecine.encoders.video.dct import CHANNELS, FIRST, LATER, MEAN, STD, DctEncoder
from telecine.encoders.video.dct_bands import OPPONENT, Coefficient, cosines
from telecine.testing.media import BT709, RGB, cut, noise, smooth

Doubles = npt.NDArray[np.float64]

FINGERPRINT = "35ee16ac4355599a178c2d689e0e4246d1ce9f8da060f13ec86fa94d8b20cb15"

DIGEST = """
import hashlib, numpy as np
from telecine.encoders.video.dct import DctEncoder
from telecine.encoders.frames import ColorMap, FrameBlock
random = np.random.default_rng(5)
for step in (1, 2):
    shapes = [(5, 720, 1280)] + [(5, 720 // step, 1280 // step)] * 2
    planes = [random.integers(0, 256, shape, np.uint8) for shape in shapes]
    colors = ColorMap((1.1, 0.3, 1.7, 1.1, -0.2, -0.5, 1.1, 2.1, 0.1), (-248.1, 76.9, -289.0))
    blocks = [FrameBlock(tuple(p[s] for p in planes), colors) for s in (slice(1), slice(1, 5))]
    print(hashlib.sha256(DctEncoder().encode(blocks, 5).tobytes()).hexdigest())
"""


def encode(clip: FrameBlock, encoder: DctEncoder = DctEncoder()) -> Latents:  # noqa: B008
    frames = clip.shape[0]
    return encoder.encode(cut(clip, encoder.block_sizes(frames)), frames)


def function(coefficient: Coefficient, frames: int) -> Doubles:
    """[t, y, x, rgb]: one basis function, written out from the definition of the DCT-II."""

    def wave(k: int, n: int) -> Doubles:
        samples = np.cos(np.pi * k * (np.arange(n) + 0.5) / n)
        return np.asarray(samples / np.linalg.norm(samples))

    colors = ([1, 1, 1], [1, 0, -1], [-1, 2, -1])
    color = np.array(colors[coefficient.color], float)
    color /= np.linalg.norm(color)
    t, y, x = wave(coefficient.kt, frames), wave(coefficient.ky, 8), wave(coefficient.kx, 8)
    return np.asarray(np.einsum("t,y,x,c->tyxc", t, y, x, color))


def defined(rgb: npt.NDArray[np.uint8]) -> Doubles:
    """Normalised latents of a clip, block by block, from the definition in double precision."""
    frames, height, width, _ = rgb.shape
    signal = rgb / 127.5 - 1
    latents = np.empty((CHANNELS, 1 + frames // 4, height // 8, width // 8))
    spans = [(0, 1)] + [(start, start + 4) for start in range(1, frames, 4)]
    for index, (start, stop) in enumerate(spans):
        kept, gain = (LATER, 1) if index else (FIRST, 2)
        for channel, coefficient in enumerate(kept):
            basis = gain * function(coefficient, stop - start)
            blocks = signal[start:stop].reshape(stop - start, height // 8, 8, width // 8, 8, 3)
            raw = np.einsum("tiyjxc,tyxc->ij", blocks, basis)
            latents[channel, index] = (raw - MEAN[channel]) / STD[channel]
    return latents


def test_the_transform_is_the_one_defined() -> None:
    clip = smooth(9, 24, 40, (1, 1))
    r, g, b = np.moveaxis(clip.rgb(), -1, 0)
    expected = defined(clip.rgb())
    latents = encode(FrameBlock((r, g, b), RGB))
    # float16 has 11 significant bits; float32 sums of 768 terms add far less.
    assert np.all(np.abs(latents - expected) <= 2**-11 * np.abs(expected) + 1e-4)


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)])
def test_planes_give_the_transform_of_the_reference_rgb(step: tuple[int, int]) -> None:
    clip = smooth(5, 32, 64, step)
    expected = defined(clip.rgb())
    # The reference rounds each RGB value, by at most half a level: at most that times the sum of
    # a basis function's magnitudes.
    for index, (kept, frames, gain) in enumerate([(FIRST, 1, 2), (LATER, 4, 1)]):
        for channel, coefficient in enumerate(kept):
            rounding = 0.5 / 127.5 * gain * np.abs(function(coefficient, frames)).sum()
            error = np.abs(encode(clip)[channel, index] - expected[channel, index])
            storing = 2**-11 * np.abs(expected[channel, index])
            assert np.all(error <= rounding / STD[channel] + storing + 1e-4)


def test_the_basis_is_orthonormal() -> None:
    for kept, frames in ((FIRST, 1), (LATER, 4)):
        functions = np.array([function(c, frames).ravel() for c in kept])
        assert np.allclose(functions @ functions.T, np.eye(CHANNELS), atol=1e-12)
    assert np.allclose(OPPONENT @ OPPONENT.T, np.eye(3), atol=1e-15)
    assert np.allclose(cosines(8) @ cosines(8).T, np.eye(8), atol=1e-14)


def test_a_static_scene_has_one_value_in_every_latent_frame() -> None:
    still = smooth(1, 32, 48)
    y, cb, cr = (plane.repeat(9, axis=0) for plane in still.planes)
    latents = encode(FrameBlock((y, cb, cr), BT709)).astype(np.float32)
    shared = [*range(9), 14, 15]  # the temporal channels carry detail in the first frame
    assert np.allclose(latents[shared, :1], latents[shared], rtol=2**-10, atol=1e-4)
    assert np.allclose(latents[9:14, 1:], 0, atol=1e-4)


def test_what_the_basis_spans_survives_exactly() -> None:
    random = np.random.default_rng(3)
    latents = random.normal(0, 0.2, (CHANNELS, 3, 6, 5)).astype(np.float16)
    decoded = np.concatenate(list(DctEncoder().decode(latents)))
    inside = (decoded > 0) & (decoded < 255)
    assert inside.all(), "the test means nothing where decode clipped"
    r, g, b = np.moveaxis(decoded, -1, 0)
    again = encode(FrameBlock((r, g, b), RGB))
    # Decoding rounded each value: 1/√12 levels, spread evenly over the coefficients.
    noise_std = 2 / 127.5 / np.sqrt(12) / np.array(STD)[:, None, None, None]
    assert np.abs((again - latents.astype(np.float32)) / noise_std).max() < 6


@pytest.mark.parametrize("groups", [2, 3, 16])
def test_bytes_do_not_depend_on_how_frames_arrive(groups: int) -> None:
    clip = noise(29, 48, 112)
    assert encode(clip, DctEncoder(groups_per_block=groups)).tobytes() == encode(clip).tobytes()
    assert DctEncoder(groups_per_block=groups).fingerprint == DctEncoder().fingerprint


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 80), st.integers(0, 2))
def test_a_block_does_not_depend_on_the_picture_around_it(
    rows: int, columns: int, groups: int
) -> None:
    clip = noise(1 + 4 * groups, 16 * rows, 16 * columns)
    y, cb, cr = clip.planes
    corner = FrameBlock((y[:, -16:, -16:], cb[:, -8:, -8:], cr[:, -8:, -8:]), clip.colors)
    whole = encode(clip)[..., -2:, -2:].astype(np.float32)
    assert np.allclose(encode(corner), whole, rtol=2**-10, atol=1e-3)


def test_bytes_do_not_depend_on_threads_or_runs() -> None:
    digests = set()
    for threads in ("1", "2", "2", "7"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", DIGEST]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1


def test_the_fingerprint_names_every_constant_and_no_other() -> None:
    encoder = DctEncoder()
    assert encoder.fingerprint == FINGERPRINT
    assert replace(encoder, latents_std=(*STD[:-1], 3.336)).fingerprint != FINGERPRINT
    assert replace(encoder, latents_mean=(0.0, *MEAN[1:])).fingerprint != FINGERPRINT


def test_it_says_that_it_is_a_fixed_transform() -> None:
    assert DctEncoder().identity()["kind"] == "fixed transform"
    assert DctEncoder().identity()["weights"] is None


def test_odd_latents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 1, 4, 4\).*16"):
        DctEncoder().decode(np.zeros((3, 1, 4, 4), np.float16))
    with pytest.raises(ValueError, match="expected"):
        DctEncoder().decode(np.zeros((16, 0, 4, 4), np.float16))
