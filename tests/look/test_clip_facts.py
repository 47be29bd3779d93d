"""Everything about one clip: as the tables have it, told apart from what it was before."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from deltalake import DeltaTable
from rich.console import Console

from telecine.encoders.load import load_captioner, load_scorer
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, open_dataset
from telecine.manifests.queries import connect, find_clip
from telecine.manifests.schemas import Caption, CaptionWindow, Clip, Duplicate, Embedding, Score
from telecine.manifests.specs import CaptionMixSpec, CaptionSpec, DatasetSpec, ScoreSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.catalog.scores import grouping, score_inputs
from telecine.pipeline.cli.clip import (
    MEASURED,
    ClipReport,
    as_values,
    clip_report,
    inspect_clip,
    print_clip,
)
from tests.support import inline
from tests.support.lab import Lab
from tests.support.movies import picture, write_movie
from tests.support.rows import make_clip

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@dataclasses.dataclass(frozen=True)
class Made:
    lab: Lab
    replaced: str  # clip_id of the footage that was 1.png at first
    first: str  # name of the first build


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A film of three seconds; four images, one with a caption file, one smaller than any rung.

    Then an image is replaced, another text told, a third one comes; and two more builds are made.
    """
    lab = Lab(tmp_path_factory.mktemp("lab"))
    write_movie(lab.footage / "film.mp4", [picture(frame) for frame in range(75)])
    for number in range(3):
        lab.image(f"{number}", seed=number)
    lab.image("small", seed=9, size=(100, 90))
    lab.text("0", "A square of squares.")
    lab.ingest()
    replaced, first = clip_of(lab, "1.png"), lab.current().name
    lab.image("1", seed=100)
    lab.text("0", "Another text.")
    lab.image(ODD, seed=50)
    lab.ingest()
    lab.rebuild({"select": {"where": "true"}}, name="second")
    lab.rebuild({"select": {"where": "kind = 'video'"}}, name="third", promote=False)
    return Made(lab, replaced, first)


ODD = "odd [bold]\x1bname"


@pytest.fixture
def lab(made: Made) -> Lab:
    """To be read."""
    return made.lab


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Lab:
    """To append rows to."""
    shutil.copytree(made.lab.dataset, tmp_path / "dataset")
    return Lab(tmp_path)


def dataset_of(lab: Lab, **spec: Any) -> Dataset:
    opened = open_dataset(str(lab.dataset), Storage())
    return dataclasses.replace(opened, spec=opened.spec.model_copy(update=spec))


def clip_of(lab: Lab, name: str) -> str:
    rows = lab.connect().sql(
        "SELECT clip_id FROM current_clips JOIN current_sources USING (source_id) "
        "WHERE ends_with(uri, ?)",
        params=[name],
    )
    ((clip_id,),) = rows.fetchall()
    return str(clip_id)


def report(dataset: Dataset, clip_id: str) -> ClipReport:
    return clip_report(dataset, clip_id)


def shown(found: ClipReport) -> str:
    out = io.StringIO()
    print_clip(found, Console(file=out, width=150), False)
    return out.getvalue()


def as_json(dataset: Dataset, clip_id: str) -> dict[str, Any]:
    out = io.StringIO()
    inspect_clip(dataset, clip_id, True, Console(file=out, width=40), True)
    return dict(json.loads(out.getvalue()))


# ── which clip ───────────────────────────────────────────────────────────────────────────────────


def test_the_beginning_of_an_id_is_enough_where_no_other_begins_so(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    tables.append("clips", [make_clip(clip_id=c * 8) for c in ("ab", "ac", "b1")])
    con = connect(tables)
    assert find_clip(con, "b") == find_clip(con, "b1b1b1b1b1b1b1b1") == "b1" * 8
    assert find_clip(con, "ab") == "ab" * 8
    with pytest.raises(UsageError, match=f"several clips begin with 'a' .{'ab' * 8}, {'ac' * 8}."):
        find_clip(con, "a")
    with pytest.raises(UsageError, match=f"begins with 'ad'; near it are .*{'ac' * 8}, {'b1' * 8}"):
        find_clip(con, "ad")
    with pytest.raises(UsageError, match="near it are"):
        find_clip(con, "")


def test_an_empty_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no clip yet"):
        find_clip(connect(Tables(str(tmp_path))), "a")


# ── what is told ─────────────────────────────────────────────────────────────────────────────────


def test_the_numbers_are_those_of_the_tables(lab: Lab) -> None:
    """Read by DuckDB and deltalake, without a line of our own."""
    clip_id = clip_of(lab, "film.mp4")
    found = as_json(dataset_of(lab), clip_id[:12])
    tables = {
        name: DeltaTable(lab.dataset / "tables" / name).to_pyarrow_dataset()
        for name in ("clips", "sources", "samples", "stills", "captions")
    }
    con = duckdb.connect()
    for name, table in tables.items():
        con.register(name, table)

    def row(query: str) -> dict[str, Any]:
        (one,) = con.sql(query).to_arrow_table().to_pylist()
        return dict(one)

    clip = row(f"FROM clips WHERE clip_id = '{clip_id}'")
    assert {m["name"]: m["value"] for m in found["measurements"]} == {n: clip[n] for n in MEASURED}
    texts = {f.name: f.metadata["text"] for f in dataclasses.fields(Clip)}
    assert all(m["text"] == texts[m["name"]] for m in found["measurements"])
    told = {n for n in clip if n in found or n in found["span"] or n in MEASURED}
    assert {*clip} - told == {"source_id", "scan_fingerprint", "num_stills", "stills_digest"}
    assert all(found["span"][name] == clip[name] for name in found["span"] if name in clip)
    source = row(f"FROM sources WHERE source_id = '{clip['source_id']}'")
    assert found["source"].items() >= {**source, "dropped": []}.items()
    assert found["superseded"] is False
    build_id = lab.current().build_id
    sample = row(f"FROM samples WHERE clip_id = '{clip_id}' AND build_id = '{build_id}'")
    (placed,) = [placed for placed in found["samples"] if placed["current"]]
    assert placed == {"build": "second", "current": True, **sample}
    stills = con.sql(
        "SELECT position, seconds, width, height, octet_length(jpeg) AS jpeg_bytes FROM stills "
        f"WHERE clip_id = '{clip_id}' ORDER BY position"
    )
    assert found["stills"] == stills.to_arrow_table().to_pylist()
    assert len(found["stills"]) == clip["num_stills"] == 3
    (caption,) = found["captions"]
    assert caption["text"] == row(f"SELECT text FROM captions WHERE clip_id='{clip_id}'")["text"]


def test_a_samples_place_is_where_its_latents_lie(lab: Lab) -> None:
    found = as_json(dataset_of(lab), clip_of(lab, "film.mp4"))
    assert len(found["samples"]) == 3
    for placed in found["samples"]:
        tar = (lab.dataset / placed["shard_path"]).read_bytes()
        member = io.BytesIO(tar[placed["latent_offset"] :][: placed["latent_bytes"]])
        assert list(np.load(member).shape) == placed["latent_shape"]


def test_on_a_terminal(lab: Lab) -> None:
    clip_id = clip_of(lab, "film.mp4")
    text = shown(report(dataset_of(lab), clip_id))
    assert text.startswith(f"clip {clip_id}\n")
    assert re.search(r"source +\S+/footage/film\.mp4\b", text)
    assert re.search(r"version +\S+, revision 0, in force", text)
    assert re.search(r"content +\S*mp4\S* h264 yuv420p, 240×180 px, [\d.]+ kB, scanned", text)
    assert re.search(r"span +0\.000 s to 3\.000 s, 3\.000 s at 25 fps", text)
    assert re.search(r"frames +0 to 75, 75 of shot 0", text)
    assert re.search(r"camera_x +-?[\d.e-]+ +median drift .*, widths per second", text)
    assert re.search(r"signal [0-9a-f]{8} +ok, in force, taken by the mix", text)
    assert re.search(r"bucket\n144/4x3/2s\n", text)
    assert "build second (current)" in text
    assert re.search(r"latent +16×\d+×\d+×\d+ in [\d,]+ bytes from byte 512", text)
    assert "▀" not in text
    assert "\x1b" not in text


def test_stills_are_drawn_on_a_terminal_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    dataset, clip_id = dataset_of(lab), clip_of(lab, "film.mp4")

    def drawn(stills: bool = True) -> str:
        out = io.StringIO()
        screen = Console(file=out, width=100, force_terminal=True, color_system="truecolor")
        inspect_clip(dataset, clip_id, False, screen, stills)
        return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())

    text = drawn()
    assert "▀" in text
    assert "\n3 stills\n" in text
    assert re.search(r"0\.\d\d s +1\.\d\d s +2\.\d\d s", text)
    assert "▀" not in drawn(stills=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "▀" not in drawn()


def test_a_clip_that_was_dropped(lab: Lab) -> None:
    found = report(dataset_of(lab), clip_of(lab, "small.png"))
    assert found.known.bucket is None
    assert found.known.no_bucket == "its short side of 90 px is below the smallest rung, 144 px"
    assert found.known.now is not None
    text = shown(found)
    assert re.search(r"dropped +no_bucket: 100×90, 0\.000 s", text)
    assert "none: its short side" in text


def test_a_clip_of_footage_that_was_replaced(made: Made) -> None:
    dataset = dataset_of(made.lab)
    found = report(dataset, made.replaced)
    assert found.known.superseded
    assert found.known.source is not None
    assert found.known.in_force is not None
    assert (found.known.source.revision, found.known.in_force.revision) == (0, 1)
    assert found.known.placed == ()
    text = shown(found)
    assert "revision 0, superseded: revision 1 is in force, scanned" in text
    assert "none: the clip is not current" in text
    assert re.search(r"builds\nnone has this clip\n", text)
    assert not report(dataset, clip_of(made.lab, "1.png")).known.superseded


# ── captions ─────────────────────────────────────────────────────────────────────────────────────


def words(found: ClipReport) -> list[tuple[str, str, bool, bool, bool, bool]]:
    return [
        (s.caption.captioner, s.caption.outcome, s.asked, s.present, s.in_force, s.chosen)
        for s in found.known.captions
    ]


def test_captions_of_every_captioner_and_which_is_in_force(copy: Lab) -> None:
    told, silent = clip_of(copy, "0.png"), clip_of(copy, "2.png")
    inline.recaption(str(copy.dataset), {"caption": {"captioner": "signal"}})
    dataset = dataset_of(copy)  # auto is in force: the caption file, else the measurements
    before = ("sidecar", "ok", True, False, False, False)  # another text in the same file
    found = report(dataset, told)
    assert words(found) == [
        ("sidecar", "ok", True, True, True, True),
        before,
        # auto has a second speaker, whom nobody asked about this clip's file
        ("signal", "ok", True, False, False, False),
    ]
    (one,) = report(dataset, silent).known.captions
    assert (one.caption.captioner, one.in_force, one.chosen) == ("signal", True, True)
    text = shown(found)
    assert re.search(r"sidecar [0-9a-f]{8} +ok, in force, taken by the mix\n +Another text", text)
    assert re.search(r"ok, of what the clip was before\s*\n +A square of squares", text)
    other = report(dataset_of(copy, caption=CaptionSpec(captioner="signal")), told)
    assert [row[:3] for row in words(other)] == [
        ("signal", "ok", True), ("sidecar", "ok", False), ("sidecar", "ok", False),
    ]  # fmt: skip
    assert "of another captioner" in shown(other)


def test_the_mix_may_take_the_second_ones_text(copy: Lab) -> None:
    for captioner in ("sidecar", "signal"):
        inline.recaption(str(copy.dataset), {"caption": {"captioner": captioner}})
    second = CaptionMixSpec(second=CaptionSpec(captioner="sidecar"), second_share=1.0)
    dataset = dataset_of(copy, caption=CaptionSpec(captioner="signal"), caption_mix=second)
    found = report(dataset, clip_of(copy, "0.png"))
    assert words(found)[:2] == [
        ("sidecar", "ok", True, True, True, True),
        ("signal", "ok", True, True, True, False),
    ]
    assert found.known.chosen is not None
    assert found.known.chosen.text == "Another text."
    silent = report(dataset, clip_of(copy, "2.png"))
    assert silent.known.chosen is not None
    assert silent.known.chosen.captioner == "signal"  # the second one had nothing to say


def test_a_mix_may_leave_a_clip_without_a_text(lab: Lab) -> None:
    dataset = dataset_of(lab, caption_mix=CaptionMixSpec(none_share=1.0))
    assert "the mix leaves this clip without one" in shown(report(dataset, clip_of(lab, "0.png")))


def test_other_peoples_text_is_shown_harmless(copy: Lab) -> None:
    clip_id = clip_of(copy, "2.png")
    (row,) = [s.caption for s in report(dataset_of(copy), clip_id).known.captions]
    hostile = dataclasses.replace(
        row,
        captioner_fingerprint="f" * 64,
        text="[red]\x1b]0;owned\x07 a\nb",
        detail="\x1b[2J",
        windows=(CaptionWindow(start_seconds=0.0, end_seconds=1.0, text="\x9b31m"),),
    )
    dataset_of(copy).tables.append("captions", [hostile])
    dataset = dataset_of(copy)
    text = shown(report(dataset, clip_id)) + shown(report(dataset, clip_of(copy, f"{ODD}.png")))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\x9b" not in text
    assert r"[red]\x1b]0;owned\x07 a\nb (\x1b[2J)" in text
    assert r"odd [bold]\x1bname.png" in text
    assert "0 s to 1 s: " in text


# ── scores ───────────────────────────────────────────────────────────────────────────────────────

SCORE = ScoreSpec(
    scorer="openclip:tiny@weights.pt",
    weights="0" * 64,
    prompts={"red": "a red picture"},
    duplicate_threshold=0.9,
)


def score(lab: Lab, clip_ids: list[str]) -> Dataset:
    """Rows as the scorer would leave them, of the first clips; the last one's embedding failed."""
    dataset = dataset_of(lab, score=SCORE)
    scorer = load_scorer(SCORE).fingerprint
    con = connect(dataset.tables)
    digests = dict(
        con.sql(
            f"SELECT clip_id, input_digest FROM ({score_inputs(dataset.spec, 'similarity_red')})"
        ).fetchall()
    )
    scores = [
        Score(
            clip_id=c, name="similarity_red", scorer_fingerprint=scorer, input_digest=digests[c],
            value=0.25,
        )
        for c in clip_ids[:-1]
    ]  # fmt: skip
    stills = dict(con.sql("SELECT clip_id, stills_digest FROM current_clips").fetchall())
    failed = Embedding(
        clip_id=clip_ids[-1], scorer="openclip", scorer_fingerprint=scorer,
        stills_digest=stills[clip_ids[-1]], embedding=b"", detail="its stills cannot be read",
    )  # fmt: skip
    groups = [
        Duplicate(
            clip_id=c, grouping=grouping(SCORE), round=round_, duplicate_group=clip_ids[0],
            duplicate_rank=rank,
        )
        for round_, ranks in ((0, (0, 2, 1)), (1, (0, 1)))
        for c, rank in zip(clip_ids, ranks, strict=False)
    ]  # fmt: skip
    dataset.tables.append("scores", scores)
    dataset.tables.append("embeddings", [failed])
    dataset.tables.append("duplicates", groups)
    return dataset_of(lab, score=SCORE)


def test_scores_and_duplicates(copy: Lab) -> None:
    ids = [clip_of(copy, f"{n}.png") for n in range(3)]
    dataset = score(copy, ids)
    found = report(dataset, ids[1])
    assert dict(found.known.scores) == {
        "text_similarity": None, "similarity_red": 0.25, "duplicate_rank": 1,
        "duplicate_group": ids[0],
    }  # fmt: skip
    assert found.group is not None
    assert found.group.clips == 3
    assert found.group.members[0] == (ids[0], 0)
    assert sorted(found.group.members[1:]) == sorted([(ids[1], 1), (ids[2], 1)])  # the last round
    text = shown(found)
    assert re.search(r"similarity_red +0\.25\s*\n", text)
    assert re.search(r"text_similarity +none\s*\n", text)
    assert f"1  {ids[1]} (this clip)" in text
    failed = report(dataset, ids[2])
    assert failed.known.unembedded == "its stills cannot be read"
    assert "no embedding: its stills cannot be read" in shown(failed)
    assert as_values(found)["duplicates"]["clips"] == 3
    alone = report(dataset, clip_of(copy, "film.mp4"))
    assert alone.group is None
    assert alone.known.scores["duplicate_rank"] is None


def test_without_a_scorer_there_are_none(lab: Lab) -> None:
    found = report(dataset_of(lab), clip_of(lab, "0.png"))
    assert (dict(found.known.scores), found.known.unembedded, found.group) == ({}, "", None)


# ── in every build ───────────────────────────────────────────────────────────────────────────────


def test_a_sample_of_every_build(made: Made) -> None:
    dataset, clip_id = dataset_of(made.lab), clip_of(made.lab, "2.png")
    found = report(dataset, clip_id)
    assert [(p.build, p.current) for p in found.known.placed] == [
        (made.first, False), ("second", True),
    ]  # fmt: skip
    placed = found.known.placed[1].sample
    assert placed.copied_from == found.known.placed[0].sample.shard_path
    film = report(dataset, clip_of(made.lab, "film.mp4")).known.placed
    assert [p.build for p in film] == [made.first, "second", "third"]
    text = shown(found)
    assert re.search(rf"build second \(current\)\nshard +{re.escape(placed.shard_path)}", text)
    assert re.search(rf"copied +from {re.escape(placed.copied_from)}", text)


def test_a_clip_of_a_scan_that_was_never_committed(copy: Lab) -> None:
    dataset_of(copy).tables.append("clips", [make_clip(clip_id="0" * 32, source_id="nobody")])
    found = report(dataset_of(copy), "0" * 32)
    assert found.known.source is None
    assert found.known.superseded
    assert "of a scan that was never committed" in shown(found)


def test_failed_attempts_are_counted_and_told_once(copy: Lab) -> None:
    clip_id = clip_of(copy, "2.png")
    dataset = dataset_of(copy)
    (said,) = report(dataset, clip_id).known.captions
    spoken = load_captioner(dataset.spec.caption).speakers[-1]
    dataset.tables.append(
        "captions",
        [
            Caption(
                clip_id=clip_id, captioner=spoken.name, captioner_fingerprint=spoken.fingerprint,
                input_digest=said.caption.input_digest, outcome="failed", text="", detail=detail,
            )
            for detail in ("slow", "down", "slow")
        ],
    )  # fmt: skip
    known = report(dataset_of(copy), clip_id).known
    assert (known.attempts.failed, known.attempts.details) == (3, ("down", "slow"))
    assert [s.in_force for s in known.captions] == [True, False, False, False]


def test_on_disk_and_in_a_store_alike(tmp_path: Path, root: str) -> None:
    lab = Lab(tmp_path)
    lab.image("a", seed=1)
    inline.ingest(str(lab.footage), root)
    dataset = open_dataset(root, Storage())
    ((clip_id,),) = connect(dataset.tables).sql("SELECT clip_id FROM clips").fetchall()
    found = as_json(dataset, clip_id[:8])
    assert found["source"]["uri"] == str(lab.footage / "a.png")
    assert [s["current"] for s in found["samples"]] == [True]
    assert len(found["stills"]) == 1
    assert dataset.spec == DatasetSpec()
