"""What making an encoder refuses, and what its latents are called: by all they depend on alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from telecine.encoders.hub import read_json
from telecine.encoders.video.config import read_config
from telecine.encoders.video.weights import INDEX, TENSORS
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import canonical_json, fingerprint
from tests.support.vaes import SAMPLES, TINY, change, clip_for, encode, encoder, save

Folder = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Of the tiny model of a name, to be spoilt."""

    def get(name: str) -> Path:
        path = tmp_path / name
        return path if path.exists() else save(name, path)

    return get


def test_making_an_encoder_loads_no_model(folder: Folder) -> None:
    path = folder("wan21")
    (path / TENSORS).write_bytes(b"nothing that could be loaded")
    ours = encoder(path)
    assert ours.fingerprint
    assert ours.latent_shape(9, 64, 64) == (4, 3, 8, 8)
    assert list(ours.block_sizes(9)) == [1, 4, 4]
    with pytest.raises(UsageError, match="does not load"):
        encode(ours, clip_for(ours))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_familys_latents_are_called_what_they_were(name: str, folder: Folder) -> None:
    """With another identity every build that was made with it would be made again."""
    _, sample = SAMPLES[name]
    called = fingerprint(encoder(folder(name)).identity() | {"weights": None})
    assert called.startswith(sample.identity)
    assert len(sample.identity) == 16


def test_moving_the_model_changes_no_fingerprint_and_one_weight_does(folder: Folder) -> None:
    path = folder("wan21")
    before = encoder(path).fingerprint
    moved = path.rename(path.with_name("elsewhere"))
    pipeline = moved.parent / "pipeline"
    shutil.copytree(moved, pipeline / "vae")
    change(moved, _name_or_path="/another/place")
    assert encoder(moved).fingerprint == encoder(pipeline).fingerprint == before
    assert str(moved.parent) not in canonical_json(encoder(moved).identity())
    tensors = load_file(moved / TENSORS)
    tensors["quant_conv.bias"][0] += 1e-6
    save_file(tensors, moved / TENSORS, {"format": "pt"})
    assert encoder(moved).fingerprint != before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wan21", {"dtype": "bfloat16"}),
        ("wan21", {"posterior": "sample"}),
        ("wan21", {"posterior": "moments"}),
        ("wan21", {"normalise": False}),
        ("wan21", {"tile": 512}),
        ("wan21", {"tile": 512, "tile_overlap": 128}),
        ("mochi", {"window": 13}),
        ("mochi", {"window": 19}),
    ],
)
def test_every_option_that_changes_latents_is_in_the_fingerprint(
    name: str, options: dict[str, Any], folder: Folder
) -> None:
    assert encoder(folder(name)).fingerprint != encoder(folder(name), **options).fingerprint


def test_config_and_class_are_in_the_fingerprint(folder: Folder) -> None:
    path = folder("wan21")
    seen = {encoder(path).fingerprint}
    for values in ({"latents_mean": [0.0] * 4}, {"dropout": 0.1}):
        change(path, **values)
        seen.add(encoder(path).fingerprint)
    change(path, _class_name="AutoencoderKLQwenImage")
    seen.add(encoder(path).fingerprint)
    assert len(seen) == 4


def test_a_default_of_the_library_is_in_the_identity_unless_it_is_the_decoders(
    folder: Folder,
) -> None:
    config = read_config(read_json(folder("wan21") / "config.json"))
    assert encoder(folder("wan21")).identity()["config"] == config.encoding

    def with_new(**defaults: Any) -> dict[str, Any]:
        return replace(config, full={**config.full, **defaults}).encoding

    assert with_new(padding="reflect") != config.encoding
    assert with_new(decoder_padding="reflect") == config.encoding


@pytest.mark.parametrize("name", TINY)
def test_an_identity_holds_no_sentence_that_someone_may_reword(name: str, folder: Folder) -> None:
    identity = encoder(folder(name)).identity()
    assert not [text for text in identity.values() if isinstance(text, str) and " " in text]


@pytest.mark.parametrize("what", ["weights", "config"])
def test_a_vae_that_is_replaced_before_the_first_clip_is_found_out(
    what: str, folder: Folder
) -> None:
    path = folder("wan21")
    ours = encoder(path)
    whole = (path / TENSORS).read_bytes(), (path / "config.json").read_bytes()
    if what == "weights":
        tensors = {key: tensor * 1.3 for key, tensor in load_file(path / TENSORS).items()}
        save_file(tensors, path / TENSORS, {"format": "pt"})
    else:
        change(path, latents_mean=[0.5] * 4)
    for _ in range(2):  # a run that goes on regardless gets no further
        with pytest.raises(UsageError, match="is not what it was when the run began"):
            encode(ours, clip_for(ours))
    (path / TENSORS).write_bytes(whole[0])
    (path / "config.json").write_bytes(whole[1])
    assert np.isfinite(encode(ours, clip_for(ours))).all()


def test_of_two_sets_of_weights_those_are_hashed_that_are_loaded(folder: Folder) -> None:
    path = folder("wan21")
    ours = encoder(path)
    before, latents = ours.fingerprint, encode(ours, clip_for(ours))
    tensors = {key: tensor * 1.3 for key, tensor in load_file(path / TENSORS).items()}
    save_file(tensors, path / "other.safetensors", {"format": "pt"})
    (path / INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, "other.safetensors")})
    )
    both = encoder(path)
    assert not np.array_equal(encode(both, clip_for(both)), latents)
    assert both.fingerprint != before
    (path / TENSORS).unlink()
    assert encoder(path).fingerprint == both.fingerprint


def test_tiles_and_their_sizes_are_checked_at_once(folder: Folder) -> None:
    with pytest.raises(UsageError, match="multiples"):
        encoder(folder("ltx2"), tile=500)


def test_a_device_that_is_not_here_is_refused(folder: Folder) -> None:
    with pytest.raises(UsageError, match="no torch device 'cuda:99'"):
        encoder(folder("wan21"), device="cuda:99")
