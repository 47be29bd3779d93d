"""Scorers by what a spec says of them, and linear heads over their embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from telecine.encoders.load import load_scorer, pin_scorer
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.heads import load_head
from telecine.encoders.score.interface import Scorer
from telecine.encoders.score.openclip import weights_of
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.specs import ScoreSpec
from telecine.testing.media import jpeg
from telecine.testing.scorers import ScorerContract, vectors
from tests.support.openclip_models import (
    CLIP,
    CONFIG,
    TENSORS,
    copied,
    open_clip,
    save_folder,
    tiny,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights."""
    return save_folder(tiny(CLIP), CLIP, tmp_path_factory.mktemp("clip"))


def score(where: Path | str, **options: Any) -> ScoreSpec:
    return ScoreSpec(scorer=f"openclip:{where}", **options)


class TestEveryScorer(ScorerContract):
    @pytest.fixture
    def make(self, folder: Path) -> Callable[[], Scorer]:
        return lambda: load_scorer(score(folder))


@pytest.mark.parametrize("name", [None, "oracle", "openclip", "openclip:", "vlm:x"])
def test_an_unknown_scorer_is_refused_with_those_there_are(name: str | None) -> None:
    with pytest.raises(UsageError, match=r"no scorer .*openclip:MODEL\[@TAG_OR_FILE\]"):
        load_scorer(ScoreSpec(scorer=name))


def test_a_scorers_fingerprint_is_that_of_its_embeddings(folder: Path, tmp_path: Path) -> None:
    plain = load_scorer(score(folder))
    assert plain.fingerprint == fingerprint(plain.identity())
    assert plain.name == plain.identity()["name"] == "openclip"
    moved = score(copied(folder, tmp_path / "moved"))
    same = [
        (score(folder, prompts={"a": "b"}, aesthetic="x.pt", duplicate_threshold=0.9), 3),
        (moved, None),
        (pin_scorer(moved), None),
        (score("/no/where", weights=plain.identity()["weights"]), None),
    ]
    for spec, batch in same:
        runtime = ModelRuntime(device="cuda", batch=batch)
        assert load_scorer(spec, runtime).fingerprint == plain.fingerprint
    assert load_scorer(score(folder, dtype="bfloat16")).fingerprint != plain.fingerprint
    assert load_scorer(score(folder, weights="0" * 64)).fingerprint != plain.fingerprint


def test_half_as_many_bits_make_nearly_the_same_embeddings(folder: Path) -> None:
    clips = [[jpeg(seed)] for seed in range(3)]
    exact = vectors(load_scorer(score(folder)).embed(clips))
    for dtype in ("bfloat16", "float16"):
        near = vectors(load_scorer(score(folder, dtype=dtype)).embed(clips))
        assert (near * exact).sum(1).min() > 0.99


def test_a_model_that_was_replaced_is_refused(folder: Path, tmp_path: Path) -> None:
    where = copied(folder, tmp_path / "clip")
    spec = pin_scorer(score(where))
    unpinned = load_scorer(score(where))
    assert unpinned.fingerprint
    config = json.loads((where / CONFIG).read_text())
    (where / CONFIG).write_text(json.dumps(config | {"preprocess_cfg": {"mean": [0, 0, 0]}}))
    for scorer in (load_scorer(spec), unpinned):
        with pytest.raises(
            UsageError, match=r"not the one that scores were made with.*--scorer op"
        ):
            scorer.embed([[jpeg(0)]])


def test_a_model_that_is_replaced_while_it_is_read_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = copied(folder, tmp_path / "clip")
    read_tokenizer = open_clip.get_tokenizer

    def replacing(name: str) -> Any:
        (where / TENSORS).write_bytes((where / TENSORS).read_bytes()[:-1] + b"x")
        return read_tokenizer(name)

    monkeypatch.setattr(open_clip, "get_tokenizer", replacing)
    with pytest.raises(UsageError, match="not the one that scores were made with"):
        load_scorer(score(where)).embed([[jpeg(0)]])


def test_an_embedding_that_is_no_number_is_none(folder: Path, tmp_path: Path) -> None:
    where = copied(folder, tmp_path / "clip")
    tensors = load_file(where / TENSORS)
    tensors["visual.proj"][0, 0] = torch.nan
    save_file(tensors, where / TENSORS)
    (made,) = load_scorer(score(where)).embed([[jpeg(0)]])
    assert made == "its embedding is not finite in float32"


# ── heads ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["", "linear.", "layers.0."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_head_is_one_linear_layer(prefix: str, suffix: str, tmp_path: Path) -> None:
    layer = torch.nn.Linear(32, 1).requires_grad_(False)
    tensors = {f"{prefix}{name}": tensor for name, tensor in layer.state_dict().items()}
    save: Any = save_file if suffix == ".safetensors" else torch.save
    save(tensors, tmp_path / f"head{suffix}")
    weight, bias = load_head(tmp_path / f"head{suffix}", 32)
    embedding = np.random.default_rng(0).normal(size=32).astype(np.float32)
    expected = float(layer(torch.from_numpy(embedding)))
    assert weight @ embedding + bias == pytest.approx(expected, abs=1e-6)
    assert weight.shape == (32,)
    assert weight.dtype == np.float32


def test_what_is_no_head_is_refused_with_its_shapes(tmp_path: Path) -> None:
    path = tmp_path / "head.pt"
    two = torch.nn.Sequential(torch.nn.Linear(32, 2), torch.nn.Linear(2, 1)).state_dict()
    nan = {"weight": torch.full((1, 32), torch.nan), "bias": torch.zeros(1)}
    for content, message in (
        (torch.nn.Linear(8, 1).state_dict(), r"expected weight \[1, 32\].*found weight \[1, 8\]"),
        (torch.nn.Linear(32, 2).state_dict(), r"found weight \[2, 32\], bias \[2\]"),
        (torch.nn.Linear(32, 1, bias=False).state_dict(), r"found weight \[1, 32\];"),
        (two, r"found 0\.weight \[2, 32\], 0\.bias \[2\], 1\.weight"),
        ({}, "found no tensor"),
        ([1], "found no tensor"),
        (nan, "not finite"),
    ):
        torch.save(content, path)
        with pytest.raises(UsageError, match=message):
            load_head(path, 32)
    torch.save(torch.nn.Linear(32, 1), path)  # the layer itself, with its class
    with pytest.raises(UsageError, match=r"cannot be read as tensors: .*not run.*state_dict"):
        load_head(path, 32)
    for missing in (tmp_path / "none.pt", tmp_path, "~nosuchuser/head.pt", tmp_path / "head.onnx"):
        with pytest.raises(UsageError, match="there is no file"):
            load_head(missing, 32)


def test_pinning_names_model_and_head(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file(torch.nn.Linear(32, 1).requires_grad_(False).state_dict(), path)
    spec = pin_scorer(score(folder, aesthetic=str(path), prompts={"a": "b"}))
    assert spec.weights == weights_of(f"openclip:{folder}")
    assert len(str(spec.aesthetic_weights)) == 64
    assert pin_scorer(spec) == spec
    save_file(torch.nn.Linear(32, 1).requires_grad_(False).state_dict(), path)
    assert pin_scorer(spec).aesthetic_weights != spec.aesthetic_weights
    save_file(torch.nn.Linear(8, 1).requires_grad_(False).state_dict(), path)
    with pytest.raises(UsageError, match="no head for this scorer"):
        pin_scorer(spec)
    assert pin_scorer(score(folder)).aesthetic_weights is None
