"""Feed: what a trainer gets is what lies in the tars, whoever shares it and wherever it lies."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from telecine.feed import Feed, Pack, Schedule
from telecine.infra.errors import Unreadable, UsageError
from telecine.infra.store.storage import Storage, StoreOptions
from telecine.manifests.dataset import open_dataset
from telecine.pipeline.feed.buffers import Buffers
from telecine.pipeline.feed.loader import Packs
from tests.support.exports import made, members
from tests.support.s3 import S3Server, put


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 75 frames and images, of two shapes. Not to be changed."""
    return made(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def stored(dataset: Path) -> dict[str, dict[str, bytes]]:
    return members(open_dataset(str(dataset), Storage()))


def latent(stored: dict[str, dict[str, bytes]], key: str) -> Any:
    return np.load(io.BytesIO(stored[key]["latent.npy"]))


def said(packs: Iterator[Pack]) -> list[tuple[Any, ...]]:
    return [(p.step, p.keys, p.start_latent, p.latents.tobytes(), p.captions) for p in packs]


@pytest.mark.parametrize("split", ["prefix", "windows", "leave"])
def test_packs_hold_what_the_tars_hold(
    dataset: Path, stored: dict[str, dict[str, bytes]], split: Any
) -> None:
    feed = Feed(dataset, tokens=700, packs_per_step=1, split=split)
    frames: dict[str, list[int]] = {}
    for pack in feed.epoch(0):
        assert sum(pack.tokens) <= 700
        for one, found in zip(pack.samples, pack.split(), strict=True):
            begin, end = one.start_latent, one.start_latent + one.shape[1]
            assert np.array_equal(found, latent(stored, one.key)[:, begin:end])
            assert one.caption == stored[one.key]["txt"].decode()
            frames.setdefault(one.key, []).extend(range(begin, end))
        assert pack.facts == [json.loads(stored[key]["json"]) for key in pack.keys]
    for key, fed in frames.items():
        whole = list(range(latent(stored, key).shape[1]))
        assert sorted(fed) == (whole[: len(fed)] if split == "prefix" else whole)
    assert len(stored) - len(frames) == feed.report()["left_out"]["too_long"]
    assert (len(frames) < len(stored)) == (split == "leave")


def test_every_token_has_its_place(dataset: Path) -> None:
    for pack in Feed(dataset, tokens=3000, packs_per_step=1, split="windows").epoch(0):
        total = sum(pack.tokens)
        assert pack.cu_seqlens.tolist() == [0, *itertools.accumulate(pack.tokens)]
        assert len(pack.sample_ids) == len(pack.positions) == len(pack.seconds) == total
        assert pack.max_seqlen == max(pack.tokens)
        rows = pack.patches().numpy()
        for number, (values, one) in enumerate(zip(pack.split(), pack.samples, strict=True)):
            for token in np.flatnonzero(pack.sample_ids == number)[[0, 1, -1]]:
                t, h, w = pack.positions[token]
                here = values[:, t - one.start_latent, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
                assert np.array_equal(rows[token], here.ravel())
                assert pack.seconds[token] == pytest.approx(4 * t / one.fps if one.fps else 0)


@pytest.mark.parametrize("order", ["c t h w", "t h w c", "h w c t", "c w h t"])
def test_unpatch_is_the_inverse_of_patches(dataset: Path, order: str) -> None:
    for pack in Feed(dataset, tokens=3000, packs_per_step=1).epoch(0):
        rows = pack.patches(order)
        assert rows.shape == (sum(pack.tokens), 64)
        for found, mine in zip(pack.unpatch(rows, order), pack.split(), strict=True):
            assert torch.equal(found, torch.from_numpy(mine))
    with pytest.raises(UsageError, match="write c, t, h and w"):
        pack.patches("c h w")


def test_ranks_share_steps_and_go_on_in_another_number(dataset: Path) -> None:
    given: dict[str, Any] = {"tokens": 400, "packs_per_step": 4, "split": "windows", "seed": 5}
    alone = Feed(dataset, **given)
    packs = said(itertools.islice(alone, 24))
    pair = [Feed(dataset, rank=rank, world=2, **given) for rank in (0, 1)]
    half = [said(itertools.islice(feed, 6)) for feed in pair]  # three steps
    assert [*itertools.chain(*zip(*half, strict=True))] == packs[:12]
    state = json.loads(json.dumps(pair[0].state_dict()))
    assert state == pair[1].state_dict()
    four = [Feed(dataset, rank=rank, world=4, threads=1, **given) for rank in range(4)]
    for feed in four:
        feed.load_state_dict(state)
    rest = [said(itertools.islice(feed, 3)) for feed in four]
    assert [*itertools.chain(*zip(*rest, strict=True))] == packs[12:]
    with pytest.raises(UsageError, match="seed was 5, is 6"):
        Feed(dataset, **given | {"seed": 6}).load_state_dict(state)


def test_a_damaged_sample_stops_the_feed_or_is_counted(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    path = next((tmp_path / "copy/shards/second").rglob("*.tar"))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=r"sample [0-9a-f]{32} in .*its digest is not"):
        list(Feed(tmp_path / "copy").epoch(0))
    feed = Feed(tmp_path / "copy", bad="skip", tokens=8000, packs_per_step=1)
    whole = Feed(dataset, tokens=8000, packs_per_step=1)
    (pack,), (all_of_it,) = feed.epoch(0), whole.epoch(0)
    assert len(pack.samples) == len(all_of_it.samples) - 1
    assert feed.left_out == {"digest": 1}
    mine = dict(zip(all_of_it.keys, all_of_it.split(), strict=True))
    for key, values in zip(pack.keys, pack.split(), strict=True):
        assert np.array_equal(values, mine[key])
    path.unlink()
    with pytest.raises(Unreadable, match="cannot be fed"):
        list(Feed(tmp_path / "copy", verify="never").epoch(0))


def test_a_damaged_caption_is_not_served(fed: Path, tmp_path: Path) -> None:
    shutil.copytree(fed, tmp_path / "copy")
    path = next((tmp_path / "copy").rglob("*.tar"))
    path.write_bytes(path.read_bytes().replace(b"A clip that", b"A film that", 1))
    given: dict[str, Any] = {"tokens": 400, "packs_per_step": 1}
    with pytest.raises(Unreadable, match="its caption is not the one"):
        list(Feed(tmp_path / "copy", **given).epoch(0))


def test_a_store_and_a_cache_give_the_same(dataset: Path, s3: S3Server, tmp_path: Path) -> None:
    uri = put(dataset, s3.uri("dataset"))
    given: dict[str, Any] = {"tokens": 700, "packs_per_step": 2, "split": "windows"}
    wanted = said(Feed(dataset, **given).epoch(0))
    far = Feed(uri, endpoint_url=s3.endpoint_url, cache=tmp_path, cache_bytes=10**9, **given)
    assert said(far.epoch(0)) == wanted
    Storage().delete([i.uri for i in Storage().list(uri) if i.uri.endswith(".tar")], uri)
    assert said(far.epoch(0)) == wanted  # from the cache alone


def test_a_tar_that_ends_early_in_a_store_is_a_bad_sample_at_once(fed: Path, s3: S3Server) -> None:
    uri = put(fed, s3.uri("dataset"))
    storage = Storage(StoreOptions(s3.endpoint_url))
    for info in list(storage.list(uri)):
        if info.uri.endswith(".tar"):
            storage.write_bytes(info.uri, storage.read_range(info.uri, 0, 100))
    given: dict[str, Any] = {"tokens": 400, "packs_per_step": 1, "endpoint_url": s3.endpoint_url}
    feed = Feed(uri, bad="skip", **given)
    assert not any(pack.keys for pack in feed.epoch(0))
    assert feed.left_out == {"short": feed.report()["samples"]}


def test_batches_have_one_shape(dataset: Path) -> None:
    keys = []
    for pack in Feed(dataset, tokens=3000, packs_per_step=1).batches(2):
        assert np.stack(pack.split()).shape[0] == len(pack.samples) <= 2
        keys += pack.keys
    assert len(keys) == len(set(keys)) == 5


def test_a_schedule_goes_from_feed_to_feed_and_on_after_a_stop(dataset: Path) -> None:
    def schedule() -> Schedule:
        films = Feed(dataset, build="films", tokens=700, packs_per_step=1)
        return Schedule([(0, films), (3, Feed(dataset, tokens=700, packs_per_step=1))])

    one = schedule()
    packs = said(itertools.islice(one, 8))
    stopped = schedule()
    first = said(itertools.islice(stopped, 5))
    again = schedule()
    again.load_state_dict(stopped.state_dict())
    assert first + said(itertools.islice(again, 3)) == packs
    assert {key for pack in packs[:3] for key in pack[1]} < {k for p in packs[3:] for k in p[1]}


def test_a_schedule_refuses_the_state_of_a_feed(fed: Path) -> None:
    feed = Feed(fed)
    with pytest.raises(UsageError, match="of no schedule"):
        Schedule([(0, feed)]).load_state_dict(feed.state_dict())


def test_pytorch_loads_it(dataset: Path) -> None:
    feed = Feed(dataset, tokens=700, packs_per_step=1)
    loader = torch.utils.data.DataLoader(Packs(feed), batch_size=None)
    wanted = said(Feed(dataset, tokens=700, packs_per_step=1).epoch(0))
    assert said(itertools.islice(iter(loader), len(wanted))) == wanted


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_process_goes_on_by_a_feed_that_was_read_here(fed: Path, start: str) -> None:
    given: dict[str, Any] = {"tokens": 40, "packs_per_step": 1, "split": "windows", "threads": 1}
    feed = Feed(fed, **given)
    wanted = said(itertools.islice(Feed(fed, **given), 4))
    assert said(itertools.islice(feed, 2)) == wanted[:2]
    loader = torch.utils.data.DataLoader(
        Packs(feed), batch_size=None, num_workers=1, multiprocessing_context=start
    )
    assert said(itertools.islice(iter(loader), 2)) == wanted[2:]


def test_dropped_texts_are_the_same_again(dataset: Path) -> None:
    feed = Feed(dataset, tokens=3000, packs_per_step=1, text_dropout=0.5)
    drops = [dict(zip(p.keys, p.text_dropped, strict=True)) for p in feed.epoch(0)]
    assert drops == [dict(zip(p.keys, p.text_dropped, strict=True)) for p in feed.epoch(0)]
    assert all(
        (caption == "") == dropped
        for pack in feed.epoch(0)
        for caption, dropped in zip(pack.captions, pack.text_dropped, strict=True)
    )


def test_memory_is_used_again_only_when_nobody_looks_at_it() -> None:
    buffers = Buffers()
    first = buffers.take(100)[:10].view(np.float16)
    second = buffers.take(100)
    assert not np.shares_memory(first, second)
    kept = torch.from_numpy(first)
    address = first.__array_interface__["data"][0]
    del first
    assert buffers.take(50).__array_interface__["data"][0] != address
    del kept
    assert buffers.take(50).__array_interface__["data"][0] == address


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"build": "nonesuch"}, "has no build 'nonesuch'"),
        ({"build": "x.arrow"}, "there is no such index"),
        ({"text": "t5"}, "telecine embed"),
        ({"verify": "often"}, "choose of first, always, never"),
        ({"packs_per_step": 3, "world": 2}, "cannot be shared by 2 ranks"),
        ({"text_dropout": 2}, "a share of the samples"),
    ],
)
def test_what_it_cannot_feed_it_says(dataset: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Feed(dataset, **given)


LIGHT = """
import sys
from telecine.feed import Feed
heavy = {"ray", "torch", "av", "duckdb", "deltalake", "boto3"}
assert sum(len(pack.samples) for pack in Feed(sys.argv[1]).epoch(0)) >= 5
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_nothing_heavy_is_loaded(dataset: Path) -> None:
    subprocess.run([sys.executable, "-c", LIGHT, str(dataset)], check=True)
