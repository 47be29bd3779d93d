"""Vision-language models as captioners: what they are shown, and what is made of their answers."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.vlm.generate import Noise
from telecine.encoders.caption.vlm.vlm import Vlm
from telecine.encoders.caption.windows import View
from telecine.encoders.load import load_captioner
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.errors import OutOfDeviceMemory, UsageError
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import make_request
from tests.support.vlm_models import END, FAMILIES, PAD, jpeg, save, transformers, view, vlm
from tests.support.waiting import PATIENCE

CAT = ("A cat", " sleeps", ".")
VIEWS = (
    view(0.0, 1.0, 2.0, number=1),
    view(0.0, 1.0, 2.0, number=2, width=84, height=64),
    view(0.0, 1.0, number=3, prompt="What is to be seen?"),
    view(8.5, 9.0, 11.0, 12.0, 12.5, number=4, width=64, height=84),
    view(3.0, number=5),
    view(3.0, number=6, width=30, height=90),
    view(prompt="Join these: a cat. It sleeps."),
    view(prompt="Join."),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Vlm]:
    return {name: vlm(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def alone(models: dict[str, Vlm]) -> dict[str, list[Said]]:
    return {name: [model.describe([v])[0] for v in VIEWS] for name, model in models.items()}


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("cat"), says=CAT)


def tensors(model: Vlm, *views: View) -> dict[str, Any]:
    (ready,) = model._loaded.inputs.prepare(list(enumerate(views))).ready
    return ready.tensors


def prompt(model: Vlm, view: View) -> str:
    return str(model._loaded.tokenizer.decode(tensors(model, view)["input_ids"][0]))


# ── what a model is shown ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_a_view_gets_the_text_it_gets_alone(
    family: str, data: st.DataObject, models: dict[str, Vlm], alone: dict[str, list[Said]]
) -> None:
    """Whatever order, batch size and company. The texts of all views differ."""
    order = data.draw(st.permutations(range(len(VIEWS))))[: data.draw(st.integers(1, len(VIEWS)))]
    model = models[family]
    model._batch = data.draw(st.integers(1, len(VIEWS)))
    assert model.describe([VIEWS[i] for i in order]) == [alone[family][i] for i in order]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_still_counts_and_so_do_times(
    family: str, models: dict[str, Vlm], alone: dict[str, list[Said]]
) -> None:
    def logits(stills: Sequence[tuple[float, bytes]]) -> torch.Tensor:
        made = tensors(models[family], dataclasses.replace(VIEWS[3], stills=tuple(stills)))
        with torch.inference_mode():
            whole: torch.Tensor = models[family]._loaded.model(**made).logits
        return whole[0, -1]

    assert len({said.text for said in alone[family]}) == len(VIEWS)
    stills = VIEWS[3].stills
    before = logits(stills)
    for place, (time, _) in enumerate(stills):
        changed = [*stills[:place], (time, jpeg(77, 64, 84)), *stills[place + 1 :]]
        assert (logits(changed) - before).abs().max() > 0.01, place
    earlier = [(stills[0][0] - 8, stills[0][1]), *stills[1:]]
    told = bool((logits(earlier) - before).abs().max() > 0.01)
    assert told == (family != "onevision")  # which has no place for times


times = st.lists(st.integers(0, 60_000), min_size=2, max_size=9, unique=True).map(sorted)


@settings(max_examples=20, deadline=None)
@given(times)
def test_qwen3_reads_the_mean_time_of_each_pair_of_stills(
    models: dict[str, Vlm], milliseconds: list[int]
) -> None:
    seconds = [each / 1000 for each in milliseconds]
    told = re.findall(r"<([\d.]+) seconds>", prompt(models["qwen3"], view(*seconds)))
    pairs = [seconds[i : i + 2] for i in range(0, len(seconds), 2)]
    assert [float(each) for each in told] == pytest.approx([np.mean(p) for p in pairs], abs=0.051)


@settings(max_examples=20, deadline=None)
@given(times)
def test_qwen25_is_told_the_mean_spacing_of_pairs_of_stills(
    models: dict[str, Vlm], milliseconds: list[int]
) -> None:
    seconds = [each / 1000 for each in milliseconds]
    spacing = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    (told,) = tensors(models["qwen25"], view(*seconds))["second_per_grid_ts"].tolist()
    assert told == pytest.approx(2 * spacing, abs=0.001)


def test_times_of_evenly_spaced_stills_are_exact_whatever_the_window(
    models: dict[str, Vlm],
) -> None:
    window = view(20.5, 21.0, 21.5, 22.0, 22.5, 23.0)
    told = re.findall("<[^>]*seconds>", prompt(models["qwen3"], window))
    assert told == ["<20.8 seconds>", "<21.8 seconds>", "<22.8 seconds>"]
    assert tensors(models["qwen25"], window)["second_per_grid_ts"].tolist() == [1.0]


def test_where_the_model_places_pairs_of_stills_follows_their_times(
    models: dict[str, Vlm],
) -> None:
    """Positions of the temporal axis, at two a second as in the model's config."""
    model, made = models["qwen25"]._loaded.model.model, tensors(models["qwen25"], view(0, 3, 6, 9))
    positions, _ = model.get_rope_index(
        made["input_ids"], made["mm_token_type_ids"], video_grid_thw=made["video_grid_thw"],
        second_per_grid_ts=made["second_per_grid_ts"],
    )  # fmt: skip
    shown = positions[0, 0][made["mm_token_type_ids"][0] == 2].unique()
    assert (shown - shown[0]).tolist() == [0, 12]  # 6 s from pair to pair


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_times_keep_their_digits_in_few_bits(dtype: str, folders: dict[str, Path]) -> None:
    model = vlm(folders["qwen25"], dtype=dtype)
    made = tensors(model, view(0.0, 1.111, 2.222))
    assert made["second_per_grid_ts"].tolist() == pytest.approx([2.222], abs=1e-4)
    assert made["pixel_values_videos"].dtype == getattr(torch, dtype)
    assert model.describe([VIEWS[0]])[0].text


@pytest.mark.parametrize("family", ["qwen25", "qwen3"])
@pytest.mark.parametrize("count", [2, 3, 20, 21])
def test_all_stills_are_shown_and_an_odd_last_one_twice(
    family: str, count: int, models: dict[str, Vlm]
) -> None:
    odd = view(*range(count))
    even = dataclasses.replace(odd, stills=(*odd.stills, odd.stills[-1])) if count % 2 else odd
    made, expected = tensors(models[family], odd), tensors(models[family], even)
    assert made["video_grid_thw"][0, 0] == (count + 1) // 2
    assert torch.equal(made["pixel_values_videos"], expected["pixel_values_videos"])


def test_a_video_of_onevision_has_its_stills_and_no_others(models: dict[str, Vlm]) -> None:
    assert tensors(models["onevision"], view(*range(7)))["pixel_values_videos"].shape[1] == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_one_still_is_a_picture_and_none_a_text(family: str, models: dict[str, Vlm]) -> None:
    assert {name for name in tensors(models[family], VIEWS[4]) if "pixel" in name} == {
        "pixel_values"
    }
    assert not [name for name in tensors(models[family], VIEWS[6]) if "pixel" in name]
    assert prompt(models[family], VIEWS[7]).count("Join.") == 1


def test_without_a_video_processor_stills_are_pictures_with_their_times(
    models: dict[str, Vlm],
) -> None:
    told = re.sub(r"(<.image_pad.>)+", "#", prompt(models["llava"], VIEWS[3]))
    assert "8.5 s:#9.0 s:#11.0 s:#12.0 s:#12.5 s:#Say it." in told


# ── what is wrong with one view ──────────────────────────────────────────────────────────────────


def blank(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("jpegs", "why"),
    [
        ([jpeg(1), b"no picture"], "stills cannot be shown: 10 bytes are no JPEG"),
        ([jpeg(1)[:-200], jpeg(2)], "stills cannot be shown: .*truncated"),
        ([jpeg(1), jpeg(2, width=64)], "stills cannot be shown: .*same shape"),
        ([blank(4100, 4100), jpeg(2)], "stills cannot be shown: 4100×4100 is no size"),
        ([jpeg(1, 402, 2), jpeg(2, 402, 2)], "processor refuses it: .*aspect ratio"),
    ],
)
def test_a_view_that_cannot_be_shown_fails_alone(
    jpegs: list[bytes], why: str, models: dict[str, Vlm], alone: dict[str, list[Said]]
) -> None:
    bad = View("Say it.", tuple(enumerate(jpegs)), 0.0, 2.0)
    model = models["qwen25"]
    model._batch = 8
    *good, failed = model.describe([*VIEWS, bad])
    assert good == alone["qwen25"]
    assert failed.outcome is Outcome.FAILED
    assert re.search(why, failed.detail)
    assert model.describe([bad]) == [failed]


# ── what is made of an answer ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", [END, PAD])
def test_an_answer_is_whole_where_any_end_comes_and_cut_at_the_limit(
    end: str, tmp_path: Path
) -> None:
    folder = save(tmp_path, says=[*CAT, end] if end != END else CAT)
    (whole,) = vlm(folder, max_tokens=4).describe([view(0.0, 1.0)])
    assert whole == Said(Outcome.OK, "A cat sleeps.")
    (cut,) = vlm(folder, max_tokens=3).describe([view(0.0, 1.0)])
    assert cut == Said(Outcome.TRUNCATED, "A cat sleeps.")
    (shorter,) = vlm(folder, max_tokens=1).describe([view(0.0, 1.0)])
    assert shorter == Said(Outcome.TRUNCATED, "A cat")


THOUGHTS = ("<think>", " Hm", "</think>")


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("opening", ["", "<think>\n"])
def test_thoughts_are_no_part_of_a_caption(special: bool, opening: str, tmp_path: Path) -> None:
    folder = save(tmp_path, says=[*THOUGHTS[1 if opening else 0 :], *CAT], opening=opening)
    if special:
        _make_special(folder / "tokenizer.json", ("<think>", "</think>"))
    length = len(THOUGHTS) - bool(opening)
    thinking = vlm(folder, max_tokens=length - 1).describe([view(0.0, 1.0)])
    assert thinking == [
        Said(Outcome.FAILED, "", f"the model was still thinking after {length - 1} tokens")
    ]
    assert vlm(folder, max_tokens=9).describe([view(0.0, 1.0)]) == [
        Said(Outcome.OK, "A cat sleeps.")
    ]
    assert vlm(folder, max_tokens=length + 1).describe([view(0.0, 1.0)]) == [
        Said(Outcome.TRUNCATED, "A cat")
    ]


def _make_special(path: Path, words: Sequence[str]) -> None:
    content = json.loads(path.read_text())
    for token in content["added_tokens"]:
        token["special"] = token["special"] or token["content"] in words
    path.write_text(json.dumps(content))


def test_thoughts_that_end_without_an_answer_are_none(tmp_path: Path) -> None:
    folder = save(tmp_path, says=["<think>", " Hm"])
    assert vlm(folder).describe([view()]) == [
        Said(Outcome.FAILED, "", "the model was still thinking where it ended")
    ]


def test_a_template_that_can_is_told_not_to_think(tmp_path: Path) -> None:
    folder = save(tmp_path, says=CAT)
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if enable_thinking is not false %}<think>\n{% endif %}")
    assert vlm(folder).describe([view()]) == [Said(Outcome.OK, "A cat sleeps.")]


def test_a_model_that_does_not_compute_says_nothing(cat: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForImageTextToText.from_pretrained(cat)
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = torch.nan
    model.save_pretrained(tmp_path)
    transformers.AutoProcessor.from_pretrained(cat).save_pretrained(tmp_path)
    (said,) = vlm(tmp_path).describe([view()])
    assert said == Said(Outcome.FAILED, "", "the model gives NaN or infinity in float32")


def test_at_temperature_0_the_models_own_sampling_has_no_say(
    folders: dict[str, Path], alone: dict[str, list[Said]], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = transformers.AutoModelForImageTextToText.from_pretrained(folders["qwen25"])
    processor = transformers.AutoProcessor.from_pretrained(folders["qwen25"])
    own = model.generation_config
    own.update(do_sample=True, temperature=9.0, top_p=0.5, repetition_penalty=9.0, max_length=3)
    own.update(no_repeat_ngram_size=1, num_beams=3, min_new_tokens=2, suppress_tokens=[5])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    capfd.readouterr()
    assert vlm(tmp_path).describe(VIEWS) == alone["qwen25"]
    assert capfd.readouterr() == ("", "")


# ── chance ───────────────────────────────────────────────────────────────────────────────────────


def test_chance_is_each_views_own(folders: dict[str, Path], alone: dict[str, list[Said]]) -> None:
    model = vlm(folders["qwen25"], temperature=1.5)
    single = [model.describe([each])[0] for each in VIEWS]
    assert single != alone["qwen25"]
    for batch in (2, 8):
        again = vlm(folders["qwen25"], batch=batch, temperature=1.5)
        assert again.describe(VIEWS[::-1]) == single[::-1]


def test_above_temperature_0_the_models_own_sampling_counts(
    folders: dict[str, Path], alone: dict[str, list[Said]], tmp_path: Path
) -> None:
    model = transformers.AutoModelForImageTextToText.from_pretrained(folders["qwen25"])
    model.generation_config.update(do_sample=True, top_k=1)
    model.save_pretrained(tmp_path)
    transformers.AutoProcessor.from_pretrained(folders["qwen25"]).save_pretrained(tmp_path)
    assert vlm(tmp_path, temperature=2.0).describe(VIEWS) == alone["qwen25"]


def test_the_largest_with_noise_is_a_sample_of_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    count = 4000
    noise = Noise([View(str(n)) for n in range(count)], torch.device("cpu"))
    found = noise(torch.empty(0), logits.expand(count, 4)).argmax(1).bincount(minlength=4) / count
    assert found.tolist() == pytest.approx(logits.softmax(0).tolist(), abs=0.03)
    again = noise(torch.empty(0), logits.expand(count, 4)).argmax(1).bincount(minlength=4) / count
    assert not torch.equal(found, again)  # each step has its own


# ── memory and time ──────────────────────────────────────────────────────────────────────────────


def limited(model: Vlm, most: int) -> list[int]:
    """Makes batches of more views run out of memory; gives the sizes that were tried."""
    tried: list[int] = []
    generate = model._loaded.model.generate

    def refusing(**given: Any) -> Any:
        tried.append(len(given["input_ids"]))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(**given)

    model._loaded.model.generate = refusing
    return tried


def test_batches_too_large_for_the_device_are_halved_once(
    folders: dict[str, Path], alone: dict[str, list[Said]]
) -> None:
    model = vlm(folders["qwen25"], batch=4)
    tried = limited(model, 2)
    videos = list(VIEWS[:4])
    assert model.describe(videos) == alone["qwen25"][:4]
    assert tried == [4, 2, 2]
    assert model.describe(videos) == alone["qwen25"][:4]
    assert tried[3:] == [2, 2]


def test_one_view_too_large_for_the_device_says_what_to_set(folders: dict[str, Path]) -> None:
    model = vlm(folders["qwen25"], batch=4)
    tried = limited(model, 0)
    with pytest.raises(OutOfDeviceMemory, match=r"window of 2 stills .*--gpus 1.* frames"):
        model.describe(VIEWS[:4])
    assert tried == [4, 2, 1]


def test_the_next_batch_is_prepared_while_the_model_speaks(
    folders: dict[str, Path], alone: dict[str, list[Said]]
) -> None:
    model = vlm(folders["qwen25"], batch=1)
    loaded, begun = model._loaded, [threading.Event() for _ in range(4)]
    prepare, generate = loaded.inputs.prepare, loaded.model.generate
    preparing, speaking = itertools.count(), itertools.count(1)

    def prepared(asked: Any) -> Any:
        begun[next(preparing)].set()
        return prepare(asked)

    def generated(**given: Any) -> Any:
        following = next(speaking)
        assert following == 3 or begun[following].wait(PATIENCE)
        return generate(**given)

    loaded.inputs.prepare = prepared  # type: ignore[method-assign]
    loaded.model.generate = generated
    assert model.describe(VIEWS[:3]) == alone["qwen25"][:3]


# ── as a captioner ───────────────────────────────────────────────────────────────────────────────


def stills(*seconds: float) -> tuple[tuple[float, bytes], ...]:
    return tuple((time, jpeg(int(10 * time))) for time in seconds)


def test_long_clips_in_windows_and_a_text_of_all(tmp_path: Path) -> None:
    says = ("A cat sleeps on a chair.",)
    spec = CaptionSpec(
        captioner=f"vlm:{save(tmp_path, says=says)}", merge_prompt="Make one.", dtype="float32"
    )
    captioner = load_captioner(spec, ModelRuntime(batch=3))
    long = make_request(1, end_seconds=25.0, stills=stills(*range(25)))
    image = make_request(2, end_seconds=0.0, stills=stills(0.0))
    one, two = captioner.caption([long, image])
    assert [(w.start_seconds, w.text) for w in one.windows] == [
        (0.0, says[0]), (pytest.approx(25 / 3), says[0]), (pytest.approx(50 / 3), says[0])
    ]  # fmt: skip
    assert one.text == two.text == says[0]
    assert one.speaker == captioner.speakers[0]
    assert one.speaker.name == "vlm"


def test_a_refusal_is_none(tmp_path: Path) -> None:
    folder = save(tmp_path, says=["I'm sorry, but I cannot", " help with that."])
    captioner = load_captioner(CaptionSpec(captioner=f"vlm:{folder}", dtype="float32"))
    (reply,) = captioner.caption([make_request(stills=stills(0.0, 1.0))])
    assert reply.outcome is Outcome.REFUSED
    assert not reply.text


def test_a_captioner_has_its_name_where_its_model_is_not(cat: Path) -> None:
    unpinned = CaptionSpec(captioner=f"vlm:{cat}")
    digest = vlm(cat).identity()["weights"]
    pinned = CaptionSpec(captioner="vlm:/no/where", weights=str(digest))
    assert load_captioner(pinned).fingerprint == load_captioner(unpinned).fingerprint
    other = unpinned.model_copy(update={"dtype": "float32"})
    assert load_captioner(other).fingerprint != load_captioner(unpinned).fingerprint
    for runtime in (ModelRuntime(batch=3), ModelRuntime(device="cuda")):
        same = load_captioner(unpinned, runtime)
        assert same.fingerprint == load_captioner(unpinned).fingerprint


def test_another_model_than_the_pinned_one_is_refused(cat: Path) -> None:
    with pytest.raises(UsageError, match=r"another model lies .* name it again with --captioner"):
        vlm(cat, weights="0" * 64).describe([view()])


def test_a_device_that_is_not_there_is_refused(cat: Path) -> None:
    with pytest.raises(UsageError, match="no torch device 'cuda:7'"):
        vlm(cat, device="cuda:7").describe([view()])
