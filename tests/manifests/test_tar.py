"""Our tars, read back by the standard library and by plain webdataset."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from telecine.infra.errors import StorageError
from telecine.manifests.tar import (
    NPY_HEADER,
    TarWriter,
    npy_parts,
    read_npy_header,
    values_offset,
)
from tests.support.rows import make_sample

arrays = hnp.arrays(np.float16, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5))
USUAL = list(HealthCheck)  # of float16 values many are filtered out


@settings(suppress_health_check=USUAL, max_examples=30)
@given(st.lists(arrays, min_size=1, max_size=4), st.text(max_size=700))
def test_members_are_where_the_extents_say(
    tmp_path: Path, latents: list[np.ndarray], text: str
) -> None:
    path = tmp_path / "a.tar"
    with TarWriter(path) as tar:
        extents = [tar.add(f"{n:032x}.latent.npy", *npy_parts(a)) for n, a in enumerate(latents)]
        tar.add("f" * 32 + ".txt", text.encode("utf-8", "surrogatepass"))
        sealed = tar.seal()
    data = path.read_bytes()
    assert sealed.sha256 == hashlib.sha256(data).hexdigest()
    assert sealed.size_bytes == len(data)
    with tarfile.open(path) as read:
        members = read.getmembers()
        assert [m.mtime for m in members] == [0] * (len(latents) + 1)
        for member, extent, array in zip(members, extents, latents, strict=False):
            assert (member.offset_data, member.size) == (extent.offset, extent.size)
            file = read.extractfile(member)
            assert file is not None
            loaded = np.load(io.BytesIO(file.read()), allow_pickle=False)
            np.testing.assert_array_equal(loaded, array)


# webdataset leaves its files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    latents = np.arange(16, dtype=np.float16).reshape(1, 4, 2, 2)
    with TarWriter(path) as tar:
        tar.add("0" * 32 + ".latent.npy", *npy_parts(latents))
        tar.add("0" * 32 + ".json", b'{"fps":25}')
        tar.add("0" * 32 + ".txt", "ein Öl".encode())
        tar.seal()
    (sample,) = webdataset.WebDataset(str(path), shardshuffle=False).decode()
    np.testing.assert_array_equal(sample["latent.npy"], latents)
    assert sample["json"] == {"fps": 25}
    assert sample["txt"] == "ein Öl"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("size", [0, 10 * 2**20])
def test_a_full_disk_is_no_fault_of_the_member(size: int) -> None:
    def write() -> None:
        with TarWriter(Path("/dev/full")) as tar:
            tar.add("a.latent.npy", bytes(size))
            tar.seal()

    with pytest.raises(StorageError, match=r"No space left.*MiB are free.*TMPDIR"):
        write()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="TMPDIR"):
        TarWriter(tmp_path / "gone" / "shard.tar")


@given(shape=st.tuples(*[st.integers(1, 40)] * 4))
def test_the_header_that_is_read_is_the_one_that_was_written(
    shape: tuple[int, int, int, int],
) -> None:
    header, values = npy_parts(np.zeros(shape, np.float16))
    assert len(header) == NPY_HEADER
    read = read_npy_header(header + bytes(values))
    assert (read.shape, read.dtype, read.size_bytes) == (shape, np.dtype("<f2"), NPY_HEADER)
    sample = make_sample(latent_shape=shape, latent_bytes=len(header) + len(values))
    assert values_offset(header, sample, "a.tar", sample.latent_bytes) == NPY_HEADER
    with pytest.raises(StorageError, match="what the tables say"):
        values_offset(header, sample, "a.tar", sample.latent_bytes - 2)


def saved(array: npt.NDArray[Any], version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no .npy header"),
        (b"plain text", "no .npy header"),
        (saved(np.zeros(3, np.float16))[:40], "no .npy header"),
        (saved(np.zeros(3, np.float16), (2, 0)), "another version"),
        (saved(np.zeros((3, 2), np.float16, order="F")), "Fortran order"),
        (saved(np.zeros((1, 2, 2, 2), np.float32)), "float32 1×2×2×2"),
        (saved(np.zeros((1, 2, 2, 3), np.float16)), "float16 1×2×2×3"),
    ],
)
def test_what_is_no_latent_is_told(data: bytes, what: str) -> None:
    sample = make_sample(latent_shape=(1, 2, 2, 2), latent_bytes=144)
    with pytest.raises(StorageError, match=what):
        values_offset(data, sample, "a.tar", 144)
