"""Where VAEs are found, here and on a hub, and what their weights are called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from telecine.encoders.hub import absolute_folder
from telecine.encoders.video.weights import (
    INDEX,
    TENSORS,
    locate,
    read_buffers,
    tensor_files,
    weights_digest,
)
from telecine.infra.errors import UsageError
from tests.support.hub import hub
from tests.support.vaes import save

# Each line asked for, located in a process whose environment says where the hub and cache are.
CHILD = """
import json, sys
from telecine.encoders.video.weights import locate, weights_digest
from telecine.infra.errors import UsageError
for where in sys.argv[1:]:
    try:
        print(json.dumps(["found", weights_digest(locate(where))]))
    except UsageError as error:
        print(json.dumps(["refused", str(error)]))
"""


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("wan21", tmp_path_factory.mktemp("wan"))


def ask(home: Path, *wheres: str, endpoint: str | None = None) -> list[list[str]]:
    """What a process of its own, with its cache in `home`, finds; offline without an endpoint."""
    plain = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment = plain | {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *wheres],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return [json.loads(line) for line in child.stdout.splitlines()]


def cached(home: Path, source: Path, inside: str = "") -> str:
    """Puts the folder into the cache as the client does; gives its commit."""
    commit = "a" * 40
    repository = home / "hub" / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(source, repository / "snapshots" / commit / inside)
    return commit


def test_a_folder_is_the_vaes_own_or_a_pipelines(
    wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(wan, tmp_path / "pipeline" / "vae")
    assert locate(str(wan)) == wan
    assert locate(str(tmp_path / "pipeline")) == tmp_path / "pipeline" / "vae"
    monkeypatch.chdir(tmp_path)
    assert locate("pipeline") == tmp_path / "pipeline" / "vae"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/pipeline") == tmp_path / "pipeline" / "vae"


def test_a_folder_can_be_named_for_any_working_directory(
    wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(wan.parent)
    assert absolute_folder("diffusers", f"diffusers:{wan.name}") == f"diffusers:{wan}"
    assert absolute_folder("diffusers", "diffusers:org/name@v1") == "diffusers:org/name@v1"
    assert absolute_folder("diffusers", "dct") == "dct"


@pytest.mark.parametrize("where", ["/no/where", "./no/where", "~/no-where", "a/b/c", "a b", "a@"])
def test_what_is_no_folder_and_no_hub_id_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="there is no folder /"):
        locate(where)


@pytest.mark.parametrize(
    "find", [locate, lambda where: absolute_folder("diffusers", f"diffusers:{where}")]
)
def test_the_home_of_nobody_is_refused(find: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match="diffusers:~nosuchuser/x: there is no such folder"):
        find("~nosuchuser/x")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no VAE.*config\.json.*vae/"):
        locate(str(tmp_path))


def test_moving_the_folder_changes_no_digest_and_one_weight_does(wan: Path, tmp_path: Path) -> None:
    before = weights_digest(wan)
    moved = shutil.copytree(wan, tmp_path / "elsewhere" / "by another name")
    assert weights_digest(moved) == before
    tensors = load_file(moved / TENSORS)
    next(iter(tensors.values())).flatten()[0] += 1e-3
    save_file(tensors, moved / TENSORS, {"format": "pt"})
    assert weights_digest(moved) != before


def test_shards_are_those_that_the_index_names(wan: Path, tmp_path: Path) -> None:
    tensors = sorted(load_file(wan / TENSORS).items())
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, part in zip(names, (tensors[::2], tensors[1::2]), strict=True):
        save_file(dict(part), tmp_path / name, {"format": "pt"})
    (tmp_path / "another.safetensors").write_bytes(b"")
    weight_map = {key: names[i % 2] for i, (key, _) in enumerate(tensors)}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert [path.name for path in tensor_files(tmp_path)] == names
    before = weights_digest(tmp_path)
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes() + b" ")
    assert weights_digest(tmp_path) != before
    (tmp_path / names[1]).unlink()
    with pytest.raises(UsageError, match=rf"{names[1]}.*not there"):
        tensor_files(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "../../secrets.safetensors"}}))
    with pytest.raises(UsageError, match="in which file beside it"):
        tensor_files(tmp_path)


@pytest.mark.parametrize("weight_map", [["a"], {"a": 1}, {"a": ["b"]}, {}, None])
def test_an_index_that_is_none_is_refused(weight_map: object, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UsageError, match=rf'{INDEX} does not say.*expected "weight_map"'):
        tensor_files(tmp_path)


def test_of_a_single_file_and_an_index_the_indexs_files_count(wan: Path, tmp_path: Path) -> None:
    for name in (TENSORS, "other.safetensors"):
        shutil.copy(wan / TENSORS, tmp_path / name)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "other.safetensors"}}))
    assert tensor_files(tmp_path) == [tmp_path / "other.safetensors"]


def test_weights_that_keep_size_and_time_are_read_again(wan: Path, tmp_path: Path) -> None:
    path = shutil.copytree(wan, tmp_path / "vae") / TENSORS
    before, facts, content = weights_digest(path.parent), path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert weights_digest(path.parent) != before


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(UsageError, match=r"only diffusion_pytorch_model\.bin.*save_pretrained"):
        weights_digest(tmp_path)


def test_tensors_that_are_not_there_are_named(wan: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no latents_std"):
        read_buffers(wan, ("latents_std",))
    (tmp_path / TENSORS).write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="cannot be read"):
        read_buffers(tmp_path, ("latents_std",))


@pytest.mark.parametrize("inside", ["vae", ""])
def test_what_the_cache_holds_needs_no_hub(wan: Path, tmp_path: Path, inside: str) -> None:
    commit = cached(tmp_path, wan, inside)
    digest = weights_digest(wan)
    *found, absent, other = ask(
        tmp_path, "org/tiny", "org/tiny@main", f"org/tiny@{commit}", "org/absent", "org/tiny@v2"
    )
    assert found == [["found", digest]] * 3
    for kind, message in (absent, other):
        assert kind == "refused"
        assert "cache" in message
    assert "org/absent" in absent[1]


def test_a_hub_gives_what_is_asked_for_and_nothing_else(wan: Path, tmp_path: Path) -> None:
    shutil.copytree(wan, tmp_path / "repository" / "vae")
    for large in ("diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"):
        (tmp_path / "repository" / large).write_bytes(b"large, and none of ours")
    with hub(tmp_path / "repository") as (endpoint, asked):
        main, tag, no_tag, no_repository, bad_name = ask(
            tmp_path / "home", "org/tiny", "org/tiny@v1", "org/tiny@v9", "org/other", "-x-/..--",
            endpoint=endpoint,
        )  # fmt: skip
    assert main == tag == ["found", weights_digest(wan)]
    assert no_tag[0] == no_repository[0] == bad_name[0] == "refused"
    assert "no revision 'v9'" in no_tag[1]
    assert "check the name" in no_repository[1]
    assert set(asked) == {"vae/config.json", f"vae/{INDEX}", f"vae/{TENSORS}"}


@pytest.mark.parametrize("alone", [True, False])
def test_a_hub_gives_what_its_index_names(alone: bool, wan: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(wan, tmp_path / "repository")
    shutil.copy(wan / TENSORS, repository / "part.safetensors")
    (repository / INDEX).write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    if alone:
        (repository / TENSORS).unlink()
    with hub(repository) as (endpoint, asked):
        (found,) = ask(tmp_path / "home", "org/tiny", endpoint=endpoint)
    assert found == ["found", weights_digest(repository)]
    assert TENSORS not in asked


def test_an_index_on_a_hub_that_is_none_is_refused(wan: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(wan, tmp_path / "repository")
    (repository / INDEX).write_text(json.dumps({"weight_map": ["a"]}))
    with hub(repository) as (endpoint, _):
        ((kind, message),) = ask(tmp_path / "home", "org/tiny", endpoint=endpoint)
    assert kind == "refused"
    assert 'expected "weight_map"' in message


@pytest.mark.parametrize("held", ["all", "no weights", "nothing"])
def test_a_hub_out_of_reach_is_waited_for_once(
    held: str, wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache holds the layout that is looked for last; each wait takes half a minute."""
    cached(tmp_path, wan)
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / ("a" * 40)
    for name in {"all": [], "no weights": [TENSORS], "nothing": [TENSORS, "config.json"]}[held]:
        (snapshot / name).unlink()
    real, waits = huggingface_hub.hf_hub_download, 0

    def download(
        repository: str, name: str, revision: str | None, local_files_only: bool = False
    ) -> str:
        nonlocal waits
        try:
            return real(
                repository, name, revision=revision, cache_dir=tmp_path / "hub",
                local_files_only=True,
            )  # fmt: skip
        except LocalEntryNotFoundError:
            waits += not local_files_only
            raise

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    if held == "all":
        assert weights_digest(locate("org/tiny")) == weights_digest(wan)
    else:
        with pytest.raises(UsageError, match=r"diffusers:org/tiny.*out of reach.*cache"):
            locate("org/tiny")
    assert waits == 1


def test_another_model_on_a_hub_is_refused_before_its_weights_come(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel"}))
    (repository / TENSORS).write_bytes(b"large")
    with hub(repository) as (endpoint, asked):
        ((kind, message),) = ask(tmp_path / "home", "org/tiny", endpoint=endpoint)
    assert kind == "refused"
    assert "an WanTransformer3DModel, which is not supported" in message
    assert TENSORS not in asked
