"""Text encoders over tiny models of each kind: real tokens alone, whatever they come beside."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.load import load_text_encoder, pin_text_encoder
from telecine.encoders.text.interface import EncodedText, TextEncoder
from telecine.encoders.text.models import BATCH_TOKENS, MAX_BATCH, batches
from telecine.infra.errors import UsageError
from telecine.manifests.specs import EmbedSpec
from tests.support import text_models

KINDS = ("t5", "umt5", "clip", "qwen2")
TEXTS = ["A red fish swims.", "", "Two people walk along a river at dusk, talking.", "fish"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {kind: text_models.save(root / kind, kind) for kind in KINDS}


def encoder(named: str, **options: object) -> TextEncoder:
    return load_text_encoder(EmbedSpec.model_validate({"encoder": named, **options}))


def encoded(made: TextEncoder, texts: list[str]) -> list[EncodedText]:
    found = made.encode(texts)
    assert all(isinstance(one, EncodedText) for one in found)
    return [one for one in found if isinstance(one, EncodedText)]


@pytest.mark.parametrize("kind", KINDS)
def test_real_tokens_alone_are_what_a_padded_batch_has_there(
    saved: dict[str, str], kind: str
) -> None:
    made = encoder(saved[kind], dtype="float32", max_tokens=64)
    found = encoded(made, TEXTS)

    ids = text_models.tokenizer(begin=kind == "clip")
    batch = ids(TEXTS, padding="max_length", max_length=64, return_tensors="pt")
    with torch.inference_mode():
        net = text_models.model(kind)
        whole = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    for one, rows, real in zip(found, whole, batch["attention_mask"].bool(), strict=True):
        assert one.embedding.dtype == np.float16
        assert one.embedding.shape == (int(real.sum()), text_models.WIDTH)
        np.testing.assert_allclose(one.embedding, rows[real].numpy(), rtol=1e-3, atol=1e-3)
    assert made.dimensions == text_models.WIDTH
    assert len(found[1].embedding), "an empty text has its own tokens"
    assert found[1].embedding.any(), "and is no zeros"


@pytest.mark.parametrize("kind", KINDS)
def test_what_else_is_in_a_batch_changes_nothing_but_last_bits(
    saved: dict[str, str], kind: str
) -> None:
    made = encoder(saved[kind], dtype="float32")
    together = encoded(made, TEXTS)
    alone = [encoded(made, [text])[0] for text in TEXTS]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, rtol=1e-3, atol=1e-3)


def test_a_longer_text_is_cut_and_said_to_be(saved: dict[str, str]) -> None:
    long, short = encoded(encoder(saved["t5"], max_tokens=8), ["123456789", "1234567"])
    assert (len(long.embedding), long.truncated) == (8, True)
    assert (len(short.embedding), short.truncated) == (8, False)


def test_a_model_of_absolute_positions_sets_its_own_limit(saved: dict[str, str]) -> None:
    (one,) = encoded(encoder(saved["clip"]), ["x" * 100])
    assert (len(one.embedding), one.truncated) == (77, True)


def test_values_beyond_float16_are_told_not_stored(tmp_path: Path) -> None:
    named = text_models.save(tmp_path / "loud", scale=1e6)
    (why,) = encoder(named, dtype="float32").encode(["loud"])
    assert isinstance(why, str)
    assert "not finite in float16" in why


def test_a_model_is_known_by_its_files_and_a_pipeline_by_its_two_folders(
    saved: dict[str, str], tmp_path: Path
) -> None:
    folder = Path(saved["t5"].partition(":")[2])
    pipeline = tmp_path / "pipeline"
    for part, pattern in (("text_encoder", "*"), ("tokenizer", "tokenizer*")):
        (pipeline / part).mkdir(parents=True)
        for path in folder.glob(pattern):
            if (part == "tokenizer") == path.name.startswith("tokenizer"):
                shutil.copy(path, pipeline / part)
    whole, parts = encoder(saved["t5"]), encoder(f"t5:{pipeline}")
    assert whole.encode(["a"])[0].embedding.tobytes() == parts.encode(["a"])[0].embedding.tobytes()  # type: ignore[union-attr]

    pinned = pin_text_encoder(EmbedSpec(encoder=f"t5:{pipeline}"))
    text_models.save(pipeline / "text_encoder", seed=8)
    with pytest.raises(UsageError, match="is not the one that the column was made with"):
        load_text_encoder(pinned).encode(["a"])
    assert encoder(f"t5:{pipeline}").fingerprint != load_text_encoder(pinned).fingerprint


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("umt5:{t5}", "write t5: for it"),
        ("t5:/nowhere", "there is no folder"),
        ("t5", "there is no text encoder"),
        ("none:x", "there is no text encoder"),
    ],
)
def test_another_model_than_the_name_says_is_refused(
    saved: dict[str, str], named: str, said: str
) -> None:
    where = named.format(t5=saved["t5"].partition(":")[2])
    with pytest.raises(UsageError, match=said):
        pin_text_encoder(EmbedSpec(encoder=where))


@given(st.lists(st.integers(1, 512), max_size=400))
def test_batches_hold_every_text_once_within_their_bounds(lengths: list[int]) -> None:
    made = [batch for batch in batches(lengths) if batch]
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) <= MAX_BATCH
        assert len(batch) * max(lengths[place] for place in batch) <= BATCH_TOKENS
