"""What packs hold, by which index, on which ranks, from where on; what becomes of bad samples."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from telecine.feed import Feed, Pack, Schedule
from telecine.infra.errors import Unreadable, UsageError
from telecine.manifests.index.samples import narrowed, read_samples
from tests.support.fed import FPS, SHAPES, caption, keys, values, write_build

SMALL: dict[str, Any] = {"tokens": 40, "packs_per_step": 2}
BY_KEY = dict(zip(keys(), SHAPES, strict=True))


def pieces(pack: Pack) -> list[tuple[str, int]]:
    return list(zip(pack.keys, pack.start_latent, strict=True))


def epoch(feed: Feed, number: int = 0) -> list[list[tuple[str, int]]]:
    return [pieces(pack) for pack in feed.epoch(number)]


# ── what a pack holds ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("split", ["prefix", "windows", "leave"])
@pytest.mark.parametrize("threads", [1, 4])
def test_latents_are_those_of_the_shards(fed: Path, split: Any, threads: int) -> None:
    seen: Counter[str] = Counter()
    for pack in Feed(fed, **SMALL, split=split, threads=threads).epoch(0):
        if pack.repeated:
            continue
        for key, start, latents in zip(pack.keys, pack.start_latent, pack.split(), strict=True):
            whole = values(key, BY_KEY[key])
            assert np.array_equal(latents, whole[:, start : start + latents.shape[1]])
            seen[key] += latents.shape[1]
    frames = {key: shape[1] for key, shape in BY_KEY.items()}
    long = keys()[7]  # 9 latent frames of 9 tokens, of which a pack holds 4
    if split == "leave":
        del frames[long]
    else:
        frames[long] = 4 if split == "prefix" else 9
    assert seen == frames


def test_what_belongs_to_a_token_and_to_a_sample(fed: Path) -> None:
    packs = list(Feed(fed, **SMALL, split="windows").epoch(0))
    for pack in packs:
        tokens = [t * (h // 2) * (w // 2) for _, t, h, w in pack.shapes]
        total = sum(tokens)
        assert total <= 40
        assert (pack.tokens, pack.max_seqlen) == (tokens, max(tokens))
        assert np.diff(pack.cu_seqlens).tolist() == tokens
        assert pack.positions.shape == (total, 3)
        assert pack.seconds.shape == (total,)
        kinds = [pack.positions.dtype, pack.cu_seqlens.dtype, pack.seconds.dtype]
        assert kinds == [np.int32, np.int32, np.float32]
        assert pack.sample_ids.tolist() == np.repeat(np.arange(len(tokens)), tokens).tolist()
        assert pack.captions == [caption(key) for key in pack.keys]
        assert [facts["clip_id"] for facts in pack.facts] == pack.keys
        assert pack.image == [BY_KEY[key][1] == 1 for key in pack.keys]
        for number, (begin, rate) in enumerate(zip(pack.start_latent, pack.fps, strict=True)):
            span = slice(*pack.cu_seqlens[number : number + 2])
            t, h, w = pack.grid[number].tolist()
            places = [[begin + k, i, j] for k, i, j in np.ndindex(t, h, w)]
            assert pack.positions[span].tolist() == places
            still = BY_KEY[pack.keys[number]][1] == 1
            assert rate == (0 if still else pytest.approx(float(FPS)))
            # Latent k of a causal encoder stands for frames up to 4k.
            at = [0.0 if still else 4 * place[0] / float(FPS) for place in places]
            assert pack.seconds[span].tolist() == pytest.approx(at)
        assert pack.exact == [start == 0 for start in pack.start_latent]
    assert not all(all(pack.exact) for pack in packs)


def test_packs_that_are_kept_do_not_change(fed: Path) -> None:
    packs = list(islice(Feed(fed, **SMALL), 40))
    for pack in packs:
        for key, latents in zip(pack.keys, pack.split(), strict=True):
            assert np.array_equal(latents, values(key, BY_KEY[key])[:, : latents.shape[1]])


def test_packs_are_padded_to_a_multiple(fed: Path) -> None:
    for pack in Feed(fed, **SMALL, pad_to=16).epoch(0):
        rest, total = pack.padding, sum(pack.tokens)
        rows = pack.patches()
        assert len(rows) % 16 == 0
        assert len(rows) == total + rest == len(pack.positions) == len(pack.seconds)
        assert not rows[total:].any()
        assert pack.sample_ids[total:].tolist() == [-1] * rest
        assert pack.cu_seqlens[-1] == len(rows)
        assert len(pack.text_cu_seqlens) == len(pack.cu_seqlens)
        for one, latents in zip(pack.unpatch(rows), pack.split(), strict=True):
            assert np.array_equal(one.numpy(), latents)


def test_text_is_dropped_by_chance_that_epochs_and_ranks_agree_on(fed: Path) -> None:
    def dropped(number: int) -> dict[str, bool]:
        packs = Feed(fed, **SMALL, text_dropout=0.5).epoch(number)
        found = {}
        for pack in packs:
            for key, said, gone in zip(pack.keys, pack.captions, pack.text_dropped, strict=True):
                assert said == ("" if gone else caption(key))
                found[key] = gone
        return found

    assert dropped(0) == dropped(0) != dropped(1)
    assert 0 < sum(dropped(0).values()) < len(SHAPES)


# ── ranks and resuming ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_steps_of_one(fed: Path, world: int) -> None:
    options: dict[str, Any] = {"tokens": 40, "packs_per_step": 4, "split": "windows"}
    alone = epoch(Feed(fed, **options))
    ranks = [epoch(Feed(fed, **options, rank=rank, world=world)) for rank in range(world)]
    assert len({len(of) for of in ranks}) == 1
    each = 4 // world
    steps = range(len(ranks[0]) // each)
    together = [ranks[n % world][s * each + n // world] for s in steps for n in range(4)]
    assert together == alone


@pytest.mark.parametrize(("stopped", "resumed"), [(2, 1), (1, 4), (4, 2)])
def test_a_state_goes_on_with_another_number_of_ranks(
    fed: Path, stopped: int, resumed: int
) -> None:
    options: dict[str, Any] = {"tokens": 40, "packs_per_step": 4, "seed": 3}

    def taken(world: int, steps: int, state: Any = None) -> tuple[list[Any], list[str]]:
        """Packs of some steps in their order, and the states of all ranks after them."""
        packs: list[Any] = [None] * (4 * steps)
        states = []
        for rank in range(world):
            feed = Feed(fed, **options, rank=rank, world=world)
            if state:
                feed.load_state_dict(json.loads(state))
            mine = [i for i in range(4 * steps) if i % 4 % world == rank]
            for place, pack in zip(mine, feed, strict=False):
                packs[place] = (pack.epoch, pack.step, pieces(pack))
            states.append(json.dumps(feed.state_dict()))
        return packs, states

    whole, _ = taken(1, 7)
    before, states = taken(stopped, 3)
    assert len(set(states)) == 1
    after, _ = taken(resumed, 4, states[0])
    assert before + after == whole


def test_a_step_that_was_not_taken_whole_comes_again(fed: Path) -> None:
    feed = Feed(fed, **SMALL)
    packs = iter(feed)
    first = [pieces(next(packs)) for _ in range(3)]
    other = Feed(fed, **SMALL)
    other.load_state_dict(feed.state_dict())
    assert pieces(next(iter(other))) == first[2]


def test_a_schedule_changes_feeds_at_its_steps_and_is_resumed(fed: Path) -> None:
    def schedule() -> Schedule:
        return Schedule([(0, Feed(fed, **SMALL)), (2, Feed(fed, **SMALL, seed=5))])

    whole = [pieces(pack) for pack in islice(schedule(), 12)]
    assert whole[:4] == [pieces(pack) for pack in islice(Feed(fed, **SMALL), 4)]
    assert whole[4:] == [pieces(pack) for pack in islice(Feed(fed, **SMALL, seed=5), 8)]
    for steps in (1, 2, 3):
        stopped, resumed = schedule(), schedule()
        for _ in islice(stopped, 2 * steps):
            pass
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        rest = islice(resumed, 12 - 2 * steps)
        assert [pieces(pack) for pack in rest] == whole[2 * steps :]


# ── which build, and which of its indexes ────────────────────────────────────────────────────────


def test_a_build_that_grows_leaves_a_trainer_unharmed(fed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fed, tmp_path / "grows"))
    feed = Feed(folder, **SMALL)
    packs = iter(feed)
    before = [pieces(next(packs)) for _ in range(4)]
    write_build(folder, SHAPES[:6], first=100)  # the same build, with other shards
    assert before + [pieces(next(packs)) for _ in range(6)] == [
        pieces(pack) for pack in islice(Feed(fed, **SMALL), 10)
    ]
    # Started anew, the state still means the index it was made with.
    state = json.loads(json.dumps(feed.state_dict()))
    again = Feed(folder, **SMALL)
    assert all(int(key, 16) >= 100 for key in next(iter(again)).keys)
    again.load_state_dict(state)
    assert (
        pieces(next(iter(again))) == [pieces(pack) for pack in islice(Feed(fed, **SMALL), 11)][10]
    )
    for old in folder.glob("shards/dct/samples-*.arrow"):
        if state["sources"][0].startswith(old.stem.removeprefix("samples-")):
            old.unlink()
    with pytest.raises(UsageError, match="state is of another order"):
        Feed(folder, **SMALL).load_state_dict(state)


def test_an_index_file_chooses_samples(fed: Path, tmp_path: Path) -> None:
    path = next(fed.glob("shards/dct/samples-*.arrow"))
    index = read_samples(pa.memory_map(str(path)), "it")
    (tmp_path / "some.arrow").write_bytes(narrowed(index, index.rows.slice(2, 3)).to_bytes())
    feed = Feed(fed, tmp_path / "some.arrow", **SMALL)
    assert {key for pack in feed.epoch(0) for key in pack.keys} == set(keys()[2:5])


def test_builds_are_mixed_by_weight(fed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fed, tmp_path / "two"))
    write_build(folder, SHAPES, name="other", first=100)
    feed = Feed(folder, {"dct": 3, "other": 1}, **SMALL)
    seen = Counter(int(key, 16) >= 100 for n in range(4) for p in feed.epoch(n) for key in p.keys
                   if not p.repeated)  # fmt: skip
    assert seen[False] == 3 * seen[True] > 0


def test_renditions_are_named_as_they_are_declared(fed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fed, tmp_path / "family"))
    write_build(folder, SHAPES, name="dct-256", first=100)
    current = folder / "shards/current.json"
    said = json.loads((fed / "shards/current.json").read_text())
    names = {"draft": "dct-256", "final": "dct"}
    said["renditions"] = {n: {"name": b, "index": f"{b}/index.json"} for n, b in names.items()}
    current.write_text(json.dumps(said))
    assert Feed(folder, "draft", **SMALL).facts.build == "dct-256"
    assert Feed(folder, {"draft": 1, "final": 1}, **SMALL).report()["samples"] == 2 * len(SHAPES)


def test_a_build_without_an_index_of_samples_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"telecine feed .* --index"):
        Feed(write_build(tmp_path, samples=False))
    with pytest.raises(UsageError, match="no build 'absent'"):
        Feed(tmp_path, "absent")
    with pytest.raises(UsageError, match=r"has no shards/current\.json"):
        Feed(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"verify": "sometimes"}, "verify"),
        ({"bad": "zeros"}, "bad"),
        ({"text_dropout": 2.0}, "text_dropout"),
        ({"threads": 0}, "threads"),
        ({"world": 3}, "cannot be shared by 3 ranks"),
        ({"tokens": 2}, "fits into packs of 2 tokens"),
        ({"text": "absent"}, "no column of texts 'absent'"),
    ],
)
def test_what_cannot_be_is_refused(fed: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        next(iter(Feed(fed, **{**SMALL, **options})))


# ── what is bad ──────────────────────────────────────────────────────────────────────────────────


def damaged(fed: Path, folder: Path, how: str) -> tuple[Path, set[str]]:
    """A dataset with something wrong, and the samples that suffer."""
    copy = Path(shutil.copytree(fed, folder))
    path = next(copy.glob("shards/dct/samples-*.arrow"))
    row = read_samples(pa.memory_map(str(path)), "it").rows.slice(5, 1).to_pylist()[0]
    tar = copy / "shards/dct" / row["shard"]
    of_shard = set(keys()[4:8])
    if how == "missing":
        tar.unlink()
        return copy, of_shard
    if how == "short":
        os.truncate(tar, row["offset"] + 200)
        return copy, set(keys()[5:8])
    with tar.open("r+b") as file:
        file.seek(row["offset"] + {"value": 300, "header": 70, "json": row["size_bytes"]}[how])
        file.write(b"\0" * (1024 if how == "json" else 8))
    return copy, {row["clip_id"]}


@pytest.mark.parametrize("how", ["value", "header", "json", "short", "missing"])
def test_a_bad_sample_is_an_error_with_its_key_or_left_out_and_counted(
    fed: Path, tmp_path: Path, how: str
) -> None:
    folder, bad = damaged(fed, tmp_path / how, how)
    with pytest.raises(Unreadable, match="|".join(bad)) as refused:
        list(Feed(folder, **SMALL).epoch(0))
    for word in (".tar", "telecine verify"):
        assert word in str(refused.value)

    feed = Feed(folder, **SMALL, bad="skip", split="leave")
    packs = list(feed.epoch(0))
    assert {key for pack in packs for key in pack.keys} == set(keys()) - bad - {keys()[7]}
    planned = [key for pack in Feed(fed, **SMALL, split="leave").epoch(0) for key in pack.keys]
    reason = {"value": "digest", "json": "facts"}.get(how, how)
    assert feed.left_out == Counter(reason for key in planned if key in bad)
    for pack in packs:
        assert pack.latents.size == sum(int(np.prod(shape)) for shape in pack.shapes)
        for key, latents in zip(pack.keys, pack.split(), strict=True):
            assert np.array_equal(latents, values(key, BY_KEY[key]))


def test_a_pack_that_lost_all_its_samples_is_as_wide_as_others(fed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fed, tmp_path / "none"))
    for tar in folder.glob("shards/dct/**/*.tar"):
        tar.unlink()
    (first, *_) = Feed(folder, **SMALL, bad="skip").epoch(0)
    (whole, *_) = Feed(fed, **SMALL).epoch(0)
    assert first.keys == []
    assert first.patches().shape == (0, whole.patches().shape[1])


def test_a_track_that_the_build_lacks_is_named(fed: Path) -> None:
    with pytest.raises(UsageError, match="build dct has no track 'actoin', it has none"):
        next(iter(Feed(fed, **SMALL, tracks=("actoin",), bad="skip")))


def test_digests_are_checked_as_asked(fed: Path, tmp_path: Path) -> None:
    folder, bad = damaged(fed, tmp_path / "never", "value")
    feed = Feed(folder, **SMALL, verify="never")
    assert bad < {key for pack in feed.epoch(0) for key in pack.keys}

    later = Path(shutil.copytree(fed, tmp_path / "later"))
    first, always = (Feed(later, **SMALL, verify=word) for word in ("first", "always"))
    assert epoch(first) == epoch(always)
    broken, _ = damaged(fed, tmp_path / "broken", "value")
    for tar in broken.glob("shards/dct/**/*.tar"):
        shutil.copy(tar, later / tar.relative_to(broken))
    epoch(first)
    with pytest.raises(Unreadable, match="digest"):
        epoch(always)


def test_it_is_named_where_everything_is() -> None:
    import telecine

    assert telecine.Feed is Feed
