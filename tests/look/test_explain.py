"""Why footage is, or is not, in the current build: every answer, each made to happen."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from telecine.encoders.load import load_scorer
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.infra.text import json_value
from telecine.manifests.dataset import create_dataset, open_dataset, replace_spec
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Embedding, Score
from telecine.manifests.specs import ScoreSpec, SelectSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.catalog.scores import score_inputs
from telecine.pipeline.cli import diff as cli_clips
from telecine.pipeline.look.explain import explain
from telecine.pipeline.look.verdict import Why
from tests.support import inline
from tests.support.explaining import (
    NO,
    OK,
    WAITING,
    caption_only,
    dataset_of,
    scan_only,
    shown,
    states,
    step,
    told,
)
from tests.support.lab import Lab
from tests.support.movies import picture, write_movie
from tests.support.rows import make_source

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@dataclass(frozen=True)
class Made:
    lab: Lab
    replaced: str  # clip_id of what b.png was when the build was made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A build; then b.png is replaced and a.png's text, both scanned and captioned, not built."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    dark = tuple(255 - plane for plane in picture(0))
    frames = [picture(frame) for frame in range(50)] + [dark] * 5 + [dark] * 25
    for number, planes in enumerate(frames[50:]):  # so that it is not frozen
        luma = np.roll(planes[0], number, axis=1)
        frames[50 + number] = (luma, *planes[1:])
    write_movie(lab.footage / "film.mp4", frames)
    write_movie(lab.footage / "short.mp4", frames[:10])
    for number, name in enumerate("abc"):
        lab.image(name, seed=number)
    lab.text("a", "A square.")
    lab.image("small", seed=9, size=(100, 90))
    shutil.copy(lab.footage / "c.png", lab.footage / "zcopy.png")
    whole = (lab.footage / "c.png").read_bytes()
    (lab.footage / "broken.png").write_bytes(whole[: len(whole) // 2])
    inline.ingest(str(lab.footage), str(lab.dataset))
    replaced = explain(dataset_of(lab), "b.png").clips[0].clip_id
    lab.image("b", seed=20)
    lab.text("a", "Another text.")
    scan_only(lab.dataset, lab.footage)
    caption_only(lab.dataset)
    return Made(lab, replaced)


@pytest.fixture
def lab(made: Made) -> Lab:
    """To be read."""
    return made.lab


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Lab:
    """The dataset again, and an empty folder for more footage."""
    shutil.copytree(made.lab.dataset, tmp_path / "dataset")
    return Lab(tmp_path)


def select(lab: Lab, where: str, score: ScoreSpec | None = None) -> None:
    """As telecine.toml says from now on."""
    dataset = dataset_of(lab)
    given = {"select": SelectSpec(where=where), "score": score or dataset.spec.score}
    replace_spec(dataset, dataset.spec.model_copy(update=given))


EVERY = ("found", "probed", "cut", "clip", "captioned", "scored", "selected", "planned",
         "encoded", "sample")  # fmt: skip


# ── in the build ─────────────────────────────────────────────────────────────────────────────────


def test_in_the_build(lab: Lab) -> None:
    found = told(lab, "c.png")
    build = lab.current().name
    (sample,) = [s for s in lab.live() if s.clip_id == found.clips[0].clip_id]
    assert states(found) == dict.fromkeys(EVERY, OK)
    assert found.verdict.why is Why.IN_BUILD
    assert step(found, "sample").text == f"{sample.shard_path}, position {sample.position} of 3"
    assert step(found, "encoded").facts["plan"] == 0
    assert step(found, "planned").text == "bucket 144/1x1/image"
    assert step(found, "captioned").text.startswith("signal: A square still image")
    inspect = f"telecine inspect {lab.dataset} clip {sample.clip_id}"
    assert str(found.verdict) == f"its only clip is in build {build}: {inspect}"
    alone = told(lab, sample.clip_id[:10])
    assert alone.clips == found.clips
    assert alone.verdict.text == f"in build {build}"
    last = shown(alone).splitlines()
    assert last[-2:] == ["", f"in build {build}: {inspect}"]
    steps = [line.split()[:2] for line in last[:-2] if not line.startswith(" ")]
    assert steps == [[name, "ok"] for name in EVERY]


def test_in_the_build_with_a_text_that_has_changed(lab: Lab) -> None:
    found = told(lab, "a.png")
    assert step(found, "captioned").text == "sidecar: Another text."
    assert "its text has changed since" in step(found, "sample").text
    assert found.verdict.why is Why.IN_BUILD
    clip = found.clips[0].verdict
    assert clip.text.endswith(", with a text that has changed since")
    assert clip.next == f"telecine rebuild {lab.dataset}"


def test_in_the_build_although_its_footage_was_replaced(made: Made) -> None:
    found = told(made.lab, made.replaced)
    assert found.uri.endswith("/b.png")
    assert states(found) == {
        "found": OK, "probed": OK, "cut": OK, "clip": NO, "encoded": OK, "sample": OK,
    }  # fmt: skip
    assert step(found, "found").text.endswith("b.png, revision 1")
    assert "of revision 0; revision 1 is in force" in step(found, "clip").text
    assert found.verdict.why is Why.IN_BUILD
    assert "takes it out, since its source has been replaced since" in found.verdict.text


def test_in_the_build_but_no_longer_selected(copy: Lab) -> None:
    select(copy, "kind = 'video' AND width > 100")
    verdict = told(copy, "c.png").clips[0].verdict
    assert verdict.why is Why.IN_BUILD
    assert verdict.text.endswith(
        ", and the next rebuild takes it out, since the selection does not take it, for it is not "
        "true that kind = 'video' (kind = 'image')"
    )
    select(copy, "nonesuch = 1")
    verdict = told(copy, "c.png").clips[0].verdict
    assert verdict.why is Why.IN_BUILD
    assert "but the selection in force cannot be evaluated (Binder Error" in verdict.text


def test_a_captioner_that_has_nothing_to_say(copy: Lab) -> None:
    inline.recaption(str(copy.dataset), {"caption": {"captioner": "sidecar"}})
    dataset = dataset_of(copy)
    silent = dataclasses.replace(
        dataset, spec=dataset.spec.overlaid({"caption": {"captioner": "sidecar"}})
    )
    found = explain(silent, "c.png")
    assert step(found, "captioned").text == "sidecar: empty, so its text is empty"
    assert step(found, "captioned").state is OK
    assert found.verdict.why is Why.IN_BUILD


# ── a source that gives nothing ──────────────────────────────────────────────────────────────────


def test_rejected(lab: Lab) -> None:
    found = told(lab, "broken.png")
    assert [one.state for one in found.steps] == [OK, NO]
    assert found.steps[1].text.startswith("rejected as corrupt: ")
    assert found.clips == ()
    assert found.verdict.why is Why.REJECTED
    assert str(found.verdict).endswith(
        f"mend or replace it, then: telecine ingest {lab.footage}/broken.png --dataset "
        f"{lab.dataset} --retry-rejected"
    )
    assert found.verdict.text.startswith(f"not in build {lab.current().name}: rejected as corrupt")


def test_a_copy_of_another_source(lab: Lab) -> None:
    found = told(lab, "zcopy.png")
    assert found.steps[-1].text == f"the same bytes as {lab.footage}/c.png"
    assert found.verdict.why is Why.DUPLICATE
    assert found.verdict.next == f"telecine explain {lab.dataset} {lab.footage}/c.png"


def test_no_frame_in_a_clip(lab: Lab) -> None:
    found = told(lab, "short.mp4")
    assert [(one.name, one.state) for one in found.steps] == [
        ("found", OK), ("probed", OK), ("cut", NO),
    ]  # fmt: skip
    assert found.steps[-1].text == "1 shot, 0 clips; left out: frames 0 to 10 too_short"
    assert found.steps[-1].facts["dropped"] == [
        {"start_frame": 0, "num_frames": 10, "reason": "too_short"}
    ]
    assert found.verdict.why is Why.NO_CLIPS
    assert "(frames 0 to 10 too_short)" in found.verdict.text


# ── a clip that the build leaves out ─────────────────────────────────────────────────────────────


def test_below_the_smallest_rung(lab: Lab) -> None:
    found = told(lab, "small.png")
    assert step(found, "planned").state is NO
    assert re.search(r"dropped it: no_bucket: 100×90, 0\.000 s", step(found, "encoded").text)
    assert step(found, "sample").state is NO
    assert found.verdict.why is Why.NO_BUCKET
    assert "its short side of 90 px is below the smallest rung, 144 px" in found.verdict.text
    assert found.verdict.next == f"telecine rebuild {lab.dataset} --config FILE"


def test_not_selected(copy: Lab) -> None:
    where = "num_frames > 40 AND (kind = 'video' OR width > 1000)"
    inline.rebuild(str(copy.dataset), {"select": {"where": where}}, name="long")
    film = told(copy, "film.mp4")
    first, second = film.clips
    assert (first.verdict.why, second.verdict.why) == (Why.IN_BUILD, Why.NOT_SELECTED)
    assert film.verdict.why is Why.NOT_SELECTED
    assert film.verdict.text == (
        "1 of its 2 clips in build long; not in build long: the selection does not take it, for it "
        "is not true that num_frames > 40 (num_frames = 30)"
    )
    found = told(copy, "c.png")
    assert step(found, "selected").state is NO
    assert step(found, "selected").facts["parts"] == [
        {"sql": "num_frames > 40", "true": False, "values": {"num_frames": 1}, "error": ""},
        {
            "sql": "(kind = 'video') OR (width > 1000)", "true": False,
            "values": {"kind": "image", "width": 160}, "error": "",
        },
    ]  # fmt: skip
    assert step(found, "sample").state is WAITING
    assert "; build dct-" in step(found, "sample").text  # the old one has it
    assert found.verdict.next == f"telecine rebuild {copy.dataset} --where CONDITION"
    text = shown(told(copy, second.clip_id))
    assert re.search(r"selected +no +num_frames > 40 AND", text)
    assert re.search(r"\n +false +num_frames > 40 +num_frames = 30 *\n", text)
    assert re.search(r"\n +true +\(kind = 'video'\) OR .* kind = 'video', width = 240 *\n", text)
    lines = shown(film).splitlines()
    assert lines[4].startswith(f"{first.clip_id}  frames 0 to 50, 2.00 s: in build long")
    assert lines[5].startswith(f"{second.clip_id}  frames 50 to 80, 1.20 s: not in build long")


SCORE = ScoreSpec(scorer="openclip:tiny@w.pt", weights="0" * 64, prompts={"red": "a red picture"})


def test_a_score_that_the_selection_asks_for_is_lacking(copy: Lab) -> None:
    dataset = dataset_of(copy)
    spec = dataset.spec.model_copy(update={"score": SCORE})
    scorer = load_scorer(SCORE).fingerprint
    named = connect(dataset.tables).sql(
        "SELECT uri[-5], clip_id FROM current_clips JOIN current_sources USING (source_id)"
    )
    names = dict(named.fetchall())
    rows = connect(dataset.tables).sql(f"FROM ({score_inputs(spec, 'similarity_red')})").fetchall()
    digests = {clip_id: digest for clip_id, digest, _ in rows}
    dataset.tables.append(
        "scores",
        [
            Score(
                clip_id=names[name], name="similarity_red", scorer_fingerprint=scorer,
                input_digest=digests[names[name]], value=value,
            )
            for name, value in (("a", 0.25), ("b", 0.125))
        ],
    )  # fmt: skip
    select(copy, "similarity_red > 0.2 AND kind = 'image'", SCORE)
    inline.rebuild(str(copy.dataset), name="red")
    assert told(copy, "a.png").verdict.why is Why.IN_BUILD
    low = told(copy, "b.png")
    assert low.verdict.why is Why.NOT_SELECTED
    assert "similarity_red > 0.2 (similarity_red = 0.125)" in low.verdict.text
    none = told(copy, "c.png")
    assert none.verdict.why is Why.NOT_SCORED
    assert none.verdict.text.endswith("the selection asks for similarity_red, which it lacks")
    assert none.verdict.next == f"telecine score {copy.dataset}"
    assert step(none, "scored").state is WAITING
    assert step(none, "scored").facts["lacking"] == ["text_similarity", "similarity_red"]
    assert re.search(r"unknown +similarity_red > 0\.2 +similarity_red = NULL", shown(none))
    assert told(copy, "film.mp4").verdict.why is Why.NOT_SELECTED  # no score would help it
    digest = connect(dataset.tables).sql(
        "SELECT stills_digest FROM clips WHERE clip_id = ?", params=[names["c"]]
    )
    ((stills_digest,),) = digest.fetchall()
    failed = Embedding(
        clip_id=names["c"], scorer="openclip", scorer_fingerprint=scorer,
        stills_digest=stills_digest, embedding=b"", detail="no picture",
    )  # fmt: skip
    dataset_of(copy).tables.append("embeddings", [failed])
    again = told(copy, "c.png")
    assert again.verdict.next == f"telecine score {copy.dataset} --retry-failed"
    assert "(no picture)" in step(again, "scored").text


def test_a_selection_that_cannot_be_evaluated(copy: Lab) -> None:
    select(copy, "similarity_red > 0.2")
    found = told(copy, "b.png")
    assert found.verdict.why is Why.BAD_SELECTION
    assert step(found, "selected").state is NO
    assert "similarity_red" in step(found, "selected").text
    assert found.verdict.next == f"telecine rebuild {copy.dataset} --where CONDITION"


# ── names ────────────────────────────────────────────────────────────────────────────────────────


def test_a_source_by_its_path_or_by_its_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = told(lab, f"{lab.footage}/c.png")
    monkeypatch.chdir(lab.footage)
    for name in ("footage/c.png", f"../{lab.footage.name}/c.png"):
        assert told(lab, name).uri == whole.uri == f"{lab.footage}/c.png"
    assert told(lab, "ilm.mp4").uri.endswith("/film.mp4")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("png", r"several sources end so: give more of the name\n  \S+/a\.png\n"),
        ("", "the name is empty"),
        ("nonesuch.mp4", r"there is no source or clip 'nonesuch\.mp4', nor a file of that name"),
        ("film", r"near it are\n  \S+/film\.mp4"),
        ("ffffffffffff", "there is no source or clip 'ffffffffffff'"),
        ("s3://bucket/a.mp4", r"not in this dataset: .*telecine ingest s3://bucket/a\.mp4 --data"),
    ],
)
def test_a_name_that_nothing_has(lab: Lab, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        told(lab, name)


def test_a_file_a_folder_and_a_caption_that_are_no_sources(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "new film.mp4").touch()
    with pytest.raises(UsageError, match=r"telecine ingest '\S+/new film\.mp4' --dataset "):
        told(lab, str(tmp_path / "new film.mp4"))
    with pytest.raises(UsageError, match=r"these lie in it: name one\n  \S+/a\.png"):
        told(lab, str(lab.footage))
    with pytest.raises(UsageError, match=r"is a caption file; explain .*beside\n  \S+/a\.png"):
        told(lab, str(lab.footage / "a.txt"))


def test_names_with_quotes_and_escapes(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "dataset"))
    create_dataset(str(tmp_path / "dataset"), Storage(), None)
    uri = "/footage/it's [red]\x1b[31m.mp4"
    tables.append("sources", [make_source(uri=uri, status="rejected", reason="corrupt",
                                          detail="\x1b[2Jgone")])  # fmt: skip
    found = explain(open_dataset(str(tmp_path / "dataset"), Storage()), "it's [red]\x1b[31m.mp4")
    text = shown(found)
    assert found.uri == uri
    assert "\x1b" not in text
    assert r"it's [red]\x1b[31m.mp4, never replaced" in text


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def run(*words: str) -> Any:
    app = typer.Typer()
    app.command()(cli_clips.diff)
    app.command()(cli_clips.explain)
    return CliRunner().invoke(app, ["explain", *words])


def test_the_command_ends_well_whatever_it_explains(lab: Lab) -> None:
    for name in ("broken.png", "film.mp4"):
        found = told(lab, name)
        done = run(str(lab.dataset), name)
        assert done.exit_code == 0
        assert done.stdout.endswith(f"\n{found.verdict}\n")
    values = json.loads(run(str(lab.dataset), name, "--json").stdout)
    assert values == json_value(dataclasses.asdict(found))
    error = run(str(lab.dataset), "nonesuch").exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2


@pytest.mark.slow
def test_in_a_store(tmp_path: Path, s3: Any) -> None:
    lab, root = Lab(tmp_path), s3.uri("dataset")
    lab.image("a", seed=1)
    lab.image("small", seed=2, size=(90, 90))
    inline.ingest(str(lab.footage), root)
    dataset = open_dataset(root, Storage())
    verdict = explain(dataset, "a.png").verdict
    assert verdict.why is Why.IN_BUILD
    assert verdict.next.startswith(f"telecine inspect {root} clip ")
    assert explain(dataset, "small.png").verdict.why is Why.NO_BUCKET
