"""Scores: embeddings of clips, what they are compared with, and conditions over them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.load import load_scorer
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, open_dataset, replace_spec
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Duplicate, Embedding, Score
from telecine.manifests.specs import DatasetSpec, ScoreSpec
from telecine.pipeline.catalog.scores import create_scored_clips
from telecine.pipeline.catalog.selection import check_where
from telecine.pipeline.cli.options import given_score
from telecine.pipeline.models import scorer_needs, with_models
from telecine.pipeline.score.step import ScoreOutcome, accept, score_clips
from telecine.pipeline.score.worker import Scored, ScoreTask, Wanted
from tests.support import inline
from tests.support.lab import Lab
from tests.support.openclip_models import CLIP, save_folder, tiny

SCORES = ("similarity_red", "similarity_watermark", "text_similarity")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = save_folder(tiny(CLIP), CLIP, tmp_path_factory.mktemp("models") / "clip")
    return f"openclip:{folder}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Six images, two of them alike; to be copied, not changed."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    for number in range(6):
        lab.image(f"{number}", seed=max(number, 1), size=(160 + 20 * number,) * 2)
        lab.text(f"{number}", f"Picture number {number}.")
    lab.ingest()
    return lab


@pytest.fixture
def lab(made: Lab, tmp_path: Path) -> Lab:
    shutil.copytree(made.footage.parent, tmp_path, dirs_exist_ok=True)
    return Lab(tmp_path)


def asked(lab: Lab, clip: str, **options: Any) -> Dataset:
    """The dataset with scores asked for as the command line would."""
    opened = open_dataset(str(lab.dataset), Storage())
    given = {
        "scorer": clip, "prompts": ["watermark", "red=a red picture"], "aesthetic": None,
        "duplicates": False, "threshold": None, "keep": None, **options,
    }  # fmt: skip
    return dataclasses.replace(opened, spec=with_models(given_score(opened.spec, **given)))


def run(dataset: Dataset, **options: Any) -> ScoreOutcome:
    return score_clips(inline.run_of(dataset, **options), scorer_needs)


def scored(dataset: Dataset, spec: DatasetSpec | None = None) -> dict[str, dict[str, Any]]:
    con = connect(dataset.tables)
    create_scored_clips(con, spec or dataset.spec)
    rows = con.sql("FROM scored_clips").to_arrow_table().to_pylist()
    return {row["clip_id"]: row for row in rows}


def test_every_clip_gets_every_score_once(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    outcome = run(dataset)
    assert outcome.embedded == 6
    assert outcome.scores == dict.fromkeys(SCORES, 6)
    assert outcome.failed == 0
    again = run(dataset)
    assert (again.embedded, again.scores, again.failed) == (0, {}, 0)
    dataset = asked(lab, clip)
    assert len(dataset.tables.rows(Embedding)) == 6
    assert len(dataset.tables.rows(Score)) == 18


def test_scores_are_the_cosines_of_what_is_stored(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    run(dataset)
    model = load_scorer(dataset.spec.score)
    (red,) = model.embed_texts(["a red picture"])
    con = connect(dataset.tables)
    texts = dict(con.sql("SELECT clip_id, text FROM captions").fetchall())
    columns = scored(dataset)
    for row in dataset.tables.rows(Embedding):
        embedding = np.frombuffer(row.embedding, "<f2").astype(np.float32)
        assert embedding.shape == (model.dimensions,)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=2e-3), "one still: of length 1"
        (text,) = model.embed_texts([texts[row.clip_id]])
        found = columns[row.clip_id]
        assert found["similarity_red"] == pytest.approx(float(red @ embedding), abs=1e-6)
        assert found["text_similarity"] == pytest.approx(float(text @ embedding), abs=1e-6)


def test_later_prompts_and_texts_open_no_stills_again(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    run(dataset)
    before = scored(dataset)
    inline.recaption(str(lab.dataset), {"caption": {"captioner": "signal"}})
    dataset = asked(lab, clip, prompts=["watermark", "red=a red picture", "a blue picture"])
    outcome = run(dataset)
    assert outcome.embedded == 0
    assert outcome.scores == {"similarity_a_blue_picture": 6}
    spec = dataset.spec.overlaid({"caption": {"captioner": "signal"}})
    assert all(row["text_similarity"] is None for row in scored(dataset, spec).values())
    outcome = run(dataclasses.replace(dataset, spec=spec))
    assert outcome.embedded == 0
    assert outcome.scores == {"text_similarity": 6}
    now = scored(dataset, spec)
    assert {c: r["similarity_red"] for c, r in now.items()} == {
        c: r["similarity_red"] for c, r in before.items()
    }
    assert any(now[c]["text_similarity"] != before[c]["text_similarity"] for c in now)
    assert scored(dataset)[min(now)]["text_similarity"] == before[min(now)]["text_similarity"]


def test_a_prompt_that_is_worded_otherwise_is_another_score(lab: Lab, clip: str) -> None:
    run(asked(lab, clip))
    dataset = asked(lab, clip, prompts=["red=a scarlet picture"])
    assert all(row["similarity_red"] is None for row in scored(dataset).values())
    assert run(dataset).scores == {"similarity_red": 6}


def test_new_footage_is_scored_by_ingest(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    run(dataset)
    replace_spec(dataset, dataset.spec)
    lab.image("new", seed=77)
    lab.ingest()
    assert len(open_dataset(str(lab.dataset), Storage()).tables.rows(Embedding)) == 7


def test_a_selection_by_score_makes_a_build(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    run(dataset)
    values = sorted(row["similarity_red"] for row in scored(dataset).values())
    limit = (values[2] + values[3]) / 2
    where = f"similarity_red > {limit} AND text_similarity IS NOT NULL"
    assert check_where(connect(dataset.tables), dataset.spec, where) == 3
    given = {"score": dataset.spec.score.model_dump(), "select": {"where": where}}
    built = inline.rebuild(str(lab.dataset), given)
    assert (built.samples, built.frames_encoded) == (3, 0)
    kept = {s.clip_id for s in lab.live()}
    assert kept == {c for c, row in scored(dataset).items() if row["similarity_red"] > limit}
    # Another threshold of duplicates is no part of it; another prompt of that name is.
    same = inline.rebuild(str(lab.dataset), given)
    assert same.build == built.build
    assert same.samples == 0


def test_scores_that_nothing_is_selected_by_make_no_other_build(lab: Lab, clip: str) -> None:
    before = lab.current()
    given = {"score": asked(lab, clip).spec.score.model_dump()}
    assert inline.rebuild(str(lab.dataset), given).samples == 0
    assert lab.current().build_id == before.build_id


def test_a_score_that_is_not_there_is_refused_with_what_to_do(lab: Lab) -> None:
    opened = open_dataset(str(lab.dataset), Storage())
    with pytest.raises(UsageError, match=r"(?s)text_similarity.*telecine score DATASET --scorer"):
        check_where(connect(opened.tables), opened.spec, "text_similarity > 0.2")


def test_a_clip_without_a_score_is_not_taken(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    con = connect(dataset.tables)
    assert check_where(con, dataset.spec, "text_similarity > -2") == 0
    assert check_where(con, dataset.spec, "text_similarity IS NULL") == 6


def test_a_broken_still_costs_its_clip_alone(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip)
    con = connect(dataset.tables)
    spoilt = con.sql("FROM stills ORDER BY clip_id LIMIT 1").to_arrow_table().to_pylist()[0]
    _replace_still(lab, spoilt["clip_id"], b"\xff\xd8 no jpeg")
    outcome = run(asked(lab, clip))
    assert (outcome.embedded, outcome.failed) == (5, 1)
    (row,) = [r for r in asked(lab, clip).tables.rows(Embedding) if r.detail]
    assert (row.clip_id, row.embedding) == (spoilt["clip_id"], b"")
    assert scored(asked(lab, clip))[row.clip_id]["similarity_red"] is None
    assert run(asked(lab, clip)).failed == 0, "it is not tried at every run"
    assert run(asked(lab, clip), retry_rejected=True).failed == 1


def _replace_still(lab: Lab, clip_id: str, jpeg: bytes) -> None:
    folder = lab.dataset / "tables" / "stills"
    table = DeltaTable(str(folder)).to_pyarrow_table()
    rows = table.to_pylist()
    for row in rows:
        if row["clip_id"] == clip_id:
            row["jpeg"] = jpeg
    shutil.rmtree(folder)
    write_deltalake(str(folder), pa.Table.from_pylist(rows, schema=table.schema))


# ── a linear head ────────────────────────────────────────────────────────────────────────────────


def test_an_aesthetic_head_is_a_line_over_the_embedding(
    lab: Lab, clip: str, tmp_path: Path
) -> None:
    head = torch.nn.Linear(32, 1)
    torch.save(head.state_dict(), tmp_path / "head.pth")
    dataset = asked(lab, clip, prompts=[], aesthetic=tmp_path / "head.pth")
    assert run(dataset).scores == {"text_similarity": 6, "aesthetic_score": 6}
    columns = scored(dataset)
    for row in dataset.tables.rows(Embedding):
        embedding = torch.from_numpy(np.frombuffer(row.embedding, "<f2").astype(np.float32))
        expected = head(embedding).item()
        assert columns[row.clip_id]["aesthetic_score"] == pytest.approx(expected, abs=1e-5)


# ── near-duplicates ──────────────────────────────────────────────────────────────────────────────


def test_duplicates_are_grouped_and_the_largest_is_kept(lab: Lab, clip: str) -> None:
    dataset = asked(lab, clip, prompts=[], duplicates=True, threshold=0.99, keep="largest")
    outcome = run(dataset)
    assert outcome.grouping is not None
    assert (outcome.grouping.groups, outcome.grouping.duplicates) == (1, 1)
    columns = scored(dataset)
    (worse,) = [row for row in columns.values() if row["duplicate_rank"] == 1]
    better = columns[worse["duplicate_group"]]
    assert (better["width"], worse["width"]) == (180, 160)
    assert better["duplicate_rank"] == 0
    others = [
        r for r in columns.values() if r["clip_id"] not in (better["clip_id"], worse["clip_id"])
    ]
    assert all(r["duplicate_group"] == r["clip_id"] for r in others)
    assert check_where(connect(dataset.tables), dataset.spec, "duplicate_rank = 0") == 5
    again = run(asked(lab, clip, prompts=[], duplicates=True, threshold=0.99, keep="largest"))
    assert again.grouping == dataclasses.replace(outcome.grouping, changed=0)


def test_a_better_clip_takes_over_its_group(lab: Lab, clip: str) -> None:
    options = {"prompts": [], "duplicates": True, "threshold": 0.99, "keep": "largest"}
    first = asked(lab, clip, **options)
    run(first)
    lab.image("huge", seed=1, size=(480, 480))
    lab.ingest()
    dataset = asked(lab, clip, **options)
    outcome = run(dataset)
    assert outcome.grouping is not None
    assert outcome.grouping.duplicates == 2
    columns = scored(dataset)
    (kept,) = [row for row in columns.values() if row["width"] == 480]
    members = [r for r in columns.values() if r["duplicate_group"] == kept["clip_id"]]
    assert sorted(r["duplicate_rank"] for r in members) == [0, 1, 2]
    rows = dataset.tables.rows(Duplicate)
    assert {row.round for row in rows} == {0, 1}
    changed = [row for row in rows if row.round == 1 and not row.grouped]
    assert len(changed) == 3, "only what changed is written"


@pytest.mark.parametrize(
    "table", ["embeddings", pytest.param("scores", marks=pytest.mark.slow), "duplicates"]
)
def test_killed_anywhere_and_run_again(table: str, lab: Lab, clip: str) -> None:
    options = {"prompts": ["watermark"], "duplicates": True, "threshold": 0.99}
    spec = asked(lab, clip, **options).spec.score.model_dump()
    lab.killed(f"committed:{table}", "score", given=spec)
    dataset = asked(lab, clip, **options)
    run(dataset)
    now = asked(lab, clip, **options)
    embeddings, scores = now.tables.rows(Embedding), now.tables.rows(Score)
    assert len({e.clip_id for e in embeddings}) == len(embeddings) == 6
    assert len({(s.clip_id, s.name) for s in scores}) == len(scores) == 12
    again = run(now)
    assert (again.embedded, again.scores) == (0, {})
    assert again.grouping is not None
    assert (again.grouping.duplicates, again.grouping.changed) == (1, 0)


def test_a_clip_that_comes_back_is_grouped_again(tmp_path: Path, clip: str) -> None:
    lab = Lab(tmp_path)

    def duplicates() -> int:
        lab.ingest()
        dataset = asked(lab, clip, prompts=[], duplicates=True, threshold=0.99, keep="largest")
        grouping = run(dataset).grouping
        assert grouping is not None
        return grouping.duplicates

    lab.image("a", seed=1, size=(180, 180))
    lab.image("b", seed=1)
    assert duplicates() == 1
    kept = lab.footage / "a.png"
    data, facts = kept.read_bytes(), kept.stat()
    lab.image("a", seed=2, size=(180, 180))
    assert duplicates() == 0
    kept.write_bytes(data)
    os.utime(kept, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert duplicates() == 1


def test_a_prompt_that_nothing_is_selected_by_makes_no_other_build(lab: Lab, clip: str) -> None:
    where = {"where": "similarity_red > -2"}
    first = asked(lab, clip)
    run(first)
    built = inline.rebuild(
        str(lab.dataset), {"score": first.spec.score.model_dump(), "select": where}
    )
    second = asked(lab, clip, prompts=["watermark", "red=a red picture", "another"])
    run(second)
    given = {"score": second.spec.score.model_dump(), "select": where}
    assert inline.rebuild(str(lab.dataset), given).build == built.build
    assert "another" in open_dataset(str(lab.dataset), Storage()).spec.score.prompts


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────

tasks = st.lists(st.integers(0, 9), unique=True, max_size=8)


@settings(deadline=None)
@given(tasks, st.randoms(use_true_random=False), st.sets(st.integers(0, 9)))
def test_a_result_never_lands_on_another_clip(
    numbers: list[int], chance: Any, lost: set[int]
) -> None:
    wanted = {n: Wanted("similarity_x", f"input{n}", "") for n in range(10)}
    batch = [ScoreTask(f"clip{n}", f"stills{n}", (wanted[n],), ((0.0, b"j"),)) for n in numbers]
    results = [
        Scored(f"clip{n}", f"stills{n}", b"%d" % n, "", ((wanted[n], float(n)),))
        for n in range(10)
        if n not in lost
    ]
    results += [Scored(f"clip{n}", "other stills", b"x", "", ((wanted[n], -1.0),)) for n in numbers]
    chance.shuffle(results)
    scorer = load_scorer(ScoreSpec(scorer="openclip:ViT-B-32@x", weights="w"))
    embeddings, scores = accept(scorer, batch, results)
    assert [e.clip_id for e in embeddings] == [t.clip_id for t in batch]
    for number, row in zip(numbers, embeddings, strict=True):
        assert row.embedding == (b"" if number in lost else b"%d" % number)
        assert bool(row.detail) == (number in lost)
    assert [(s.clip_id, s.value) for s in scores] == [
        (f"clip{n}", float(n)) for n in numbers if n not in lost
    ]
