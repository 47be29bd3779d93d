"""What the README shows runs: its commands in order, then its Python, on the demo's footage."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import vlm_models
from tests.support.documents import README, blocks, commands_in
from tests.support.openclip_models import CLIP, save_folder, tiny
from tests.support.vaes import save

TELECINE = Path(sys.executable).with_name("telecine")
# In the README's order. Those that name a store elsewhere are run by the tests of storage.
LOCAL = [w for w in commands_in(README) if w[0] == "telecine" and "s3://" not in shlex.join(w)]
# Of the demo's footage: a VAE of any size takes long over them.
LARGE = ("landscape.mp4", "portrait.mp4", "rotated.mp4", "subtitled.mp4", "subtitled.srt")


def run(folder: Path, *words: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def outputs(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder where the README's local commands were run, and what they printed."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "footage").mkdir()
    for path in demo_footage.iterdir():
        if path.name not in LARGE:
            (folder / "footage" / path.name).symlink_to(path)
    (folder / "footage" / "landscape.mp4").symlink_to(demo_footage / "rotated.mp4")
    (folder / "demo").symlink_to(".")  # the Python examples read demo/dataset
    (folder / "float32.toml").write_text('vae.dtype = "float32"')  # bfloat16 is slow on most CPUs
    save("ltx090", folder / "weights" / "ltx-video")
    vlm_models.save(folder / "weights" / "qwen2.5-vl", "qwen25", says=["A", "dog", "runs", "."])
    save_folder(tiny(CLIP), CLIP, folder / "weights" / "clip")
    return folder, [run(folder, str(TELECINE), *words[1:], *options(words)) for words in LOCAL]


def options(words: list[str]) -> list[str]:
    """More of them. Weights are random here, and the gates see it; Ray is started once."""
    given = ["--config", "float32.toml"] if "--vae" in words else []
    if words[1] in ("rebuild", "verify", "caption", "score") and "--dry-run" not in words:
        given += ["--workers", "0"]
    return [*given, "--force"] if words[1] == "rebuild" and "--dry-run" not in words else given


def test_commands_run_and_say_something(outputs: tuple[Path, list[str]]) -> None:
    _, printed = outputs
    assert len(printed) >= 5
    assert all(text.strip() for text in printed)


def test_the_broken_file_is_listed_with_its_reason(outputs: tuple[Path, list[str]]) -> None:
    _, printed = outputs
    [rejected] = [json.loads(t) for w, t in zip(LOCAL, printed, strict=True) if "--json" in w]
    assert [Path(row["uri"]).name for row in rejected] == ["broken.mp4"]
    assert rejected[0]["reason"] == "corrupt"


@pytest.mark.parametrize("snippet", blocks("python"), ids=lambda text: text.splitlines()[0])
def test_python_examples_run(outputs: tuple[Path, list[str]], snippet: str) -> None:
    folder, _ = outputs
    assert run(folder, sys.executable, "-W", "error", "-c", snippet).strip()
