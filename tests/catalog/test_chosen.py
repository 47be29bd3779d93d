"""Which text a sample carries: one captioner's, a second one's, or none, by clip id alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from telecine.encoders.load import load_captioner
from telecine.infra.store.storage import Storage
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Caption, CaptionWindow
from telecine.manifests.specs import CaptionMixSpec, CaptionSpec, DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.browse.clip import clip_facts
from telecine.pipeline.build.sample import ChosenCaption
from telecine.pipeline.caption.step import pending
from telecine.pipeline.caption.worker import CaptionWorker, accept
from telecine.pipeline.catalog.captions import create_chosen_captions
from telecine.pipeline.catalog.dataset import create_dataset_view
from telecine.pipeline.catalog.narrow import narrow
from telecine.pipeline.look.clip import known_clips
from tests.support.asking import write_sidecar
from tests.support.rows import make_caption, make_clip, make_source, turn

CLIPS = [f"{n:032x}" for n in range(64)]
SIGNAL, SIDECAR = (CaptionSpec(captioner=name) for name in ("signal", "sidecar"))


def mix(**shares: float) -> DatasetSpec:
    second = SIDECAR if "second_share" in shares else None
    return DatasetSpec(caption=SIGNAL, caption_mix=CaptionMixSpec(second=second, **shares))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with a measured caption and, but for every fourth, a sidecar's; to be copied."""
    root = tmp_path_factory.mktemp("chosen")
    tables = Tables(str(root / "dataset"))
    told = write_sidecar(root / "footage", "a.txt", b"a dog")
    tables.append("clips", [make_clip(clip_id=one, source_id=one) for one in CLIPS])
    sidecars = [told if n % 4 else {} for n in range(len(CLIPS))]
    tables.append(
        "sources",
        [
            make_source(uri=one, source_id=one, **sidecar)
            for one, sidecar in zip(CLIPS, sidecars, strict=True)
        ],
    )
    for spec in (SIGNAL, SIDECAR):
        captioner = load_captioner(spec)
        worker = CaptionWorker(captioner, Storage())
        batches = list(pending(tables, captioner))
        tables.append("captions", [row for b in batches for row in accept(captioner, b, worker(b))])
    return root / "dataset"


@pytest.fixture
def tables(made: Path, tmp_path: Path) -> Tables:
    shutil.copytree(made, tmp_path / "dataset")
    return Tables(str(tmp_path / "dataset"))


def chosen(tables: Tables, spec: DatasetSpec) -> dict[str, dict[str, Any]]:
    con = connect(tables)
    create_chosen_captions(con, spec)
    rows = con.sql("FROM chosen_captions").to_arrow_table().to_pylist()
    assert len({row["clip_id"] for row in rows}) == len(rows)
    return {row["clip_id"]: row for row in rows}


@pytest.mark.parametrize(("second", "none"), [(0.0, 0.3), (0.5, 0.0), (0.4, 0.3), (0.2, 0.8)])
def test_shares_go_by_clip_id_alone(tables: Tables, second: float, none: float) -> None:
    found = chosen(tables, mix(second_share=second, none_share=none))
    assert found.keys() == set(CLIPS)
    for number, clip_id in enumerate(CLIPS):
        theirs = none <= turn(clip_id) < none + second and number % 4
        expected = "none" if turn(clip_id) < none else "sidecar" if theirs else "signal"
        assert found[clip_id]["captioner"] == expected
        assert (found[clip_id]["text"] == "") == (expected == "none")
        assert (found[clip_id]["text"] == "a dog") == (expected == "sidecar")


@pytest.mark.parametrize(("second", "none"), [(0.5, 0.0), (0.4, 0.3)])
def test_everyone_marks_the_caption_in_force(tables: Tables, second: float, none: float) -> None:
    """One row at most, though others say the same: the view, `inspect clip` and browse agree."""
    spec = mix(second_share=second, none_share=none)
    tables.append("captions", tables.rows(Caption))  # every answer came twice
    found = chosen(tables, spec)
    with connect(tables) as con:
        create_dataset_view(con, spec)
        view = dict(con.sql("SELECT clip_id, caption FROM dataset").fetchall())
        narrow(con, CLIPS, CLIPS)
        known = {one.clip.clip_id: one for one in known_clips(con, spec)}
    page = {clip_id: clip_facts(connect(tables), spec, clip_id) for clip_id in CLIPS[:4]}
    for clip_id in CLIPS:
        row, looked = found[clip_id], known[clip_id]
        marked = [said.caption.text for said in looked.captions if said.chosen]
        assert marked == ([] if row["captioner"] == "none" else [row["text"]])
        assert looked.chosen is not None
        assert view[clip_id] == looked.chosen.text == row["text"]
        if clip_id in page:
            assert [told.text for told in page[clip_id].captions if told.in_force] == marked


def test_as_a_share_grows_clips_only_join_it(tables: Tables) -> None:
    before: set[str] = set()
    for share in (0.0, 0.1, 0.5, 1.0):
        found = chosen(tables, mix(none_share=share))
        silent = {clip_id for clip_id, row in found.items() if row["captioner"] == "none"}
        assert before <= silent
        before = silent
    assert before == set(CLIPS)


def test_all_that_was_said_is_listed(tables: Tables) -> None:
    for row in chosen(tables, mix(second_share=0.5, none_share=0.3)).values():
        first, second = json.loads(row["captions"])
        assert (first["captioner"], second["captioner"]) == ("signal", "sidecar")
        assert row["text"] in ("", first["text"], second["text"])
        assert second["outcome"] == ("ok" if second["text"] else "empty")
        assert first["windows"] == []
    for row in chosen(tables, mix()).values():
        (only,) = json.loads(row["captions"])
        assert only["text"] == row["text"]


def test_the_digest_is_of_all_of_it(tables: Tables) -> None:
    plain = chosen(tables, mix())
    listed = chosen(tables, mix(second_share=0.0))
    silent = chosen(tables, mix(none_share=1.0))
    for clip_id in CLIPS:
        digests = {found[clip_id]["captions_digest"] for found in (plain, listed, silent)}
        assert len(digests) == 3
        assert plain[clip_id]["text_digest"] == listed[clip_id]["text_digest"]


def test_windows_are_listed_with_their_spans(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    tables.append("clips", [make_clip()])
    tables.append("sources", [make_source()])
    captioner = load_captioner(SIGNAL)
    ((task,),) = pending(tables, captioner)
    parts = (
        CaptionWindow(start_seconds=0.0, end_seconds=1.0, text="Ein Hund."),
        CaptionWindow(start_seconds=1.0, end_seconds=2.0, text='Eine "Katze".'),
    )
    row = make_caption(
        captioner_fingerprint=captioner.fingerprint, input_digest=task.request.input_digest,
        text="Ein Hund.", windows=parts,
    )  # fmt: skip
    tables.append("captions", [row])
    (found,) = chosen(tables, mix()).values()
    (listed,) = json.loads(found["captions"])
    assert listed["windows"] == [
        {"start_seconds": 0.0, "end_seconds": 1.0, "text": "Ein Hund."},
        {"start_seconds": 1.0, "end_seconds": 2.0, "text": 'Eine "Katze".'},
    ]


def test_the_bytes_of_a_caption_are_those_of_its_text_twice_and_of_the_list() -> None:
    caption = ChosenCaption("signal", "f", "é", "d", '["é"]', "c")
    assert caption.text_bytes == 2 * 2 + 6
