"""One shard held against its rows: chunks that end anywhere, and every way to disagree."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.infra.store.storage import Storage
from telecine.manifests.tar import TarWriter, npy_parts, read_members
from telecine.pipeline.lifecycle.check import (
    Expected,
    Finding,
    Kind,
    ShardCheck,
    VerifyWorker,
    compare,
)

KEYS = ["a" * 32, "b" * 32, "c" * 32]
TEXTS = ["one", "", "drei, größer als ein Block " * 40]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Expected, ...]]:
    """A tar of three samples, and the rows that describe it."""
    path = tmp_path_factory.mktemp("shard") / "x.tar"
    rows = []
    with TarWriter(path) as tar:
        for place, (key, text) in enumerate(zip(KEYS, TEXTS, strict=True)):
            latents = np.full((2, 3, 4 + place, 5), place, np.float16)
            extent = tar.add(f"{key}.latent.npy", *npy_parts(latents))
            tar.add(f"{key}.json", b"{}")
            tar.add(f"{key}.txt", text.encode())
            digest = hashlib.sha256(text.encode()).hexdigest()
            shape = tuple(latents.shape)
            rows.append((place, key, digest, extent.offset, extent.size, shape))
        sealed = tar.seal()
    return path, tuple(
        Expected("x.tar", sealed.sha256, sealed.size_bytes, len(KEYS), *row) for row in rows
    )


def check(path: Path, rows: tuple[Expected, ...]) -> list[Finding]:
    return VerifyWorker(str(path.parent), Storage())(ShardCheck(rows))


@given(size=st.integers(1, 20_000))
def test_chunks_may_end_anywhere(size: int, shard: tuple[Path, tuple[Expected, ...]]) -> None:
    path, rows = shard
    data = path.read_bytes()
    sha256, members = read_members(data[at : at + size] for at in range(0, len(data), size))
    assert sha256 == rows[0].shard_sha256
    assert len(members) == 9
    assert list(compare(ShardCheck(rows), members)) == []


ROWS_THAT_DISAGREE: dict[str, tuple[Kind, Callable[[list[Expected]], list[Expected]]]] = {
    "another key": (Kind.KEY, lambda r: [r[0], dataclasses.replace(r[1], clip_id="d" * 32), r[2]]),
    "another order": (Kind.KEY, lambda r: [
        dataclasses.replace(r[1], position=0), dataclasses.replace(r[0], position=1), r[2]
    ]),
    "a row less": (Kind.KEY, lambda r: [dataclasses.replace(e, shard_samples=2) for e in r[:2]]),
    "a row more": (Kind.KEY, lambda r: [
        *r, dataclasses.replace(r[2], clip_id="d" * 32, position=3)
    ]),
    "a gap": (Kind.KEY, lambda r: [*r[:2], dataclasses.replace(r[2], position=5)]),
    "another count": (Kind.KEY, lambda r: [dataclasses.replace(e, shard_samples=9) for e in r]),
    "another shape": (Kind.SHAPE, lambda r: [
        *r[:2], dataclasses.replace(r[2], latent_shape=(2, 3, 5, 6))
    ]),
    "another place": (Kind.SHAPE, lambda r: [dataclasses.replace(r[0], latent_offset=0), *r[1:]]),
    "another size": (Kind.SHAPE, lambda r: [dataclasses.replace(r[0], latent_bytes=5), *r[1:]]),
    "another text": (Kind.TEXT, lambda r: [dataclasses.replace(r[0], text_digest="0"), *r[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("how", ROWS_THAT_DISAGREE)
def test_rows_that_disagree_with_a_whole_tar(
    how: str, shard: tuple[Path, tuple[Expected, ...]]
) -> None:
    kind, change = ROWS_THAT_DISAGREE[how]
    path, rows = shard
    assert check(path, rows) == []
    findings = check(path, tuple(change(list(rows))))
    assert kind in {f.kind for f in findings}
    assert {f.kind for f in findings} <= {kind, Kind.KEY}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (npy_parts(np.zeros((2, 3), np.float32))[0], "float32 2×3"),
        (b"", "no .npy header"),
        (b"\x93NUMPY\x02\x00" + bytes(200), "another version"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"x" * 300, "no .npy header"),
    ],
)
def test_a_member_that_is_no_latent_of_ours(data: bytes, says: str, tmp_path: Path) -> None:
    key = KEYS[0]
    with TarWriter(tmp_path / "x.tar") as tar:
        extent = tar.add(f"{key}.latent.npy", data)
        tar.add(f"{key}.json", b"{}")
        tar.add(f"{key}.txt", b"")
        sealed = tar.seal()
    digest = hashlib.sha256(b"").hexdigest()
    row = Expected(
        "x.tar", sealed.sha256, sealed.size_bytes, 1, 0, key, digest, extent.offset, extent.size,
        (2, 3),
    )  # fmt: skip
    (finding,) = check(tmp_path / "x.tar", (row,))
    assert finding.kind is Kind.SHAPE
    assert says in finding.detail
    assert finding.clip_id == key
