"""What models of open_clip make of stills and texts."""

from __future__ import annotations

import dataclasses
import io
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from telecine.encoders.score.load import Still
from telecine.encoders.score.openclip import OpenClip
from telecine.encoders.score.pieces import pieces
from telecine.infra.errors import OutOfDeviceMemory
from telecine.testing.media import encoded, jpeg
from telecine.testing.scorers import vectors
from tests.support.openclip_models import (
    CLIP,
    COCA,
    CONTEXT,
    SIDE,
    copied,
    open_clip,
    save_folder,
    tiny,
)
from tests.support.waiting import PATIENCE

TOKENIZER = open_clip.SimpleTokenizer(context_length=CONTEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights."""
    return save_folder(tiny(CLIP), CLIP, tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(folder: Path) -> OpenClip:
    return OpenClip(f"openclip:{folder}", "float32")


# ── stills ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("architecture", [CLIP, COCA], ids=["clip", "coca"])
def test_an_embedding_is_the_mean_of_what_open_clip_makes_of_the_stills(
    architecture: dict[str, Any], tmp_path: Path
) -> None:
    where = save_folder(tiny(architecture), architecture, tmp_path)
    net, prepare = open_clip.create_model_from_pretrained(f"local-dir:{where}")
    stills = [jpeg(0), jpeg(1, 48, 80), jpeg(2, mode="L")]
    with torch.inference_mode():
        pixels = torch.stack([prepare(Image.open(io.BytesIO(one))) for one in stills])
        rows = net.encode_image(pixels, normalize=True)
        texts = net.encode_text(TOKENIZER(["a red hat", "two dogs"]), normalize=True)
    model = OpenClip(f"openclip:{where}", "float32", batch=2)
    (embedding,) = vectors(model.embed([stills]))
    told = model.embed_texts(["a red hat", "two dogs"])
    np.testing.assert_allclose(embedding, rows.mean(0).numpy(), atol=1e-6)
    np.testing.assert_allclose(told, texts.numpy(), atol=1e-6)
    cosines = (rows @ texts.T).mean(0).numpy()
    np.testing.assert_allclose(told @ embedding, cosines, atol=1e-6)
    assert embedding.dtype == told.dtype == np.float32
    assert embedding.shape == (model.dimensions,) == (32,)


def test_what_is_wrong_with_a_clip_is_that_clips_alone(model: OpenClip) -> None:
    whole = jpeg(0)
    clips = [
        [whole], [whole, b"no JPEG"], [], [jpeg(1, 8, 480)], [whole[: len(whole) // 2]], [jpeg(1)]
    ]  # fmt: skip
    made = model.embed(clips)
    assert made[1:4] == [
        "still 2 of 2: it is no JPEG",
        "it has no stills",
        "still 1 of 1: 8×480 is no size for a still",
    ]
    assert str(made[4]).startswith("still 1 of 1: it does not decode: ")
    np.testing.assert_allclose(
        vectors([made[0], made[5]]), vectors(model.embed([[whole], [jpeg(1)]])), atol=1e-6
    )
    assert model.embed([]) == []


def test_a_picture_of_another_format_or_far_too_large_is_not_decoded(model: OpenClip) -> None:
    png = io.BytesIO()
    Image.new("RGB", (32, 32)).save(png, "PNG")
    small = encoded(Image.new("RGB", (16, 16)))
    at = small.index(b"\xff\xc0") + 5
    clips = [[png.getvalue()]]
    for side in (5_000, 60_000):  # promised by the header; there are no such data
        clips.append([small[:at] + side.to_bytes(2) * 2 + small[at + 4 :]])
    other_format, large, huge = model.embed(clips)
    assert other_format == "still 1 of 1: it is no JPEG"
    assert large == "still 1 of 1: 5000×5000 is no size for a still"
    assert str(huge).startswith("still 1 of 1: ")
    assert str(huge).endswith("no size for a still"), "whatever bound Pillow has in this process"


@settings(max_examples=15, deadline=None)
@given(order=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5), batch=st.integers(1, 7))
def test_batches_and_neighbours_change_nothing(
    order: list[list[int]], batch: int, model: OpenClip
) -> None:
    model._at_once = batch
    made = model.embed([[jpeg(seed) for seed in clip] for clip in order])
    model._at_once = 64
    alone = [model.embed([[jpeg(seed) for seed in clip]])[0] for clip in order]
    for one, other in zip(made, alone, strict=True):
        if isinstance(one, str):
            assert one == other == "it has no stills"
        else:
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_middle_is_seen_unless_the_config_says_otherwise(
    model: OpenClip, folder: Path, tmp_path: Path
) -> None:
    wide = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
    wide[:, SIDE : 2 * SIDE] = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3))
    other = wide.copy()
    other[:, :SIDE] = 255
    pictures = [[encoded(Image.fromarray(array), 100)] for array in (wide, other)]
    cropped = vectors(model.embed(pictures))
    np.testing.assert_allclose(cropped[0], cropped[1], atol=0.02)
    for mode in ("longest", "squash"):
        where = copied(folder, tmp_path / mode, preprocess_cfg={"resize_mode": mode})
        whole = vectors(OpenClip(f"openclip:{where}", "float32").embed(pictures))
        assert np.abs(whole[0] - whole[1]).max() > 0.1


def test_the_next_batch_is_prepared_while_one_is_computed(folder: Path) -> None:
    model = OpenClip(f"openclip:{folder}", "float32", batch=2)
    plain = model.loaded.preprocessing
    prepared = [threading.Event() for _ in range(6)]

    def prepare(image: Image.Image) -> torch.Tensor:
        next(event for event in prepared if not event.is_set()).set()
        return plain(image)

    model.loaded = dataclasses.replace(model.loaded, preprocessing=prepare)
    seen: list[int] = []

    def compute(stills: Sequence[Still]) -> Sequence[int]:
        seen.append(len(stills))
        ahead = min(2 * (len(seen) + 1), 6)
        assert prepared[ahead - 1].wait(PATIENCE)
        return [0] * len(stills)

    assert model.over_stills([jpeg(seed) for seed in range(6)], compute) == [0] * 6
    assert seen == [2, 2, 2]


# ── texts ────────────────────────────────────────────────────────────────────────────────────────


def test_a_long_text_counts_as_a_whole(model: OpenClip) -> None:
    first = "A red dog runs over the wet grass of a park. Two men talk."
    second = "The camera pans to the left. It is evening, and the lamps are lit."
    whole, one, other = model.embed_texts([f"{first} {second}", first, second])
    np.testing.assert_allclose(whole, (one + other) / 2, atol=1e-6)
    units = model.embed_texts(["A red dog.", "a red dog."])
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(units[0], units[1], atol=1e-6)


def test_an_empty_text_has_no_embedding(model: OpenClip) -> None:
    made = model.embed_texts(["", " \n", "a dog"])
    assert np.isnan(made[:2]).all()
    assert np.isfinite(made[2]).all()
    assert model.embed_texts([]).shape == (0, 32)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab !.?é1'")))
@example("a " * (CONTEXT - 2))
@example("a " * (CONTEXT - 1))
@example("! " * (CONTEXT - 1))
@example("!")
def test_a_text_fits_if_all_its_tokens_do(model: OpenClip, text: str) -> None:
    assert model._fits_context(text) == (len(TOKENIZER.encode(text)) + 2 <= CONTEXT)


def test_garbage_without_end_is_not_tokenized(model: OpenClip) -> None:
    assert np.isfinite(model.embed_texts(["x" * 3000])).all()


WORDS = st.text("abc", min_size=1, max_size=12)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=9), max_size=6)


@settings(max_examples=200)
@given(SENTENCES, st.integers(1, 40))
def test_pieces_fit_and_lose_nothing(sentences: list[list[str]], room: int) -> None:
    text = " ".join(" ".join(words) + "." for words in sentences)
    made = pieces(text, lambda piece: len(piece) <= room)
    assert all(0 < len(piece) <= room for piece in made)
    assert "".join(made).replace(" ", "") == text.replace(" ", "")
    if all(len(sentence) < room for sentence in text.split(".")):
        assert all(piece.endswith(".") for piece in made), "cut between sentences alone"
        for one, following in itertools.pairwise(made):
            assert len(f"{one} {following.split('.')[0]}.") > room, "room was left"


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [
        ("One two. Three! Four?", 16, ["One two. Three!", "Four?"]),
        ("一二三。四五六。", 4, ["一二三。", "四五六。"]),
        ("One two three four five. Six.", 13, ["One two three", "four five.", "Six."]),
        ("abcdefgh ij", 5, ["abcd", "efgh", "ij"]),
        ("  ", 5, []),
    ],
)
def test_texts_are_cut_between_sentences_then_words(
    text: str, room: int, expected: list[str]
) -> None:
    assert pieces(text, lambda piece: len(piece) <= room) == expected


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def taking(most: int, sizes: list[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Something that a device with room for so many at once computes."""

    def compute(items: Sequence[Any]) -> Sequence[Any]:
        sizes.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [len(items)] * len(items)

    return compute


def test_batches_are_halved_until_they_fit_and_stay_so(folder: Path) -> None:
    model, sizes = OpenClip(f"openclip:{folder}", "float32", batch=16), list[int]()
    made = model.over_stills([jpeg(0)] * 21, taking(5, sizes))
    assert sizes == [16, 8, 4, 4, 4, 4, 4, 1]
    assert made == [4] * 20 + [1]
    sizes.clear()
    model.in_parts(range(9), taking(5, sizes))
    assert sizes == [4, 4, 1]


def test_where_one_does_not_fit_the_user_is_told(folder: Path) -> None:
    model, sizes = OpenClip(f"openclip:{folder}", "float32", batch=2), list[int]()
    with pytest.raises(OutOfDeviceMemory, match=rf"{folder}.*one still.*memory of cpu.*--gpus 1"):
        model.over_stills([jpeg(0)] * 3, taking(0, sizes))
    assert sizes == [2, 1]
