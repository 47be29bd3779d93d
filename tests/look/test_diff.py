"""Two builds side by side: what differs, in numbers, by name."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from telecine.infra.errors import UsageError
from telecine.manifests.builds import find_build
from telecine.manifests.queries import connect
from telecine.manifests.schemas import Sample
from telecine.manifests.tables import Tables
from telecine.pipeline.cli.diff import print_builds
from telecine.pipeline.lifecycle.changes import Change
from telecine.pipeline.look.diff import CanaryPair, Diff, Missing, diff
from telecine.pipeline.look.movement import Some
from tests.support.rows import make_build, make_sample

A, B = "a" * 32, "b" * 32


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def row(clip_id: str, build_id: str, **facts: Any) -> Sample:
    usual = {
        "shard_id": f"{build_id[0]}-{clip_id[0]}",
        "latent_shape": (2, 3, 4, 5),
        "channel_means": (0.0, 1.0),
        "channel_stds": (1.0, 2.0),
    }
    return make_sample(clip_id=clip_id, build_id=build_id, **{**usual, **facts})


def add(
    tables: Tables, build_id: str, name: str, rows: list[Sample], identity: str, **spec: Any
) -> None:
    facts = {"build_id": build_id, "name": name, "vae": identity, "spec": json.dumps(spec)}
    at = tables.dataset("builds").count_rows()
    events = [make_build(sequence=at, event="completed", **facts)]
    if name == "old":
        events.append(make_build(sequence=at + 1, event="promoted", **facts))
    tables.append("builds", events)
    tables.append("samples", rows)


def fill(tables: Tables) -> None:
    """Clips v1, v2, w1 in both; x1 only in the old build, y1 only in the new one."""
    spec = {"vae": {"encoder": "dct", "patch": 2, "fps": None}, "shards": {"target_bytes": 1000000}}
    dropped = {"outcome": "dropped", "shard_id": "", "latent_bytes": 0}
    old = [
        row("v1", A, psnr_db=30.0),
        row("v2", A, psnr_db=32.0),
        row("w1", A, psnr_db=41.0),
        row("x1", A, channel_means=(99.0, 99.0)),
        row("x2", A),
        row("x3", A),
    ]
    new = [
        row("v1", B, psnr_db=33.0, channel_means=(0.5, 1.0), channel_stds=(1.0, 8.0)),
        row("v2", B, psnr_db=31.0, channel_means=(0.5, 1.0), channel_stds=(1.0, 8.0)),
        row("w1", B, text_digest="u", latent_shape=(2, 2, 4, 5),
            channel_means=(0.5, 1.0), channel_stds=(1.0, 8.0)),
        row("x1", B, reason="source_missing", **dropped),
        row("x2", B, reason="source_missing", **dropped),
        row("y1", B),
    ]  # fmt: skip
    add(tables, A, "old", old, '{"name":"dct","weights":null}', **spec)
    spec["vae"] = {"encoder": "diffusers:/somewhere", "patch": 2, "fps": "24"}
    add(tables, B, "new", new, f'{{"name":"wan","weights":"{"c" * 64}"}}', **spec)


def compared(tables: Tables) -> Diff:
    con = connect(tables)
    return diff(con, find_build(con, "old"), find_build(con, "new"))


def shown(tables: Tables, *names: str, as_json: bool = False) -> str:
    out = io.StringIO()
    con = connect(tables)
    found = diff(con, *(find_build(con, name) for name in names))
    print_builds(found, as_json, Console(file=out, width=150))
    return out.getvalue()


def test_each_side_is_counted(tables: Tables) -> None:
    fill(tables)
    found = compared(tables)
    assert (found.a.name, found.a.state, found.b.name) == ("old", "current", "new")
    assert (found.a.samples, found.a.shards) == (6, 3)
    assert (found.b.samples, found.b.shards) == (4, 3)
    assert (found.b.latent_bytes, found.b.shard_bytes) == (4000, 30_000)  # a shard's size once


def test_what_the_builds_are_made_from_is_compared_key_by_key(tables: Tables) -> None:
    fill(tables)
    assert compared(tables).changes == (
        Change("vae.encoder.name", "dct", "wan"),
        Change("vae.encoder.weights", None, "c" * 64),
        Change("vae.fps", None, "24"),
    )  # not where the weights lie


def test_channels_are_compared_over_the_clips_of_both(tables: Tables) -> None:
    fill(tables)
    first, second = compared(tables).channels
    assert (first.mean_a, first.mean_b, first.shift, first.ratio) == (0.0, 0.5, 0.5, 1.0)
    assert (second.std_a, second.std_b, second.shift, second.ratio) == (2.0, 8.0, 0.0, 4.0)


def test_builds_with_other_channels_are_not_compared_by_channel(tables: Tables) -> None:
    add(tables, A, "old", [row("v1", A)], "{}")
    facts = {"latent_shape": (1, 3, 4, 5), "channel_means": (0.0,), "channel_stds": (1.0,)}
    add(tables, B, "new", [row("v1", B, **facts)], "{}")
    assert compared(tables).channels == ()
    assert "not compared" in shown(tables, "old", "new")


def test_canaries_are_paired(tables: Tables) -> None:
    fill(tables)
    assert compared(tables).canaries == (CanaryPair("v1", 30.0, 33.0), CanaryPair("v2", 32.0, 31.0))
    assert re.search(r"median +31\.00 +32\.00 +\+1\.00", shown(tables, "old", "new"))


def test_samples_of_one_build_alone_have_a_reason(tables: Tables) -> None:
    fill(tables)
    found = compared(tables)
    assert found.only_a == (
        Missing("source_missing", Some(2, ("x1", "x2"))),
        Missing("", Some(1, ("x3",))),
    )
    assert found.only_b == (Missing("", Some(1, ("y1",))),)
    assert found.both == 3
    assert found.reshaped == found.retold == Some(1, ("w1",))


def test_the_other_way_round_everything_is_the_other_way_round(tables: Tables) -> None:
    fill(tables)
    con = connect(tables)
    there, back = compared(tables), diff(con, find_build(con, "new"), find_build(con, "old"))
    assert (there.a, there.b, there.only_a) == (back.b, back.a, back.only_b)
    assert there.changes == tuple(Change(c.key, c.new, c.old) for c in back.changes)
    assert [(c.std_a, c.mean_b) for c in there.channels] == [
        (c.std_b, c.mean_a) for c in back.channels
    ]


def test_a_build_is_equal_to_itself(tables: Tables) -> None:
    fill(tables)
    text = shown(tables, "old", A[:4])
    assert re.search(r"spec and encoder\nequal\n", text)
    assert text.rstrip().endswith("6 in both")


def test_on_a_terminal(tables: Tables) -> None:
    fill(tables)
    text = shown(tables, "old", "new")
    assert re.search(r"A: old +B: new", text)
    assert re.search(r"latents +6 kB +4 kB", text)
    assert "vae.encoder.weights: none → cccccccccccc…\n" in text
    assert re.search(r"\n +1 +1 +1 +0 +2 +8 +4\n +0 +0 +0\.5 +0\.5 +1 +1 +1\n", text)
    assert "2 in A alone (B dropped them: source_missing): x1, x2\n" in text
    assert "1 in B alone (not planned in A): y1\n" in text
    assert "1 of them with another shape: w1\n" in text


def test_as_json(tables: Tables) -> None:
    fill(tables)
    found = json.loads(shown(tables, "old", "new", as_json=True))
    assert found["changes"][1] == {"key": "vae.encoder.weights", "old": None, "new": "c" * 64}
    assert found["channels"][1]["ratio"] == 4.0
    assert found["canary_medians"] == {"db_a": 31.0, "db_b": 32.0}
    assert found["only_a"][0] == {
        "reason": "source_missing", "clips": {"count": 2, "first": ["x1", "x2"]},
    }  # fmt: skip


def test_builds_without_samples_can_be_compared(tables: Tables) -> None:
    add(tables, A, "old", [], "{}")
    add(tables, B, "new", [], "{}")
    assert "0 in both" in shown(tables, "old", "new")


def test_a_channel_that_was_flat_stands_first(tables: Tables) -> None:
    add(tables, A, "old", [row("v1", A, channel_stds=(0.0, 1.0))], "{}")
    add(tables, B, "new", [row("v1", B, channel_stds=(0.1, 9.0))], "{}")
    assert re.search(r"B / A\n +0 +0 +0 +0 +0\.1", shown(tables, "old", "new"))
    (flat, _) = json.loads(shown(tables, "old", "new", as_json=True))["channels"]
    assert (flat["shift"], flat["ratio"]) == (None, None)


def test_a_build_that_is_not_there_is_explained(tables: Tables) -> None:
    fill(tables)
    with pytest.raises(UsageError, match="no build 'newer'"):
        shown(tables, "old", "newer")
