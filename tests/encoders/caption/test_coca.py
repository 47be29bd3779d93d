"""CoCa as a captioner: what its decoder says becomes a text, of each view alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from telecine.encoders.caption.coca import CocaDescriber, load_coca, tidied
from telecine.encoders.caption.describer import ModelCaptioner
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.windows import View
from telecine.encoders.load import load_captioner, pin_captioner
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.openclip import OpenClip
from telecine.infra.errors import UsageError
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import make_request
from telecine.testing.media import jpeg
from telecine.testing.scorers import vectors
from tests.support.openclip_models import (
    CLIP,
    COCA,
    CONTEXT,
    NAME,
    add_names,
    open_clip,
    save_folder,
    scripted,
    tiny,
)

TOKENIZER = open_clip.SimpleTokenizer()
START, END = TOKENIZER.sot_token_id, TOKENIZER.eot_token_id
SHORT = 5  # tokens of a test's caption, where its length does not matter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CoCa of random weights."""
    return save_folder(tiny(COCA), COCA, tmp_path_factory.mktemp("coca"))


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that ends some texts early, others not at all."""
    net = tiny(COCA)
    net.text_decoder.text_projection[:, END] *= 2
    return save_folder(net, COCA, tmp_path_factory.mktemp("ending"))


def spec(where: Path | str, **options: object) -> CaptionSpec:
    return CaptionSpec.model_validate(
        {"captioner": f"openclip:{where}", "dtype": "float32"} | options
    )


def describer(where: Path | str, batch: int | None = None, **options: object) -> CocaDescriber:
    return CocaDescriber(spec(where, **options), ModelRuntime(batch=batch))


def view(*stills: bytes) -> View:
    return View("", tuple((float(n), still) for n, still in enumerate(stills)), 0.0, len(stills))


def says(tmp_path: Path, tokens: Sequence[int], **options: object) -> ModelCaptioner:
    """A captioner whose decoder is loudest at these tokens, one after the other."""
    where = save_folder(scripted(tokens), COCA, tmp_path / "scripted")
    return load_coca(spec(where, **options), ModelRuntime())


# ── what is said ─────────────────────────────────────────────────────────────────────────────────


def test_tokens_become_a_text_up_to_their_end(tmp_path: Path) -> None:
    said = [*TOKENIZER.encode("a man's hat, red."), END, *TOKENIZER.encode("and more")]
    captioner = says(tmp_path, said)
    request = make_request(stills=((0.0, jpeg(0)), (1.0, jpeg(1))))
    (reply,) = captioner.caption([request])
    assert (reply.outcome, reply.text) == (Outcome.OK, "a man's hat, red.")
    assert (reply.clip_id, reply.speaker) == (request.clip_id, captioner.speakers[0])
    assert captioner.name == "openclip"


@pytest.mark.parametrize(("limit", "words"), [(4, 4), (None, CONTEXT - 1), (99, CONTEXT - 1)])
def test_a_text_without_an_end_is_cut_at_the_limit_or_the_context(
    limit: int | None, words: int, tmp_path: Path
) -> None:
    endless = TOKENIZER.encode("one two red dog cat man hat box " * 3)[:CONTEXT]
    found = CocaDescriber(
        spec(save_folder(scripted(endless), COCA, tmp_path), max_tokens=limit), ModelRuntime()
    )
    (said,) = found.describe([view(jpeg(0))])
    assert said.outcome is Outcome.TRUNCATED
    assert len(said.text.split()) == words


def test_the_end_may_be_the_last_token_that_the_limit_allows(tmp_path: Path) -> None:
    captioner = says(tmp_path, [*TOKENIZER.encode("a red hat"), END], max_tokens=4)
    (reply,) = captioner.caption([make_request(stills=((0.0, jpeg(0)),))])
    assert (reply.outcome, reply.text) == (Outcome.OK, "a red hat")


def test_who_says_nothing_has_no_text(tmp_path: Path) -> None:
    (reply,) = says(tmp_path, [END]).caption([make_request(stills=((0.0, jpeg(0)),))])
    assert (reply.outcome, reply.text) == (Outcome.EMPTY, "")
    assert reply.detail == "the model said nothing"


@pytest.mark.parametrize("unwanted", [START, 0])
def test_padding_and_a_second_beginning_are_never_said(unwanted: int, tmp_path: Path) -> None:
    net = scripted([*TOKENIZER.encode("a hat"), END])
    net.text_decoder.text_projection[:, unwanted] = 100 * net.text_decoder.text_projection.sum(1)
    (said,) = describer(save_folder(net, COCA, tmp_path)).describe([view(jpeg(0))])
    assert said == Said(Outcome.OK, "a hat")


def test_what_is_no_number_is_a_failure_not_a_text(tmp_path: Path) -> None:
    net = tiny(COCA)
    net.text_decoder.text_projection[0, 0] = torch.nan  # a token that is never said
    said = describer(save_folder(net, COCA, tmp_path / "a")).describe([view(jpeg(0))])
    net = scripted([END])
    net.text_decoder.text_projection[0, 9] = torch.nan
    said += describer(save_folder(net, COCA, tmp_path / "b")).describe([view(jpeg(0))])
    net = scripted([END])
    net.visual.proj.fill_(torch.inf)
    said += describer(save_folder(net, COCA, tmp_path / "c")).describe([view(jpeg(0))])
    assert said[0].outcome is Outcome.TRUNCATED
    for bad in said[1:]:
        assert bad == Said(
            Outcome.FAILED, "", "still 1 of 1: the model gives NaN or infinity in float32"
        )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("a man 's hat . ", "a man's hat."),
        ("they 're two , or three ! ", "they're two, or three!"),
        ("a sign that says ' stop ' ", "a sign that says ' stop '"),
        ("", ""),
    ],
)
def test_spaces_before_signs_are_taken_out(raw: str, text: str) -> None:
    assert tidied(raw) == text


def test_each_token_is_the_likeliest_after_those_before_it(folder: Path) -> None:
    """Against the model's own forward pass over the whole length, with the future filled up."""
    model = OpenClip(f"openclip:{folder}", "float32")
    net = model.loaded.net
    for seed in range(2):
        (pixels,) = model.over_stills([jpeg(seed)], lambda stills: list(model.pixels(stills)))
        ids = [START]
        for _ in range(SHORT):
            whole = torch.tensor([ids + [1] * (CONTEXT - len(ids))])
            with model.device.computing():
                logits = net(pixels[None], whole, output_labels=False)["logits"][0, len(ids) - 1]
                logits[[START, 0]] = -torch.inf
                ids.append(int(logits.argmax()))
        (said,) = describer(folder, max_tokens=SHORT).describe([view(jpeg(seed))])
        assert said.text == tidied(TOKENIZER.decode(ids[1:]))


# ── views ────────────────────────────────────────────────────────────────────────────────────────

POOL = [
    view(jpeg(0)), view(jpeg(1), jpeg(2)), view(jpeg(3), jpeg(4), jpeg(5)), view(jpeg(6), b"bad"),
    view(jpeg(0), jpeg(0)), view(), view(jpeg(7, mode="L")),
]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_view_is_told_as_it_is_alone_whatever_is_beside_it(
    temperature: float, ending: Path
) -> None:
    options = {"temperature": temperature, "max_tokens": 8}
    alone = [describer(ending, **options).describe([one])[0] for one in POOL]
    of_batch = {size: describer(ending, size, **options) for size in (1, 2, 3, 5, 8)}

    @settings(max_examples=12, deadline=None)
    @given(st.lists(st.integers(0, len(POOL) - 1), max_size=9), st.sampled_from(sorted(of_batch)))
    @example(list(range(len(POOL))), 8)
    def check(order: list[int], batch: int) -> None:
        told = of_batch[batch].describe([POOL[i] for i in order])
        assert told == [alone[i] for i in order]

    check()
    assert len({said.text for said in alone}) >= 4, "of different stills different texts"
    assert temperature or {Outcome.OK, Outcome.TRUNCATED} < {said.outcome for said in alone}


def test_the_text_is_the_one_nearest_to_all_of_the_views_stills(folder: Path) -> None:
    model = OpenClip(f"openclip:{folder}", "float32")
    asked, places = describer(folder, max_tokens=SHORT), []
    for first in range(0, 45, 3):
        stills = [jpeg(first + i) for i in range(3)]
        texts = [said.text for said in asked.describe([view(still) for still in stills])]
        seen = vectors(model.embed([[still] for still in stills]))
        nearest = int(np.argmax(model.embed_texts(texts) @ seen.mean(0)))
        (said,) = asked.describe([view(*stills)])
        assert said.text == texts[nearest]
        places.append(nearest)
    assert set(places) == {0, 1, 2}, "not just the first"


def test_a_broken_still_fails_its_view_alone(folder: Path) -> None:
    good, bad = view(jpeg(0)), view(jpeg(0), b"no JPEG", jpeg(1))
    told = describer(folder, max_tokens=SHORT).describe([good, bad, good])
    assert told[0] == told[2] == describer(folder, max_tokens=SHORT).describe([good])[0]
    assert told[1].outcome is Outcome.FAILED
    assert told[1].detail.startswith("still 2 of 3: it is no JPEG")


def test_long_clips_are_told_in_windows_of_up_to_three_stills(folder: Path) -> None:
    captioner = load_coca(spec(folder, max_tokens=SHORT, window_seconds=5.0), ModelRuntime())
    stills = tuple((float(n), jpeg(n)) for n in range(10))
    (reply,) = captioner.caption([make_request(stills=stills, end_seconds=10.0)])
    assert [(w.start_seconds, w.end_seconds) for w in reply.windows] == [(0.0, 5.0), (5.0, 10.0)]
    shown = [[stills[i][1] for i in places] for places in ((0, 2, 4), (5, 7, 9))]
    told = describer(folder, max_tokens=SHORT).describe([view(*some) for some in shown])
    for window, said in zip(reply.windows, told, strict=True):
        assert said.text.startswith(window.text), "up to what a cut text loses"


# ── chance ───────────────────────────────────────────────────────────────────────────────────────


def test_a_drawn_text_hangs_on_the_stills_bytes_alone(folder: Path) -> None:
    same = [jpeg(1, quality=q) for q in (90, 91, 92, 93)]
    warm = describer(folder, temperature=1.0, max_tokens=SHORT)
    drawn = [said.text for said in warm.describe([view(one) for one in same])]
    assert len(set(drawn)) > 1, "other bytes, other numbers"
    again = describer(folder, 2, temperature=1.0, max_tokens=SHORT)
    assert [again.describe([view(one)])[0].text for one in same] == drawn


def test_tokens_are_drawn_as_likely_as_they_are(tmp_path: Path) -> None:
    """Of two tokens, one with the other's probability squared at temperature ½."""
    cat, dog = TOKENIZER.encode("cat dog")
    net = scripted([cat, END])
    spread = net.text_decoder.text_projection
    spread[0, dog] = spread[0, cat] - float(np.log(2)) / 32**0.5
    where = save_folder(net, COCA, tmp_path)
    stills = [jpeg(seed, 16, 16) for seed in range(300)]
    for temperature, share in ((1.0, 2 / 3), (0.5, 4 / 5)):
        told = describer(where, temperature=temperature).describe([view(s) for s in stills])
        texts = [said.text for said in told]
        assert set(texts) == {"cat", "dog"}
        assert abs(texts.count("cat") / len(texts) - share) < 0.08  # three deviations


# ── which model ──────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_by_its_models_name_is_the_same_captioner_as_its_folder(
    folder: Path, tmp_path: Path
) -> None:
    add_names(tmp_path)
    torch.save(load_file(folder / "open_clip_model.safetensors"), tmp_path / "weights.pt")
    by_name = load_captioner(spec(f"{NAME}@{tmp_path / 'weights.pt'}", max_tokens=SHORT))
    by_folder = load_captioner(spec(folder, max_tokens=SHORT))
    request = make_request(stills=((0.0, jpeg(0)),))
    (here,), (there,) = by_name.caption([request]), by_folder.caption([request])
    assert here.text
    assert (here.outcome, here.text) == (there.outcome, there.text)


def test_the_identity_holds_what_changes_a_text_and_nothing_else(folder: Path) -> None:
    plain = load_coca(spec(folder), ModelRuntime())
    fast = load_coca(spec(folder), ModelRuntime(device="cuda", batch=7, concurrency=3))
    assert fast.fingerprint == plain.fingerprint
    pinned = pin_captioner(spec(folder))
    assert load_coca(pinned, ModelRuntime()).fingerprint == plain.fingerprint
    assert str(folder) not in json.dumps(plain.identity())
    others = [
        {"max_tokens": 9}, {"frames": 1}, {"temperature": 0.1}, {"dtype": "bfloat16"},
        {"window_seconds": 3.0}, {"weights": "0" * 64},
    ]  # fmt: skip
    changed = {load_coca(spec(folder, **each), ModelRuntime()).fingerprint for each in others}
    assert len(changed - {plain.fingerprint}) == len(others)


def test_a_pinned_captioner_has_its_name_where_its_model_is_not_and_loads_no_torch() -> None:
    code = """
import sys
from telecine.encoders.load import load_captioner
from telecine.encoders.load import load_scorer
from telecine.manifests.specs import CaptionSpec, ScoreSpec
for named in ("openclip:/no/where", "openclip:coca_ViT-L-14"):
    print(load_captioner(CaptionSpec(captioner=named, weights="ab")).fingerprint)
print(load_scorer(ScoreSpec(scorer="openclip:ViT-B-32@/no/where.pt", weights="ab")).fingerprint)
print([name for name in ("torch", "open_clip", "transformers") if name in sys.modules])
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *fingerprints, imported = child.stdout.split("\n")[:-1]
    assert {len(each) for each in fingerprints} == {64}
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert imported == "[]"


def test_another_model_in_its_place_is_refused(folder: Path, tmp_path: Path) -> None:
    where = save_folder(tiny(COCA), COCA, tmp_path)
    pinned = pin_captioner(spec(where))
    tensors = load_file(where / "open_clip_model.safetensors")
    tensors["logit_scale"] += 1
    save_file(tensors, where / "open_clip_model.safetensors")
    captioner = load_coca(pinned, ModelRuntime())
    message = rf"openclip:{where} is not the one that captions were made with.*--captioner"
    with pytest.raises(UsageError, match=message):
        captioner.caption([make_request(stills=((0.0, jpeg(0)),))])


def test_a_clip_that_cannot_caption_is_refused_as_early_as_it_is_known(tmp_path: Path) -> None:
    where = save_folder(tiny(CLIP), CLIP, tmp_path / "clip")
    for named in ("ViT-B-32", "ViT-B-32@openai", str(where)):
        with pytest.raises(UsageError, match=r"no text decoder.*coca_ViT-L-14.*score"):
            load_coca(spec(named, weights="unknown"), ModelRuntime())
    (tmp_path / "telecine-tiny-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / "telecine-tiny-clip.json")
    late = load_coca(
        spec(f"telecine-tiny-clip@{where / 'open_clip_model.safetensors'}"), ModelRuntime()
    )
    with pytest.raises(UsageError, match="no text decoder"):
        late.caption([make_request(stills=((0.0, jpeg(0)),))])


def test_prompts_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[caption\] prompt, merge_prompt: .* takes no prompt"):
        load_coca(spec("coca_ViT-L-14", prompt="Say.", merge_prompt="Join."), ModelRuntime())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_computes_in_half_as_many_bits(dtype: str, folder: Path) -> None:
    told = describer(folder, dtype=dtype, max_tokens=SHORT).describe(POOL[:3])
    assert all(said.text for said in told)
