"""Learned encoders: what they store, and what the probe finds out."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from telecine.encoders.device import Device, Landing
from telecine.encoders.frames import ColorMap, FrameBlock
from telecine.encoders.hub import read_json
from telecine.encoders.video.config import VaeConfig, read_config
from telecine.encoders.video.families.hunyuan import HUNYUAN, HunyuanStreaming
from telecine.encoders.video.families.wan import WanStreaming
from telecine.encoders.video.model import load
from telecine.encoders.video.posterior import Constants, Posterior
from telecine.encoders.video.weights import TENSORS
from telecine.infra.errors import UsageError
from telecine.testing.media import BT601, BT709, RGB, noise, smooth
from tests.support.vaes import (
    FRAMES,
    SAMPLES,
    TINY,
    change,
    clip_for,
    constants,
    encode,
    encoder,
    save,
    tiny,
)

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    saved: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in saved:
            saved[name] = save(name, tmp_path_factory.mktemp(name))
        return saved[name]

    return get


@pytest.fixture
def copy(folder: Folder, tmp_path: Path) -> Folder:
    """As `folder`, to be spoilt."""
    return lambda name: shutil.copytree(folder(name), tmp_path / name)


loaded = functools.cache(encoder)  # and probed: for those that are not to be spoilt


# Latents


@pytest.mark.parametrize("name", TINY)
def test_latents_are_the_models_own_normalised_with_its_constants(
    name: str, folder: Folder
) -> None:
    ours = loaded(folder(name))
    clip = clip_for(ours)
    pixels = torch.from_numpy(np.moveaxis(clip.rgb(), -1, 0).copy()).float()[None] / 127.5 - 1
    with Device("cpu", torch.float32).computing():
        own = tiny(name).encode(pixels).latent_dist.mode()[0].numpy()
    frames = own.shape[1]
    mean, std = (
        np.array(values, np.float32).reshape(ours.channels, -1, 1, 1)[:, :frames]
        for values in (ours.latents_mean, ours.latents_std)
    )
    assert np.abs(encode(ours, clip) - (own - mean) / std).max() < 5e-3
    raw = encode(loaded(folder(name), normalise=False), clip)
    assert np.abs(raw - own).max() < 5e-3
    assert np.abs(raw.astype(np.float32) - encode(ours, clip)).max() > 0.05


def test_it_computes_in_the_dtype_of_its_spec(folder: Folder) -> None:
    full, half = (loaded(folder("wan21"), dtype=dtype) for dtype in ("float32", "bfloat16"))
    a, b = (encode(it, clip_for(it)).astype(np.float32) for it in (full, half))
    assert 0 < np.abs(a - b).max() < 0.1


def test_a_dtype_that_is_not_computed_here_is_refused(folder: Folder) -> None:
    cosmos = loaded(folder("cosmos"), dtype="bfloat16")
    with pytest.raises(UsageError, match=r"bfloat16 on cpu.*dtype = 'float32'"):
        encode(cosmos, clip_for(cosmos))


@pytest.mark.parametrize("name", ["wan21", "hunyuan15", "ltx095"])
def test_latents_are_the_same_bytes_on_any_number_of_threads(name: str, folder: Folder) -> None:
    ours, threads, made = loaded(folder(name)), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            made.append(encode(ours, clip_for(ours)).tobytes())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert made[0] == made[1] == made[2]


def test_blocks_are_let_go_as_they_are_encoded(folder: Folder) -> None:
    ours, alive, most = loaded(folder("wan21")), list[weakref.ref[FrameBlock]](), 0

    def arriving() -> Iterator[FrameBlock]:
        nonlocal most
        for size in ours.block_sizes(81):
            block = smooth(size, 16, 16)
            alive.append(weakref.ref(block))
            most = max(most, sum(ref() is not None for ref in alive))
            yield block

    ours.encode(arriving(), 81)
    assert most <= 2  # the one before and the new one


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 2), (4, 1), (1, 2), (4, 4)])
@pytest.mark.parametrize("colors", [BT709, BT601, RGB])
def test_pixels_are_exactly_those_of_the_reference(step: tuple[int, int], colors: ColorMap) -> None:
    sx, sy = step
    y, cb, cr = noise(3, 64, 96).planes
    cb, cr = (np.resize(p, (3, 64 // sy, 96 // sx)) for p in (cb, cr))
    block = FrameBlock((y, cb, cr), colors)
    pixels = Device("cpu", torch.float32).pixels(block)
    expected = block.rgb().astype(np.float32) / np.float32(127.5) - 1
    assert pixels.shape == (1, 3, 3, 64, 96)
    assert np.array_equal(np.moveaxis(pixels[0].numpy(), 0, -1), expected)


def test_what_overflows_float16_is_infinite_and_not_hidden(copy: Folder) -> None:
    path = copy("wan21")
    change(path, latents_std=[1e-9] * 4)
    ours = encoder(path)
    assert not np.isfinite(encode(ours, clip_for(ours))).any()


# Posterior


def test_moments_are_the_means_then_the_log_variances(folder: Folder) -> None:
    moments, mean, raw = (
        loaded(folder("wan21"), **options)
        for options in ({"posterior": "moments"}, {}, {"posterior": "moments", "normalise": False})
    )
    clip = clip_for(moments)
    stored = encode(moments, clip).astype(np.float32)
    assert stored.shape == moments.latent_shape(FRAMES, 16, 24) == (8, 7, 2, 3)
    assert np.array_equal(stored[:4], encode(mean, clip).astype(np.float32))
    unscaled = encode(raw, clip).astype(np.float32)
    std = np.array(moments.latents_std, np.float32)[:, None, None, None]
    assert np.allclose(stored[4:], unscaled[4:] - 2 * np.log(std), atol=2e-3)
    assert np.array_equal(
        np.concatenate(list(moments.decode(encode(moments, clip)))),
        np.concatenate(list(mean.decode(encode(mean, clip)))),
    )


def test_a_sample_is_drawn_from_the_posterior_by_its_seed(folder: Folder) -> None:
    sample, moments = (loaded(folder("wan21"), posterior=kind) for kind in ("sample", "moments"))
    clip = smooth(41, 64, 64)
    known = encode(moments, clip).astype(np.float32)
    mean, deviation = known[:4], np.exp(known[4:] / 2)
    first, again, other = (encode(sample, clip, seed) for seed in (1, 1, 1 + 2**63))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    drawn = (first.astype(np.float32) - mean) / deviation
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05


@pytest.mark.parametrize("kind", ["mean", "sample", "moments"])
def test_how_a_clip_is_cut_changes_nothing_of_its_posterior(kind: str, folder: Folder) -> None:
    config = loaded(folder("wan21"))._config
    parameters = torch.randn((1, 8, 9, 4, 5), generator=torch.Generator().manual_seed(3))

    def stored(*sizes: int) -> torch.Tensor:
        posterior = Posterior(kind, Constants(config, True, torch.device("cpu")), 4, seed=5)
        return torch.cat([posterior(part) for part in torch.split(parameters, sizes, 2)], 1)

    assert torch.equal(stored(9), stored(1, 3, 0, 5))


def test_noise_is_that_of_a_counter_and_not_of_the_cpus_own_kernels(folder: Folder) -> None:
    config = loaded(folder("wan21"))._config
    constants = Constants(config, False, torch.device("cpu"))
    noise = Posterior("sample", constants, 4, seed=2**64 - 1)(torch.zeros((1, 8, 3, 4, 5)))
    for frame in range(3):
        drawn = np.random.Philox(key=2**64 - 1, counter=frame << 192)
        expected = np.random.Generator(drawn).standard_normal((4, 4, 5), np.float32)
        assert np.array_equal(noise[:, frame].numpy(), expected)


def test_constants_of_cosmos_go_by_latent_frame_and_the_last_stays(folder: Folder) -> None:
    ours = loaded(folder("cosmos"))
    mean, std = Constants(ours._config, True, torch.device("cpu")).of(3, 4)
    given = constants(20)
    for frame, constant in enumerate((3, 4, 4, 4)):
        for channel in range(4):
            at = 5 * channel + constant
            assert mean[channel, frame].item() == pytest.approx(given["latents_mean"][at])
            assert std[channel, frame].item() == pytest.approx(2 * given["latents_std"][at])


def test_a_posterior_without_variance_gives_only_its_mean(folder: Folder) -> None:
    for kind in ("sample", "moments"):
        with pytest.raises(UsageError, match=rf"posterior = '{kind}'.*Cosmos.*posterior = 'mean'"):
            loaded(folder("cosmos"), posterior=kind)


# Decoding


@pytest.mark.parametrize("name", TINY)
def test_decoding_is_the_models_own(name: str, folder: Folder) -> None:
    ours, vae = loaded(folder(name)), tiny(name)
    clip = clip_for(ours)
    normalised = encode(ours, clip)
    pixels = np.concatenate(list(ours.decode(normalised)))
    assert pixels.shape == clip.rgb().shape
    raw = loaded(folder(name), normalise=False)
    own = np.concatenate(list(raw.decode(encode(raw, clip)))).astype(int)
    assert np.abs(pixels - own).max() <= 2  # stored values round differently
    with Device("cpu", torch.float32).computing():
        latents = torch.from_numpy(encode(raw, clip)).float()[None]
        torch.manual_seed(0)
        expected = vae.decode(latents).sample
        family, _ = SAMPLES[name]
        given = torch.cat(list(family.decode(vae, latents)), dim=2)
    assert torch.allclose(given.clamp(-1, 1), expected.clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_an_image_is_decoded_too(name: str, folder: Folder) -> None:
    ours = loaded(folder(name))
    clip = clip_for(ours, 1)
    (pixels,) = ours.decode(encode(ours, clip))
    assert pixels.shape == clip.rgb().shape
    assert pixels.std() > 0


def test_a_decoder_that_wants_a_time_and_adds_noise_decodes_the_same_each_time(
    tmp_path: Path,
) -> None:
    import diffusers

    torch.manual_seed(1)
    diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 16, 16), layers_per_block=(1,) * 5,
        decoder_block_out_channels=(8, 16, 32), decoder_layers_per_block=(1,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 3, decoder_inject_noise=(True,) * 4,
        upsample_residual=(True,) * 3, upsample_factor=(2,) * 3, timestep_conditioning=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    ours = encoder(tmp_path)
    latents = encode(ours, clip_for(ours))
    state = torch.get_rng_state()
    first, second = (np.concatenate(list(ours.decode(latents))) for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_latents_of_another_shape_are_not_decoded(folder: Folder) -> None:
    ours = loaded(folder("wan21"))
    for shape in [(8, 1, 2, 2), (4, 2, 2), (4, 0, 2, 2)]:
        with pytest.raises(ValueError, match="expected"):
            ours.decode(np.zeros(shape, np.float16))


# The probe


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("wan21", {"scale_factor_spatial": 16}),
        ("wan21", {"scale_factor_spatial": 4}),
        ("wan22", {"scale_factor_spatial": 8}),
        ("wan21", {"scale_factor_temporal": 8}),
        ("ltx090", {"spatial_compression_ratio": 16}),
        ("ltx095", {"temporal_compression_ratio": 4}),
        ("mochi", {"temporal_expansions": [1, 1, 3]}),
    ],
)
def test_a_config_that_lies_is_found_out(name: str, lie: dict[str, Any], copy: Folder) -> None:
    path = copy(name)
    change(path, **lie)
    ours = encoder(path)
    with pytest.raises(UsageError, match=r"is not what its config says|does not load"):
        encode(ours, clip_for(ours))


def test_weights_of_another_model_are_found_out(copy: Folder) -> None:
    path = copy("wan21")
    tensors = load_file(path / TENSORS)
    del tensors["quant_conv.bias"]
    save_file(tensors, path / TENSORS, {"format": "pt"})
    ours = encoder(path)
    with pytest.raises(UsageError, match=r"lack.*quant_conv\.bias"):
        encode(ours, clip_for(ours))


def test_an_encoder_of_more_layers_than_its_config_says_is_found_out(copy: Folder) -> None:
    path = copy("hunyuan")
    tensors = load_file(path / TENSORS)
    block = "down_blocks.0.resnets.0.conv1.conv.weight"
    for part in ("decoder.another", f"encoder.{block.replace('resnets.0', 'resnets.7')}"):
        tensors[part] = tensors[f"encoder.{block}"].clone()
        save_file(tensors, path / TENSORS, {"format": "pt"})
        ours = encoder(path)
        if part.startswith("decoder"):
            assert np.isfinite(encode(ours, clip_for(ours))).all()
            continue
        with pytest.raises(UsageError, match=r"hold encoder\..*resnets\.7.*not ask for"):
            encode(ours, clip_for(ours))


def test_weights_that_are_no_weights_are_refused(copy: Folder) -> None:
    path = copy("wan21")
    (path / TENSORS).write_bytes(b"no tensors at all")
    ours = encoder(path)
    with pytest.raises(UsageError, match="does not load"):
        encode(ours, clip_for(ours))


def config_of(path: Path) -> VaeConfig:
    return read_config(read_json(path / "config.json"))


def test_a_stream_that_is_not_the_models_encode_is_found_out(folder: Folder) -> None:
    class Forgetful(WanStreaming):
        """Every piece as if it were a clip's first: shapes agree, values do not."""

        def open(self, vae: Any, frames: int) -> Any:
            opened = super().open

            class Stream:
                def push(self, pixels: torch.Tensor) -> torch.Tensor:
                    return opened(vae, frames).push(pixels[:, :, :1])

            return Stream()

    path = folder("wan21")
    with pytest.raises(UsageError, match="the streamed latents and its own differ"):
        load(path, config_of(path), Device("cpu", torch.float32), Forgetful())


def test_a_first_frame_that_knows_of_later_ones_is_found_out(folder: Folder) -> None:
    path = folder("hunyuan")
    config = replace(config_of(path), family=replace(HUNYUAN, causal=True))
    with pytest.raises(UsageError, match="first latent and that of its first frame alone differ"):
        load(path, config, Device("cpu", torch.float32), HunyuanStreaming())


# Around it


def test_without_diffusers_it_is_said_what_to_install(folder: Folder) -> None:
    child = (
        "import sys; sys.modules['diffusers'] = None\n"
        "from telecine.encoders.load import load_encoder\n"
        "from telecine.infra.errors import UsageError\n"
        "from telecine.manifests.specs import VaeSpec\n"
        "try: load_encoder(VaeSpec(encoder='diffusers:' + sys.argv[1]))\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(folder("wan21"))],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert "pip install 'telecine[vae]'" in done.stdout


def test_latents_that_are_too_many_or_too_few_do_not_pass() -> None:
    device = Device("cpu", torch.float32)
    landing = Landing(device, np.zeros((4, 2, 1, 1), np.float16))
    landing.land(torch.zeros((4, 1, 1, 1)))
    with pytest.raises(ValueError, match="1 latent frames came: expected 2"):
        landing.finish()
    landing = Landing(device, np.zeros((4, 2, 1, 1), np.float16))
    landing.land(torch.zeros((4, 3, 1, 1)))
    with pytest.raises(ValueError, match="do not fit"):
        landing.finish()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_latents_but_for_rounding(folder: Folder) -> None:
    for name in TINY:
        kind = "mean" if name == "cosmos" else "sample"
        host, card = (encoder(folder(name), d, posterior=kind) for d in ("cpu", "cuda"))
        assert host.fingerprint == card.fingerprint
        clip = clip_for(host)
        a, b = (encode(it, clip, seed=4).astype(np.float32) for it in (host, card))
        assert np.abs(a - b).max() < 0.02 * np.abs(a).max()
        pixels = [it._device.pixels(clip).cpu() for it in (host, card)]
        assert torch.equal(*pixels)
