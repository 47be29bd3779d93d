"""Discover: every object once, with its caption file, in URI order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from telecine.infra.errors import NotFound
from telecine.infra.store.storage import Storage, join
from telecine.pipeline.scan.discover import Found, Listing, discover
from tests.support.s3 import S3Server


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every test that takes it runs on disk and on S3."""
    if request.param == "disk":
        return str(tmp_path)
    server: S3Server = request.getfixturevalue("s3")
    return server.uri("root")


def put(storage: Storage, root: str, *names: str) -> None:
    for name in names:
        storage.write_bytes(join(root, name), name.encode())


def names(listing: Listing, root: str) -> list[str]:
    return [found.uri.removeprefix(root + "/") for found in listing]


def sidecars(listing: Listing, root: str) -> dict[str, str]:
    prefix = root + "/"
    return {f.uri.removeprefix(prefix): f.sidecar_uri.removeprefix(prefix) for f in listing}


def test_every_object_once_in_uri_order(storage: Storage, root: str) -> None:
    put(storage, root, "b/2.mp4", "b/1.mov", "b.mp4", "a b+c&d=(1)#%.mp4", ".dot.mp4", "日本")
    roots = [root, join(root, "b"), join(root, "b/1.mov"), join(root, "")]
    listing = discover(storage, roots)
    expected = [".dot.mp4", "a b+c&d=(1)#%.mp4", "b.mp4", "b/1.mov", "b/2.mp4", "日本"]
    assert names(listing, root) == expected
    assert len(listing) == len(expected)
    for found in listing:
        assert found.info == storage.stat(found.uri)


def test_sidecars_are_attached_and_are_no_sources(storage: Storage, root: str) -> None:
    put(storage, root, "all.mp4", "all.srt", "all.txt", "all.json")
    put(storage, root, "text.mp4", "text.srt", "text.TXT")
    put(storage, root, "lines.mp4", "lines.srt", "none.mp4", "bare", "bare.txt")
    put(storage, root, "full.mp4", "full.json", "full.mp4.txt", "dir/all.mp4")
    put(storage, root, "two.mp4", "two.jpg", "two.txt", "v1.5.mp4", "v1.txt", "v1.5.txt")
    listing = discover(storage, [root])
    assert sidecars(listing, root) == {
        "all.mp4": "all.json",
        "bare": "bare.txt",
        "dir/all.mp4": "",
        "full.mp4": "full.mp4.txt",
        "lines.mp4": "lines.srt",
        "none.mp4": "",
        "text.mp4": "text.TXT",
        "two.jpg": "two.txt",
        "two.mp4": "two.txt",
        "v1.5.mp4": "v1.5.txt",
        "v1.txt": "",  # beside no footage: content decides
    }
    (found,) = (f for f in listing if f.uri.endswith("/bare"))
    assert found.sidecar_version == storage.stat(join(root, "bare.txt")).version


def test_a_file_named_by_itself_brings_its_sidecar(storage: Storage, root: str) -> None:
    put(storage, root, "a.mp4", "a.json", "a.mp4.json", "b.mp4", "b.txt")
    listing = discover(storage, [join(root, "a.mp4"), join(root, "b.txt"), join(root, "b.mp4")])
    assert sidecars(listing, root) == {"a.mp4": "a.mp4.json", "b.mp4": "b.txt"}


def test_droppings_are_left_out_unless_named(storage: Storage, root: str) -> None:
    put(storage, root, ".DS_Store", "x/._a.mp4", "Thumbs.db", ".telecine-part-00ff", "a.mp4")
    assert names(discover(storage, [root]), root) == ["a.mp4"]
    assert names(discover(storage, [join(root, "x/._a.mp4")]), root) == ["x/._a.mp4"]


def test_folder_markers_are_no_sources(storage: Storage, s3: S3Server) -> None:
    storage.write_bytes(s3.uri("root/day/"), b"")
    storage.write_bytes(s3.uri("root/odd/"), b"a key may end so")
    storage.write_bytes(s3.uri("root/day/a.mp4"), b"x")
    assert names(discover(storage, [s3.uri("root")]), s3.uri("root")) == ["day/a.mp4", "odd/"]


def test_a_dataset_is_no_footage(storage: Storage, root: str) -> None:
    made = ["telecine.toml", "tables/clips/0.parquet", "shards/0/x.tar"]
    put(storage, root, *(f"out/latents/{name}" for name in made), "out/a.mp4")
    put(storage, root, "mine/telecine.toml", "new/telecine.toml", "new/b.mp4")
    listing = discover(storage, [root], exclude=[join(root, "new")])
    assert names(listing, root) == ["mine/telecine.toml", "out/a.mp4"]
    assert listing.left_out.datasets == (join(root, "out/latents/"),)


def test_names_that_no_table_can_hold_are_told(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad-\xff.mp4")).write_bytes(b"x")
    (tmp_path / "good.mp4").write_bytes(b"x")
    listing = discover(storage, [str(tmp_path)])
    assert names(listing, str(tmp_path)) == ["good.mp4"]
    assert listing.left_out.unnamable == (f"{tmp_path}/bad-\udcff.mp4",)


def test_nothing_there(storage: Storage, root: str) -> None:
    with pytest.raises(NotFound):
        discover(storage, [join(root, "nowhere")])
    put(storage, root, "Thumbs.db")
    assert list(discover(storage, [root])) == []


def test_a_relative_path_is_made_absolute(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, str(tmp_path), "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert [f.uri for f in discover(storage, ["."])] == [str(tmp_path / "a.mp4")]


def test_a_source_is_named_by_uri_and_version() -> None:
    one, other = Found("/a.mp4", "1-1", 1), Found("/a.mp4", "1-2", 1)
    assert one.source_id == Found("/a.mp4", "1-1", 1, "/a.txt", "9").source_id
    assert one.source_id != other.source_id
