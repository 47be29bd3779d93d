"""Where vision-language models are found, here and on a hub, and what their files are called."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.vlm.files import INDEX, TENSORS, locate, weights_digest
from telecine.encoders.caption.vlm.vlm import weights_of
from telecine.encoders.hub import absolute_folder
from telecine.encoders.load import load_captioner
from telecine.infra.errors import UsageError
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import make_request
from tests.support.hub import COMMIT, _Hub
from tests.support.vlm_models import jpeg, save, transformers, view, vlm


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("cat"), says=["A cat."])


@pytest.fixture
def copy(cat: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cat, tmp_path / "copy")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def says(folder: Path) -> list[Said]:
    return vlm(folder).describe([view(0.0, 1.0)])


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_can_be_named_for_any_working_directory(
    cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cat.parent)
    assert locate(cat.name) == cat
    assert absolute_folder("vlm", f"vlm:{cat.name}") == f"vlm:{cat}"
    assert absolute_folder("vlm", "vlm:org/name@v1") == "vlm:org/name@v1"
    assert absolute_folder("vlm", "signal") == "signal"
    monkeypatch.setenv("HOME", str(cat.parent))
    assert locate(f"~/{cat.name}") == cat


@pytest.mark.parametrize("where", ["/no/where", "./no/where", "~/no-where", "a/b/c", "a b", "a@"])
def test_what_is_no_folder_and_no_hub_id_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match=r"vlm:.*there is no folder /"):
        locate(where)


@pytest.mark.parametrize("find", [locate, lambda where: absolute_folder("vlm", f"vlm:{where}")])
def test_the_home_of_nobody_is_refused(find: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match="vlm:~nosuchuser/x: there is no such folder"):
        find("~nosuchuser/x")


def test_moving_the_folder_changes_no_digest_and_no_text(cat: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(cat, tmp_path / "elsewhere" / "by another name")
    (moved / "README.md").write_text("about it")
    assert weights_digest(moved) == weights_digest(cat)
    assert says(moved) == [Said(Outcome.OK, "A cat.")]


@pytest.mark.parametrize(
    "name",
    [
        "config.json", "generation_config.json", "processor_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates/other.jinja",
        "special_tokens_map.json", "preprocessor_config.json", "tokenizer.model", "merges.txt",
        TENSORS,
    ],
)  # fmt: skip
def test_every_file_that_changes_a_text_is_in_the_digest(name: str, cat: Path, copy: Path) -> None:
    path = copy / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((path.read_bytes() if path.is_file() else b"") + b" ")
    assert weights_digest(copy) != weights_digest(cat)


def test_a_model_in_several_files_speaks_the_same(cat: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForImageTextToText.from_pretrained(cat)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    transformers.AutoProcessor.from_pretrained(cat).save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(names) > 1
    assert says(tmp_path) == says(cat)
    before = weights_digest(tmp_path)
    (tmp_path / "another.safetensors").write_bytes(b"not the index's")
    assert weights_digest(tmp_path) == before
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes() + b" ")
    assert weights_digest(tmp_path) != before
    (tmp_path / names[1]).unlink()
    with pytest.raises(UsageError, match=rf"{names[1]}.*not there"):
        weights_digest(tmp_path)


@pytest.mark.parametrize("weight_map", [["a"], {"a": 1}, {"a": "../../secrets.safetensors"}, {}])
def test_an_index_that_is_none_is_refused(weight_map: object, copy: Path) -> None:
    (copy / TENSORS).unlink()
    (copy / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UsageError, match=rf'{INDEX} does not say.*expected "weight_map"'):
        weights_digest(copy)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    torch.save(load_file(copy / TENSORS), copy / "pytorch_model.bin")
    (copy / TENSORS).unlink()
    with pytest.raises(
        UsageError, match=r"only .*pytorch_model\.bin.*pickled weights are not read"
    ):
        says(copy)


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    tensors = load_file(copy / TENSORS)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    without = {key: tensor for key, tensor in tensors.items() if key != name}
    save_file(without, copy / TENSORS, {"format": "pt"})
    with pytest.raises(
        UsageError, match=r"lack what their config asks for, as .*q_proj.*1 tensors"
    ):
        says(copy)
    save_file(tensors | {name: tensors[name][:4].clone()}, copy / TENSORS, {"format": "pt"})
    with pytest.raises(UsageError, match=r"does not load"):
        says(copy)
    (copy / TENSORS).write_bytes(b"no tensors")
    with pytest.raises(UsageError, match=r"the model in .* does not load"):
        says(copy)


def test_weights_that_are_replaced_before_they_are_loaded_are_refused(
    cat: Path, copy: Path
) -> None:
    model = vlm(copy)
    model.identity()
    change(copy / "generation_config.json", eos_token_id=1)
    with pytest.raises(UsageError, match=r"another model lies in .* now"):
        model.describe([view()])


# ── what is no vision-language model ─────────────────────────────────────────────────────────────


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no model: expected config\.json"):
        locate(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "qwen2"}, "a 'qwen2', which takes no pictures"),
        ({"model_type": "new", "auto_map": {"AutoModel": "m.M"}}, "code of its own.*not run"),
        ({"model_type": "qwen2_5_vl", "transformers_weights": "x"}, "weights from elsewhere"),
        ({}, "a None"),
    ],
)
def test_another_kind_of_model_is_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=why):
        weights_of(f"vlm:{tmp_path}")


def test_an_adapter_is_no_model(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"weights from elsewhere .*merge them"):
        weights_digest(locate(str(copy)))


def test_a_model_without_its_processor_is_refused(copy: Path) -> None:
    (copy / "processor_config.json").unlink()
    with pytest.raises(UsageError, match=r"processor in .* does not load|no processor that takes"):
        says(copy)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (copy / name).unlink()
    with pytest.raises(UsageError, match=r"processor in .* does not load"):
        says(copy)


def test_a_model_without_a_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match=r"no chat template.*-Instruct"):
        says(copy)


def test_a_processor_that_does_not_fit_its_model_is_refused(cat: Path, copy: Path) -> None:
    path = copy / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|video_pad|>", ""))
    with pytest.raises(UsageError, match=r"processor in .* does not take 3 stills and a text"):
        says(copy)
    path.write_text((cat / path.name).read_text())
    processor = json.loads((copy / "processor_config.json").read_text())
    processor["image_processor"]["merge_size"] = 1
    change(copy / "processor_config.json", **processor)
    with pytest.raises(UsageError, match=r"model in .* does not take what its processor makes"):
        says(copy)


def test_without_the_library_the_way_to_it_is_named(
    cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    with pytest.raises(UsageError, match=r"pip install 'telecine\[caption\]'"):
        weights_of(f"vlm:{cat}")


# ── a hub ────────────────────────────────────────────────────────────────────────────────────────


class _Listing(_Hub):
    """The hub of the other tests, and what there is in a repository."""

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/models/org/gated"):
            return self._refuse(403, "GatedRepo")
        if not path.startswith("/api/models/"):
            return super()._answer(body=body)
        if not path.startswith("/api/models/org/tiny"):
            return self._refuse(404, "RepoNotFound")
        if "/tree/" in path:
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            listing: Any = [
                {"type": "file", "path": each.relative_to(self.folder).as_posix(),
                 "size": each.stat().st_size, "oid": "a" * 40}
                for each in files
            ]  # fmt: skip
        elif path.rpartition("/")[2] in ("tiny", "main", "v1", COMMIT):
            listing = {"id": "org/tiny", "sha": COMMIT, "siblings": []}
        else:
            return self._refuse(404, "RevisionNotFound")
        content = json.dumps(listing).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(endpoint, names of files asked for) of a hub that has `folder` as org/tiny."""
    handler = type("Hub", (_Listing,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What is found, or why not, with this test's own cache; offline without an endpoint."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def found(*wheres: str, endpoint: str | None = None) -> list[str]:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", endpoint is None)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        answers = []
        for where in wheres:
            try:
                answers.append(weights_of(f"vlm:{where}"))
            except UsageError as error:
                answers.append(str(error))
        return answers

    return found


Ask = Callable[..., list[str]]


def test_a_hub_gives_what_is_asked_for_and_the_cache_keeps_it(copy: Path, ask: Ask) -> None:
    for large in ("pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx"):
        (copy / large).parent.mkdir(exist_ok=True)
        (copy / large).write_bytes(b"large, and none of ours")
    digest = weights_digest(copy)
    with hub(copy) as (endpoint, asked):
        *found, no_tag, no_repository, gated, bad_name = ask(
            "org/tiny", "org/tiny@v1", "org/tiny@v9", "org/other", "org/gated", "-x-/..--",
            endpoint=endpoint,
        )  # fmt: skip
    assert found == [digest] * 2
    assert "no revision 'v9'" in no_tag
    assert "check the name" in no_repository
    assert "only to those who were let in" in gated
    assert "check the name" in bad_name
    assert {TENSORS, "config.json", "chat_template.jinja"} <= set(asked)
    assert not {"pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx"} & set(asked)
    *again, other = ask("org/tiny", "org/tiny@v1", f"org/tiny@{COMMIT}", "org/no")
    assert again == [digest] * 3
    assert "the hub is out of reach" in other


def test_of_several_files_those_of_the_index_come(cat: Path, tmp_path: Path, ask: Ask) -> None:
    model = transformers.AutoModelForImageTextToText.from_pretrained(cat)
    model.save_pretrained(tmp_path / "repository", max_shard_size="40KB")
    transformers.AutoProcessor.from_pretrained(cat).save_pretrained(tmp_path / "repository")
    names = {path.name for path in (tmp_path / "repository").glob("*.safetensors")}
    (tmp_path / "repository" / "another.safetensors").write_bytes(b"large")
    with hub(tmp_path / "repository") as (endpoint, asked):
        assert ask("org/tiny", endpoint=endpoint) == [weights_digest(tmp_path / "repository")]
    assert {name for name in asked if name.endswith(".safetensors")} == names


def test_another_kind_on_a_hub_is_refused_before_its_weights_come(copy: Path, ask: Ask) -> None:
    change(copy / "config.json", model_type="llama")
    with hub(copy) as (endpoint, asked):
        (message,) = ask("org/tiny", endpoint=endpoint)
    assert "a 'llama', which takes no pictures" in message
    assert TENSORS not in asked


@pytest.mark.parametrize("missing", [TENSORS, "tokenizer.json"])
def test_half_a_model_in_the_cache_is_none(
    missing: str, copy: Path, tmp_path: Path, ask: Ask
) -> None:
    with hub(copy) as (endpoint, _):
        ask("org/tiny", endpoint=endpoint)
    (tmp_path / "cache" / "models--org--tiny" / "snapshots" / COMMIT / missing).unlink()
    (message,) = ask("org/tiny")
    assert "the hub is out of reach" in message
    assert "cache does not hold all of it" in message


def test_a_moved_branch_is_another_model(cat: Path, copy: Path, ask: Ask) -> None:
    """The pinned digest tells it, as it does of a folder."""
    before = weights_digest(copy)
    change(copy / "generation_config.json", eos_token_id=1)
    with hub(copy) as (endpoint, _):
        (now,) = ask("org/tiny", endpoint=endpoint)
        assert now != before
        with pytest.raises(UsageError, match="vlm:org/tiny: another model lies"):
            load_captioner(CaptionSpec(captioner="vlm:org/tiny", weights=before)).caption(
                [make_request(stills=((0.0, jpeg()), (1.0, jpeg())))]
            )
