"""inspect: numbers that add up, listings, and other people's text kept harmless."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from telecine.infra.errors import Reason, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import TABLES, DroppedSpan, Row
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import Tables
from telecine.pipeline.cli.inspect import inspect_summary, inspect_table
from telecine.pipeline.look.listing import LISTED
from telecine.pipeline.look.summary import Summary, summary
from tests.support.rows import (
    make_build,
    make_caption,
    make_clip,
    make_sample,
    make_source,
    make_still,
)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def dataset_of(tables: Tables) -> Dataset:
    return Dataset(tables.uri, Storage(), DatasetSpec(), tables)


def shown(tables: Tables, width: int = 120) -> str:
    out = io.StringIO()
    inspect_summary(dataset_of(tables), False, Console(file=out, width=width))
    return out.getvalue()


def listed(
    tables: Tables,
    name: str,
    where: str | None = None,
    columns: str | None = None,
    limit: int = 20,
    width: int = 160,
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    inspect_table(dataset_of(tables), name, where, columns, limit, False, console)
    return out.getvalue()


def as_json(tables: Tables, name: str, **choice: Any) -> list[dict[str, Any]]:
    out = io.StringIO()
    given = {"where": None, "columns": None, "limit": 20, **choice}
    inspect_table(dataset_of(tables), name, **given, as_json=True, console=Console(file=out))
    rows: list[dict[str, Any]] = json.loads(out.getvalue())
    return rows


def span(start: int, frames: int, reason: Reason) -> DroppedSpan:
    end = start + frames
    return DroppedSpan(
        start_frame=start, num_frames=frames, start_pts=start, end_pts=end, reason=reason
    )


def fill(tables: Tables) -> None:
    """Two scanned sources, one rejected, one replaced; a build with one clip kept, one dropped."""
    rows: dict[str, Sequence[Row]] = {
        "stills": [make_still(clip_id=c, position=p) for c in "ab" for p in range(3)],
        "clips": [
            make_clip(clip_id="a", source_id="1"),
            make_clip(clip_id="b", source_id="1", start_frame=60),
            make_clip(clip_id="i", source_id="2", kind="image"),
            make_clip(clip_id="gone", source_id="0"),
        ],
        "sources": [
            make_source(
                uri="/1", source_id="1", size_bytes=2_000_000, num_clips=2, num_frames=120,
                frames_kept=100, frames_dropped=20, duration_seconds=4.8,
                dropped=(span(50, 10, Reason.BLACK), span(110, 10, Reason.TOO_SHORT)),
            ),
            make_source(uri="/2", source_id="0"),
            make_source(
                uri="/2", source_id="2", revision=1, kind="image", num_frames=1, frames_kept=1
            ),
            make_source(
                uri="/3", source_id="3", kind="", status="rejected", reason="corrupt",
                num_frames=0, frames_kept=0, num_clips=0,
            ),
        ],
        "captions": [make_caption(clip_id=c) for c in "abi"],
        "samples": [
            make_sample(clip_id="a"),
            make_sample(clip_id="b", outcome="dropped", reason="no_bucket", shard_id=""),
            make_sample(
                clip_id="i", shard_id="e", duration="image", fps_num=0, encoded_frames=1
            ),
        ],
        "builds": [
            make_build(sequence=n, event=e, num_shards=2)
            for n, e in enumerate(("planned", "completed", "promoted"))
        ],
    }  # fmt: skip
    for name, some in rows.items():
        tables.append(name, some)


def facts(tables: Tables) -> Summary:
    return summary(connect(tables), tables.uri, DatasetSpec())


# ── the summary ──────────────────────────────────────────────────────────────────────────────────


def test_everything_that_went_in_is_kept_or_dropped_with_a_reason(tables: Tables) -> None:
    fill(tables)
    found = facts(tables)
    assert {(s.status, s.kind): (s.sources, s.clips) for s in found.sources} == {
        ("scanned", "video"): (1, 2),
        ("scanned", "image"): (1, 1),
        ("rejected", ""): (1, 0),
    }
    assert found.rejected == {"corrupt": 1}
    assert (found.frames, found.frames_kept) == (121, 101)
    assert found.frames_dropped == {"black": 10, "too_short": 10}
    assert {c.kind: (c.clips, c.frames) for c in found.clips} == {
        "video": (2, 100),
        "image": (1, 1),
    }
    assert found.errors == ()


def test_a_build_is_counted_by_bucket(tables: Tables) -> None:
    fill(tables)
    (build,) = facts(tables).builds
    assert (build.current, build.in_progress, build.plans) == (True, False, 1)
    assert build.dropped == {"no_bucket": 1}
    image, video = build.buckets
    assert (image.duration, image.clips, image.hours, image.shards) == ("image", 1, 0.0, 1)
    assert (video.duration, video.clips, video.latent_bytes, video.shards) == ("2s", 1, 1000, 1)
    assert video.hours == pytest.approx(49 / 25 / 3600, abs=1e-6)


def test_buckets_stand_in_the_order_of_their_rungs(tables: Tables) -> None:
    rungs = ["60s", "8s", "image", "1.5s", "16s"]
    tables.append("samples", [make_sample(clip_id=d, duration=d, shard_id=d) for d in rungs])
    tables.append("builds", [make_build(event="completed")])
    (build,) = facts(tables).builds
    assert [b.duration for b in build.buckets] == ["image", "1.5s", "8s", "16s", "60s"]
    assert not build.current


def test_a_plan_in_progress_says_how_far_it_is(tables: Tables) -> None:
    fill(tables)
    tables.append("builds", [make_build(sequence=3, plan=1, num_shards=7)])
    tables.append(
        "samples",
        [make_sample(plan=1, clip_id=str(n), shard_id=f"new{n // 2}") for n in range(6)],
    )
    (build,) = facts(tables).builds
    assert (build.shards_written, build.shards_planned) == (3, 7)
    assert sum(b.clips for b in build.buckets) == 2  # what is not completed does not count yet
    assert "3 of 7 shards written; run again to finish" in shown(tables)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_frames": 51}, "frames decoded are not frames kept + frames dropped in 1 sources"),
        ({"num_clips": 2}, "clips: sources say 2, but there are 1"),
        ({"num_frames": 51, "frames_kept": 51}, "frames kept: sources say 51, but there are 50"),
        ({"num_frames": 53, "frames_dropped": 3}, "frames dropped: sources say 3, but there are 0"),
    ],
)
def test_numbers_that_do_not_agree_are_an_error(
    change: dict[str, int], complaint: str, tables: Tables
) -> None:
    tables.append("clips", [make_clip()])
    tables.append("sources", [make_source(**change)])
    assert any(error.startswith(complaint) for error in facts(tables).errors)
    assert f"error: {complaint}" in shown(tables)


def test_the_summary_on_a_terminal(tables: Tables) -> None:
    fill(tables)
    text = shown(tables)
    assert "frames  121 decoded = 101 in clips + 20 dropped (black 10, too_short 10)" in text
    assert re.search(r"scanned +video +1 +2 MB +[0-9.]+ s +2\n", text)
    assert re.search(r"corrupt +1\n", text)
    assert re.search(r"signal +f +ok +3\n", text)
    assert "build dct-bbbbbbbb (current)" in text
    assert re.search(r"360 +16x9 +2s +1 +[0-9.]+ s +1 kB +1\n", text)
    assert "clips  3 = 2 in 2 shards (2 kB of latents) + 1 dropped (no_bucket 1)" in text
    assert "error" not in text


def test_a_dataset_without_rows_says_what_to_do(tables: Tables) -> None:
    assert "no sources yet: telecine ingest SOURCE... --dataset DATASET" in shown(tables)
    for name in LISTED:
        assert listed(tables, name) == "no rows\n"
        assert as_json(tables, name) == []


def test_the_summary_as_json(tables: Tables) -> None:
    fill(tables)
    out = io.StringIO()
    inspect_summary(dataset_of(tables), True, Console(file=out, width=40))
    found = json.loads(out.getvalue())
    assert found["dataset"] == tables.uri
    assert found["rejected"] == {"corrupt": 1}
    assert found["builds"][0]["buckets"][1]["latent_bytes"] == 1000


# ── listings ─────────────────────────────────────────────────────────────────────────────────────


def test_every_table_can_be_listed(tables: Tables) -> None:
    fill(tables)
    assert set(LISTED) == set(TABLES)
    counts = {name: len(as_json(tables, name)) for name in LISTED}
    assert counts == {
        "sources": 3, "clips": 3, "stills": 6, "captions": 3, "embeddings": 0, "scores": 0,
        "duplicates": 0, "samples": 3, "builds": 3, "text_embeddings": 0, "column_samples": 0,
        "frame_times": 0,
    }  # fmt: skip


def test_rows_columns_and_number_can_be_chosen(tables: Tables) -> None:
    fill(tables)
    assert as_json(tables, "clips", where="kind = 'video'", columns="clip_id", limit=1) == [
        {"clip_id": "a"}
    ]
    assert len(as_json(tables, "clips", limit=0)) == 3
    counted = as_json(tables, "samples", columns="count(*) AS n", where="plan = 0 -- all")
    assert counted == [{"n": 3}]
    text = listed(tables, "clips", columns="clip_id, width * height AS pixels")
    assert re.search(r"^a +230400$", text, re.MULTILINE)


def test_stills_are_listed_without_their_pictures(tables: Tables) -> None:
    fill(tables)
    (row,) = as_json(tables, "stills", limit=1)
    assert row["jpeg_bytes"] == 2
    with pytest.raises(UsageError, match=r"jpeg.*\n.*jpeg_bytes"):
        listed(tables, "stills", columns="jpeg")


def test_json_holds_lists_structs_bytes_and_what_is_no_number(tables: Tables) -> None:
    fill(tables)
    expression = (
        "dropped, encode(uri) AS raw, 1e999::DOUBLE AS inf, sum(size_bytes) OVER () AS total, "
        "DATE '2024-02-29' AS day, NULL AS nothing"
    )
    row = as_json(tables, "sources", where="uri = '/1'", columns=expression)[0]
    assert [d["reason"] for d in row["dropped"]] == ["black", "too_short"]
    assert (row["raw"], row["inf"], row["total"]) == ("LzE=", None, 2_000_000)
    assert (row["day"], row["nothing"]) == ("2024-02-29", None)


def test_too_many_columns_for_a_terminal_become_blocks(tables: Tables) -> None:
    fill(tables)
    text = listed(tables, "clips", columns="*", limit=2, width=80)
    assert re.search(r"^clip_id +a *$", text, re.MULTILINE)
    assert re.search(r"^dominant_colors +\[\"grey\"\] *$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (
            {"where": "motio > 1"},
            r'where .motio > 1.*"motio" not found(.|\n)*have the columns clip_id',
        ),
        ({"columns": "nothing"}, r"--columns 'nothing'(.|\n)*have the columns clip_id"),
        ({"where": "1 = 1; DROP TABLE clips"}, "Parser Error"),
        ({"where": "1 = 1) UNION (SELECT 2"}, "Parser Error"),
        ({"columns": "1 FROM range(3)"}, "Parser Error"),
        ({"where": "kind"}, "Conversion Error|Binder Error|Could not convert"),
        ({"where": "error('stop')"}, "stop"),
        ({"where": "(SELECT count(*) FROM read_text('/etc/hostname')) > 0"}, "a query within it"),
    ],
)
def test_mistakes_are_explained(choice: dict[str, str], words: str, tables: Tables) -> None:
    fill(tables)
    with pytest.raises(UsageError, match=words):
        listed(tables, "clips", **choice)  # type: ignore[arg-type]


def test_an_unknown_table_is_explained(tables: Tables) -> None:
    with pytest.raises(UsageError, match="there is no table 'clip': choose one of sources, clips"):
        listed(tables, "clip")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"where": "EXISTS(SELECT 1 FROM read_text('{tables}/clips/_delta_log/0.json'))"},
            "a query within it",
        ),
        ({"where": "EXISTS(SELECT 1 FROM query('SELECT 1'))"}, "a query within it"),
        ({"columns": "(SELECT count(*) FROM duckdb_settings())"}, r"\(\) is refused"),
    ],
)
def test_conditions_and_columns_read_the_tables_alone(
    given: dict[str, str], why: str, tables: Tables
) -> None:
    fill(tables)
    given = {key: text.format(tables=f"{tables.uri}/tables") for key, text in given.items()}
    with pytest.raises(UsageError, match=why):
        as_json(tables, "clips", **given)


# ── other people's text ──────────────────────────────────────────────────────────────────────────

HOSTILE = "/[bold red]x[/]\x1b[2J\r\n\u202egnp.\x9b31m日本 [link=file:///etc]"
HARMLESS = r"/[bold red]x[/]\x1b[2J\r\n\u202egnp.\x9b31m日本 [link=file:///etc]"


def test_names_are_neither_markup_nor_terminal_commands(tables: Tables) -> None:
    tables.append("sources", [make_source(uri=HOSTILE, num_frames=7)])
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system="truecolor")
    inspect_table(dataset_of(tables), "sources", None, "uri", 20, False, console)
    assert HARMLESS in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert repr(HOSTILE) in facts(tables).errors[0]
    assert HARMLESS in shown(tables)
    assert as_json(tables, "sources", columns="uri") == [{"uri": HOSTILE}]
