"""The wheel and the sdist: built, installed beside what an extra brings and no more, and run."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from telecine.infra.extras import EXTRAS
from tests.support.environments import ROOT, Environment, build, copy_tree, environment
from tests.support.lab import Lab

NOWHERE = "http://127.0.0.1:9/v1"
ROOMS = ("pipeline", "encoders", "manifests", "infra")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist of the source tree."""
    folder = tmp_path_factory.mktemp("dist")
    tree = copy_tree(folder / "tree")
    build("wheel", tree, folder)
    build("sdist", tree, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("base") / "env", wheel)


@pytest.fixture(scope="module")
def prepare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("prepare") / "env", wheel, "prepare")


# ── what is in them ──────────────────────────────────────────────────────────────────────────────


def files_of(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_module_and_file_that_is_read_and_no_test(wheel: Path) -> None:
    modules = {
        f"telecine/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    pages = {
        f"telecine/{path.relative_to(ROOT)}"
        for part in ("templates", "static")
        for path in (ROOT / "pipeline" / "browse" / part).rglob("*")
        if path.is_file()
    }
    own = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "telecine").rglob("*.*")
        if path.suffix in (".py", ".typed")
    }
    assert "telecine/py.typed" in own
    assert len(pages) > 5
    assert files_of(wheel) == modules | pages | own


def test_a_wheel_of_the_sdist_is_that_of_the_tree(dist: Path, wheel: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        assert not [member.name for member in tar if member.issym() or member.islnk()]
        tar.extractall(tmp_path, filter="data")
    (tree,) = (path for path in tmp_path.iterdir())
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"):
        assert (tree / name).read_bytes() == (ROOT / name).read_bytes()
    again = build("wheel", tree, tmp_path)
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()
    assert {i.filename: i.CRC for i in zipfile.ZipFile(again).infolist()} == {
        i.filename: i.CRC for i in zipfile.ZipFile(wheel).infolist()
    }


def test_a_checkout_without_links_is_refused(tmp_path: Path) -> None:
    """As git leaves it where core.symlinks is off: each link a file with its target in it."""
    tree = copy_tree(tmp_path / "tree")
    for room in ROOMS:
        link = tree / "telecine" / room
        link.unlink()
        link.write_text(f"../{room}")
    with pytest.raises(AssertionError, match=r"git config core\.symlinks true"):
        build("wheel", tree, tmp_path / "dist")


# ── installed ────────────────────────────────────────────────────────────────────────────────────


def hostile(folder: Path) -> Path:
    """A trainer's repository: its own packages have our rooms' names."""
    for name in ROOMS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the other {name}')")
    return folder


@pytest.fixture(scope="module")
def prepared(prepare: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that an installed Telecine made, started where other packages have our names."""
    folder = hostile(tmp_path_factory.mktemp("trainer"))
    lab = Lab(folder)
    for number in range(2):
        lab.image(f"{number}", seed=number)
    ingest(prepare, folder, "dataset", workers=0)
    return folder / "dataset"


def ingest(prepare: Environment, folder: Path, dataset: str, workers: int) -> None:
    words = ("telecine", "ingest", "footage", "--dataset", dataset, "--workers", str(workers))
    done = prepare.run(*words, cwd=folder, PYTHONPATH=str(folder))
    assert done.returncode == 0, done.stderr
    assert "2 samples in 1 shard" in done.stdout


def test_workers_take_the_installed_telecine_too(prepare: Environment, prepared: Path) -> None:
    """Ray's processes get the driver's search path, the trainer's repository first."""
    folder = prepared.parent
    ingest(prepare, folder, "by-workers", workers=1)
    shards = [sorted((folder / d / "shards").rglob("*.tar")) for d in ("dataset", "by-workers")]
    assert [p.read_bytes() for p in shards[0]] == [p.read_bytes() for p in shards[1]] != []
    shutil.rmtree(folder / "by-workers")


def test_the_base_looks_at_a_dataset_and_loads_no_more(base: Environment, prepared: Path) -> None:
    done = base.run("telecine", "--help", cwd=prepared.parent)
    assert (done.returncode, done.stderr) == (0, "")
    for words in LOOKS:
        done = base.run("telecine", *(w.format(prepared) for w in words), cwd=prepared.parent)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    code = (
        "import telecine, sys; from telecine.manifests.dataset import open_dataset\n"
        "from telecine.infra.store.storage import Storage\n"
        "print(open_dataset(sys.argv[1], Storage()).spec.vae.encoder, telecine.__file__)"
    )
    done = base.run("python", "-c", code, str(prepared), cwd=prepared.parent)
    name, file = done.stdout.split()
    assert name == "dct"
    assert Path(file).is_relative_to(base.folder)


LOOKS = (
    ("inspect", "{}"),
    ("inspect", "{}", "clips", "--where", "width > 8"),
    ("query", "{}", "SELECT count(*) FROM dataset WHERE in_build"),
    ("export", "{}", "urls", "--format", "urls"),
    ("export", "{}", "card", "--format", "card"),
)

NEEDS = (
    ("prepare", "ingest footage --dataset new"),
    ("prepare", "rebuild {} --where true"),
    ("prepare", "caption {} --captioner signal"),
    ("prepare", "score {} --scorer openclip:weights"),
    ("prepare", "verify {}"),
    ("prepare", "demo new"),
    ("browse", "browse {}"),
    ("browse", "report {} -o new"),
)


@pytest.mark.parametrize(("extra", "command"), NEEDS)
def test_a_command_says_which_extra_it_needs(
    extra: str, command: str, base: Environment, prepared: Path
) -> None:
    refused(base, extra, command, prepared)


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("vae", "ingest footage --dataset new --vae diffusers:weights"),
        ("caption", "caption {} --captioner vlm:weights"),
        # Found missing by a worker: who only reads the dataset needs no client.
        pytest.param(
            *("caption", f"caption {{}} --captioner openai:any --caption-url {NOWHERE}"),
            marks=pytest.mark.slow,
        ),
        ("caption", "score {} --scorer openclip:weights"),
    ],
)
def test_a_model_says_which_extra_it_needs(
    extra: str, command: str, prepare: Environment, prepared: Path
) -> None:
    weights = prepared.parent / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "config.json").write_text('{"_class_name": "AutoencoderKLWan"}')
    refused(prepare, extra, command, prepared)


def refused(environment: Environment, extra: str, command: str, dataset: Path) -> None:
    words = [word.format(dataset) for word in command.split()]
    before = sorted(dataset.parent.rglob("*"))
    done = environment.run("telecine", *words, cwd=dataset.parent)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = re.search(
        r"needs (\w+), which is not installed: pip install 'telecine\[(\w+)\]'", done.stderr
    )
    assert said, done.stderr
    assert said[2] == extra
    assert said[1] in EXTRAS[extra]
    assert sorted(dataset.parent.rglob("*")) == before


def test_every_extra_is_asked_for() -> None:
    assert {extra for extra, _ in NEEDS} | {"vae", "caption", "shots"} == set(EXTRAS)


@pytest.mark.slow
def test_the_demo_runs_where_other_packages_have_our_names(
    prepare: Environment, tmp_path: Path
) -> None:
    done = prepare.run("telecine", "demo", "here", cwd=hostile(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    listed = prepare.run("telecine", "inspect", "here/dataset", "--json", cwd=tmp_path)
    assert json.loads(listed.stdout)
