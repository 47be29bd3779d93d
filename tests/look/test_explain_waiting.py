"""Why footage is not in the current build yet, from its scan to its shard."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from telecine.encoders.load import load_captioner, load_encoder
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Caption
from telecine.pipeline.build.events import plan_builds
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.caption.step import pending
from telecine.pipeline.caption.worker import accept
from telecine.pipeline.look.steps import Step
from telecine.pipeline.look.verdict import Why
from tests.support import inline
from tests.support.explaining import (
    NO,
    WAITING,
    caption_only,
    dataset_of,
    scan_only,
    states,
    step,
    told,
)
from tests.support.lab import Lab
from tests.support.rows import make_clip

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A build of one image."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.image("first", seed=1)
    inline.ingest(str(lab.footage), str(lab.dataset))
    return lab


@pytest.fixture
def copy(built: Lab, tmp_path: Path) -> Lab:
    """Its dataset again, and an empty folder for more footage."""
    shutil.copytree(built.dataset, tmp_path / "dataset")
    return Lab(tmp_path)


def test_below_the_smallest_rung_before_any_plan_says_so(copy: Lab) -> None:
    copy.image("tiny", seed=30, size=(90, 90))
    scan_only(copy.dataset, copy.footage)
    caption_only(copy.dataset)
    found = told(copy, "tiny.png")
    assert step(found, "encoded").state is WAITING
    assert found.verdict.why is Why.NO_BUCKET


def test_footage_that_was_gone_or_changed_when_it_was_to_be_encoded(copy: Lab) -> None:
    for number, name in enumerate(("gone", "other")):
        copy.image(name, seed=30 + number)
    scan_only(copy.dataset, copy.footage)
    (copy.footage / "gone.png").unlink()
    copy.image("other", seed=40, size=(200, 200))
    caption_only(copy.dataset)
    inline.rebuild(str(copy.dataset))
    gone, other = told(copy, "gone.png"), told(copy, "other.png")
    assert gone.verdict.why is other.verdict.why is Why.DROPPED
    assert "dropped as source_missing (" in gone.verdict.text
    assert gone.verdict.next == f"telecine rebuild {copy.dataset} --retry-dropped"
    assert "dropped as source_changed (" in other.verdict.text
    assert other.verdict.next == (
        f"telecine ingest {copy.footage}/other.png --dataset {copy.dataset}"
    )
    assert states(gone)["encoded"] is NO


def fail(copy: Lab, detail: str) -> None:
    """One attempt at every clip that waits for a caption."""
    dataset = dataset_of(copy)
    captioner = load_captioner(dataset.spec.caption)
    for batch in list(pending(dataset.tables, captioner)):
        dataset.tables.append("captions", accept(captioner, batch, [], missing=detail))


def test_a_clip_from_its_scan_to_its_shard(copy: Lab) -> None:
    build = copy.current().name
    copy.image("new", seed=50)
    copy.image("late", seed=51)
    scan_only(copy.dataset, copy.footage)
    found = told(copy, "new.png")
    assert found.verdict.why is Why.UNCAPTIONED
    assert str(found.verdict) == (
        f"not in build {build}: it has no caption of auto yet: telecine caption {copy.dataset}"
    )
    assert step(found, "captioned") == Step(
        "captioned", WAITING, "auto was not asked yet",
        {"captioner": "auto", "failed": 0, "details": [], "outcome": None, "text": None},
    )  # fmt: skip
    fail(copy, "the server is down")
    found = told(copy, "new.png")
    assert found.verdict.why is Why.CAPTION_FAILED
    assert "its caption failed once" in found.verdict.text
    assert found.verdict.next == f"telecine caption {copy.dataset}"
    assert step(found, "captioned").state is WAITING
    fail(copy, "the server is down")
    fail(copy, "the server is busy")
    found = told(copy, "new.png")
    assert found.verdict.why is Why.CAPTION_GIVEN_UP
    assert str(found.verdict) == (
        f"not in build {build}: its caption failed 3 times: "
        f"telecine caption {copy.dataset} --retry-failed"
    )
    assert step(found, "captioned").state is NO
    assert step(found, "captioned").text == (
        "auto failed 3 times: the server is busy; the server is down"
    )
    dataset = dataset_of(copy)
    clip_id = found.clips[0].clip_id
    ((digest,),) = (
        connect(dataset.tables)
        .sql("SELECT DISTINCT input_digest FROM captions WHERE clip_id = ?", params=[clip_id])
        .fetchall()
    )
    speaker = load_captioner(dataset.spec.caption).speakers[-1]
    refused = Caption(
        clip_id=clip_id, captioner=speaker.name, captioner_fingerprint=speaker.fingerprint,
        input_digest=digest, outcome="refused", text="",
    )  # fmt: skip
    dataset.tables.append("captions", [refused])
    found = told(copy, "new.png")
    assert step(found, "captioned").text == "signal: refused, so its text is empty"
    assert found.verdict.why is Why.NOT_PLANNED
    assert found.verdict.next == f"telecine rebuild {copy.dataset}"
    opened = dataset_of(copy)
    generation = Generation.of(opened, load_encoder(opened.spec.vae))
    assert plan_builds(opened, [generation], retry=False)
    found = told(copy, "new.png")
    assert found.verdict.why is Why.IN_PROGRESS
    assert f"a plan of build {build} is in progress" in found.verdict.text
    assert told(copy, "late.png").verdict.why is Why.CAPTION_GIVEN_UP
    inline.rebuild(str(copy.dataset))
    assert told(copy, "new.png").verdict.why is Why.IN_BUILD


def test_a_caption_that_waits_since_its_sidecar_changed(copy: Lab) -> None:
    copy.image("new", seed=60)
    copy.text("new", "One.")
    scan_only(copy.dataset, copy.footage)
    caption_only(copy.dataset)
    copy.text("new", "Another one.")
    scan_only(copy.dataset, copy.footage)
    found = told(copy, "new.png")
    assert found.verdict.why is Why.UNCAPTIONED
    assert "before they changed" in step(found, "captioned").text


def test_no_build_at_all(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.image("a", seed=1)
    scan_only(lab.dataset, lab.footage)
    caption_only(lab.dataset)
    found = told(lab, "a.png")
    assert found.verdict.why is Why.NO_BUILD
    assert str(found.verdict) == (f"in no build: none is current: telecine rebuild {lab.dataset}")
    assert step(found, "encoded").text == "no build is current"


def test_footage_that_was_replaced_before_it_was_built(copy: Lab) -> None:
    copy.image("new", seed=70)
    scan_only(copy.dataset, copy.footage)
    old = told(copy, "new.png").clips[0].clip_id
    copy.image("new", seed=71)
    scan_only(copy.dataset, copy.footage)
    found = told(copy, old)
    assert found.verdict.why is Why.SUPERSEDED
    assert found.verdict.next == f"telecine explain {copy.dataset} {copy.footage}/new.png"
    assert [r["revision"] for r in step(found, "found").facts["revisions"]] == [0, 1]
    assert told(copy, "new.png").clips[0].clip_id != old


def test_a_scan_that_was_killed(copy: Lab) -> None:
    dataset_of(copy).tables.append("clips", [make_clip(clip_id="0" * 32, source_id="nobody")])
    found = told(copy, "0" * 32)
    assert found.verdict.why is Why.UNCOMMITTED
    assert found.steps == ()
    assert found.verdict.next == f"telecine ingest SOURCE --dataset {copy.dataset}"
