"""The caption step over real tables: what is pending, and what is in force."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from telecine.encoders.caption.interface import (
    Captioner,
    FirstOf,
)
from telecine.encoders.load import load_captioner
from telecine.infra import plugins
from telecine.infra.inline import InlineCluster
from telecine.infra.ray import RayCluster
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Caption, Source, Still
from telecine.manifests.specs import CaptionSpec, DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.caption.step import caption_clips, count_pending, pending
from telecine.pipeline.caption.worker import CaptionWorker, accept
from telecine.pipeline.catalog.captions import MAX_ATTEMPTS, create_chosen_captions
from telecine.pipeline.models import captioner_needs
from telecine.pipeline.run import Run
from telecine.pipeline.terminal.progress import ConsoleProgress
from tests.support.asking import Looker, write_sidecar
from tests.support.plugins import install_into
from tests.support.rows import make_clip, make_source

AUTO, SIDECAR, SIGNAL = (
    load_captioner(CaptionSpec(captioner=name)) for name in ("auto", "sidecar", "signal")
)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "dataset"))


def add_source(tables: Tables, name: str, clips: int = 1, **changes: Any) -> Source:
    """A source and its clips `name-0`, `name-1`, ..., each two seconds."""
    source = make_source(uri=f"/footage/{name}.mp4", source_id=name, num_clips=clips, **changes)
    tables.append(
        "clips",
        [
            make_clip(
                clip_id=f"{name}-{i}", source_id=name, stills_digest=f"stills of {name}-{i}",
                start_pts=source.start_pts + 50 * i, start_frame=50 * i, width=640 + i,
            )
            for i in range(clips)
        ],
    )  # fmt: skip
    tables.append("sources", [source])
    return source


def run(tables: Tables, captioner: Captioner = AUTO, **options: Any) -> list[Caption]:
    """One run of the step in this process."""
    worker = CaptionWorker(captioner, Storage())
    rows: list[Caption] = []
    for batch in pending(tables, captioner, **options):
        rows += accept(captioner, batch, worker(pickle.loads(pickle.dumps(batch))))
        tables.append("captions", rows[-len(batch) :])
    return rows


def asked(tables: Tables, captioner: Captioner = AUTO, **options: Any) -> set[str]:
    return {t.request.clip_id for batch in pending(tables, captioner, **options) for t in batch}


def chosen(tables: Tables, spec: str = "auto") -> dict[str, tuple[str, str]]:
    """clip_id → (captioner, text), after checking the columns that follow from others."""
    con = connect(tables)
    create_chosen_captions(con, DatasetSpec(caption=CaptionSpec(captioner=spec)))
    rows = con.sql(
        "SELECT clip_id, captioner, captioner_fingerprint, text, text_digest FROM chosen_captions"
    ).fetchall()
    speakers = {s.name: s.fingerprint for s in load_captioner(CaptionSpec(captioner=spec)).speakers}
    for _, captioner, speaker, text, digest in rows:
        assert speaker == speakers[captioner]
        assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert len({row[0] for row in rows}) == len(rows)
    return {clip_id: (captioner, text) for clip_id, captioner, _, text, _ in rows}


# ── what is pending ──────────────────────────────────────────────────────────────────────────────


def test_an_empty_dataset_has_nothing_pending_and_nothing_chosen(tables: Tables) -> None:
    assert list(pending(tables, AUTO)) == []
    assert list(pending(tables, Looker())) == []
    assert count_pending(tables, AUTO) == 0
    assert chosen(tables) == {}


def test_every_clip_once_and_a_second_run_does_nothing(tables: Tables) -> None:
    add_source(tables, "a", clips=3)
    add_source(tables, "b", clips=2)
    add_source(tables, "rejected", clips=1, status="rejected")
    assert count_pending(tables, AUTO) == 5
    rows = run(tables, batch_clips=2)
    assert sorted(r.clip_id for r in rows) == ["a-0", "a-1", "a-2", "b-0", "b-1"]
    assert count_pending(tables, AUTO) == 0
    assert run(tables) == []


def test_batches_have_the_size_asked_for(tables: Tables) -> None:
    add_source(tables, "a", clips=7)
    sizes = [len(batch) for batch in pending(tables, AUTO, batch_clips=3)]
    assert sizes == [3, 3, 1]


def test_a_run_sees_the_tables_as_they_were_when_it_began(tables: Tables) -> None:
    add_source(tables, "a", clips=4)
    batches = pending(tables, AUTO, batch_clips=1)
    next(batches)
    add_source(tables, "b")
    assert sum(len(batch) for batch in batches) == 3


def test_a_run_that_was_killed_goes_on_where_it_was(tables: Tables) -> None:
    add_source(tables, "a", clips=5)
    first = next(pending(tables, SIGNAL, batch_clips=2))
    worker = CaptionWorker(SIGNAL, Storage())
    tables.append("captions", accept(SIGNAL, first, worker(first)))
    rest = run(tables, SIGNAL)
    assert {t.request.clip_id for t in first}.isdisjoint(r.clip_id for r in rest)
    assert len(chosen(tables, "signal")) == 5


def test_spans_are_seconds_since_the_first_frame(tables: Tables) -> None:
    add_source(tables, "a", clips=2, start_pts=9_000_000_000)
    tasks = {t.request.clip_id: t.request for batch in pending(tables, AUTO) for t in batch}
    spans = {k: (r.start_seconds, r.end_seconds) for k, r in tasks.items()}
    assert spans == {"a-0": (0.0, 2.0), "a-1": (2.0, 4.0)}


def test_an_image_is_a_point_in_time(tables: Tables) -> None:
    tables.append("clips", [make_clip(clip_id="i", source_id="i", kind="image")])
    tables.append("sources", [make_source(source_id="i", kind="image")])
    ((task,),) = pending(tables, AUTO)
    assert (task.request.start_seconds, task.request.end_seconds) == (0.0, 0.0)
    assert task.request.facts.kind == "image"


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────


def input_digests(
    tables: Tables, captioner: Captioner, variants: dict[str, tuple[dict[str, Any], dict[str, Any]]]
) -> dict[str, str]:
    """The digest under each name, of a clip that differs in the source's and clip's columns."""
    tables.append(
        "clips",
        [make_clip(clip_id=n, source_id=n, **clip) for n, (_, clip) in variants.items()],
    )
    tables.append(
        "sources",
        [make_source(uri=n, source_id=n, **source) for n, (source, _) in variants.items()],
    )
    tasks = [task for batch in pending(tables, captioner) for task in batch]
    return {task.request.clip_id: task.request.input_digest for task in tasks}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "revision": ({"revision": 3, "detail": "x"}, {}),
    "stills": ({}, {"stills_digest": "other"}),
    "measure": ({}, {"camera_x": 1e-9}),
    "colors": ({}, {"dominant_colors": ("grey", "red")}),
    "unused measure": ({}, {"sharpness": 0.7}),
    "sidecar": ({"sidecar_uri": "/a.txt", "sidecar_version": "1"}, {}),
}


@pytest.mark.parametrize(
    ("captioner", "changed"),
    [
        (AUTO, {"stills", "measure", "colors", "sidecar"}),
        (SIGNAL, {"stills", "measure", "colors"}),
        (SIDECAR, {"stills", "sidecar"}),
        (Looker(), {"stills"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_input_is_another_when_what_is_used_is_another(
    tables: Tables, captioner: Captioner, changed: set[str]
) -> None:
    digests = input_digests(tables, captioner, CHANGES)
    assert digests.keys() == CHANGES.keys()
    assert {name for name in CHANGES if digests[name] != digests["nothing"]} == changed


def test_another_version_or_name_of_the_sidecar_is_another_input(tables: Tables) -> None:
    named = [("/a.txt", "1"), ("/a.txt", "2"), ("/a.json", "1"), ('/a.txt","1', "")]
    variants: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        str(i): ({"sidecar_uri": uri, "sidecar_version": version}, {})
        for i, (uri, version) in enumerate(named)
    }
    assert len(set(input_digests(tables, SIDECAR, variants).values())) == len(named)


def test_without_a_sidecar_auto_and_signal_share_their_captions(tables: Tables) -> None:
    add_source(tables, "a", clips=2)
    run(tables, SIGNAL)
    assert asked(tables, AUTO) == set()
    assert chosen(tables, "auto") == chosen(tables, "signal")


def test_captioners_stand_side_by_side(tables: Tables, tmp_path: Path) -> None:
    add_source(tables, "a", **write_sidecar(tmp_path / "footage", "a.txt", b"a dog"))
    run(tables, SIGNAL)
    assert asked(tables, AUTO) == {"a-0"}, "the sidecar has not spoken yet"
    assert chosen(tables, "auto") == {}
    run(tables, AUTO)
    assert chosen(tables, "auto") == {"a-0": ("sidecar", "a dog")}
    assert chosen(tables, "signal")["a-0"][0] == "signal"
    assert asked(tables, SIGNAL) == set()


# ── sidecars come, change and go ─────────────────────────────────────────────────────────────────


def test_the_caption_in_force_follows_the_sidecar(tables: Tables, tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    source = add_source(tables, "a")
    run(tables)
    measured = chosen(tables)["a-0"]
    assert measured[0] == "signal"

    def now(**sidecar: Any) -> dict[str, tuple[str, str]]:
        nonlocal source
        columns = {"sidecar_uri": "", "sidecar_version": "", **sidecar}
        source = dataclasses.replace(source, revision=source.revision + 1, **columns)
        tables.append("sources", [source])
        run(tables)
        assert asked(tables) == set()
        return chosen(tables)

    first = write_sidecar(folder, "a.txt", b"a dog")
    assert now(**first) == {"a-0": ("sidecar", "a dog")}
    assert now(**write_sidecar(folder, "a.txt", b"a cat instead")) == {
        "a-0": ("sidecar", "a cat instead")
    }
    assert now() == {"a-0": measured}, "removed"
    assert now(**write_sidecar(folder, "a.json", b"{broken")) == {"a-0": measured}
    assert now(**write_sidecar(folder, "a.json", b'{"text": "mended"}')) == {
        "a-0": ("sidecar", "mended")
    }
    assert now(**first) == {"a-0": ("sidecar", "a dog")}, "an old version is known still"


def test_nothing_is_in_force_between_a_change_and_the_next_run(
    tables: Tables, tmp_path: Path
) -> None:
    add_source(tables, "a", **write_sidecar(tmp_path / "footage", "a.txt", b"a dog"))
    run(tables)
    changed = write_sidecar(tmp_path / "footage", "a.txt", b"a cat instead")
    tables.append(
        "sources", [make_source(uri="/footage/a.mp4", source_id="a", revision=1, **changed)]
    )
    assert chosen(tables) == {}
    assert asked(tables) == {"a-0"}


def test_each_clip_gets_its_own_lines(tables: Tables, tmp_path: Path) -> None:
    srt = b"00:00:00,500 --> 00:00:01,500\none\n\n00:00:05,000 --> 00:00:05,500\nthree\n"
    add_source(
        tables, "a", clips=3, start_pts=700, **write_sidecar(tmp_path / "footage", "a.srt", srt)
    )
    run(tables)
    captions = chosen(tables)
    assert captions["a-0"] == ("sidecar", "one")
    assert captions["a-1"][0] == "signal"
    assert captions["a-2"] == ("sidecar", "three")
    run(tables, SIDECAR)
    assert chosen(tables, "sidecar")["a-1"] == ("sidecar", "")
    assert asked(tables, SIDECAR) == set()


def test_a_broken_sidecar_leaves_its_reason_in_the_row(tables: Tables, tmp_path: Path) -> None:
    add_source(tables, "a", **write_sidecar(tmp_path / "footage", "a.json", b"{"))
    (row,) = run(tables)
    assert (row.captioner, row.outcome) == ("signal", "ok")
    assert "sidecar failed: a.json is malformed JSON" in row.detail


def test_a_replaced_sidecar_is_not_read_as_the_one_discovered(
    tables: Tables, tmp_path: Path
) -> None:
    columns = write_sidecar(tmp_path / "footage", "a.txt", b"a dog")
    (tmp_path / "footage" / "a.txt").write_bytes(b"another thing altogether")
    add_source(tables, "a", **columns)
    (row,) = run(tables)
    assert (row.captioner, row.outcome, row.text) == ("sidecar", "failed", "")
    assert "was replaced since it was discovered" in row.detail
    assert chosen(tables) == {}


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


def test_a_failure_is_asked_again_in_later_runs_but_not_for_ever(
    tables: Tables, tmp_path: Path
) -> None:
    columns = write_sidecar(tmp_path / "footage", "a.txt", b"a dog")
    (tmp_path / "footage" / "a.txt").unlink()
    add_source(tables, "a", **columns)
    for _ in range(MAX_ATTEMPTS):
        assert [row.outcome for row in run(tables)] == ["failed"]
        assert chosen(tables) == {}
    assert run(tables) == []
    assert asked(tables, retry_failed=True) == {"a-0"}
    assert count_pending(tables, AUTO, retry_failed=True) == 1


def test_a_store_that_comes_back_ends_the_failure(tables: Tables, tmp_path: Path) -> None:
    columns = write_sidecar(tmp_path / "footage", "a.txt", b"a dog")
    path = tmp_path / "footage" / "a.txt"
    path.rename(tmp_path / "away")
    add_source(tables, "a", **columns)
    run(tables)
    (tmp_path / "away").rename(path)
    run(tables)
    assert chosen(tables) == {"a-0": ("sidecar", "a dog")}
    assert run(tables, retry_failed=True) == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_text_beats_failures_and_doubles_whatever_their_order(tables: Tables, order: int) -> None:
    add_source(tables, "a")
    ((task,),) = pending(tables, SIGNAL)
    (good,) = accept(SIGNAL, [task], CaptionWorker(SIGNAL, Storage())([task]))
    (bad,) = accept(SIGNAL, [task], [])
    foreign = dataclasses.replace(good, captioner_fingerprint="other", text="foreign")
    stale = dataclasses.replace(good, input_digest="other", text="stale")
    for row in [bad, good, good, bad, bad, foreign, stale][::order]:
        tables.append("captions", [row])
    assert chosen(tables) == {"a-0": ("signal", good.text)}
    assert asked(tables, retry_failed=True) == set()


def test_a_captioner_of_captioners_is_chosen_from_in_order(tables: Tables, tmp_path: Path) -> None:
    add_source(tables, "a", clips=2, **write_sidecar(tmp_path / "footage", "a.srt", b"broken"))
    both = FirstOf("both", [SIDECAR, SIGNAL])
    assert {row.captioner for row in run(tables, both)} == {"signal"}
    assert asked(tables, both) == set()


# A plug-in's captioner that dies of one clip: `killer:CLIP_ID`.
KILLER = """
import os, signal
from telecine.encoders.kinds import CaptionerKind, RunsOn
from tests.support.asking import Looker

class Killer(Looker):
    def caption(self, requests):
        if any(r.clip_id == self.raises_on for r in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().caption(requests)

def make(spec, runtime):
    return Killer(spec.captioner.partition(":")[2])

OFFER = CaptionerKind(rests=("CLIP_ID",), make=make, runs_on=RunsOn.CPU)
"""


def test_a_clip_that_kills_its_worker_costs_itself_alone(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)  # in Ray's workers too
    install_into(tmp_path)("killer", "1.0", "killer", KILLER, {plugins.CAPTIONERS: "killer"})
    for number in range(4):
        tables.append("stills", stills(f"a-{number}", 3))
    add_source(tables, "a", clips=4)
    spec = DatasetSpec(caption=CaptionSpec(captioner="killer:a-1"))
    with RayCluster(workers=1) as cluster:
        run = Run(Dataset(tables.uri, Storage(), spec, tables), cluster)
        said = caption_clips(run, captioner_needs)
    assert said.outcomes == {"ok": 3, "failed": 1}


# ── stills ───────────────────────────────────────────────────────────────────────────────────────


def stills(clip_id: str, count: int) -> list[Still]:
    return [
        Still(clip_id=clip_id, source_id="a", position=i, pts=25 * i, seconds=float(i),
              width=8, height=8, jpeg=b"j" * (i + 1))
        for i in range(count)
    ]  # fmt: skip


def test_stills_come_with_their_clip_in_order_of_time(tables: Tables) -> None:
    for number in range(3):  # three files
        tables.append("stills", stills(f"a-{number}", 3)[::-1])
    add_source(tables, "a", clips=3)
    run(tables, Looker(), batch_clips=2)
    rows = tables.rows(Caption)
    assert {row.clip_id: row.text for row in rows} == {f"a-{i}": "0s:1 1s:2 2s:3" for i in range(3)}
    assert asked(tables, Looker()) == set()


def test_stills_in_two_files_come_together(tables: Tables) -> None:
    tables.append("stills", stills("a-0", 3)[:2])
    tables.append("stills", stills("a-0", 3)[2:] + stills("another's", 3))
    add_source(tables, "a")
    ((task,),) = pending(tables, Looker())
    assert [seconds for seconds, _ in task.request.stills] == [0.0, 1.0, 2.0]


def test_a_clip_whose_stills_are_missing_fails_and_says_so(tables: Tables) -> None:
    tables.append("stills", stills("a-0", 3) + stills("a-1", 2))
    add_source(tables, "a", clips=3)
    rows = {row.clip_id: row for row in run(tables, Looker())}
    assert {clip_id: row.outcome for clip_id, row in rows.items()} == {
        "a-0": "ok", "a-1": "failed", "a-2": "failed",
    }  # fmt: skip
    assert rows["a-1"].detail == "its stills are not all in the table"


def test_captioners_without_eyes_are_sent_no_stills(tables: Tables) -> None:
    tables.append("stills", stills("a-0", 3))
    add_source(tables, "a")
    ((task,),) = pending(tables, AUTO)
    assert task.request.stills == ()


# ── the whole step, with worker processes ────────────────────────────────────────────────────────


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    uri = str(tmp_path / "dataset")
    return Dataset(uri, Storage(), DatasetSpec(), Tables(uri))


def test_the_step_captions_what_is_pending_and_then_does_not_start_ray(
    dataset: Dataset, tmp_path: Path
) -> None:
    columns = write_sidecar(tmp_path / "footage", "a.txt", b"a dog")
    add_source(dataset.tables, "a", clips=2, **columns)
    add_source(dataset.tables, "b", clips=2)
    out = io.StringIO()
    run = Run(dataset, InlineCluster(), progress=ConsoleProgress(Console(file=out)))
    said = caption_clips(run, captioner_needs)
    assert (said.captioner, said.outcomes) == ("auto", {"ok": 4})
    assert "caption  4/4 clips" in out.getvalue()
    captions = chosen(dataset.tables)
    assert captions["a-0"] == captions["a-1"] == ("sidecar", "a dog")
    assert {captions["b-0"][0], captions["b-1"][0]} == {"signal"}
    version = dataset.tables.version("captions")
    # No Ray answers there: with nothing to do it is never asked.
    with RayCluster("127.0.0.1:1") as cluster:
        said = caption_clips(Run(dataset, cluster), captioner_needs)
    assert (said.outcomes, said.clips, said.with_text) == ({}, 4, 4)
    assert dataset.tables.version("captions") == version
