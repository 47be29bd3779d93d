"""Where models of open_clip lie, here and on a hub, and what they are called."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from telecine.encoders.score.files import FILES, locate
from telecine.encoders.score.heads import load_head
from telecine.encoders.score.openclip import OpenClip, absolute, weights_of
from telecine.infra.errors import UsageError
from telecine.testing.media import jpeg
from telecine.testing.scorers import vectors
from tests.support.hub import hub
from tests.support.openclip_models import (
    CLIP,
    COCA,
    CONFIG,
    CONTEXT,
    NAME,
    TENSORS,
    add_names,
    copied,
    open_clip,
    save_folder,
    tiny,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights."""
    return save_folder(tiny(CLIP), CLIP, tmp_path_factory.mktemp("clip"))


def refused(named: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        weights_of(named)
    assert len(str(caught.value)) < 800
    assert named in str(caught.value)


def test_what_is_not_there_is_refused_with_what_is(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / TENSORS, tmp_path / "weights.onnx")
    refused("openclip:ViT-B-23", r"no model 'ViT-B-23'.*it has .*ViT-B-32")
    refused("openclip:models/none", r"no model 'models/none', and there is no such folder")
    refused("openclip:local-dir:/x", r"no model 'local-dir:/x'")
    refused("openclip:ViT-B-32", r"which weights\?.*openai, .* and 14 more\) or a file")
    refused("openclip:ViT-B-32@laion9b", r"no tag 'laion9b'; it has openai, laion400m_e31")
    refused("openclip:ViT-B-32@openai", r"with QuickGELU: name it openclip:ViT-B-32-quickgelu@ope")
    refused("openclip:coca_base", r"no weights for coca_base; give a file")
    refused("openclip:ViT-B-32@./none.pt", r"there is no file /.*/none\.pt")
    refused(f"openclip:ViT-B-32@{tmp_path}/weights.onnx", r"\.safetensors, \.pt.*not \.onnx")
    refused("openclip:~nosuchuser/x", "no such folder")
    refused(f"openclip:{tmp_path}", rf"holds no model: expected {CONFIG}")
    (tmp_path / CONFIG).write_text(json.dumps({"embed_dim": 3}))
    with pytest.raises(UsageError, match="is not open_clip's: expected a model_cfg"):
        weights_of(f"openclip:{tmp_path}")
    (tmp_path / CONFIG).write_text((folder / CONFIG).read_text())
    refused(f"openclip:{tmp_path}", rf"none of {TENSORS}, .*, only weights\.onnx")


def test_code_of_a_models_own_is_refused(tmp_path: Path) -> None:
    text = CLIP["text_cfg"] | {"tokenizer_kwargs": {"trust_remote_code": True}}
    where = save_folder(tiny(CLIP), CLIP | {"text_cfg": text}, tmp_path)
    with pytest.raises(UsageError, match="code of its own, which is not run"):
        weights_of(f"openclip:{where}")


def test_paths_are_made_absolute_and_names_are_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    (folder.parent / "x.pt").touch()
    for named, expected in {
        f"openclip:{folder.name}": f"openclip:{folder}",
        f"openclip:~/{folder.name}": f"openclip:{folder}",
        "openclip:./none": f"openclip:{folder.parent / 'none'}",
        "openclip:ViT-B-32@x.pt": f"openclip:ViT-B-32@{folder.parent / 'x.pt'}",
        "openclip:ViT-B-32@openai": "openclip:ViT-B-32@openai",
        "openclip:coca_ViT-L-14": "openclip:coca_ViT-L-14",
        "openclip:hf-hub:org/tiny": "openclip:hf-hub:org/tiny",
        "vlm:none": "vlm:none",
        "auto": "auto",
    }.items():
        assert absolute(named) == expected
        assert absolute(expected) == expected
    assert weights_of(f"openclip:{folder.name}") == weights_of(f"openclip:{folder}")


def test_a_model_is_called_by_what_it_is_made_of(folder: Path, tmp_path: Path) -> None:
    before = weights_of(f"openclip:{folder}")
    moved = copied(folder, tmp_path / "by another name")
    (moved / "README.md").write_text("new")
    assert weights_of(f"openclip:{moved}") == before
    squashed = copied(folder, tmp_path / "squashed", preprocess_cfg={"resize_mode": "squash"})
    gelu = copied(folder, tmp_path / "gelu", model_cfg=CLIP | {"quick_gelu": True})
    facts, content = (moved / TENSORS).stat(), (moved / TENSORS).read_bytes()
    (moved / TENSORS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(moved / TENSORS, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len({before, *(weights_of(f"openclip:{f}") for f in (squashed, gelu, moved))}) == 4


def test_a_name_with_a_file_and_a_folder_are_the_same_model(tmp_path: Path) -> None:
    add_names(tmp_path)
    where = save_folder(tiny(COCA), COCA, tmp_path / "folder")
    assert weights_of(f"openclip:{NAME}@{where / TENSORS}") == weights_of(f"openclip:{where}")


def test_a_file_is_shown_pictures_as_its_names_tags_are(tmp_path: Path) -> None:
    (tmp_path / "x.pt").touch()
    siglip = locate(f"openclip:ViT-B-16-SigLIP@{tmp_path / 'x.pt'}").preprocessing
    assert siglip["resize_mode"] == "squash"
    assert list(siglip["mean"]) == [0.5] * 3
    assert locate(f"openclip:ViT-B-32@{tmp_path / 'x.pt'}").preprocessing["resize_mode"] == (
        "shortest"
    )
    # Its tags do not agree: open_clip's default.
    assert locate(f"openclip:ViT-L-14@{tmp_path / 'x.pt'}").preprocessing == {}


def test_what_its_tags_say_is_how_a_file_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_names(tmp_path)
    said = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "resize_mode": "squash"}
    tags = {"one": said, "two": said | {"url": "another"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, tags)
    where = save_folder(tiny(COCA), COCA, tmp_path / "folder", said)
    made = [
        vectors(OpenClip(f"openclip:{named}", "float32").embed([[jpeg(0, 96, 40)]]))
        for named in (where, f"{NAME}@{where / TENSORS}")
    ]
    np.testing.assert_array_equal(*made)
    assert weights_of(f"openclip:{NAME}@{where / TENSORS}") == weights_of(f"openclip:{where}")


def test_of_several_weights_those_are_meant_that_open_clip_takes(
    folder: Path, tmp_path: Path
) -> None:
    """Each file holds another logit scale: what was loaded tells which."""
    shutil.copy(folder / CONFIG, tmp_path)
    tensors = load_file(folder / TENSORS)
    (tmp_path / "another.safetensors").write_bytes(b"")
    for scale, name in reversed(list(enumerate(FILES))):
        tensors["logit_scale"] = torch.tensor(float(scale))
        save: Any = save_file if name.endswith("safetensors") else torch.save
        save(tensors, tmp_path / name)
        assert locate(f"openclip:{tmp_path}").weights == tmp_path / name
        net = open_clip.create_model(f"local-dir:{tmp_path}")
        assert float(net.logit_scale.detach()) == scale


def test_checkpoints_of_a_training_are_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "telecine-tiny-clip-2.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / "telecine-tiny-clip-2.json")
    tensors = {f"module.{name}": t for name, t in load_file(folder / TENSORS).items()}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "epoch_3.pt")
    by_name, by_folder = (
        OpenClip(f"openclip:{where}", "float32").embed_texts(["a dog"])
        for where in (f"telecine-tiny-clip-2@{tmp_path / 'epoch_3.pt'}", folder)
    )
    np.testing.assert_array_equal(by_name, by_folder)


def test_a_tokenizer_of_transformers_is_read_beside_its_model(tmp_path: Path) -> None:
    text = CLIP["text_cfg"] | {"hf_tokenizer_name": "org/elsewhere", "pool_type": "last"}
    where = save_folder(tiny(CLIP), CLIP | {"text_cfg": text}, tmp_path / "clip")
    vocabulary = {
        word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", "red", "dog"])
    }
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(where)
    before = weights_of(f"openclip:{where}")
    model = OpenClip(f"openclip:{where}", "float32")
    # Padded with the end itself, as SigLIP's: of one token too many it is the end that is lost.
    long = " ".join(["red"] * CONTEXT)
    fits, too_long, dog = model.embed_texts([long, f"{long} dog", "dog"])
    np.testing.assert_allclose(np.linalg.norm(fits), 1, atol=1e-6)
    np.testing.assert_allclose(too_long, (fits + dog) / 2, atol=1e-6)
    found = [path.name for path in locate(f"openclip:{where}").vocabulary]
    assert found == ["tokenizer.json", "tokenizer_config.json"]
    (where / "tokenizer.json").write_text((where / "tokenizer.json").read_text() + " ")
    assert weights_of(f"openclip:{where}") != before


class Trap:
    """A pickle that would make a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_pickle_is_run(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / CONFIG, tmp_path)
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))):
        write({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "open_clip_pytorch_model.bin")
        with pytest.raises(UsageError, match=r"does not load: .*which is not run"):
            OpenClip(f"openclip:{tmp_path}", "float32").embed_texts(["a dog"])
        shutil.copy(tmp_path / "open_clip_pytorch_model.bin", tmp_path / "head.pth")
        with pytest.raises(UsageError, match=r"cannot be read as tensors: .*which is not run"):
            load_head(tmp_path / "head.pth", 32)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_architecture_are_refused_in_a_few_words(
    folder: Path, tmp_path: Path
) -> None:
    where = copied(folder, tmp_path / "clip", model_cfg=COCA)
    with pytest.raises(UsageError, match=r"does not load: .*Missing key") as caught:
        OpenClip(f"openclip:{where}", "float32").embed([[jpeg(0)]])
    assert len(str(caught.value)) < 800


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────

# What each line asked for is, in a process whose environment says where hub and cache are.
CHILD = """
import json, sys
from telecine.encoders.score.openclip import weights_of
from telecine.infra.errors import UsageError
if sys.argv[1]:
    from telecine.encoders.score.names import library
    library().add_model_config(sys.argv[1])
    from open_clip import pretrained
    about = {tag: pretrained._pcfg(hf_hub="org/tiny/") for tag in ("one", "mscoco_finetuned_one")}
    pretrained._PRETRAINED["telecine-tiny-coca"] = about
for named in sys.argv[2:]:
    try:
        print(json.dumps(["found", weights_of(named)]))
    except UsageError as error:
        print(json.dumps(["refused", str(error)]))
"""


def ask(home: Path, names: Path | str, *named: str, endpoint: str | None = None) -> list[list[str]]:
    plain = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment = plain | {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(names), *named],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return [json.loads(line) for line in child.stdout.splitlines()]


def test_what_is_not_here_comes_from_the_hub_and_then_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    add_names(tmp_path / "names")
    repository = save_folder(tiny(COCA), COCA, tmp_path / "repository")
    (repository / "open_clip_pytorch_model.bin").write_bytes(b"large, and not the safe one")
    with hub(repository) as (endpoint, asked):
        in_hub, usual, tag, absent, captioning = ask(
            tmp_path / "home", tmp_path / "names" / f"{NAME}.json",
            "openclip:hf-hub:org/tiny", f"openclip:{NAME}", f"openclip:{NAME}@one",
            "openclip:hf-hub:org/other", "openclip:coca_ViT-L-14", endpoint=endpoint,
        )  # fmt: skip
    assert in_hub == ["found", weights_of(f"openclip:{repository}")]
    assert usual == tag
    assert usual[0] == "found"
    assert usual[1] != in_hub[1], "a tag says how pictures are shown"
    assert set(asked) == {CONFIG, TENSORS}
    assert absent[0] == captioning[0] == "refused"
    assert "the hub does not give org/other" in absent[1]
    assert "laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k" in captioning[1]
    cached, out_of_reach = ask(
        tmp_path / "home", "", "openclip:hf-hub:org/tiny", "openclip:hf-hub:org/other"
    )
    assert cached == in_hub
    assert "the hub is out of reach" in out_of_reach[1]
    assert "HF_HUB_OFFLINE" in out_of_reach[1]
